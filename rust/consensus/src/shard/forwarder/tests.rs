//! Answers that reach a forwarder after an attempt without an answer.

use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::contract::rng_from_seed;
use quorate_core::ids::{ClusterId, KeyspaceId, ReplicaId};
use quorate_core::time::WallTime;
use quorate_protocol::api::Stamp;
use quorate_protocol::keyspace::{Group, KeyspaceSettings};
use quorate_protocol::placement::Placement;
use quorate_protocol::shard_command::Command;
use quorate_protocol::topology::{Member, Topology};
use quorate_ring::RingSettings;

use super::*;

const GROUP: GroupId = GroupId(7);

struct Bench {
    forwarder: Forwarder,
    rng: Rng,
}

impl Bench {
    fn new() -> Self {
        let member = |number: u16| Member {
            id: NodeId(number),
            peer_address: format!("n{number}:1"),
            client_address: format!("n{number}:2"),
            http_address: format!("n{number}:3"),
            rack: "r".to_owned(),
            datacenter: "d".to_owned(),
        };
        let members = (1..=3).map(member).collect();
        let topology = Topology::new(ClusterId(1), 1, members, RingSettings::default()).unwrap();
        let surroundings = Surroundings {
            replica: ReplicaId::new(NodeId(1), 1),
            placement: Placement::new(topology).unwrap(),
            alive: (1..=3).map(NodeId).collect(),
            bugs: Bugs::none(),
            raft: quorate_raft::settings::Timing::DEFAULT,
        };
        let keyspace = Keyspace {
            id: KeyspaceId(1),
            settings: KeyspaceSettings::consensus("accounts", 3),
            groups: vec![Group {
                id: GROUP,
                members: (1..=3).map(NodeId).collect(),
            }],
        };
        Bench {
            forwarder: Forwarder::new(&keyspace, &surroundings),
            rng: rng_from_seed(1),
        }
    }

    fn give(&mut self, event: Event) -> Vec<Effect> {
        let now = Now {
            instant: Instant(1_000_000),
            wall: WallTime(1_000_000),
        };
        let mut effects = Vec::new();
        self.forwarder.handle(now, &mut self.rng, event, &mut effects);
        effects
    }

    fn header(request: u64) -> Header {
        Header {
            generation: 1,
            request,
            deadline: Instant(1_000_000) + Duration::from_secs(5),
            trace: None,
        }
    }

    /// A client's command, in a session.
    fn command(&mut self) -> Vec<Effect> {
        self.give(Event::Request {
            client: ClientRef {
                connection: 1,
                request: 1,
            },
            header: Bench::header(0),
            request: Request::Propose {
                keyspace: KeyspaceId(1),
                group: GROUP,
                command: Command::Append {
                    source: String::new(),
                    data: bytes::Bytes::new(),
                },
                session: Some(Stamp {
                    session: 3,
                    sequence: 1,
                    acknowledged: 0,
                }),
            },
        })
    }

    /// A member's answer to an attempt at the first command.
    fn answered(&mut self, node: u16, attempt: u16, message: Message) -> Vec<Effect> {
        self.give(Event::Message {
            from: Address {
                node: NodeId(node),
                role: RoleId::Shard(GROUP),
            },
            header: Bench::header(attempts::name(1, attempt)),
            message,
        })
    }

    fn forwarded(&mut self, node: u16, attempt: u16, error: Error) -> Vec<Effect> {
        self.answered(node, attempt, Message::Forwarded(Err(error)))
    }

    fn redirected(&mut self, node: u16, attempt: u16, leader: u16) -> Vec<Effect> {
        let leader = Some(NodeId(leader));
        self.answered(node, attempt, Message::Redirect { leader })
    }
}

fn sent_to(effects: &[Effect]) -> Option<u16> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { to, .. } => Some(to.node.0),
        _ => None,
    })
}

fn answer(effects: &[Effect]) -> Option<&Error> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { response, .. } => response.as_ref().err(),
        _ => None,
    })
}

fn expired() -> Error {
    Error::SessionExpired("it has expired".to_owned())
}

#[test]
fn an_expired_session_is_reported_after_a_single_attempt() {
    let mut bench = Bench::new();
    let first = sent_to(&bench.command()).expect("a member is sent_to");
    assert_eq!(answer(&bench.forwarded(first, 1, expired())), Some(&expired()));
}

#[test]
fn after_an_attempt_without_an_answer_an_expired_session_proves_nothing() {
    let mut bench = Bench::new();
    let first = sent_to(&bench.command()).expect("a member is sent_to");
    let moved = bench.give(Event::Peer {
        node: NodeId(first),
        up: false,
    });
    let second = sent_to(&moved).expect("another member is sent_to");
    assert_ne!(first, second);
    let effects = bench.forwarded(second, 2, expired());
    assert!(
        matches!(answer(&effects), Some(Error::OutcomeUnknown { .. })),
        "the client must not take it for never executed: {effects:?}"
    );
}

fn client(request: u64) -> ClientRef {
    ClientRef {
        connection: 1,
        request,
    }
}

fn answers(effects: Vec<Effect>) -> Vec<(u64, Error)> {
    let answer = |effect| match effect {
        Effect::Reply {
            client,
            response: Err(error),
        } => Some((client.request, error)),
        _ => None,
    };
    effects.into_iter().filter_map(answer).collect()
}

