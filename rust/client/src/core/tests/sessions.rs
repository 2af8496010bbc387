//! Commands go through sessions: numbered once, retried as often as needed.

use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::api::{ReadLevel, Request, Stamp};

use super::super::{CallOptions, ClientEvent, SESSION_IDLE, SESSION_WINDOW};
use super::harness::*;

fn stamp(arrived: &Arrived) -> Stamp {
    match &arrived.frame.request {
        Request::Propose { session, .. } => session.expect("a command is sent in a session"),
        other => panic!("{other:?} is not a command"),
    }
}

fn is_opening(arrived: &Arrived) -> bool {
    matches!(arrived.frame.request, Request::OpenSession { .. })
}

/// A cluster whose client has session 7 with `GROUP`, led by n1; one command has been answered.
pub(super) fn in_session(nodes: u16) -> Harness {
    let mut cluster = Harness::ready(nodes);
    let op = cluster.submit(propose("a"));
    let opening = cluster.take();
    cluster.reply(&opening, Ok(opened(7, 1)));
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(committed(8, 1)));
    assert!(cluster.outcome(op).result.is_ok());
    cluster
}

fn unknown() -> Error {
    Error::OutcomeUnknown {
        acked: 1,
        required: 2,
        reason: Some("the leader was deposed".to_owned()),
    }
}

fn expired() -> Error {
    Error::SessionExpired("it has expired".to_owned())
}

#[test]
fn the_first_command_opens_a_session_and_those_that_come_meanwhile_wait_for_it() {
    let mut cluster = Harness::ready(3);
    let ops: Vec<u64> = (0..3).map(|_| cluster.submit(propose("a"))).collect();
    let opening = cluster.take();
    assert!(cluster.arrived.is_empty());
    assert_eq!(
        opening.frame.request,
        Request::OpenSession {
            keyspace: ACCOUNTS,
            group: GROUP,
            idle_ms: SESSION_IDLE.as_millis() as u64,
        }
    );
    cluster.reply(&opening, Ok(opened(7, 2)));
    let arrived = std::mem::take(&mut cluster.arrived);
    let stamps: Vec<Stamp> = arrived.iter().map(stamp).collect();
    let numbered = |sequence| Stamp {
        session: 7,
        sequence,
        acknowledged: 0,
    };
    assert_eq!(stamps, [numbered(1), numbered(2), numbered(3)]);
    for (index, arrived) in arrived.iter().enumerate() {
        assert_eq!(arrived.node, NodeId(2));
        cluster.reply(arrived, Ok(committed(10 + index as u64, 2)));
    }
    assert!(ops.iter().all(|op| cluster.outcome(*op).result.is_ok()));
}

#[test]
fn each_group_has_a_session_of_its_own() {
    let mut cluster = in_session(3);
    let Request::Propose { command, .. } = propose("a") else {
        unreachable!("it is a command");
    };
    cluster.submit(Request::Propose {
        keyspace: ACCOUNTS,
        group: OTHER_GROUP,
        command,
        session: None,
    });
    let opening = cluster.take();
    assert!(is_opening(&opening));
    assert_eq!(opening.node, NodeId(3), "the ring prefers it for this group");
    cluster.reply(&opening, Ok(opened(99, 3)));
    let arrived = cluster.take();
    assert_eq!((stamp(&arrived).session, stamp(&arrived).sequence), (99, 1));
}

#[test]
fn all_up_to_the_first_without_an_answer_is_acknowledged() {
    let mut cluster = in_session(3);
    for _ in 0..3 {
        cluster.submit(propose("a"));
    }
    let arrived = std::mem::take(&mut cluster.arrived);
    let acknowledged = |cluster: &mut Harness| {
        cluster.submit(propose("a"));
        stamp(&cluster.take()).acknowledged
    };
    cluster.reply(&arrived[1], Ok(committed(9, 1)));
    assert_eq!(acknowledged(&mut cluster), 1, "2 is not answered");
    cluster.reply(&arrived[0], Ok(committed(10, 1)));
    assert_eq!(acknowledged(&mut cluster), 3);
}

#[test]
fn a_command_that_fails_by_its_condition_counts_as_answered() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    let arrived = cluster.take();
    let failed = Error::ConditionFailed {
        key: "a".to_owned(),
        current: Some(4),
    };
    cluster.reply(&arrived, Err(failed.clone()));
    assert_eq!(cluster.error(op), &failed);
    cluster.submit(propose("a"));
    assert_eq!(stamp(&cluster.take()).acknowledged, 2);
}

