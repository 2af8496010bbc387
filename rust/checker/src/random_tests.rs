//! Random histories: real ones are linearizable, falsified ones are not, and small ones get the verdict of
//! brute force.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::{Action, Budget, Condition, Operation, Outcome, Verdict, check};

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }
}

/// A store that executes one operation at a time, and its clients' observations. About `concurrency`
/// operations are pending at any time; one of `unknown` is never answered.
fn recorded(seed: u64, operations: u64, keys: u64, concurrency: u64, unknown: u64) -> Vec<Operation> {
    let mut dice = Dice::new(seed);
    let mut recorded: Vec<(u64, Operation)> = Vec::new();
    for process in 0..operations {
        let invoked = process * 100 + dice.below(100);
        let effect = invoked + dice.below(50 * concurrency);
        let returned = effect + dice.below(50 * concurrency);
        let value = format!("v{process}").into_bytes();
        let condition = match dice.below(6) {
            0 => Condition::Absent,
            // Filled in at execution: the version that the key has, or the one before.
            1..3 => Condition::Version(dice.below(2)),
            _ => Condition::Any,
        };
        let action = match dice.below(10) {
            0..5 => Action::Get,
            5..9 => Action::Put { value, condition },
            _ => Action::Delete { condition },
        };
        let lost = dice.below(unknown) == 0;
        // An operation without an answer may take effect much later, or not within this history.
        let effect = if lost {
            effect + dice.below(2000) * concurrency
        } else {
            effect
        };
        let operation = Operation {
            process,
            key: format!("k{}", dice.below(keys)).into_bytes(),
            action,
            outcome: Outcome::Unknown,
            invoked,
            returned: (!lost).then_some(returned),
        };
        recorded.push((effect, operation));
    }
    recorded.sort_by_key(|(effect, operation)| (*effect, operation.process));
    let mut store: BTreeMap<Vec<u8>, (Vec<u8>, u64)> = BTreeMap::new();
    // The versions of each key.
    let mut made: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    let mut history = Vec::new();
    for (index, (_, mut operation)) in (1..).zip(recorded) {
        let now = store.get(&operation.key).cloned();
        let current = now.as_ref().map(|(_, version)| *version);
        if let Action::Put { condition, .. } | Action::Delete { condition } = &mut operation.action
            && let Condition::Version(off) = condition
        {
            let made = made.get(&operation.key).map_or(&[] as &[u64], Vec::as_slice);
            *condition = Condition::Version(made.iter().rev().nth(*off as usize).copied().unwrap_or(1));
        }
        let outcome = match &operation.action {
            Action::Get => match now {
                Some((value, version)) => Outcome::Found {
                    value,
                    version: dice.0.next_u64().is_multiple_of(2).then_some(version),
                },
                None => Outcome::Missing,
            },
            Action::Put { condition, .. } | Action::Delete { condition } if !allows(*condition, current) => {
                Outcome::ConditionFailed { current }
            }
            Action::Put { value, .. } => {
                store.insert(operation.key.clone(), (value.clone(), index));
                Outcome::Done { version: Some(index) }
            }
            Action::Delete { .. } => {
                store.remove(&operation.key);
                Outcome::Done { version: Some(index) }
            }
        };
        if let Outcome::Done { .. } = outcome {
            made.entry(operation.key.clone()).or_default().push(index);
        }
        if operation.returned.is_some() {
            operation.outcome = outcome;
        }
        history.push(operation);
    }
    history.sort_by_key(|operation| operation.invoked);
    history
}

fn allows(condition: Condition, current: Option<u64>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => current.is_none(),
        Condition::Version(version) => current == Some(version),
    }
}

fn verdict(history: &[Operation]) -> Verdict {
    check(history, &Budget::default()).expect("well formed")
}

#[test]
fn histories_of_a_single_copy_are_linearizable() {
    for seed in 0..300 {
        let history = recorded(seed, 400, 1 + seed % 4, 1 + seed % 12, 12);
        assert_eq!(verdict(&history), Verdict::Linearizable, "seed {seed}");
    }
}

