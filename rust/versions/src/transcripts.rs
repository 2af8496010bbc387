//! Runs `tests/transcripts` (golden scripts): one key, a few replicas, and clients that store their contexts.
//!
//! A state is shown as `{clock} value@dot`; time is a count of the puts unless `at` gives it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_core::time::WallTime;
use quorate_testing::transcript::{Call, Outcome, Script, Verb, run};
use quorate_testing::verbs;

use crate::{Dot, DotCounter, KeyState, Sibling, VersionVector, WriteId};

/// Small, so that transcripts exhaust a block.
const BLOCK: u64 = 8;

#[test]
fn transcripts() {
    run::<World>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"));
}

#[derive(Default)]
struct World {
    replicas: BTreeMap<NodeId, Replica>,
    contexts: BTreeMap<String, VersionVector>,
    puts: u64,
}

struct Replica {
    state: KeyState,
    counter: DotCounter,
    durable_state: KeyState,
    durable_mark: u64,
    /// The number of its replica ids so far.
    ids: u64,
}

impl Replica {
    fn new(node: NodeId, ids: u64) -> Self {
        let replica = ReplicaId::new(node, 0xd000 + ids);
        Replica {
            state: KeyState::default(),
            counter: DotCounter::recover(replica, 0, BLOCK),
            durable_state: KeyState::default(),
            durable_mark: 0,
            ids,
        }
    }

    /// Restarts from its durable state, with this id and mark.
    fn recover(&mut self, replica: ReplicaId, mark: u64) -> String {
        self.counter = DotCounter::recover(replica, mark, BLOCK);
        self.durable_mark = mark;
        self.state = self.durable_state.clone();
        format!("recovered {}, dots of {replica} above {mark}", show(&self.state))
    }

    /// Makes its state durable, or not.
    fn sync(&mut self, durable: bool) {
        if durable {
            self.durable_state = self.state.clone();
        }
    }

    fn issue(&mut self) -> Dot {
        if let Some(reservation) = self.counter.reservation() {
            self.counter.reserved(reservation);
            self.durable_mark = reservation.mark;
        }
        self.counter.issue().expect("a block is reserved")
    }
}

impl World {
    fn replica(&mut self, node: NodeId) -> &mut Replica {
        self.replicas.entry(node).or_insert_with(|| Replica::new(node, 1))
    }

    /// The replica before the command.
    fn client(&mut self, call: &Call<'_>) -> Result<(NodeId, &mut Replica), Box<dyn std::error::Error>> {
        let node = call.client()?;
        Ok((node, self.replica(node)))
    }

    fn put(&mut self, value: Option<Bytes>, durable: bool, call: &mut Call<'_>) -> Outcome {
        self.puts += 1;
        let context = match call.key("context") {
            Some(client) => Some(
                self.contexts
                    .get(client)
                    .ok_or("no client of that name has read")?
                    .clone(),
            ),
            None => None,
        };
        let write: Option<u64> = call.parsed("write")?;
        let time = call.parsed("at")?.unwrap_or(self.puts);
        let write_id = WriteId {
            client: u64::from(write.is_some()),
            sequence: write.unwrap_or(self.puts),
        };
        let (_, replica) = self.client(call)?;
        if let Some(first) = replica.state.find_write(write_id) {
            let shown = show_sibling(first);
            replica.sync(durable);
            return Ok(format!("already there as {shown}"));
        }
        let dot = replica.issue();
        let timestamp = Timestamp {
            wall: WallTime(time),
            logical: 0,
        };
        replica.state = replica
            .state
            .put(dot, value, timestamp, write_id, context.as_ref())?;
        replica.sync(durable);
        Ok(show(&replica.state))
    }
}

impl Script for World {
    fn verbs() -> Vec<Verb<Self>> {
        verbs! {
            "compare" "n1 n2" "how two replicas' clocks relate" |world, call| {
                let (left, right) = call.pair()?.ok_or("which replicas?")?;
                let left = world.replica(left).state.clone();
                let right = &world.replica(right).state;
                let states = if left.digest() == right.digest() {
                    "same state"
                } else {
                    "other state"
                };
                Ok(format!("{:?}, {states}", left.clock().compare(right.clock())))
            };
        }
    }

