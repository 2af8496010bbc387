//! Three servers in memory elect a leader and replicate a list: `cargo run -p quorate-raft --example in_memory`.

use bytes::Bytes;
use quorate_core::contract::{Role, rng_from_seed};
use quorate_core::ids::NodeId;
use quorate_core::store::Rows;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_raft::RaftGroup;
use quorate_raft::alphabet::{Effect, Event, Proposal};
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

fn main() {
    let nodes = [NodeId(1), NodeId(2), NodeId(3)];
    let mut servers = nodes.map(|node| RaftGroup::<List>::new(Setup::of_voters(node, nodes)));
    let mut rng = rng_from_seed(1);
    let now = Now {
        instant: Instant(0),
        wall: WallTime(0),
    };
    let mut mailbox: Vec<(NodeId, Event)> = nodes.map(|node| (node, Event::Start)).into();
    mailbox.push((nodes[0], Event::Campaign));
    let command = Request::Plain(Bytes::from_static(b"hello"));
    let mut proposals = vec![Proposal {
        id: 7,
        deadline: Instant::NEVER,
        request: command,
    }];
    while !mailbox.is_empty() {
        let (node, event) = mailbox.remove(0);
        let mut effects = Vec::new();
        servers[usize::from(node.0) - 1].handle(now, &mut rng, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => mailbox.push((to, Event::Message { from: node, message })),
                Effect::Persist { token, .. } => {
                    mailbox.push((node, Event::Persisted { tokens: vec![token] }))
                }
                Effect::Read(_) => mailbox.push((
                    node,
                    Event::Read {
                        result: Ok(Rows::default()),
                    },
                )),
                Effect::Proposed { id, result } => println!("proposal {id}: {result:?}"),
                Effect::Notice(notice) => println!("{node}: {notice:?}"),
                Effect::SetTimer { .. } | Effect::Queried { .. } => {}
            }
        }
        if servers[0].raft().is_some_and(|raft| raft.is_leader()) && !proposals.is_empty() {
            mailbox.push((nodes[0], Event::Propose(std::mem::take(&mut proposals))));
        }
    }
}
