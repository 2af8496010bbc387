//! Three servers in memory elect a leader and replicate a list: `cargo run -p quorate-raft --example in_memory`.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_core::contract::rng_from_seed;
use quorate_core::ids::NodeId;
use quorate_core::time::Now;
use quorate_raft::Raft;
use quorate_raft::action::Action;
use quorate_raft::entry::EntryKind;
use quorate_raft::server::{Recovered, Turn};
use quorate_raft::settings::Setup;

const NODES: [NodeId; 3] = [NodeId(0), NodeId(1), NodeId(2)];

/// Calls a server; returns its actions.
fn call<T>(server: impl FnOnce(&mut Turn<'_>) -> T) -> (T, Vec<Action>) {
    let (now, rng, mut actions) = (Now::default(), &mut rng_from_seed(1), Vec::new());
    let out = &mut actions;
    (
        server(&mut Turn {
            now,
            rng,
            actions: out,
        }),
        actions,
    )
}

/// Delivers messages and completes writes at once, until no action is left.
fn run(servers: &mut [Raft; 3], lists: &mut [Vec<Bytes>; 3], at: usize, actions: Vec<Action>) {
    let mut waiting = VecDeque::from_iter(actions.into_iter().map(|action| (at, action)));
    while let Some((at, action)) = waiting.pop_front() {
        let (server, ((), actions)) = match action {
            Action::Send { to, message } => {
                let to = usize::from(to.0);
                (to, call(|turn| servers[to].message(NODES[at], message, turn)))
            }
            Action::Persist { token, .. } => (at, call(|turn| servers[at].persisted(&[token], turn))),
            Action::Apply(entries) => {
                lists[at].extend(entries.into_iter().filter_map(|entry| match entry.kind {
                    EntryKind::Command(command) => Some(command),
                    _ => None,
                }));
                continue;
            }
            _ => continue,
        };
        waiting.extend(actions.into_iter().map(|action| (server, action)));
    }
}

fn main() {
    let start = |node| call(|turn| Raft::start(Setup::of_voters(node, NODES), Recovered::default(), turn)).0;
    let (mut servers, mut lists) = (NODES.map(start), Default::default());
    let ((), actions) = call(|turn| servers[0].campaign_now(turn));
    run(&mut servers, &mut lists, 0, actions);
    for word in ["hello", "world"] {
        let (position, actions) = call(|turn| servers[0].propose(vec![Bytes::from(word)], turn));
        run(&mut servers, &mut lists, 0, actions);
        println!("{word} is entry {}: {lists:?}", position.expect("server 0 leads"));
    }
    println!("A follower learns that an entry is committed from the leader's next message.");
}
