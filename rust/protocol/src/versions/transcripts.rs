//! Plays `tests/transcripts/versions`: one key, a few replicas, and clients who keep the contexts they read.
//!
//! ```text
//! n1: put VALUE [context=CLIENT] [write=N] [at=TIME]    n1 coordinates a put, here and nowhere else
//! n1: delete [context=CLIENT] [write=N] [at=TIME]
//! n1: read [as=CLIENT]              show the values; CLIENT keeps the context
//! n1: send n2 ...                   merge n1's state into others
//! n1: show                          the whole state
//! n1: elsewhere COUNT               n1 coordinates writes of other keys, which use up its counters
//! n1: sync                          what n1 has becomes durable, as after each other put and what was sent
//! n1: put-unsynced VALUE            a put that is not durable yet at n1
//! n1: crash                         n1 restarts from what is durable, under a new replica id
//! n1: replace                       n1 restarts with an empty data directory
//! n1: crash-keep-id                 the bug: n1 restarts under the old id, above the counters that it may have used
//! n1: crash-restart-counter         the bug: n1 restarts under the old id and forgets which counters it has used
//! compare n1 n2                     how two replicas' clocks relate
//! ```
//!
//! A state is shown as `{clock} value@dot`; time is a count of the puts unless `at` gives it.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use goldenscript::{Command, Context};

use crate::hlc::Timestamp;
use crate::ids::{NodeId, ReplicaId};
use crate::time::WallTime;
use crate::transcript;
use crate::versions::{Dot, DotCounter, KeyState, Sibling, VersionVector, WriteId};

/// Small, so that transcripts reach its end.
const BLOCK: u64 = 8;

#[test]
fn transcripts() {
    transcript::run("versions", World::default);
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
    /// How many replica ids it has had.
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

    /// Restarts from what is durable, with this id and mark.
    fn recover(&mut self, replica: ReplicaId, mark: u64) -> String {
        self.counter = DotCounter::recover(replica, mark, BLOCK);
        self.durable_mark = mark;
        self.state = self.durable_state.clone();
        format!("recovered {}, dots of {replica} above {mark}", show(&self.state))
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

    fn put(
        &mut self,
        node: NodeId,
        value: Option<Bytes>,
        args: &mut goldenscript::ArgumentConsumer<'_>,
    ) -> Result<String, Box<dyn Error>> {
        self.puts += 1;
        let context = match args.take_key("context") {
            Some(client) => Some(
                self.contexts
                    .get(client)
                    .ok_or("nobody of that name has read")?
                    .clone(),
            ),
            None => None,
        };
        let write = args.take_key("write").map(str::parse).transpose()?;
        let time = args
            .take_key("at")
            .map(str::parse)
            .transpose()?
            .unwrap_or(self.puts);
        args.reject_next()?;
        let write_id = WriteId {
            client: u64::from(write.is_some()),
            sequence: write.unwrap_or(self.puts),
        };
        let replica = self.replica(node);
        if let Some(first) = replica.state.find_write(write_id) {
            return Ok(format!("already there as {}", show_sibling(first)));
        }
        let dot = replica.issue();
        let timestamp = Timestamp {
            wall: WallTime(time),
            logical: 0,
        };
        replica.state = replica
            .state
            .put(dot, value, timestamp, write_id, context.as_ref())?;
        Ok(show(&replica.state))
    }

    fn on_replica(&mut self, node: NodeId, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "put" | "put-unsynced" => {
                let value = args.next_pos().ok_or("put what?")?;
                self.put(node, Some(Bytes::copy_from_slice(value.as_bytes())), &mut args)?
            }
            "delete" => self.put(node, None, &mut args)?,
            "read" => {
                let state = self.replica(node).state.clone();
                if let Some(client) = args.take_key("as") {
                    self.contexts.insert(client.to_owned(), state.clock().clone());
                }
                read(&state)
            }
            "send" => {
                let state = self.replica(node).state.clone();
                let mut output = Vec::new();
                while let Some(peer) = args.next_pos() {
                    let peer: NodeId = peer.parse()?;
                    let receiver = self.replica(peer);
                    let news = if receiver.state.includes(&state) {
                        "no news"
                    } else {
                        "merged"
                    };
                    receiver.state = receiver.state.merge(&state);
                    receiver.durable_state = receiver.state.clone();
                    output.push(format!("{peer} {news}: {}", show(&receiver.state)));
                }
                output.join("\n")
            }
            "show" => show(&self.replica(node).state),
            "elsewhere" => {
                let count: u64 = args.next_pos().ok_or("how many?")?.parse()?;
                let replica = self.replica(node);
                let dots: Vec<String> = (0..count).map(|_| replica.issue().to_string()).collect();
                dots.join(" ")
            }
            "sync" => String::new(),
            "crash" => {
                let replica = self.replica(node);
                replica.ids += 1;
                replica.recover(ReplicaId::new(node, 0xd000 + replica.ids), 0)
            }
            "crash-keep-id" => {
                let replica = self.replica(node);
                replica.recover(replica.counter.replica(), replica.durable_mark)
            }
            "crash-restart-counter" => {
                let replica = self.replica(node);
                replica.recover(replica.counter.replica(), 0)
            }
            "replace" => {
                let ids = self.replica(node).ids + 1;
                let replica = Replica::new(node, ids);
                let output = format!("now {}", replica.counter.replica());
                self.replicas.insert(node, replica);
                output
            }
            name => return Err(format!("unknown command {name}").into()),
        };
        args.reject_next()?;
        if matches!(command.name.as_str(), "put" | "delete" | "sync") {
            let replica = self.replica(node);
            replica.durable_state = replica.state.clone();
        }
        Ok(output)
    }
}

impl goldenscript::Runner for World {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        if let Some(node) = &context.prefix {
            return self.on_replica(node.parse()?, command);
        }
        let mut args = command.consume_args();
        match (command.name.as_str(), args.next_pos(), args.next_pos()) {
            ("compare", Some(left), Some(right)) => {
                let left = self.replica(left.parse()?).state.clone();
                let right = &self.replica(right.parse()?).state;
                let states = if left.digest() == right.digest() {
                    "same state"
                } else {
                    "other state"
                };
                Ok(format!("{:?}, {states}", left.clock().compare(right.clock())))
            }
            _ => Err(format!("unknown command {command}").into()),
        }
    }
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
