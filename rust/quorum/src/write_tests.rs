//! The tally of a write, for every combination of the states of its copies.

use quorate_core::ids::ReplicaId;
use quorate_core::time::WallTime;
use quorate_versions::WriteId;

use super::*;

fn event() -> (Dot, Timestamp, Arc<KeyState>) {
    let dot = Dot {
        replica: ReplicaId::new(NodeId(1), 0xd1),
        counter: 7,
    };
    let timestamp = Timestamp {
        wall: WallTime(5),
        logical: 0,
    };
    let write_id = WriteId {
        client: 1,
        sequence: 1,
    };
    let state = KeyState::default()
        .put(dot, Some("v".into()), timestamp, write_id, None)
        .unwrap();
    (dot, timestamp, Arc::new(state))
}

fn nodes(count: u16) -> Vec<NodeId> {
    (1..=count).map(NodeId).collect()
}

fn write(count: u16) -> Write {
    let nodes = nodes(count);
    let alive = nodes.iter().copied().collect();
    Write::new(
        (KeyspaceId(1), Key::try_from("k").unwrap()),
        NodeId(1),
        &nodes,
        &alive,
    )
}

fn assigned(count: u16) -> Write {
    let mut write = write(count);
    let (dot, timestamp, state) = event();
    write.assigned(dot, timestamp, state);
    write
}

/// All combinations of `count` replicas that are each pending, durable or failed.
fn combinations(count: u16) -> impl Iterator<Item = Vec<Copy>> {
    let each = [Copy::Pending, Copy::Durable, Copy::Failed];
    (0..3usize.pow(u32::from(count))).map(move |number| {
        (0..u32::from(count))
            .map(|place| each[number / 3usize.pow(place) % 3])
            .collect()
    })
}

#[test]
fn it_succeeds_at_any_w_durable_copies_and_fails_when_w_is_impossible() {
    for count in 1..=5u16 {
        for copies in combinations(count) {
            for required in 1..=count as u8 {
                let mut write = assigned(count);
                for (node, copy) in nodes(count).into_iter().zip(&copies) {
                    match copy {
                        Copy::Pending => {}
                        Copy::Durable => write.stored(node),
                        Copy::Failed => write.unreachable(node),
                    }
                }
                let durable = copies.iter().filter(|copy| **copy == Copy::Durable).count();
                let lost = copies.iter().filter(|copy| **copy == Copy::Failed).count();
                let wanted = usize::from(required);
                match write.progress(required, Level::Count(required)) {
                    Progress::Done(Ok(Response::Written(written))) => {
                        assert!(durable >= wanted, "{copies:?}");
                        assert_eq!(written.acked.len(), durable);
                    }
                    Progress::Done(Err(Error::OutcomeUnknown { acked, .. })) => {
                        assert!(copies.len() - lost < wanted, "{copies:?}");
                        assert_eq!(usize::from(acked), durable);
                    }
                    Progress::Pending => {
                        assert!(copies.len() - lost >= wanted && durable < wanted, "{copies:?}");
                    }
                    other => panic!("{other:?} for {copies:?}"),
                }
            }
        }
    }
}

#[test]
fn it_does_not_succeed_before_there_is_an_event() {
    let mut write = write(3);
    write.stored(NodeId(1));
    write.stored(NodeId(2));
    assert_eq!(
        write.progress(1, Level::One),
        Progress::Pending,
        "`Assigned` is on its way"
    );
    let (dot, timestamp, state) = event();
    assert!(write.assigned(dot, timestamp, state));
    assert!(matches!(
        write.progress(2, Level::Two),
        Progress::Done(Ok(Response::Written(_)))
    ));
}

#[test]
fn a_second_event_is_ignored() {
    let mut write = write(3);
    let (mut dot, timestamp, state) = event();
    assert!(write.assigned(dot, timestamp, state.clone()));
    let before = write.clone();
    dot.counter += 1;
    assert!(!write.assigned(dot, timestamp, state));
    assert_eq!(write, before);
}

#[test]
fn the_own_copy_is_optional() {
    let mut write = write(3);
    // The own disk refuses it before `Assigned` arrives.
    write.unreachable(NodeId(1));
    assert_eq!(write.progress(2, Level::Two), Progress::Pending);
    let (dot, timestamp, state) = event();
    assert!(write.assigned(dot, timestamp, state));
    write.stored(NodeId(2));
    write.stored(NodeId(3));
    let Progress::Done(Ok(Response::Written(written))) = write.progress(2, Level::Two) else {
        panic!("two copies are durable");
    };
    assert_eq!(written.acked, [NodeId(2), NodeId(3)]);
}

#[test]
fn unreachable_replicas_are_sent_the_state_when_they_are_reachable_again() {
    let nodes = nodes(3);
    let alive = [NodeId(1), NodeId(2)].into();
    let mut write = Write::new(
        (KeyspaceId(1), Key::try_from("k").unwrap()),
        NodeId(1),
        &nodes,
        &alive,
    );
    assert!(!write.reachable_again(NodeId(3)), "there is nothing to send yet");
    write.unreachable(NodeId(3));
    let (dot, timestamp, state) = event();
    write.assigned(dot, timestamp, state);
    write.stored(NodeId(1));
    assert_eq!(write.targets().collect::<Vec<_>>(), [NodeId(2)]);
    assert!(write.reachable_again(NodeId(3)));
    assert!(!write.reachable_again(NodeId(3)), "it was reachable");
    assert_eq!(write.targets().collect::<Vec<_>>(), [NodeId(2), NodeId(3)]);
}

#[test]
fn a_durable_copy_stays_durable() {
    let mut write = assigned(3);
    write.stored(NodeId(2));
    write.unreachable(NodeId(2));
    assert!(!write.reachable_again(NodeId(2)));
    write.stored(NodeId(1));
    assert!(matches!(write.progress(2, Level::Two), Progress::Done(Ok(_))));
}

#[test]
fn a_late_acknowledgement_of_a_failed_copy_counts() {
    let mut write = assigned(3);
    write.unreachable(NodeId(2));
    write.stored(NodeId(2));
    write.stored(NodeId(1));
    assert!(matches!(write.progress(2, Level::Two), Progress::Done(Ok(_))));
}

#[test]
fn an_outcome_unknown_before_the_deadline_names_the_reasons() {
    let mut write = assigned(5);
    write.rejected(NodeId(1), &Error::StorageFull("the disk is full".to_owned()));
    write.unreachable(NodeId(2));
    write.unreachable(NodeId(3));
    assert!(write.reachable_again(NodeId(2)));
    write.stored(NodeId(2));
    assert_eq!(write.progress(3, Level::Quorum), Progress::Pending);
    write.rejected(NodeId(4), &Error::CorruptRecord("checksum".to_owned()));
    write.rejected(NodeId(4), &Error::StorageFull("late".to_owned()));
    let Progress::Done(Err(error)) = write.progress(3, Level::Quorum) else {
        panic!("only two copies are possible");
    };
    assert_eq!(
        error.to_string(),
        "the disk of n1 is full and n3 is unreachable and the record on n4 is corrupt, with 1 of 3 \
         acknowledgement(s): the write may still take effect; read before retrying"
    );
    assert!(
        write
            .timed_out(3)
            .to_string()
            .starts_with("timed out with 1 of 3")
    );
}

#[test]
fn other_nodes_do_not_count() {
    let mut write = assigned(3);
    write.stored(NodeId(1));
    write.stored(NodeId(9));
    write.unreachable(NodeId(8));
    assert_eq!(write.progress(2, Level::Two), Progress::Pending);
}