    fn client_verbs() -> Vec<Verb<Self>> {
        verbs! {
            "put" "VALUE [context=CLIENT] [write=N] [at=TIME]" "coordinates a put on this replica only" |world, call| {
                let value = Bytes::copy_from_slice(call.required("a value")?.as_bytes());
                world.put(Some(value), true, call)
            };
            "put-unsynced" "VALUE" "a put that is not durable yet" |world, call| {
                let value = Bytes::copy_from_slice(call.required("a value")?.as_bytes());
                world.put(Some(value), false, call)
            };
            "delete" "[context=CLIENT] [write=N] [at=TIME]" "likewise" |world, call| world.put(None, true, call);
            "read" "[as=CLIENT]" "show the values; CLIENT stores the context" |world, call| {
                let state = world.client(call)?.1.state.clone();
                if let Some(client) = call.key("as") {
                    world.contexts.insert(client.to_owned(), state.clock().clone());
                }
                Ok(read(&state))
            };
            "send" "n2 ..." "merge the state into others" send;
            "show" "" "the whole state" |world, call| Ok(show(&world.client(call)?.1.state));
            "elsewhere" "COUNT" "coordinates writes of other keys, which use up its counters" |world, call| {
                let count: u64 = call.required("a number")?.parse()?;
                let (_, replica) = world.client(call)?;
                let dots: Vec<String> = (0..count).map(|_| replica.issue().to_string()).collect();
                Ok(dots.join(" "))
            };
            "sync" "" "its state becomes durable, as after each other put and each received state" |world, call| {
                world.client(call)?.1.sync(true);
                Ok(String::new())
            };
            "crash" "" "restarts from its durable state, under a new replica id" |world, call| {
                let (node, replica) = world.client(call)?;
                replica.ids += 1;
                Ok(replica.recover(ReplicaId::new(node, 0xd000 + replica.ids), 0))
            };
            "replace" "" "restarts with an empty data directory" |world, call| {
                let (node, replica) = world.client(call)?;
                *replica = Replica::new(node, replica.ids + 1);
                Ok(format!("now {}", replica.counter.replica()))
            };
            "crash-keep-id" "" "the bug: restarts under the old id, above the counters that it may have issued" |world, call| {
                let (_, replica) = world.client(call)?;
                Ok(replica.recover(replica.counter.replica(), replica.durable_mark))
            };
            "crash-restart-counter" "" "the bug: restarts under the old id and restarts the counter" |world, call| {
                let (_, replica) = world.client(call)?;
                Ok(replica.recover(replica.counter.replica(), 0))
            };
        }
    }
}

fn send(world: &mut World, call: &mut Call<'_>) -> Outcome {
    let state = world.client(call)?.1.state.clone();
    let mut output = Vec::new();
    for peer in call.rest() {
        let peer: NodeId = peer.parse()?;
        let receiver = world.replica(peer);
        let news = if receiver.state.includes(&state) {
            "no change"
        } else {
            "merged"
        };
        receiver.state = receiver.state.merge(&state);
        receiver.sync(true);
        output.push(format!("{peer} {news}: {}", show(&receiver.state)));
    }
    Ok(output.join("\n"))
}

fn show(state: &KeyState) -> String {
    let full = |dot: Dot| {
        state
            .clock()
            .iter()
            .filter(|other| other.replica.node() == dot.replica.node())
            .count()
            > 1
    };
    let show_one = |sibling: &Sibling| match full(sibling.dot) {
        false => show_sibling(sibling),
        true => format!("{}@{:?}", show_value(sibling), sibling.dot),
    };
    let siblings: Vec<String> = state.siblings().iter().map(show_one).collect();
    format!("{{{}}} {}", state.clock(), siblings.join(" "))
}

fn show_sibling(sibling: &Sibling) -> String {
    format!("{}@{}", show_value(sibling), sibling.dot)
}

fn show_value(sibling: &Sibling) -> String {
    match &sibling.value {
        Some(value) => String::from_utf8_lossy(value).into_owned(),
        None => "(deleted)".to_owned(),
    }
}

fn read(state: &KeyState) -> String {
    let values: Vec<_> = state
        .values()
        .map(|value| String::from_utf8_lossy(value))
        .collect();
    match (state.latest(), values.len()) {
        (None, _) => "never written".to_owned(),
        (Some(_), 0) => format!("deleted, context {{{}}}", state.clock()),
        (Some(_), 1) => format!("{}, context {{{}}}", values[0], state.clock()),
        (Some(latest), _) => format!(
            "siblings {} (latest {}), context {{{}}}",
            values.join(" "),
            show_sibling(latest),
            state.clock()
        ),
    }
}