#[test]
fn dropping_the_keyspace_fails_all_pending_requests() {
    let mut bench = Bench::new();
    sent_to(&bench.command()).expect("a member is sent_to");
    let read = |request| Event::Request {
        client: client(request),
        header: Bench::header(0),
        request: Request::Read {
            keyspace: KeyspaceId(1),
            group: GROUP,
            keys: Vec::new(),
            level: quorate_protocol::api::ReadLevel::Linearizable,
        },
    };
    bench.give(read(2));
    let reported = answers(bench.give(Event::Dropped));
    let dropped = |error: &Error| error.to_string().contains("\"accounts\" was dropped");
    assert!(reported.iter().all(|(_, error)| dropped(error)), "{reported:?}");
    assert!(
        matches!(
            reported.as_slice(),
            [(1, Error::OutcomeUnknown { .. }), (2, Error::NotFound(_))]
        ),
        "the command was sent, and a read changes nothing: {reported:?}"
    );
    let later = answers(bench.give(read(3)));
    assert!(matches!(later.as_slice(), [(3, Error::NotFound(_))]), "{later:?}");
    assert_eq!(bench.forwarder.in_progress(), 0);
}

/// Nothing was sent yet: it is definite that nothing was executed.
#[test]
fn requests_not_sent_when_the_keyspace_is_dropped_were_not_executed() {
    let mut bench = Bench::new();
    for node in (1..=3).map(NodeId) {
        bench.give(Event::Peer { node, up: false });
    }
    assert_eq!(sent_to(&bench.command()), None);
    let reported = answers(bench.give(Event::Dropped));
    assert!(
        matches!(reported.as_slice(), [(1, Error::NotFound(_))]),
        "{reported:?}"
    );
}

/// A member has learned of the drop first.
#[test]
fn a_dropped_keyspace_proves_nothing_after_an_attempt_without_an_answer() {
    let dropped_error = || Error::NotFound("keyspace \"accounts\" was dropped".to_owned());
    let mut bench = Bench::new();
    let first = sent_to(&bench.command()).expect("a member is sent_to");
    assert_eq!(
        answer(&bench.forwarded(first, 1, dropped_error())),
        Some(&dropped_error())
    );
    let mut bench = Bench::new();
    let first = sent_to(&bench.command()).expect("a member is sent_to");
    let moved = bench.give(Event::Peer {
        node: NodeId(first),
        up: false,
    });
    let second = sent_to(&moved).expect("another member is sent_to");
    let effects = bench.forwarded(second, 2, dropped_error());
    assert!(
        matches!(answer(&effects), Some(Error::OutcomeUnknown { .. })),
        "{effects:?}"
    );
}

fn full() -> Error {
    Error::StorageFull("nothing was written".to_owned())
}

/// A duplicated message concerns one attempt. The member may have been sent another, and execute it now.
#[test]
fn a_duplicated_redirect_does_not_affect_a_later_attempt_at_the_same_member() {
    let mut bench = Bench::new();
    let first = sent_to(&bench.command()).expect("a member is sent_to");
    let other = if first == 2 { 3 } else { 2 };
    assert_eq!(sent_to(&bench.redirected(first, 1, other)), Some(other));
    assert_eq!(sent_to(&bench.redirected(other, 2, first)), Some(first));
    assert_eq!(
        sent_to(&bench.redirected(first, 1, other)),
        None,
        "the third attempt is pending"
    );
    assert_eq!(answer(&bench.forwarded(other, 2, full())), None, "and no other");
    assert_eq!(answer(&bench.forwarded(first, 3, full())), Some(&full()));
}

#[test]
fn a_rejection_is_not_the_answer_after_an_attempt_without_one() {
    for error in [full(), Error::Overloaded("busy".to_owned())] {
        let mut bench = Bench::new();
        let first = sent_to(&bench.command()).expect("a member is sent_to");
        let down = Event::Peer {
            node: NodeId(first),
            up: false,
        };
        let second = sent_to(&bench.give(down)).expect("another member is sent_to");
        let late = bench.forwarded(first, 1, error.clone());
        assert_eq!(answer(&late), None, "the first attempt is given up: {late:?}");
        let refused = bench.forwarded(second, 2, error);
        assert_eq!(answer(&refused), None, "it is retried: {refused:?}");
        let reported = answers(bench.give(Event::Dropped));
        assert!(
            matches!(reported.as_slice(), [(1, Error::OutcomeUnknown { .. })]),
            "{reported:?}"
        );
    }
}

#[test]
fn a_failed_condition_is_the_answer_of_any_attempt() {
    let failed = Error::ConditionFailed {
        key: "a".to_owned(),
        current: None,
    };
    for attempt in [1, 2] {
        let mut bench = Bench::new();
        let first = sent_to(&bench.command()).expect("a member is sent_to");
        let down = Event::Peer {
            node: NodeId(first),
            up: false,
        };
        let second = sent_to(&bench.give(down)).expect("another member is sent_to");
        let node = if attempt == 1 { first } else { second };
        assert_eq!(
            answer(&bench.forwarded(node, attempt, failed.clone())),
            Some(&failed)
        );
    }
}
