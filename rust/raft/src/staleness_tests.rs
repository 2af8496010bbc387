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
fn an_answer_counts_from_the_first_sending_of_its_probe() {
    let mut staleness = fresh();
    let number = staleness.next_probe(at(10), PATIENCE).unwrap();
    assert_eq!(staleness.next_probe(at(60), PATIENCE), None);
    assert_eq!(staleness.next_probe(at(120), PATIENCE), Some(number));
    assert!(!staleness.answered(number + 1, LogIndex(5)));
    assert!(staleness.answered(number, LogIndex(5)));
    assert!(!staleness.answered(number, LogIndex(9)));
    assert_eq!(staleness.bound(LogIndex(5)), Some(at(10)));
    assert_eq!(staleness.next_probe(at(130), PATIENCE), Some(number + 1));
}

#[test]
fn a_bound_holds_only_once_its_index_is_applied() {
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
fn a_later_bound_at_a_lower_index_replaces_earlier_ones() {
    let mut staleness = fresh();
    staleness.learn(LogIndex(5), at(10));
    staleness.learn(LogIndex(9), at(20));
    staleness.learn(LogIndex(7), at(30));
    assert_eq!(staleness.bound(LogIndex(7)), Some(at(30)));
    // A late answer does not move a bound back.
    staleness.learn(LogIndex(8), at(25));
    assert_eq!(staleness.bound(LogIndex(8)), Some(at(30)));
}

#[test]
fn the_number_of_bounds_is_limited() {
    let mut staleness = fresh();
    for number in 1..=1000 {
        staleness.learn(LogIndex(number), at(number));
        assert!(staleness.bounds.len() <= MAX_BOUNDS);
    }
    assert_eq!(staleness.bound(LogIndex(3)), Some(at(3)));
    assert_eq!(staleness.bound(LogIndex(999)), Some(at(63)));
    assert_eq!(staleness.bound(LogIndex(1000)), Some(at(1000)));
}
