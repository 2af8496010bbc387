//! Histories whose verdict is easy to see.

use crate::{Action, Budget, Condition, Operation, Outcome, Verdict, check};

/// An operation on "x"; a return at 0 means never.
fn at(process: u64, invoked: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    Operation {
        process,
        key: b"x".to_vec(),
        action,
        outcome,
        invoked,
        returned: (returned > 0).then_some(returned),
    }
}

fn put(value: &str) -> Action {
    Action::put(value)
}

fn put_if(value: &str, condition: Condition) -> Action {
    Action::Put {
        value: value.into(),
        condition,
    }
}

fn done(version: u64) -> Outcome {
    Outcome::Done {
        version: Some(version),
    }
}

const DONE: Outcome = Outcome::Done { version: None };

fn found(value: &str) -> Outcome {
    Outcome::Found {
        value: value.into(),
        version: None,
    }
}

fn found_at(value: &str, version: u64) -> Outcome {
    Outcome::Found {
        value: value.into(),
        version: Some(version),
    }
}

fn refused(current: Option<u64>) -> Outcome {
    Outcome::ConditionFailed { current }
}

fn verdict(history: &[Operation]) -> Verdict {
    check(history, &Budget::default()).expect("a well-formed history")
}

fn holds(history: &[Operation]) {
    assert_eq!(verdict(history), Verdict::Linearizable);
}

/// Not linearizable, with exactly these operations as the violation.
fn fails(history: &[Operation], window: &[usize]) {
    let Verdict::NotLinearizable(violation) = verdict(history) else {
        panic!("{history:#?} is not linearizable");
    };
    println!("{violation}");
    let expected: Vec<Operation> = window.iter().map(|place| history[*place].clone()).collect();
    assert_eq!(violation.window, expected);
}

#[test]
fn nothing_and_reads_of_nothing_are_linearizable() {
    holds(&[]);
    holds(&[at(1, 1, 2, Action::Get, Outcome::Missing)]);
}

#[test]
fn operations_at_the_same_time_have_any_order() {
    // The write is seen by one read that overlaps it, and not by another that began earlier and ended later.
    let history = [
        at(1, 10, 50, put("a"), DONE),
        at(2, 5, 60, Action::Get, Outcome::Missing),
        at(3, 15, 20, Action::Get, found("a")),
    ];
    holds(&history);
    // A return at the moment of an invocation is not before it.
    holds(&[
        at(1, 1, 5, put("a"), DONE),
        at(2, 5, 9, Action::Get, Outcome::Missing),
    ]);
}

#[test]
fn a_stale_read_is_not() {
    let history = [
        at(1, 0, 10, put("old"), DONE),
        at(3, 12, 15, Action::Get, found("old")),
        at(1, 20, 30, put("new"), DONE),
        at(2, 40, 50, Action::Get, found("new")),
        at(3, 60, 70, Action::Get, found("old")),
        at(3, 80, 90, Action::Get, found("new")),
    ];
    fails(&history, &[0, 2, 4]);
}

#[test]
fn reads_that_see_two_writes_in_different_orders_are_not() {
    let history = [
        at(1, 0, 100, put("a"), DONE),
        at(2, 0, 100, put("b"), DONE),
        at(3, 10, 20, Action::Get, found("a")),
        at(3, 30, 40, Action::Get, found("b")),
        at(4, 50, 60, Action::Get, found("a")),
    ];
    fails(&history, &[0, 1, 2, 3, 4]);
    holds(&history[..4]);
}

#[test]
fn a_read_of_what_was_never_written_is_not() {
    let history = [
        at(1, 0, 10, put("a"), DONE),
        at(2, 20, 30, Action::Get, found("b")),
        at(1, 40, 50, put("b"), DONE),
    ];
    fails(&history, &[1]);
}

#[test]
fn a_lost_update_is_not() {
    // Both read version 1 and write on that condition, and both succeed.
    let history = [
        at(1, 0, 10, put("0"), done(1)),
        at(1, 20, 30, Action::Get, found_at("0", 1)),
        at(2, 20, 30, Action::Get, found_at("0", 1)),
        at(1, 40, 50, put_if("1", Condition::Version(1)), done(2)),
        at(2, 40, 50, put_if("1", Condition::Version(1)), done(3)),
    ];
    fails(&history, &[0, 3, 4]);
    let mut right = history.to_vec();
    right[4].outcome = refused(Some(2));
    holds(&right);
}

#[test]
fn the_violation_of_a_long_chain_is_short() {
    let next = |version: u64| put_if(&version.to_string(), Condition::Version(version - 1));
    let time = |version: u64| (10 * version, 10 * version + 5);
    let link = |version: u64| at(1, time(version).0, time(version).1, next(version), done(version));
    let mut history: Vec<Operation> = (2..100).map(link).collect();
    history.insert(0, at(1, 10, 15, put("1"), done(1)));
    holds(&history);
    history.push(at(2, 1000, 1005, Action::Get, found("98")));
    let Verdict::NotLinearizable(violation) = verdict(&history) else {
        panic!("a stale read");
    };
    println!("{violation}");
    assert_eq!(violation.window, history[98..]);
    assert_eq!(violation.since, Some(990));
}

#[test]
fn if_absent_holds_once() {
    let create = |process, outcome| at(process, 0, 10, put_if("a", Condition::Absent), outcome);
    holds(&[create(1, done(1)), create(2, refused(Some(1)))]);
    fails(&[create(1, done(1)), create(2, done(2))], &[0, 1]);
    let deleted = [
        create(1, done(1)),
        at(1, 15, 16, Action::delete(), done(2)),
        at(2, 20, 30, put_if("b", Condition::Absent), done(3)),
        at(3, 40, 50, put_if("c", Condition::Version(1)), refused(Some(3))),
    ];
    holds(&deleted);
}

