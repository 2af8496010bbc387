//! A command is executed once, however often it is retried, at the log index that its client received.
//!
//! An acknowledged command was executed at the log index in its response, and nowhere else. A command that failed definitely
//! was never executed, and one with unknown outcome at most once: the client core retries it, at any node, and its session
//! deduplicates these attempts (Ongaro, "Consensus: Bridging Theory and Practice", 2014, section 6.3). Log indexes increase
//! in real time: a command invoked after a client has observed an entry is after that entry.

use std::collections::BTreeMap;

use quorate_core::error::Error;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::shard_command::{Command, Outcome};
use quorate_raft::format;
use quorate_raft::types::GroupId;

use crate::history::Operation;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The operation of each acknowledged log index.
#[derive(Default)]
pub(super) struct ExactlyOnce {
    acknowledged_by: BTreeMap<(GroupId, u64), usize>,
}

/// Whether the command is unique in the run, because of its values.
fn is_unique(command: &Command) -> bool {
    match command {
        Command::Append { .. } => true,
        Command::Write(writes) => writes.iter().any(|write| write.value.is_some()),
    }
}

/// The command of an operation.
fn proposed(operation: &Operation) -> Option<(GroupId, &Command)> {
    match operation.shard_request()? {
        (group, Request::Propose { command, .. }) => Some((group, command)),
        _ => None,
    }
}

impl ExactlyOnce {
    fn acknowledged(&mut self, world: &World, number: usize) -> Result<(), String> {
        let operation = &world.history().operations()[number];
        let Some((group, command)) = proposed(operation) else {
            return Ok(());
        };
        let Some(Response::Committed(committed)) = operation.response() else {
            return Ok(());
        };
        let first = *self
            .acknowledged_by
            .entry((group, committed.index))
            .or_insert(number);
        if first != number {
            let first = &world.history().operations()[first];
            return Err(format!(
                "two operations have the same log index: {first:?} and {operation:?}"
            ));
        }
        let done = Outcome::Done {
            index: committed.index,
            term: committed.term,
        };
        let log_model = world.log_models().get(group);
        let execution = log_model.and_then(|log_model| log_model.executions().get(&committed.index));
        if execution.is_none_or(|execution| execution.command != *command || execution.outcome != done) {
            return Err(format!(
                "the executed command at its index is {execution:?}: {operation:?}"
            ));
        }
        let known = world.history().known_before(group, operation.invoked);
        if committed.index <= known {
            return Err(format!(
                "entry {known} had been observed before the invocation: {operation:?}"
            ));
        }
        Ok(())
    }
}

impl Invariant<World> for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly once"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Completed { operation } => self.acknowledged(world, operation),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        let mut executed: BTreeMap<(GroupId, bytes::Bytes), Vec<(u64, bool)>> = BTreeMap::new();
        for (group, log_model) in world.log_models().iter() {
            for (index, execution) in log_model.executions() {
                let name = (group, format::encode_inner(&execution.command));
                executed
                    .entry(name)
                    .or_default()
                    .push((*index, execution.is_done()));
            }
        }
        for operation in world.history().operations() {
            let Some((group, command)) = proposed(operation).filter(|(_, command)| is_unique(command)) else {
                continue;
            };
            let times = executed
                .get(&(group, format::encode_inner(command)))
                .map_or(&[][..], Vec::as_slice);
            let right = match operation.completed.as_ref().map(|(_, result)| result) {
                Some(Ok(Response::Committed(committed))) => times == [(committed.index, true)],
                Some(Err(Error::ConditionFailed { .. })) => matches!(times, [(_, false)]),
                Some(Err(error)) if error.is_definite() => times.is_empty(),
                Some(Ok(_)) => false,
                Some(Err(_)) | None => times.len() <= 1,
            };
            if !right {
                return Err(format!(
                    "executed at these entries (with or without an effect): {times:?}: {operation:?}"
                ));
            }
        }
        Ok(())
    }
}
