//! What a gate makes of answers that come after an attempt without one.

use std::time::Duration;

use super::*;
use crate::api::Stamp;
use crate::bugs::Bugs;
use crate::ids::{ClusterId, KeyspaceId, ReplicaId};
use crate::keyspace::{Group, KeyspaceSettings};
use crate::placement::Placement;
use crate::ring::RingSettings;
use crate::role::rng_from_seed;
use crate::shard::command::Command;
use crate::time::WallTime;
use crate::topology::{Member, Topology};

const GROUP: GroupId = GroupId(7);

struct Bench {
    gate: Gate,
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
            bugs: Bugs::default(),
            raft: crate::raft::settings::Timing::DEFAULT,
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
            gate: Gate::new(&keyspace, &surroundings),
            rng: rng_from_seed(1),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let now = Now {
            instant: Instant(1_000_000),
            wall: WallTime(1_000_000),
        };
        let mut effects = Vec::new();
        self.gate.handle(now, &mut self.rng, event, &mut effects);
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
        self.tell(Event::Request {
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

    fn forwarded(&mut self, node: u16, error: Error) -> Vec<Effect> {
        self.tell(Event::Message {
            from: Address {
                node: NodeId(node),
                role: RoleId::Shard(GROUP),
            },
            header: Bench::header(1),
            message: Message::Forwarded(Err(error)),
        })
    }
}

fn asked(effects: &[Effect]) -> Option<u16> {
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
fn an_expired_session_is_told_as_it_is_when_this_was_the_only_attempt() {
    let mut bench = Bench::new();
    let first = asked(&bench.command()).expect("a member is asked");
    assert_eq!(answer(&bench.forwarded(first, expired())), Some(&expired()));
}

#[test]
fn after_an_attempt_without_an_answer_an_expired_session_proves_nothing() {
    let mut bench = Bench::new();
    let first = asked(&bench.command()).expect("a member is asked");
    let moved = bench.tell(Event::Peer {
        node: NodeId(first),
        up: false,
    });
    let second = asked(&moved).expect("another member is asked");
    assert_ne!(first, second);
    let effects = bench.forwarded(second, expired());
    assert!(
        matches!(answer(&effects), Some(Error::OutcomeUnknown { .. })),
        "the client must not take it for never executed: {effects:?}"
    );
}