/// One read observes a value that was overwritten before it began.
fn stale_read(history: &mut [Operation], dice: &mut Dice) -> bool {
    let reads: Vec<usize> = (0..history.len())
        .filter(|place| matches!(history[*place].outcome, Outcome::Found { .. }))
        .collect();
    let read = reads[dice.below(reads.len() as u64) as usize];
    let mut writes: Vec<(u64, Option<Vec<u8>>)> = Vec::new();
    for operation in history.iter() {
        if operation.key == history[read].key
            && operation
                .returned
                .is_some_and(|returned| returned < history[read].invoked)
            && let Outcome::Done {
                version: Some(version),
            } = operation.outcome
        {
            let value = match &operation.action {
                Action::Put { value, .. } => Some(value.clone()),
                _ => None,
            };
            writes.push((version, value));
        }
    }
    writes.sort_unstable();
    writes.pop();
    let Some((version, Some(value))) = writes.pop() else {
        return false;
    };
    history[read].outcome = Outcome::Found {
        value,
        version: Some(version),
    };
    true
}

/// A write that was read is reported as failed.
fn lost_write(history: &mut [Operation], dice: &mut Dice) -> bool {
    let reads: Vec<Vec<u8>> = history
        .iter()
        .filter_map(|operation| match &operation.outcome {
            Outcome::Found { value, .. } => Some(value.clone()),
            _ => None,
        })
        .collect();
    let read = &reads[dice.below(reads.len() as u64) as usize];
    let wrote =
        |operation: &&mut Operation| matches!(&operation.action, Action::Put { value, .. } if value == read);
    let write = history.iter_mut().find(wrote).expect("the value was written");
    write.outcome = Outcome::Failed;
    write.returned = Some(u64::MAX);
    true
}

/// Two writes of a key are reported with the same version.
fn same_version(history: &mut [Operation], dice: &mut Dice) -> bool {
    let key = format!("k{}", dice.below(2)).into_bytes();
    let done = |operation: &&mut Operation| {
        operation.key == key && matches!(operation.outcome, Outcome::Done { .. })
    };
    let mut writes = history.iter_mut().filter(done);
    let (Some(one), Some(other)) = (writes.next(), writes.next()) else {
        return false;
    };
    one.outcome = other.outcome.clone();
    true
}

#[test]
fn falsified_histories_are_not() {
    type Falsify = fn(&mut [Operation], &mut Dice) -> bool;
    let kinds: [(&str, Falsify); 3] = [
        ("stale read", stale_read),
        ("lost write", lost_write),
        ("same version", same_version),
    ];
    for (name, falsify) in kinds {
        let (mut tried, mut largest) = (0, 0);
        for seed in 0..100 {
            let mut history = recorded(seed, 300, 2, 1 + seed % 10, 12);
            if !falsify(&mut history, &mut Dice::new(seed)) {
                continue;
            }
            tried += 1;
            let Verdict::NotLinearizable(violation) = verdict(&history) else {
                panic!("{name} with seed {seed} is not caught");
            };
            largest = largest.max(violation.window.len());
            // The window is a violation by itself.
            assert!(
                matches!(verdict(&violation.window), Verdict::NotLinearizable(_)),
                "{violation}"
            );
        }
        println!("{name}: {tried} histories, windows of at most {largest} operations");
        assert!(
            tried > 50 && largest <= 12,
            "{name}: {tried} tried, {largest} operations"
        );
    }
}

// ---- a brute-force checker ----

/// The number of versions that the brute-force checker considers: more than any of its histories needs.
const VERSIONS: u64 = 9;

/// Whether the rest can be executed on this value and version, in some order and with some versions.
fn explained(rest: &[&Operation], value: Option<&[u8]>, version: u64) -> bool {
    if rest.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    (0..rest.len()).any(|place| {
        let operation = rest[place];
        let definite = |other: &&Operation| other.outcome != Outcome::Unknown;
        let precedes = |other: &&Operation| {
            other
                .returned
                .is_some_and(|returned| returned < operation.invoked)
        };
        if rest.iter().filter(|other| definite(other)).any(precedes) {
            return false;
        }
        let mut others = rest.to_vec();
        others.remove(place);
        let current = value.map(|_| version);
        let (new, condition) = match &operation.action {
            Action::Get => {
                let same = match &operation.outcome {
                    Outcome::Missing => value.is_none(),
                    Outcome::Found {
                        value: seen,
                        version: of,
                    } => value == Some(seen) && of.is_none_or(|of| of == version),
                    _ => true,
                };
                return same && explained(&others, value, version);
            }
            Action::Put { value, condition } => (Some(value.as_slice()), *condition),
            Action::Delete { condition } => (None, *condition),
        };
        match &operation.outcome {
            Outcome::ConditionFailed { current: reported } => {
                !allows(condition, current) && *reported == current && explained(&others, value, version)
            }
            Outcome::Failed => explained(&others, value, version),
            outcome => {
                let made = match outcome {
                    Outcome::Done { version } => *version,
                    _ => None,
                };
                let mut versions = version + 1..=VERSIONS;
                allows(condition, current)
                    && versions
                        .any(|next| made.is_none_or(|made| made == next) && explained(&others, new, next))
            }
        }
    })
}

