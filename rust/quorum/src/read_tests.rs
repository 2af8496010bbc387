//! The tally of a read: it responds at R with the merge of the responses, and in the end knows the stale replicas.

use proptest::prelude::*;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{KeyspaceId, ReplicaId};
use quorate_core::time::WallTime;
use quorate_versions::{Dot, WriteId};

use super::*;

/// A replica's state: the first `seen[i]` writes of each of a few coordinators, the last one alive.
fn state(seen: [u64; 3]) -> Arc<KeyState> {
    let mut all = KeyState::default();
    for (node, count) in (1..).zip(seen) {
        let mut own = KeyState::default();
        for counter in 1..=count {
            let dot = Dot {
                replica: ReplicaId::new(NodeId(node), 0xd1),
                counter,
            };
            let timestamp = Timestamp {
                wall: WallTime(counter),
                logical: 0,
            };
            let write_id = WriteId {
                client: u64::from(node),
                sequence: counter,
            };
            let value = format!("n{node}:{counter}");
            own = own
                .put(dot, Some(value.into()), timestamp, write_id, None)
                .unwrap();
        }
        all = all.merge(&own);
    }
    Arc::new(all)
}

fn read(reachable: [bool; 3], repair: bool) -> Read {
    let copies: Vec<(NodeId, bool)> = (1..).map(NodeId).zip(reachable).collect();
    Read::new(
        (KeyspaceId(1), Key::try_from("k").unwrap()),
        NodeId(1),
        &copies,
        repair,
    )
}

fn corrupt() -> Option<Error> {
    Some(Error::CorruptRecord("checksum".to_owned()))
}

fn entry_of(progress: Progress) -> Entry {
    match progress {
        Progress::Done(Ok(Response::Entry(entry))) | Progress::Answered(Ok(Response::Entry(entry))) => entry,
        other => panic!("{other:?} is no entry"),
    }
}

proptest! {
    /// For any states of the replicas, and any order of their responses.
    #[test]
    fn it_responds_at_r_and_repairs_stale_replicas(
        seen in proptest::array::uniform3(proptest::array::uniform3(0..3u64)),
        order in Just([0usize, 1, 2]).prop_shuffle(),
        required in 1..=3u8,
    ) {
        let states = seen.map(state);
        let mut read = read([true; 3], true);
        prop_assert_eq!(read.send_more(9).len(), 3);
        let mut answered = false;
        for (count, place) in order.iter().enumerate() {
            read.fetched(NodeId(*place as u16 + 1), states[*place].clone());
            let progress = read.progress(required, Level::Count(required));
            let so_far = order[..=count].iter().fold(KeyState::default(), |all, place| all.merge(&states[*place]));
            if count + 1 < usize::from(required) {
                prop_assert_eq!(progress, Progress::Pending);
            } else if !answered {
                answered = true;
                let entry = entry_of(progress);
                prop_assert_eq!(&*entry.context, so_far.clock());
                prop_assert_eq!(entry.versions.len(), so_far.live().count());
                prop_assert_eq!(entry.answered.len(), count + 1);
            }
        }
        let all = states.iter().fold(KeyState::default(), |all, state| all.merge(state));
        let stale: Vec<NodeId> = (0..3).filter(|place| *states[*place] != all).map(|place| NodeId(place as u16 + 1)).collect();
        match read.repair() {
            None => prop_assert!(stale.is_empty()),
            Some(repair) => {
                prop_assert_eq!(&*repair.state, &all);
                prop_assert_eq!(repair.stale, stale);
                prop_assert!(repair.corrupt.is_empty());
            }
        }
    }
}

#[test]
fn it_contacts_r_replicas_and_the_others_when_those_fail() {
    let mut read = read([true; 3], false);
    assert_eq!(read.send_more(2), [NodeId(1), NodeId(2)]);
    assert!(!read.needs_more(2) && read.has_unsent());
    read.failed(NodeId(2), None);
    assert!(read.needs_more(2));
    assert_eq!(read.send_more(usize::MAX), [NodeId(3)]);
    assert_eq!(read.progress(2, Level::Two), Progress::Pending);
    read.failed(NodeId(3), None);
    let unavailable = Error::unavailable(2, 1);
    assert_eq!(read.progress(2, Level::Two), Progress::Done(Err(unavailable)));
}

#[test]
fn a_replica_that_becomes_unreachable_is_not_contacted() {
    let mut read = read([true; 3], false);
    read.send_more(1);
    read.failed(NodeId(2), None);
    assert_eq!(read.send_more(usize::MAX), [NodeId(3)]);
    read.fetched(NodeId(2), state([1, 0, 0]));
    assert_eq!(
        read.progress(1, Level::One),
        Progress::Pending,
        "it was not contacted"
    );
}

