//! An undecodable committed command stops its group's server, and nothing else of the node.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_core::contract::{Role, rng_from_seed};
use quorate_core::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::store::Rows;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceSettings};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Address, ClientRef, Effect, Event, RoleId, Surroundings};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::event::ReadLevel;
use quorate_raft::message::{Body, Message as RaftMessage};
use quorate_raft::settings::Timing;
use quorate_raft::types::{GroupId, LogIndex, LogPosition, Term};
use quorate_ring::RingSettings;

use crate::shard::Shard;

const GROUP: GroupId = GroupId(2);
const KEYSPACE: KeyspaceId = KeyspaceId(1);

fn surroundings() -> Surroundings {
    let member = |number| Member {
        id: NodeId(number),
        peer_address: String::new(),
        client_address: String::new(),
        http_address: String::new(),
        rack: "default".to_owned(),
        datacenter: "default".to_owned(),
    };
    let members = (1..=3).map(member).collect();
    let topology = Topology::new(ClusterId(7), 1, members, RingSettings::default());
    Surroundings {
        replica: ReplicaId::new(NodeId(1), 0xd1),
        placement: Placement::new(topology.expect("distinct members")).expect("a small ring"),
        alive: (1..=3).map(NodeId).collect::<BTreeSet<_>>(),
        raft: Timing::default(),
        bugs: quorate_core::bugs::Bugs::none(),
    }
}

/// The server of n1, on an empty disk.
struct Member1(Shard);

impl Member1 {
    fn new() -> Self {
        let keyspace = Keyspace {
            id: KEYSPACE,
            settings: KeyspaceSettings::consensus("users", 3),
            groups: vec![Group {
                id: GROUP,
                members: (1..=3).map(NodeId).collect(),
            }],
        };
        let surroundings = surroundings();
        let shard = Shard::new(&keyspace, GROUP, &surroundings);
        let mut server = Member1(shard.expect("it is a member"));
        server.give(Event::Start);
        server
    }

    /// Delivers an event, and an empty disk's results. Returns the remaining effects.
    fn give(&mut self, event: Event) -> Vec<Effect> {
        let mut rng = rng_from_seed(1);
        let (mut events, mut rest) = (VecDeque::from([event]), Vec::new());
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            self.0.handle(Now::default(), &mut rng, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Read { token, .. } => events.push_back(Event::Read {
                        token,
                        result: Ok(Rows::default()),
                    }),
                    Effect::Persist { token, .. } => {
                        let tokens = vec![token];
                        events.push_back(Event::Persisted { tokens });
                    }
                    other => rest.push(other),
                }
            }
        }
        rest
    }

    /// The leader n2 sends a message.
    fn deliver(&mut self, body: Body) -> Vec<Effect> {
        let role = RoleId::Shard(GROUP);
        let node = NodeId(2);
        let message = RaftMessage { term: Term(1), body };
        self.give(Event::Message {
            from: Address { node, role },
            header: header(),
            message: Message::Raft {
                group: GROUP,
                message,
            },
        })
    }
}

fn header() -> Header {
    Header {
        generation: 0,
        request: 1,
        deadline: Instant::NEVER,
        trace: None,
    }
}

#[test]
fn an_undecodable_committed_command_stops_the_server() {
    let mut server = Member1::new();
    let previous = LogPosition::default();
    let bytes = Bytes::from_static(b"\x09not a request");
    let entry = Entry {
        term: Term(1),
        index: LogIndex(1),
        kind: EntryKind::Command(bytes),
    };
    let (commit, entries) = (LogIndex(0), vec![entry]);
    server.deliver(Body::Append {
        previous,
        commit,
        entries,
    });
    assert_eq!(server.0.broken(), None, "it is not committed yet");

    let (commit, round) = (LogIndex(1), 0);
    let effects = server.deliver(Body::Heartbeat { commit, round });
    let why = server.0.broken().expect("it has stopped").to_owned();
    assert!(
        why.contains("entry 1@t1 is committed but cannot be read"),
        "{why}"
    );
    let reported = effects.iter().any(|effect| {
        let event = quorate_protocol::telemetry::TimelineEvent::GroupBroken {
            group: GROUP,
            reason: why.clone(),
        };
        *effect == Effect::Emit(event)
    });
    assert!(reported, "the timeline reports it: {effects:?}");

    // Requests are redirected.
    let client = ClientRef {
        connection: 1,
        request: 1,
    };
    let request = Request::Read {
        keyspace: KEYSPACE,
        group: GROUP,
        keys: vec!["k".try_into().expect("a key")],
        level: ReadLevel::Linearizable,
    };
    let effects = server.give(Event::Request {
        client,
        header: header(),
        request,
    });
    let answered = |effect: &Effect| {
        matches!(
            effect,
            Effect::Reply {
                response: Ok(Response::Records { .. }),
                ..
            }
        )
    };
    assert!(!effects.iter().any(answered), "{effects:?}");
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Relay { .. })),
        "{effects:?}"
    );
}