/// A short history with arbitrary outcomes.
fn invented(dice: &mut Dice) -> Vec<Operation> {
    let operations = 1 + dice.below(5);
    let maybe = |dice: &mut Dice| Some(1 + dice.below(4)).filter(|_| dice.below(2) == 0);
    (0..operations)
        .map(|process| {
            let invoked = dice.below(20);
            let value = |dice: &mut Dice| vec![b'a' + dice.below(2) as u8];
            let condition = match dice.below(4) {
                0 => Condition::Absent,
                1 => Condition::Version(1 + dice.below(4)),
                _ => Condition::Any,
            };
            let (action, outcome) = match dice.below(9) {
                0 => (Action::Get, Outcome::Missing),
                1..4 => (
                    Action::Get,
                    Outcome::Found {
                        value: value(dice),
                        version: maybe(dice),
                    },
                ),
                kind => {
                    let action = match dice.below(4) {
                        0 => Action::Delete { condition },
                        _ => Action::Put {
                            value: value(dice),
                            condition,
                        },
                    };
                    let outcome = match kind {
                        4 if condition != Condition::Any => Outcome::ConditionFailed { current: maybe(dice) },
                        5 | 6 => Outcome::Unknown,
                        _ => Outcome::Done { version: maybe(dice) },
                    };
                    (action, outcome)
                }
            };
            let returned = Some(invoked + dice.below(12)).filter(|_| outcome != Outcome::Unknown);
            Operation {
                process,
                key: b"x".to_vec(),
                action,
                outcome,
                invoked,
                returned,
            }
        })
        .collect()
}

#[test]
fn small_histories_get_the_verdict_of_brute_force() {
    let mut dice = Dice::new(1);
    let mut linearizable = 0;
    let cases = 20_000;
    for case in 0..cases {
        let history = invented(&mut dice);
        let rest: Vec<&Operation> = history.iter().collect();
        let expected = explained(&rest, None, 0);
        linearizable += u32::from(expected);
        match verdict(&history) {
            Verdict::Linearizable => assert!(expected, "case {case}: {history:#?}"),
            Verdict::NotLinearizable(violation) => {
                assert!(!expected, "case {case}: {history:#?}");
                let window: Vec<&Operation> = violation.window.iter().collect();
                assert!(!explained(&window, None, 0), "case {case}: {violation}");
            }
            Verdict::Unknown { .. } => panic!("case {case}: out of budget"),
        }
    }
    println!("{linearizable} of {cases} are linearizable");
    assert!(
        (cases / 10..cases * 9 / 10).contains(&linearizable),
        "{linearizable}"
    );
}

// ---- how long it takes ----

#[test]
fn ten_thousand_operations_take_less_than_a_few_seconds() {
    let history = recorded(7, 10_000, 20, 10, 50);
    let begun = Instant::now();
    assert_eq!(verdict(&history), Verdict::Linearizable);
    let took = begun.elapsed();
    let mut falsified = history;
    assert!(stale_read(&mut falsified, &mut Dice::new(3)));
    let begun = Instant::now();
    assert!(matches!(verdict(&falsified), Verdict::NotLinearizable(_)));
    println!(
        "10,000 operations in {took:?}, a violation in them in {:?}",
        begun.elapsed()
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    // All on one key, with few unknown outcomes: they make a search long.
    let mut single = recorded(7, 10_000, 1, 10, 500);
    assert!((0..50).any(|seed| stale_read(&mut single, &mut Dice::new(seed))));
    let begun = Instant::now();
    let judged = verdict(&single);
    assert!(matches!(judged, Verdict::NotLinearizable(_)), "{judged:?}");
    println!(
        "a violation in 10,000 operations on one key in {:?}",
        begun.elapsed()
    );
}

#[test]
fn the_budget_ends_a_search() {
    let history = recorded(7, 1000, 3, 10, 50);
    let none = Budget { steps: 0, time: None };
    let keys = (0..3).map(|key| format!("k{key}").into_bytes()).collect();
    assert_eq!(check(&history, &none), Ok(Verdict::Unknown { keys }));
    let late = Budget {
        time: Some(Duration::ZERO),
        ..Budget {
            steps: 1024,
            time: None,
        }
    };
    assert!(matches!(check(&history, &late), Ok(Verdict::Unknown { .. })));
}
