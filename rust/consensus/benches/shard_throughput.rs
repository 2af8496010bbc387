//! The cost of a shard's server from request to rows: a group of one, in one thread, without a network or a
//! disk.
//!
//! `cargo bench -p quorate-consensus --bench shard_throughput -- [BATCH] [BYTES] [SECONDS]`. This many
//! clients write this many bytes each, all at the same time, first plain, then in sessions, then with
//! conditions; every persist is durable and every row is absent at once.

// A benchmark needs a clock.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use quorate_consensus::shard::Shard;
use quorate_core::bugs::Bugs;
use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::store::Rows;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_protocol::api::{Request, Response, Stamp};
use quorate_protocol::keyspace::{Group, Keyspace, KeyspaceSettings};
use quorate_protocol::message::Header;
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{Address, ClientRef, Effect, Event, RoleId, Surroundings};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::settings::Timing;
use quorate_raft::types::GroupId;
use quorate_ring::RingSettings;

const ME: NodeId = NodeId(1);
const GROUP: GroupId = GroupId(2);

struct Bench {
    shard: Shard,
    rng: Rng,
    clock: Clock,
    mailbox: VecDeque<Event>,
    answered: u64,
    session: u64,
}

impl Bench {
    fn new() -> Self {
        let member = Member {
            id: ME,
            peer_address: String::new(),
            client_address: String::new(),
            http_address: String::new(),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        };
        let topology = Topology::new(ClusterId(7), 1, vec![member], RingSettings::default());
        let surroundings = Surroundings {
            replica: ReplicaId::new(ME, 0xd1),
            placement: Placement::new(topology.expect("one member")).expect("a ring"),
            alive: [ME].into(),
            bugs: Bugs::none(),
            raft: Timing::DEFAULT,
        };
        let keyspace = Keyspace {
            id: KeyspaceId(1),
            settings: KeyspaceSettings::consensus("bench", 1),
            groups: vec![Group {
                id: GROUP,
                members: vec![ME],
            }],
        };
        Bench {
            shard: Shard::new(&keyspace, GROUP, &surroundings).expect("a member"),
            rng: rng_from_seed(1),
            clock: Clock::now(),
            mailbox: VecDeque::from([Event::Start]),
            answered: 0,
            session: 0,
        }
    }

    fn now(&self) -> Now {
        let micros = self.clock.elapsed().as_micros() as u64 + 1_000_000;
        Now {
            instant: Instant(micros),
            wall: WallTime(micros),
        }
    }

    /// Performs its effects until there are none.
    fn run(&mut self) {
        let mut effects = Vec::new();
        while let Some(event) = self.mailbox.pop_front() {
            let now = self.now();
            self.shard.handle(now, &mut self.rng, event, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Persist { token, .. } => {
                        self.mailbox.push_back(Event::Persisted { tokens: vec![token] });
                    }
                    Effect::ApplyRows { token, .. } => {
                        self.mailbox.push_back(Event::Flushed { tokens: vec![token] });
                    }
                    Effect::Read { token, .. } => self.mailbox.push_back(Event::Read {
                        token,
                        result: Ok(Rows::default()),
                    }),
                    Effect::Send { to, header, message } if to.node == ME => {
                        self.mailbox.push_back(Event::Message {
                            from: Address {
                                node: ME,
                                role: RoleId::Shard(GROUP),
                            },
                            header,
                            message,
                        });
                    }
                    Effect::Reply { response, .. } => {
                        self.answered += 1;
                        if let Response::SessionOpened { session, .. } = response.expect("it is alone") {
                            self.session = session;
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, number: u64, request: Request) {
        self.mailbox.push_back(Event::Request {
            client: ClientRef {
                connection: 1,
                request: number,
            },
            header: Header {
                generation: 0,
                request: number,
                deadline: self.now().instant + Duration::from_secs(60),
                trace: None,
            },
            request,
        });
    }
}

fn main() {
    let mut arguments = std::env::args().filter(|argument| argument != "--bench").skip(1);
    let mut number = |default| {
        let argument = arguments.next();
        argument.map_or(default, |text| text.parse().expect("a number"))
    };
    let (batch, size, seconds) = (number(256u64), number(256), number(2));
    for (name, in_session, condition) in [
        ("plain", false, Condition::Any),
        ("in a session", true, Condition::Any),
        ("conditional", false, Condition::Absent),
    ] {
        let mut bench = Bench::new();
        bench.run();
        bench.ask(
            0,
            Request::OpenSession {
                keyspace: KeyspaceId(1),
                group: GROUP,
                idle_ms: 60_000,
            },
        );
        bench.run();
        let value = Bytes::from(vec![b'x'; size as usize]);
        let (start, mut last) = (Clock::now(), 0);
        while start.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..batch {
                last += 1;
                let write = Write {
                    key: Key::of(format!("user-{last}")).expect("a short key"),
                    value: Some(value.clone()),
                    condition,
                };
                let stamp = Stamp {
                    session: bench.session,
                    sequence: last,
                    acknowledged: last.saturating_sub(batch),
                };
                bench.ask(
                    last,
                    Request::Propose {
                        keyspace: KeyspaceId(1),
                        group: GROUP,
                        command: Command::Write(vec![write]),
                        session: in_session.then_some(stamp),
                    },
                );
            }
            bench.run();
        }
        assert_eq!(bench.answered, last + 1, "everything is answered");
        let each = start.elapsed().as_nanos() as f64 / last as f64;
        println!("{name}: {:.0} writes/s, {each:.0} ns each", 1e9 / each);
    }
}
