//! No message stops a server, or ends all elections.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::store::JournalOp;
use rand_core::Rng as _;

use super::*;
use crate::configuration::Configuration;
use crate::entry::EntryKind;
use crate::event::Event;
use crate::format;
use crate::sessions::Request;
use crate::snapshot::SnapshotMeta;
use crate::testing::{Cluster, GROUP, Group as _, Output, Setup, TraceEvent};
use crate::types::HardState;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const SECOND: Duration = Duration::from_secs(1);

/// Three servers; the first leads and has committed an entry.
fn led() -> Cluster {
    let mut cluster = Setup::of(3).started();
    cluster.campaign(N1);
    cluster.run();
    cluster.propose(N1, Request::Plain("put a 1".into()), SECOND);
    cluster.run();
    cluster.trace.clear();
    cluster
}

fn receive(cluster: &mut Cluster, node: NodeId, term: u64, body: Body) {
    let message = Message {
        term: Term(term),
        body,
    };
    cluster.input(node, (), Event::Message { from: N2, message });
}

fn term(cluster: &Cluster, node: NodeId) -> Term {
    cluster.raft(node).expect("it runs").term()
}

fn notices(cluster: &Cluster) -> Vec<&Notice> {
    let mut notices = Vec::new();
    for event in &cluster.trace {
        if let TraceEvent::Output(_, Output::Notice(notice)) = event {
            notices.push(notice);
        }
    }
    notices
}

fn leaders(cluster: &Cluster) -> Vec<NodeId> {
    let leads = |node: &NodeId| cluster.raft(*node).is_some_and(|raft| raft.is_leader());
    cluster.names().into_iter().filter(leads).collect()
}

#[test]
fn an_unreachable_term_is_rejected_and_reported_once() {
    let mut cluster = led();
    let own = term(&cluster, N1);
    let last = LogPosition::default();
    for far in [u64::MAX, own.0 + MAX_TERM_STEP + 1] {
        for node in cluster.names() {
            // Any message's term would be adopted, not only a vote's.
            receive(&mut cluster, node, far, Body::Outdated);
            receive(&mut cluster, node, far, Body::Vote { last });
            let commit = LogIndex(0);
            receive(&mut cluster, node, far, Body::Heartbeat { commit, round: 0 });
        }
    }
    assert!(cluster.names().iter().all(|node| term(&cluster, *node) == own));
    assert_eq!(leaders(&cluster), [N1]);
    let rejected = Implausible::Term {
        term: Term(u64::MAX),
        own,
    };
    let reports = notices(&cluster);
    assert_eq!(
        reports.len(),
        cluster.names().len(),
        "one report per server: {reports:?}"
    );
    assert!(reports.iter().all(|report| matches!(
        report, Notice::MessageRejected { from: N2, reason } if *reason == rejected
    )));

    cluster.live(REPORT_EVERY);
    cluster.trace.clear();
    receive(&mut cluster, N1, u64::MAX, Body::Outdated);
    assert_eq!(
        notices(&cluster).len(),
        1,
        "after the interval it is reported again"
    );
}

#[test]
fn the_highest_accepted_term_leaves_room_for_elections() {
    let mut cluster = led();
    let far = term(&cluster, N1).0 + MAX_TERM_STEP;
    receive(&mut cluster, N1, far, Body::Outdated);
    assert_eq!(term(&cluster, N1), Term(far));
    cluster.live(2 * SECOND);
    assert_eq!(leaders(&cluster).len(), 1);
}

/// A cluster that received such a term before it was rejected has it on its disks.
#[test]
fn servers_in_the_last_term_hold_no_elections() {
    let mut cluster = Setup::of(3).stopped();
    for node in cluster.names() {
        let hard = HardState {
            term: Term(u64::MAX),
            vote: None,
        };
        cluster.node(node).disk.apply(&[JournalOp::PutHard {
            key: GROUP.hard_state_key(),
            value: format::encode(&hard),
        }]);
        cluster.start(node);
    }
    cluster.live(2 * SECOND);
    assert_eq!(leaders(&cluster), []);
    let exhausted = Notice::TermsExhausted { term: Term(u64::MAX) };
    assert_eq!(
        notices(&cluster),
        [&exhausted; 3],
        "each reports it, once per interval"
    );
    cluster.live(REPORT_EVERY);
    assert_eq!(notices(&cluster).len(), 6);
}