#[test]
fn numbers_in_use_span_no_more_than_the_window() {
    let mut cluster = in_session(3);
    cluster.checking = false;
    for _ in 0..SESSION_WINDOW + 5 {
        cluster.submit(propose("a"));
    }
    cluster.core.check();
    let arrived = std::mem::take(&mut cluster.arrived);
    assert_eq!(arrived.len() as u64, SESSION_WINDOW);
    for last in &arrived[1..] {
        cluster.reply(last, Ok(committed(9, 1)));
    }
    assert!(cluster.arrived.is_empty(), "the first one has no answer yet");
    cluster.reply(&arrived[0], Ok(committed(9, 1)));
    assert_eq!(cluster.arrived.len(), 5);
    assert_eq!(stamp(&cluster.arrived[0]).acknowledged, 1 + SESSION_WINDOW);
    cluster.core.check();
}

#[test]
fn a_command_that_was_given_up_makes_room_in_the_window() {
    let mut cluster = in_session(3);
    cluster.checking = false;
    let stuck = cluster.submit_with(propose("a"), CallOptions::timeout(Duration::from_millis(300)));
    for _ in 0..SESSION_WINDOW {
        cluster.submit(propose("a"));
    }
    let late = cluster.submit_with(propose("a"), CallOptions::timeout(Duration::from_millis(100)));
    let arrived = std::mem::take(&mut cluster.arrived);
    for answered in &arrived[1..] {
        cluster.reply(answered, Ok(committed(9, 1)));
    }
    cluster.advance(Duration::from_millis(450));
    assert!(matches!(cluster.error(stuck), Error::OutcomeUnknown { .. }));
    let Error::Overloaded(text) = cluster.error(late) else {
        panic!("{:?}", cluster.error(late));
    };
    assert!(text.contains("nothing was written"), "{text}");
    assert_eq!(stamp(&cluster.take()).sequence, SESSION_WINDOW + 2);
}

// ---- again ----

#[test]
fn a_command_whose_answer_is_lost_is_sent_again_under_its_number() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    let first = cluster.take();
    cluster.cut(1, u64::MAX);
    let second = cluster.take();
    assert_eq!(second.node, NodeId(2));
    assert_eq!(stamp(&second), stamp(&first));
    cluster.reply(&second, Err(unknown()));
    cluster.advance(Duration::from_millis(200));
    let third = cluster.take();
    assert_eq!(stamp(&third), stamp(&first));
    cluster.reply(&third, Ok(committed(9, 3)));
    assert_eq!(cluster.outcome(op).result, Ok(committed(9, 3)));
    assert_eq!(cluster.outcome(op).attempts, 3);
}

#[test]
fn a_refusal_after_an_attempt_without_an_answer_is_not_the_last_word() {
    for refusal in [Error::StorageFull("full".to_owned()), Error::unavailable(2, 1)] {
        let mut cluster = in_session(1);
        let op = cluster.submit(propose("a"));
        cluster.take();
        cluster.cut(1, u64::MAX);
        cluster.advance(Duration::from_millis(200));
        let again = cluster.take();
        cluster.reply(&again, Err(refusal));
        assert!(
            matches!(cluster.error(op), Error::OutcomeUnknown { .. }),
            "{:?}",
            cluster.error(op)
        );
    }
}

#[test]
fn the_condition_that_a_repeated_command_is_told_is_the_last_word() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    cluster.take();
    cluster.cut(1, u64::MAX);
    let again = cluster.take();
    let failed = Error::ConditionFailed {
        key: "a".to_owned(),
        current: None,
    };
    cluster.reply(&again, Err(failed.clone()));
    assert_eq!(cluster.error(op), &failed);
}

#[test]
fn a_command_without_any_answer_is_unknown_at_its_deadline() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    for node in 1..=3 {
        cluster.behaviour.insert(address(node), Behaviour::Silent);
    }
    cluster.advance(Duration::from_millis(2050));
    assert!(!cluster.completed.contains_key(&op));
    cluster.advance(Duration::from_millis(50));
    assert!(matches!(
        cluster.error(op),
        Error::OutcomeUnknown { required: 2, .. }
    ));
}

// ---- expiry ----

#[test]
fn a_session_that_has_expired_is_replaced_when_nothing_was_executed() {
    let mut cluster = in_session(3);
    let ops: Vec<u64> = (0..2).map(|_| cluster.submit(propose("a"))).collect();
    for arrived in std::mem::take(&mut cluster.arrived) {
        cluster.reply(&arrived, Err(expired()));
    }
    let opening = cluster.take();
    assert!(
        is_opening(&opening) && cluster.arrived.is_empty(),
        "one is enough"
    );
    cluster.reply(&opening, Ok(opened(50, 1)));
    for (index, arrived) in std::mem::take(&mut cluster.arrived).iter().enumerate() {
        let numbered = Stamp {
            session: 50,
            sequence: 1 + index as u64,
            acknowledged: 0,
        };
        assert_eq!(stamp(arrived), numbered);
        cluster.reply(arrived, Ok(committed(51, 1)));
    }
    assert!(ops.iter().all(|op| cluster.outcome(*op).result.is_ok()));
}

