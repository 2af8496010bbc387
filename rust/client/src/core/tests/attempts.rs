//! Several attempts at one operation: a definite error is returned only if none of them may have been executed.

use std::time::Duration;

use quorate_core::error::Error;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{KeyspaceChange, KeyspaceSettings};
use quorate_versions::WriteId;

use super::super::unanswered;
use super::harness::*;
use super::sessions::in_session;

fn create() -> Request {
    Request::CreateKeyspace(KeyspaceSettings::quorum("logs", 3))
}

fn alter() -> Request {
    Request::AlterKeyspace {
        name: "logs".to_owned(),
        change: KeyspaceChange::default(),
        write_id: WriteId::default(),
    }
}

fn drop_keyspace() -> Request {
    Request::DropKeyspace {
        name: "logs".to_owned(),
        write_id: WriteId::default(),
    }
}

fn gone() -> Error {
    Error::NotFound("keyspace \"logs\" does not exist".to_owned())
}

/// Every definite error that a node may return.
fn definite() -> Vec<Error> {
    let text = || "nothing was written".to_owned();
    vec![
        Error::unavailable(2, 1),
        Error::Overloaded(text()),
        Error::InvalidArgument(text()),
        Error::LimitExceeded {
            what: "the answer in bytes".to_owned(),
            size: 2,
            limit: 1,
            remedy: "split it".to_owned(),
        },
        gone(),
        Error::KeyspaceExists(text()),
        Error::StorageFull(text()),
        Error::CorruptRecord(text()),
        Error::ConnectionLost(text()),
        Error::Refused(text()),
        Error::Closed(text()),
        Error::PermissionDenied(text()),
        Error::ConnectionRefused(text()),
    ]
}

/// Makes the only node lose the first attempt and reject the others with an error, until the operation has ended.
fn after_a_lost_attempt(cluster: &mut Harness, request: Request, error: &Error) -> Error {
    let op = cluster.submit(request);
    cluster.take();
    cluster.cut(1, u64::MAX);
    for _ in 0..200 {
        cluster.advance(Duration::from_millis(100));
        for arrived in std::mem::take(&mut cluster.arrived) {
            cluster.reply(&arrived, Err(error.clone()));
        }
        if cluster.completed.contains_key(&op) {
            return cluster.error(op).clone();
        }
    }
    panic!("{error:?} does not end it");
}

#[test]
fn no_definite_error_is_the_answer_to_a_command_after_a_lost_attempt() {
    for error in definite() {
        let told = after_a_lost_attempt(&mut in_session(1), propose("a"), &error);
        assert!(!told.is_definite(), "{error:?} became {told:?}");
    }
}

#[test]
fn no_definite_error_is_the_answer_to_a_creation_after_a_lost_attempt() {
    for error in definite() {
        let told = after_a_lost_attempt(&mut Harness::ready(1), create(), &error);
        assert!(!told.is_definite(), "{error:?} became {told:?}");
    }
}

/// All attempts at a change have one write id, and the control plane executes it once: its response is that to all of them.
#[test]
fn what_the_control_plane_says_of_a_named_change_is_its_outcome() {
    let outcomes = [
        gone(),
        Error::KeyspaceExists("other settings".to_owned()),
        Error::InvalidArgument("no such level".to_owned()),
    ];
    for request in [alter, drop_keyspace] {
        for error in definite() {
            let told = after_a_lost_attempt(&mut Harness::ready(1), request(), &error);
            let is_outcome = outcomes.iter().any(|outcome| outcome.name() == error.name());
            assert_eq!(told.is_definite(), is_outcome, "{error:?} became {told:?}");
        }
    }
}

/// The first attempt is abandoned because its node is silent, and gets a response while the second is pending.
#[test]
fn the_error_of_an_attempt_that_was_given_up_does_not_end_the_operation() {
    let mut cluster = in_session(3);
    let op = cluster.submit(propose("a"));
    let first = cluster.take();
    let silent = address(first.node.0);
    cluster.behaviour.insert(silent.clone(), Behaviour::Silent);
    cluster.advance(Duration::from_millis(300));
    cluster.behaviour.insert(silent, Behaviour::Up);
    let second = cluster
        .arrived
        .iter()
        .position(|arrived| matches!(arrived.frame.request, Request::Propose { .. }));
    let second = cluster.arrived.remove(second.expect("another node is asked"));
    assert_ne!(second.node, first.node);
    cluster.reply(&first, Err(Error::StorageFull("full".to_owned())));
    assert!(!cluster.completed.contains_key(&op));
    cluster.reply(&second, Ok(committed(9, second.node.0)));
    assert_eq!(cluster.outcome(op).result, Ok(committed(9, second.node.0)));
}

#[test]
fn a_response_of_another_kind_says_nothing_about_a_write() {
    for (request, writes) in [(put("a"), true), (get("a"), false)] {
        let mut cluster = Harness::ready(3);
        let op = cluster.submit(request);
        let arrived = cluster.take();
        cluster.reply(&arrived, Ok(Response::Done));
        let error = cluster.error(op);
        assert!(error.to_string().contains("not a Quorate node"), "{error}");
        assert_eq!(error.is_definite(), !writes, "{error:?}");
    }
}

#[test]
fn attempts_end_when_their_numbers_do() {
    let mut cluster = in_session(2);
    cluster.checking = false;
    let options = super::super::CallOptions::timeout(Duration::from_secs(3_600));
    let op = cluster.submit_with(propose("a"), options);
    let mut sent = 0;
    while !cluster.completed.contains_key(&op) {
        assert!(sent <= 255, "it never ends");
        for arrived in std::mem::take(&mut cluster.arrived) {
            if matches!(arrived.frame.request, Request::Propose { .. }) {
                sent += 1;
                cluster.cut(arrived.node.0, u64::MAX);
            }
        }
        cluster.advance(Duration::from_millis(500));
    }
    assert!(matches!(cluster.error(op), Error::OutcomeUnknown { .. }));
    assert_eq!(cluster.outcome(op).attempts, 255);
}

#[test]
fn a_write_whose_answer_nobody_will_see_may_have_taken_effect() {
    for request in [put("a"), propose("a"), create(), alter(), drop_keyspace()] {
        assert!(!request.is_read());
        assert!(!unanswered(&request, "the client is gone").is_definite());
    }
    assert!(get("a").is_read());
    assert!(matches!(
        unanswered(&get("a"), "the client is gone"),
        Error::Closed(_)
    ));
}
