//! The cost of the protocol itself: three servers of a group in one thread, without a network or a disk.
//!
//! `cargo bench -p quorate-raft --bench raft_throughput -- [CLIENTS] [SECONDS]`. Every message is encoded and
//! decoded; every persist is durable at the end of a round. Each client has one command in flight.

// A benchmark needs a clock.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;

use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::ids::NodeId;
use quorate_core::store::Rows;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_raft::RaftGroup;
use quorate_raft::event::{Effect, Event, Proposal};
use quorate_raft::format::FormatError;
use quorate_raft::machine::{Machine, StateMachine};
use quorate_raft::sessions::Request;
use quorate_raft::settings::Setup;
use quorate_raft::types::LogPosition;

/// Counts commands.
#[derive(Clone, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, _: LogPosition, _: WallTime, _: Bytes) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
}

impl Machine for Counter {
    fn query(&self, _: &Bytes) -> Bytes {
        Bytes::new()
    }

    fn save(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        let bytes =
            <[u8; 8]>::try_from(&bytes[..]).map_err(|error| FormatError::malformed("counter", error))?;
        Ok(Counter(u64::from_le_bytes(bytes)))
    }
}

struct Server {
    group: RaftGroup<Counter>,
    rng: Rng,
    mailbox: VecDeque<Event>,
    persists: Vec<u64>,
}

#[derive(Default)]
struct Totals {
    commands: u64,
    messages: u64,
    bytes: u64,
    persists: u64,
}

fn main() {
    let mut arguments = std::env::args().filter(|argument| argument != "--bench").skip(1);
    let mut number = |default| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (clients, seconds) = (number(256u64), number(3));
    let mut servers: BTreeMap<NodeId, Server> = (1..=3).map(|node| (NodeId(node), server(node))).collect();
    let mut totals = Totals::default();
    for server in servers.values_mut() {
        server.mailbox.push_back(Event::Start);
    }
    round(&mut servers, &mut totals);
    let first = servers.get_mut(&NodeId(1)).expect("there are three");
    first.mailbox.push_back(Event::Campaign);
    for _ in 0..20 {
        round(&mut servers, &mut totals);
    }
    totals = Totals::default();
    let began = Clock::now();
    let (mut proposed, mut answered) = (0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let first = servers.get_mut(&NodeId(1)).expect("there are three");
        while proposed - answered < clients {
            proposed += 1;
            first.mailbox.push_back(Event::Propose(vec![Proposal {
                id: proposed,
                deadline: Instant::NEVER,
                request: Request::Plain(Bytes::from_static(&[7; 100])),
            }]));
        }
        round(&mut servers, &mut totals);
        answered = totals.commands;
    }
    let micros = began.elapsed().as_micros() as f64;
    println!(
        "{clients} clients: {:.0} commands/s, {:.2} us each for all three servers; {:.2} messages, {:.0} bytes and {:.2} persists per command",
        totals.commands as f64 / micros * 1e6,
        micros / totals.commands as f64,
        totals.messages as f64 / totals.commands as f64,
        totals.bytes as f64 / totals.commands as f64,
        totals.persists as f64 / totals.commands as f64,
    );
}

fn server(node: u16) -> Server {
    Server {
        group: RaftGroup::new(Setup::of_voters(NodeId(node), (1..=3).map(NodeId))),
        rng: rng_from_seed(u64::from(node)),
        mailbox: VecDeque::new(),
        persists: Vec::new(),
    }
}

/// Every server handles its mailbox; then the disks complete their writes.
fn round(servers: &mut BTreeMap<NodeId, Server>, totals: &mut Totals) {
    let now = Now {
        instant: Instant(1_000_000),
        wall: WallTime(1_000_000),
    };
    let mut sent = Vec::new();
    for (node, server) in servers.iter_mut() {
        let mut effects = Vec::new();
        while let Some(event) = server.mailbox.pop_front() {
            server.group.handle(now, &mut server.rng, event, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { to, message } => {
                        sent.push((*node, to, postcard::to_stdvec(&message).expect("plain data")));
                    }
                    Effect::Persist { token, .. } => server.persists.push(token),
                    Effect::Read(_) => server.mailbox.push_back(Event::Read {
                        result: Ok(Rows::default()),
                    }),
                    Effect::Proposed { result, .. } => {
                        result.expect("nothing goes wrong here");
                        totals.commands += 1;
                    }
                    Effect::SetTimer { .. } | Effect::Queried { .. } | Effect::Notice(_) => {}
                }
            }
        }
        totals.persists += server.persists.len() as u64;
        if !server.persists.is_empty() {
            let tokens = std::mem::take(&mut server.persists);
            server.mailbox.push_back(Event::Persisted { tokens });
        }
    }
    totals.messages += sent.len() as u64;
    for (from, to, bytes) in sent {
        totals.bytes += bytes.len() as u64;
        let message = postcard::from_bytes(&bytes).expect("what was encoded");
        let server = servers.get_mut(&to).expect("there are three");
        server.mailbox.push_back(Event::Message { from, message });
    }
}