#[test]
fn a_command_that_may_have_been_executed_is_not_executed_again_when_its_session_has_expired() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    cluster.take();
    cluster.cut(1, u64::MAX);
    let again = cluster.take();
    cluster.reply(&again, Err(expired()));
    assert_eq!(cluster.error(op), &expired());
    assert!(!cluster.error(op).is_definite());
    assert!(cluster.arrived.is_empty());
    cluster.submit(propose("b"));
    assert!(is_opening(&cluster.take()), "the next command opens another");
}

#[test]
fn an_attempt_that_never_left_does_not_count() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    cluster.take();
    cluster.cut(1, 0);
    let again = cluster.take();
    cluster.reply(&again, Err(expired()));
    let opening = cluster.take();
    cluster.reply(&opening, Ok(opened(50, 2)));
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(committed(51, 2)));
    assert!(cluster.outcome(op).result.is_ok());
}

// ---- no session ----

#[test]
fn without_a_session_nothing_was_written_and_the_reason_is_told() {
    let mut cluster = Harness::ready(1);
    let unavailable = Error::unavailable(1, 0);
    let ops = [cluster.submit(propose("a")), cluster.submit(propose("b"))];
    let opening = cluster.take();
    cluster.reply(&opening, Err(unavailable.clone()));
    for op in ops {
        assert_eq!(cluster.error(op), &unavailable);
    }
    cluster.submit(propose("c"));
    assert!(is_opening(&cluster.take()), "the next command tries again");
}

#[test]
fn a_session_that_nobody_opens_in_time_leaves_the_write_definite() {
    let mut cluster = Harness::ready(3);
    for node in 1..=3 {
        cluster.behaviour.insert(address(node), Behaviour::Silent);
    }
    let op = cluster.submit(propose("a"));
    cluster.advance(Duration::from_secs(2));
    let Error::ConnectionLost(text) = cluster.error(op) else {
        panic!("{:?}", cluster.error(op));
    };
    assert!(
        text.contains("g10") && text.contains("nothing was written"),
        "{text}"
    );
    let later = cluster.submit(propose("b"));
    for node in 1..=3 {
        cluster.behaviour.insert(address(node), Behaviour::Up);
    }
    cluster.advance(Duration::from_millis(100));
    let opening = cluster.take();
    assert!(
        is_opening(&opening),
        "another attempt for those who still have time"
    );
    cluster.reply(&opening, Ok(opened(7, 1)));
    let arrived = cluster.take();
    cluster.reply(&arrived, Ok(committed(8, 1)));
    assert!(cluster.outcome(later).result.is_ok());
}

/// Ids are unique among the requests of a connection that are in flight, including the client's own.
#[test]
fn what_a_client_says_by_itself_has_ids_of_its_own() {
    let mut cluster = in_session(3);
    let mut other = propose("b");
    if let Request::Propose { group, .. } = &mut other {
        *group = OTHER_GROUP;
    }
    cluster.arrived.clear();
    cluster.submit(other);
    let opening = cluster.take();
    cluster.reply(&opening, Ok(opened(8, 1)));
    cluster.arrived.clear();
    cluster.event(ClientEvent::Close);
    let goodbyes: Vec<(u64, u64)> = cluster
        .arrived
        .iter()
        .filter(|arrived| matches!(arrived.frame.request, Request::CloseSession { .. }))
        .map(|arrived| (arrived.connection, arrived.frame.id))
        .collect();
    let [(first, one), (second, other)] = goodbyes[..] else {
        panic!("two sessions are left: {goodbyes:?}");
    };
    assert_eq!(first, second, "one node leads both groups");
    assert_ne!(one, other);
}

#[test]
fn a_closed_client_says_goodbye_and_ends_everything_truthfully() {
    let mut cluster = in_session(3);
    let (sent, linearizable) = (
        cluster.submit(propose("a")),
        cluster.submit(read(ReadLevel::Linearizable)),
    );
    cluster.arrived.clear();
    cluster.event(ClientEvent::Close);
    assert!(matches!(cluster.error(sent), Error::OutcomeUnknown { .. }));
    assert!(matches!(cluster.error(linearizable), Error::Closed(_)));
    let goodbye = cluster.take();
    assert_eq!(
        goodbye.frame.request,
        Request::CloseSession {
            keyspace: ACCOUNTS,
            group: GROUP,
            session: 7,
        }
    );
    assert_eq!(goodbye.node, NodeId(1));

    let mut cluster = Harness::ready(3);
    let waiting = cluster.submit(propose("a"));
    cluster.event(ClientEvent::Close);
    assert!(
        matches!(cluster.error(waiting), Error::Closed(_)),
        "nothing was sent"
    );
}
