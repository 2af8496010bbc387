//! The log's watermarks and invariants.

use quorate_core::ids::NodeId;

use super::*;

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term: Term(term),
        index: LogIndex(index),
        kind: EntryKind::Empty,
    }
}

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition {
        term: Term(term),
        index: LogIndex(index),
    }
}

/// A log whose entries have these terms, all durable.
fn log(terms: &[u64]) -> Log {
    let entries = terms
        .iter()
        .zip(1..)
        .map(|(term, index)| entry(index, *term))
        .collect();
    Log::recovered(
        LogPosition::default(),
        Configuration::of_voters([NodeId(1)]),
        entries,
    )
}

fn terms(log: &Log) -> Vec<u64> {
    log.range(LogIndex(1)).map(|entry| entry.term.0).collect()
}

#[test]
fn entries_present_stay_and_conflicts_are_truncated() {
    let mut log = log(&[1, 1, 2, 2]);
    assert_eq!(log.accept(position(1, 1), vec![entry(2, 1), entry(3, 2)]), None);
    assert_eq!(
        terms(&log),
        [1, 1, 2, 2],
        "an old append does not shorten the log"
    );
    assert_eq!(log.accept(position(2, 1), vec![entry(3, 3)]), Some(LogIndex(3)));
    assert_eq!(terms(&log), [1, 1, 3]);
    assert_eq!(log.stable(), LogIndex(2), "the new third entry is not durable");
    let unwritten = log.take_unwritten();
    assert_eq!((unwritten.cut, unwritten.entries.len()), (Some(LogIndex(3)), 1));
}

#[test]
fn a_late_write_does_not_count_for_an_entry_that_was_truncated_and_received_again() {
    let mut log = log(&[1]);
    log.append(entry(2, 2));
    log.take_unwritten();
    let asked_in = log.epoch();
    log.accept(position(1, 1), vec![entry(2, 3)]);
    log.accept(position(1, 1), vec![entry(2, 4)]);
    log.take_unwritten();
    log.stabilize(LogIndex(2), asked_in);
    assert_eq!(log.stable(), LogIndex(1));
    log.stabilize(LogIndex(2), log.epoch());
    assert_eq!(log.stable(), LogIndex(2));
}

#[test]
fn a_refused_write_is_retried_with_everything_after_it() {
    let mut log = log(&[1]);
    for index in 2..=4 {
        log.append(entry(index, 1));
        log.take_unwritten();
    }
    log.stabilize(LogIndex(2), log.epoch());
    log.rewrite(None);
    let unwritten = log.take_unwritten();
    assert_eq!((unwritten.cut, unwritten.entries.len()), (Some(LogIndex(3)), 2));
    log.rewrite(Some(LogIndex(0)));
    assert_eq!(
        log.take_unwritten().cut,
        Some(LogIndex(0)),
        "the truncation is still pending"
    );
}

#[test]
fn conflicts_name_the_first_entry_of_their_term() {
    let log = log(&[1, 1, 2, 2, 2, 4]);
    assert_eq!(log.conflict(LogIndex(5)), position(3, 2));
    assert_eq!(log.conflict(LogIndex(2)), position(1, 1));
    assert_eq!(log.conflict(LogIndex(9)), position(7, 0));
    assert_eq!(log.last_not_after(Term(2)), LogIndex(5));
    assert_eq!(log.last_not_after(Term(3)), LogIndex(5));
    assert_eq!(log.last_not_after(Term(0)), LogIndex(0));
}

#[test]
fn compaction_retains_entries_and_the_members() {
    let mut log = log(&[1, 1]);
    let members = Configuration::of_voters([NodeId(1), NodeId(2)]);
    log.append(Entry {
        kind: EntryKind::Configuration(members.clone()),
        ..entry(3, 1)
    });
    log.append(entry(4, 2));
    assert_eq!(
        log.configuration(),
        &members,
        "it is in effect before it is committed"
    );
    log.commit_to(LogIndex(4));
    assert_eq!(log.release().len(), 4);
    assert_eq!(log.compaction_point(LogIndex(4), 1, usize::MAX), LogIndex(3));
    assert_eq!(log.compaction_point(LogIndex(4), 9, usize::MAX), LogIndex(0));
    assert_eq!(
        log.compaction_point(LogIndex(4), 9, entry(4, 2).size()),
        LogIndex(3)
    );
    log.compact(LogIndex(4));
    assert_eq!(log.base(), position(2, 1), "entries that are not durable stay");
    log.take_unwritten();
    log.stabilize(LogIndex(4), log.epoch());
    log.compact(LogIndex(3));
    assert_eq!(
        (log.base(), log.configuration_at(LogIndex(3))),
        (position(3, 1), &members)
    );
    assert!(log.matches(position(3, 1)) && log.term_at(LogIndex(2)).is_none());
    assert_eq!(log.slice(LogIndex(4), 1).len(), 1);
    log.check();
}

#[test]
fn a_truncated_configuration_is_no_longer_in_effect() {
    let mut log = log(&[1]);
    log.append(Entry {
        kind: EntryKind::Configuration(Configuration::of_voters([NodeId(7)])),
        ..entry(2, 1)
    });
    log.accept(position(1, 1), vec![entry(2, 2)]);
    assert_eq!(log.configuration(), &Configuration::of_voters([NodeId(1)]));
}

#[test]
fn a_snapshot_retains_matching_entries_after_it_and_drops_others() {
    let mut same = log(&[1, 1, 2, 2]);
    same.restore(position(3, 2), Configuration::default());
    assert_eq!((terms(&same), same.commit()), (vec![1, 1, 2, 2], LogIndex(3)));
    let mut other = log(&[1, 1, 1, 1, 1]);
    other.restore(position(3, 2), Configuration::default());
    assert_eq!((terms(&other), other.last()), (vec![], position(3, 2)));
    assert_eq!(other.take_unwritten().cut, Some(LogIndex(0)));
    other.check();
}

#[test]
#[should_panic(expected = "is committed (up to 2) and cannot be truncated")]
fn committed_entries_are_never_truncated() {
    let mut log = log(&[1, 1, 1]);
    log.commit_to(LogIndex(2));
    log.accept(position(1, 1), vec![entry(2, 2)]);
}

#[test]
#[should_panic(expected = "the log has no gaps")]
fn a_gap_is_rejected() {
    log(&[1]).append(entry(3, 1));
}

#[test]
#[should_panic(expected = "terms never decrease")]
fn a_decreasing_term_is_rejected() {
    log(&[2]).append(entry(2, 1));
}

#[test]
#[should_panic(expected = "is committed but the log ends at 1@t1")]
fn a_missing_entry_is_not_committed() {
    log(&[1]).commit_to(LogIndex(2));
}