#[test]
fn answers_about_entries_that_the_leader_never_had_are_rejected() {
    let mut cluster = led();
    let own = term(&cluster, N1).0;
    let beyond = LogIndex(1_000_000);
    let none = LogIndex(0);
    for lie in [
        Body::Accepted { through: beyond },
        Body::Rejected {
            previous: beyond,
            conflict: LogPosition::default(),
        },
        Body::HeartbeatAck {
            round: 0,
            received: beyond,
            durable: none,
        },
        Body::HeartbeatAck {
            round: 0,
            received: none,
            durable: beyond,
        },
        Body::HeartbeatAck {
            round: 1_000,
            received: none,
            durable: none,
        },
    ] {
        cluster.live(REPORT_EVERY);
        cluster.trace.clear();
        receive(&mut cluster, N1, own, lie.clone());
        assert!(
            matches!(notices(&cluster)[..], [Notice::MessageRejected { from: N2, .. }]),
            "{lie:?}: {:?}",
            notices(&cluster)
        );
    }
    assert_eq!(leaders(&cluster), [N1]);
    cluster.propose(N1, Request::Plain("put b 2".into()), SECOND);
    cluster.run();
    let answered = |event: &TraceEvent| {
        matches!(
            event,
            TraceEvent::Output(_, Output::Proposed { result: Ok(_), .. })
        )
    };
    assert!(cluster.trace.iter().any(answered), "the group makes progress");
}

/// A boundary value of some check.
fn edge(rng: &mut Rng, own: u64) -> u64 {
    let edges = [
        0,
        1,
        2,
        own.saturating_sub(1),
        own,
        own + 1,
        own + MAX_TERM_STEP,
        1 << 62,
        (1 << 62) + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    edges[rng.next_u64() as usize % edges.len()]
}

fn any_body(rng: &mut Rng, own: u64) -> Body {
    let mut number = || edge(rng, own);
    let mut position = || LogPosition {
        term: Term(number()),
        index: LogIndex(number()),
    };
    let (place, other) = (position(), position());
    let (a, b, c) = (number(), number(), number());
    match rng.next_u64() % 16 {
        0 => Body::PreVote { last: place },
        1 => Body::PreVoteAnswer { granted: true },
        2 => Body::Vote { last: place },
        3 => Body::VoteAnswer { granted: true },
        4 => Body::Append {
            previous: place,
            commit: LogIndex(a),
            entries: vec![Entry {
                term: other.term,
                index: match b % 2 {
                    0 => other.index,
                    _ => LogIndex(place.index.0.wrapping_add(1)),
                },
                kind: EntryKind::Empty,
            }],
        },
        5 => Body::Append {
            previous: place,
            commit: LogIndex(a),
            entries: Vec::new(),
        },
        6 => Body::Accepted { through: place.index },
        7 => Body::Rejected {
            previous: place.index,
            conflict: other,
        },
        8 => Body::Heartbeat {
            commit: place.index,
            round: a,
        },
        9 => Body::HeartbeatAck {
            round: a,
            received: LogIndex(b),
            durable: LogIndex(c),
        },
        10 => Body::ReadIndex { request: a },
        11 => Body::ReadIndexAnswer {
            request: a,
            index: place.index,
        },
        12 => Body::Snapshot {
            meta: Box::new(SnapshotMeta {
                position: place,
                configuration: Configuration::of_voters([N1, N2]),
                size: a,
                checksum: b,
            }),
            offset: c,
            bytes: Bytes::from_static(b"chunk"),
        },
        13 => Body::SnapshotReceived {
            position: place,
            offset: a,
        },
        14 => Body::Probe { probe: a },
        _ => Body::ProbeAnswer {
            probe: a,
            index: place.index,
        },
    }
}

#[test]
fn a_rival_leader_in_the_own_term_is_rejected_and_reported() {
    let mut cluster = led();
    let own = term(&cluster, N1);
    let commit = LogIndex(0);
    receive(&mut cluster, N1, own.0, Body::Heartbeat { commit, round: 0 });
    assert_eq!(leaders(&cluster), [N1]);
    let rejected = Implausible::Rival(own);
    assert!(matches!(
        notices(&cluster)[..],
        [Notice::MessageRejected { from: N2, reason }] if *reason == rejected
    ));
}

/// Implausible numbers stop no server, in any state.
#[test]
fn implausible_numbers_stop_no_server() {
    for seed in 0..300 {
        let mut rng = rng_from_seed(seed);
        let mut cluster = led();
        for _ in 0..60 {
            let node = NodeId(1 + (rng.next_u64() % 3) as u16);
            let own = term(&cluster, node).0;
            let body = any_body(&mut rng, own);
            let of = match rng.next_u64() % 4 {
                0 => edge(&mut rng, own),
                1 => own + 1,
                _ => own,
            };
            receive(&mut cluster, node, of, body);
            if rng.next_u64().is_multiple_of(8) {
                cluster.advance(Duration::from_millis(20));
                cluster.deliver_round(None, 3);
            }
        }
    }
}
