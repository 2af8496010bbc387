//! Three servers in memory elect a leader and replicate a list: `cargo run -p quorate-raft --example in_memory`.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_core::contract::{Role, rng_from_seed};
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

#[derive(Clone, Default)]
struct List(Vec<Bytes>);

impl StateMachine for List {
    type Command = Bytes;
    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }
    fn apply(&mut self, _: LogPosition, _: WallTime, command: Bytes) -> Bytes {
        self.0.push(command);
        Bytes::from(self.0.len().to_string())
    }
}

impl Machine for List {
    fn query(&self, _: &Bytes) -> Bytes {
        self.0.concat().into()
    }
    fn save(&self) -> Bytes {
        unreachable!("no snapshot is taken of so few entries")
    }
    fn load(_: &Bytes) -> Result<Self, FormatError> {
        unreachable!("there is no snapshot")
    }
}

/// Delivers messages and answers of disks until nothing is left to do.
fn run(servers: &mut [RaftGroup<List>; 3], events: impl IntoIterator<Item = (usize, Event)>) {
    let now = Now {
        instant: Instant(0),
        wall: WallTime(0),
    };
    let (mut rng, mut mailbox) = (rng_from_seed(1), VecDeque::from_iter(events));
    while let Some((at, event)) = mailbox.pop_front() {
        let mut effects = Vec::new();
        servers[at].handle(now, &mut rng, event, &mut effects);
        let from = NodeId(at as u16);
        mailbox.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to, message } => Some((usize::from(to.0), Event::Message { from, message })),
            Effect::Persist { token, .. } => Some((at, Event::Persisted { tokens: vec![token] })),
            Effect::Read(_) => Some((
                at,
                Event::Read {
                    result: Ok(Rows::default()),
                },
            )),
            Effect::Proposed { .. } | Effect::Notice(_) => {
                println!("server {at}: {effect:?}");
                None
            }
            Effect::SetTimer { .. } | Effect::Queried { .. } => None,
        }));
    }
}

fn main() {
    let nodes = [NodeId(0), NodeId(1), NodeId(2)];
    let mut servers = nodes.map(|node| RaftGroup::new(Setup::of_voters(node, nodes)));
    run(&mut servers, (0..3).map(|at| (at, Event::Start)));
    run(&mut servers, [(0, Event::Campaign)]);
    let proposal = Proposal {
        id: 7,
        deadline: Instant::NEVER,
        request: Request::Plain(Bytes::from_static(b"hello")),
    };
    run(&mut servers, [(0, Event::Propose(vec![proposal]))]);
}
