use bytes::Bytes;
use proptest::prelude::*;
use quorate_core::store::{StateWrite, StreamId, Table};

use super::*;

/// A request whose operations count `bytes` bytes each.
fn request(owner: u32, token: u64, priority: Priority, ops: usize, bytes: usize) -> Request {
    let op = JournalOp::Append {
        stream: StreamId(1),
        position: token,
        bytes: Bytes::from(vec![0; bytes - 32]),
    };
    Request {
        owner,
        token,
        priority,
        ops: vec![op; ops],
    }
}

fn limits() -> Limits {
    Limits {
        batch_bytes: 1000,
        slice_bytes: 200,
        row_bytes: 0,
    }
}

fn tokens(ops: &[JournalOp]) -> Vec<u64> {
    ops.iter()
        .map(|op| match op {
            JournalOp::Append { position, .. } => *position,
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

#[test]
fn small_rows_count_a_minimum_weight() {
    let mut queue = CommitQueue::new(Limits {
        row_bytes: 100,
        ..limits()
    });
    for token in 1..=12 {
        queue.push(request(7, token, Priority::Normal, 1, 40));
    }
    assert_eq!(queue.queued_bytes(), 1200);
    assert_eq!(queue.next_batch().unwrap().len(), 10);
    queue.finish(Outcome::Durable);
    assert_eq!(queue.next_batch().unwrap().len(), 2);
    let row = |key: &'static str| StateWrite {
        table: Table::Meta,
        key: key.into(),
        value: None,
    };
    let rows = JournalOp::Write(vec![row("a"), row("b"), row("c")]);
    assert_eq!(
        Limits {
            row_bytes: 100,
            ..limits()
        }
        .weight(&rows),
        300
    );
}

#[test]
fn requests_during_a_commit_share_the_next_one() {
    let mut queue = CommitQueue::new(limits());
    queue.push(request(7, 1, Priority::Normal, 1, 100));
    assert_eq!(tokens(&queue.next_batch().unwrap()), [1]);
    queue.push(request(7, 2, Priority::Normal, 1, 100));
    queue.push(request(8, 3, Priority::Normal, 1, 100));
    queue.push(request(7, 4, Priority::Normal, 1, 100));
    assert_eq!(queue.next_batch(), None, "one batch at a time");
    assert_eq!(
        queue.finish(Outcome::Durable),
        [Completion {
            owner: 7,
            tokens: vec![1],
            outcome: Outcome::Durable
        }]
    );
    assert_eq!(tokens(&queue.next_batch().unwrap()), [2, 3, 4]);
    assert_eq!(
        queue.finish(Outcome::Durable),
        [
            Completion {
                owner: 7,
                tokens: vec![2, 4],
                outcome: Outcome::Durable
            },
            Completion {
                owner: 8,
                tokens: vec![3],
                outcome: Outcome::Durable
            },
        ]
    );
    assert!(queue.is_empty());
    assert_eq!(queue.queued_bytes(), 0);
}

#[test]
fn urgent_goes_first_and_bulk_in_slices() {
    let mut queue = CommitQueue::new(limits());
    queue.push(request(1, 10, Priority::Bulk, 5, 100));
    queue.push(request(1, 20, Priority::Normal, 1, 300));
    queue.push(request(1, 30, Priority::Urgent, 1, 100));
    assert_eq!(tokens(&queue.next_batch().unwrap()), [30, 20, 10, 10]);
    let done = queue.finish(Outcome::Durable);
    assert_eq!(
        done,
        [Completion {
            owner: 1,
            tokens: vec![30, 20],
            outcome: Outcome::Durable
        }]
    );
    assert_eq!(tokens(&queue.next_batch().unwrap()), [10, 10]);
    assert_eq!(queue.finish(Outcome::Durable), []);
    assert_eq!(tokens(&queue.next_batch().unwrap()), [10]);
    let done = queue.finish(Outcome::Durable);
    assert_eq!(
        done,
        [Completion {
            owner: 1,
            tokens: vec![10],
            outcome: Outcome::Durable
        }]
    );
}

#[test]
fn a_full_store_ends_a_split_request_immediately() {
    let mut queue = CommitQueue::new(limits());
    queue.push(request(1, 10, Priority::Bulk, 5, 100));
    queue.push(request(1, 11, Priority::Bulk, 1, 100));
    queue.next_batch().unwrap();
    let done = queue.finish(Outcome::Full);
    assert_eq!(
        done,
        [Completion {
            owner: 1,
            tokens: vec![10],
            outcome: Outcome::Full
        }]
    );
    assert_eq!(tokens(&queue.next_batch().unwrap()), [11]);
    assert_eq!(queue.queued_bytes(), 100);
}

#[test]
fn a_large_request_forms_its_own_batch() {
    let mut queue = CommitQueue::new(limits());
    queue.push(request(1, 1, Priority::Normal, 1, 300));
    queue.push(request(1, 2, Priority::Normal, 1, 5000));
    queue.push(request(1, 3, Priority::Normal, 1, 300));
    for expected in [[1], [2], [3]] {
        assert_eq!(tokens(&queue.next_batch().unwrap()), expected);
        queue.finish(Outcome::Durable);
    }
    assert_eq!(queue.queued_bytes(), 0);
}

#[test]
fn no_priority_starves_behind_large_requests() {
    let mut queue = CommitQueue::new(limits());
    queue.push(request(1, 1, Priority::Normal, 1, 900));
    queue.push(request(1, 2, Priority::Bulk, 1, 900));
    let mut order = Vec::new();
    for round in 0..6 {
        queue.push(request(1, 100 + round, Priority::Urgent, 1, 2000));
        order.extend(tokens(&queue.next_batch().unwrap()));
        queue.finish(Outcome::Durable);
    }
    assert!(order.contains(&1) && order.contains(&2), "{order:?}");
}

#[test]
fn a_request_without_operations_completes_with_a_batch() {
    let mut queue = CommitQueue::new(limits());
    queue.push(Request {
        owner: 1,
        token: 1,
        priority: Priority::Bulk,
        ops: Vec::new(),
    });
    assert_eq!(queue.next_batch(), Some(Vec::new()));
    assert_eq!(queue.finish(Outcome::Durable).len(), 1);
    assert!(queue.is_empty());
}

fn any_priority() -> impl Strategy<Value = Priority> {
    prop_oneof![
        Just(Priority::Urgent),
        Just(Priority::Normal),
        Just(Priority::Bulk)
    ]
}

proptest! {
/// Every request completes once, in the order of its priority and within the bounds, and the byte counts are consistent.
    #[test]
    fn every_request_completes_once(
        requests in prop::collection::vec((any_priority(), 0..6usize, 32..700usize), 1..60),
        commits_between in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut queue = CommitQueue::new(limits());
        let mut completed = Vec::new();
        let mut operations = 0;
        let mut step = |queue: &mut CommitQueue, completed: &mut Vec<u64>| {
            let Some(batch) = queue.next_batch() else { return false };
            let bytes: usize = batch.iter().map(op_bytes).sum();
            let mut distinct = tokens(&batch);
            distinct.dedup();
            assert!(bytes <= 1000 || distinct.len() == 1, "{bytes} bytes of {distinct:?}");
            operations += batch.len();
            completed.extend(queue.finish(Outcome::Durable).into_iter().flat_map(|done| done.tokens));
            true
        };
        for (token, (priority, ops, bytes)) in requests.iter().enumerate() {
            queue.push(request(0, token as u64, *priority, *ops, *bytes));
            if commits_between[token] {
                step(&mut queue, &mut completed);
            }
        }
        let mut rounds = 0;
        while step(&mut queue, &mut completed) {
            rounds += 1;
            prop_assert!(rounds < 1000);
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(queue.queued_bytes(), 0);
        prop_assert_eq!(operations, requests.iter().map(|(_, ops, _)| ops).sum::<usize>());
        for lane in [Priority::Urgent, Priority::Normal, Priority::Bulk] {
            let of_lane: Vec<u64> =
                completed.iter().copied().filter(|token| requests[*token as usize].0 == lane).collect();
            prop_assert!(of_lane.is_sorted());
        }
        completed.sort_unstable();
        prop_assert_eq!(completed, (0..requests.len() as u64).collect::<Vec<_>>());
    }
}