#[test]
fn a_late_response_of_a_failed_replica_counts() {
    let mut read = read([true; 3], true);
    read.send_more(3);
    read.failed(NodeId(2), None);
    read.fetched(NodeId(2), state([1, 0, 0]));
    read.fetched(NodeId(2), state([2, 0, 0]));
    read.fetched(NodeId(3), state([1, 0, 0]));
    let entry = entry_of(read.progress(2, Level::Two));
    assert_eq!(entry.answered, [NodeId(2), NodeId(3)]);
    assert_eq!(
        entry.versions[0].value.as_ref(),
        b"n1:1",
        "a duplicate response is ignored"
    );
}

#[test]
fn a_corrupt_record_is_healed_only_when_all_others_have_responded() {
    let mut read = read([true; 3], true);
    read.send_more(3);
    read.fetched(NodeId(1), state([1, 0, 0]));
    read.failed(NodeId(3), corrupt());
    assert_eq!(read.repair(), None);
    read.fetched(NodeId(2), state([0, 1, 0]));
    let repair = read.repair().unwrap();
    assert_eq!(repair.state, state([1, 1, 0]));
    assert_eq!(repair.stale, [NodeId(1), NodeId(2)]);
    assert_eq!(repair.corrupt, [NodeId(3)]);
}

#[test]
fn a_corrupt_record_is_not_healed_while_a_replica_is_unreachable() {
    let mut read = read([true, true, false], true);
    read.send_more(3);
    read.fetched(NodeId(1), state([1, 0, 0]));
    read.failed(NodeId(2), corrupt());
    assert_eq!(read.repair(), None);
}

#[test]
fn a_corrupt_record_makes_it_contact_all_replicas_even_without_read_repair() {
    let mut read = read([true; 3], false);
    read.send_more(2);
    read.failed(NodeId(1), corrupt());
    assert!(read.needs_more(1));
    assert_eq!(read.send_more(usize::MAX), [NodeId(3)]);
    read.fetched(NodeId(2), state([1, 0, 0]));
    assert!(matches!(read.progress(1, Level::One), Progress::Answered(Ok(_))));
    read.fetched(NodeId(3), state([0, 0, 0]));
    assert_eq!(read.progress(1, Level::One), Progress::Finished);
    let repair = read.repair().unwrap();
    assert_eq!((repair.stale, repair.corrupt), (vec![], vec![NodeId(1)]));
}

#[test]
fn a_replicas_error_is_returned() {
    let mut read = read([true, false, false], true);
    read.send_more(1);
    read.failed(NodeId(1), corrupt());
    assert_eq!(
        read.progress(1, Level::One),
        Progress::Done(Err(corrupt().unwrap()))
    );
    assert_eq!(read.timed_out(1), corrupt().unwrap());
}

#[test]
fn an_absent_key_needs_no_repair() {
    let mut read = read([true; 3], true);
    read.send_more(3);
    for node in 1..=3 {
        read.fetched(NodeId(node), Arc::default());
    }
    let entry = entry_of(read.progress(3, Level::All));
    assert!(entry.versions.is_empty() && entry.context.is_empty());
    assert_eq!(read.repair(), None);
}

#[test]
fn a_level_that_requires_a_corrupt_replica_waits_for_the_others_and_heals_it() {
    let mut read = read([true; 3], false);
    read.send_more(3);
    read.failed(NodeId(1), corrupt());
    read.fetched(NodeId(2), state([1, 0, 0]));
    assert_eq!(read.heal(3), None);
    assert_eq!(read.progress(3, Level::All), Progress::Pending);
    read.fetched(NodeId(3), state([1, 1, 0]));
    let heal = read.heal(3).unwrap();
    assert_eq!((heal.state, heal.corrupt), (state([1, 1, 0]), vec![NodeId(1)]));
    assert_eq!(read.progress(3, Level::All), Progress::Pending);
    assert_eq!(read.timed_out(3), corrupt().unwrap());
    read.failed(NodeId(1), corrupt());
    assert_eq!(
        (read.heal(3), read.progress(3, Level::All)),
        (None, Progress::Pending)
    );
    read.healed(NodeId(1));
    assert_eq!(entry_of(read.progress(3, Level::All)).answered.len(), 3);
}

#[test]
fn a_corrupt_record_is_not_healed_without_all_the_others() {
    for error in [None, Some(Error::StorageFull("full".to_owned()))] {
        let mut read = read([true; 3], true);
        read.send_more(3);
        read.failed(NodeId(1), corrupt());
        read.fetched(NodeId(2), state([1, 0, 0]));
        read.failed(NodeId(3), error);
        assert_eq!(read.heal(3), None);
        assert_eq!(
            read.progress(3, Level::All),
            Progress::Done(Err(corrupt().unwrap()))
        );
    }
}

#[test]
fn a_replica_that_cannot_be_healed_remains_corrupt() {
    let mut read = read([true, true, false], true);
    read.copies.pop();
    read.send_more(2);
    read.failed(NodeId(1), corrupt());
    read.fetched(NodeId(2), state([1, 0, 0]));
    assert!(read.heal(2).is_some());
    read.failed(NodeId(1), Some(Error::StorageFull("full".to_owned())));
    assert_eq!(read.heal(2), None);
    assert_eq!(
        read.progress(2, Level::All),
        Progress::Done(Err(corrupt().unwrap()))
    );
}
