use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_millis(100);

fn at(millis: u64) -> Instant {
    Instant(millis * 1000)
}

fn fresh() -> Staleness {
    Staleness::new(300)
}

#[test]
fn an_answer_counts_from_when_the_question_was_first_asked() {
    let mut staleness = fresh();
    let number = staleness.ask(at(10), PATIENCE).unwrap();
    assert_eq!(staleness.ask(at(60), PATIENCE), None);
    assert_eq!(staleness.ask(at(120), PATIENCE), Some(number));
    assert!(!staleness.answered(number + 1, LogIndex(5)));
    assert!(staleness.answered(number, LogIndex(5)));
    assert!(!staleness.answered(number, LogIndex(9)));
    assert_eq!(staleness.bound(LogIndex(5)), Some(at(10)));
    assert_eq!(staleness.ask(at(130), PATIENCE), Some(number + 1));
}

#[test]
fn a_bound_holds_only_for_what_is_applied() {
    let mut staleness = fresh();
    staleness.learn(LogIndex(5), at(10));
    staleness.learn(LogIndex(9), at(20));
    assert_eq!(staleness.bound(LogIndex(4)), None);
    assert_eq!(staleness.bound(LogIndex(8)), Some(at(10)));
    assert_eq!(staleness.bound(LogIndex(9)), Some(at(20)));
    staleness.applied(LogIndex(9));
    assert_eq!(staleness.bounds.len(), 1);
    assert_eq!(staleness.bound(LogIndex(12)), Some(at(20)));
}

#[test]
fn a_later_bound_for_less_takes_the_place_of_those_for_more() {
    let mut staleness = fresh();
    staleness.learn(LogIndex(5), at(10));
    staleness.learn(LogIndex(9), at(20));
    staleness.learn(LogIndex(7), at(30));
    assert_eq!(staleness.bound(LogIndex(7)), Some(at(30)));
    // What was learned late is no reason to take a bound back.
    staleness.learn(LogIndex(8), at(25));
    assert_eq!(staleness.bound(LogIndex(8)), Some(at(30)));
}

#[test]
fn few_bounds_are_kept_however_long_nothing_is_applied() {
    let mut staleness = fresh();
    for number in 1..=1000 {
        staleness.learn(LogIndex(number), at(number));
        assert!(staleness.bounds.len() <= MOST_WAITING);
    }
    assert_eq!(staleness.bound(LogIndex(3)), Some(at(3)));
    assert_eq!(staleness.bound(LogIndex(999)), Some(at(63)));
    assert_eq!(staleness.bound(LogIndex(1000)), Some(at(1000)));
}