#[test]
fn a_refused_write_needs_a_reason() {
    let history = [
        at(1, 0, 10, put("a"), done(1)),
        at(2, 20, 30, put_if("b", Condition::Version(1)), refused(Some(1))),
    ];
    fails(&history, &[0, 1]);
    fails(
        &[at(1, 0, 1, put_if("b", Condition::Absent), refused(None))],
        &[0],
    );
}

#[test]
fn versions_rise_and_belong_to_their_values() {
    fails(
        &[at(1, 0, 10, put("a"), done(5)), at(1, 20, 30, put("b"), done(5))],
        &[0, 1],
    );
    let history = [
        at(1, 0, 10, put("a"), done(5)),
        at(1, 20, 30, Action::Get, found_at("a", 6)),
    ];
    fails(&history, &[0, 1]);
    // There is no room for the write between them.
    let tight = [
        at(1, 0, 10, put("a"), done(5)),
        at(1, 20, 30, put("b"), DONE),
        at(1, 40, 50, put("c"), done(6)),
    ];
    fails(&tight, &[0, 1, 2]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    let history = [
        at(1, 0, 0, put("ghost"), Outcome::Unknown),
        at(2, 10, 20, put("a"), DONE),
        at(2, 30, 40, Action::Get, found("a")),
        at(2, 50, 60, Action::Get, found("ghost")),
    ];
    holds(&history);
    holds(&history[..3]);
    // Even if its client gave up at some time.
    let mut gave_up = history.to_vec();
    gave_up[0].returned = Some(5);
    holds(&gave_up);
}

#[test]
fn an_unknown_write_that_was_observed_does_not_disappear() {
    let history = [
        at(1, 0, 0, put("ghost"), Outcome::Unknown),
        at(2, 10, 20, put("a"), DONE),
        at(2, 30, 40, Action::Get, found("ghost")),
        at(2, 50, 60, Action::Get, found("a")),
    ];
    fails(&history, &[0, 1, 2, 3]);
}

#[test]
fn an_unknown_write_takes_effect_once() {
    let history = [
        at(1, 0, 0, put("ghost"), Outcome::Unknown),
        at(2, 10, 20, Action::Get, found("ghost")),
        at(2, 30, 40, put("a"), DONE),
        at(2, 50, 60, Action::Get, found("ghost")),
    ];
    fails(&history, &[0, 1, 2, 3]);
    let twice = [
        history.to_vec(),
        vec![at(3, 45, 0, put("ghost"), Outcome::Unknown)],
    ]
    .concat();
    holds(&twice);
}

#[test]
fn an_unknown_write_cannot_be_seen_before_it_is_invoked() {
    let history = [
        at(2, 10, 20, Action::Get, found("ghost")),
        at(1, 30, 0, put("ghost"), Outcome::Unknown),
    ];
    fails(&history, &[0]);
}

#[test]
fn an_unknown_conditional_write_keeps_its_condition() {
    let history = [
        at(1, 0, 10, put("a"), done(1)),
        at(1, 20, 0, put_if("b", Condition::Version(1)), Outcome::Unknown),
        at(2, 30, 40, put("c"), done(7)),
        at(2, 50, 60, Action::Get, found("b")),
    ];
    // It could only have come before "c".
    fails(&history, &[0, 1, 2, 3]);
    let mut seen = history.to_vec();
    seen[3].outcome = found("c");
    holds(&seen);
}

#[test]
fn a_failed_write_had_no_effect() {
    let history = [
        at(1, 0, 10, put("a"), Outcome::Failed),
        at(2, 20, 30, Action::Get, found("a")),
    ];
    fails(&history, &[1]);
}

#[test]
fn keys_are_checked_separately() {
    let mut history = vec![
        at(1, 0, 10, put("a"), DONE),
        at(2, 20, 30, Action::Get, found("a")),
        at(3, 40, 50, Action::Get, Outcome::Missing),
    ];
    history[2].key = b"y".to_vec();
    holds(&history);
    history[2].key = b"x".to_vec();
    fails(&history, &[0, 2]);
}

#[test]
fn a_violation_is_readable() {
    let history = [
        at(1, 0, 10, put("a"), done(1)),
        at(2, 20, 30, Action::Get, Outcome::Missing),
    ];
    let Verdict::NotLinearizable(violation) = verdict(&history) else {
        panic!("not linearizable");
    };
    let text = "no order of these operations on \"x\" explains their outcomes:\n  p1 put \"a\" at 0..10: done, version 1\n  \
                p2 get at 20..30: no value";
    assert_eq!(violation.to_string(), text);
}

#[test]
fn inconsistent_operations_are_reported() {
    let refused = |operation: Operation| {
        check(&[operation], &Budget::default())
            .expect_err("malformed")
            .to_string()
    };
    let backwards = refused(at(4, 20, 10, Action::Get, Outcome::Missing));
    assert!(
        backwards.contains("operation 0") && backwards.contains("p4 get at 20..10"),
        "{backwards}"
    );
    for (action, outcome, returned, why) in [
        (Action::Get, DONE, 9, "outcome of a write"),
        (put("a"), Outcome::Missing, 9, "outcome of a get"),
        (put("a"), refused_by_nothing(), 9, "has none"),
        (put("a"), DONE, 0, "never returned"),
    ] {
        let text = refused(at(1, 5, returned, action, outcome));
        assert!(text.contains(why), "{text}");
    }
}

fn refused_by_nothing() -> Outcome {
    refused(Some(1))
}
