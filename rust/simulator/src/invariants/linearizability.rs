//! The operations on the keys of a shard are linearizable.
//!
//! The checker gets the whole history of every key: writes with their conditions, versions, and unknown outcomes; reads of
//! single keys, several keys, and ranges, including absent keys. Stale reads are excluded.
//! (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", 1990; see `rust/checker` for the
//! algorithm.)

use std::collections::BTreeMap;

use quorate_checker::{Action, Budget, Condition, Operation as Step, Outcome, Verdict, check};
use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_protocol::api::{Record, Request, Response};
use quorate_protocol::shard_command::{self, Command, Write};
use quorate_raft::types::GroupId;

use crate::history::Operation;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The budget for the keys of one shard, which is ample.
const BUDGET: Budget = Budget {
    steps: 1_000_000,
    time: None,
};

/// Checks only the end of the run.
pub(super) struct Linearizability;

fn condition(condition: shard_command::Condition) -> Condition {
    match condition {
        shard_command::Condition::Any => Condition::Any,
        shard_command::Condition::Absent => Condition::Absent,
        shard_command::Condition::Version(version) => Condition::Version(version),
    }
}

/// The part of an operation that concerns one key.
fn step(operation: &Operation, key: &Key, action: Action, outcome: Outcome) -> Step {
    let returned = operation.completed.as_ref().map(|(at, _)| at.0);
    Step {
        process: u64::from(operation.client),
        key: key.encode().to_vec(),
        action,
        returned: returned.filter(|_| outcome != Outcome::Unknown),
        outcome,
        invoked: operation.invoked.0,
    }
}

fn found(record: Option<&Record>) -> Outcome {
    match record {
        None => Outcome::Missing,
        Some(record) => Outcome::Found {
            value: record.value.to_vec(),
            version: Some(record.version),
        },
    }
}

/// The part of a batch that concerns one of its keys.
fn written(operation: &Operation, write: &Write) -> Step {
    let outcome = match operation.completed.as_ref().map(|(_, result)| result) {
        Some(Ok(Response::Committed(committed))) => Outcome::Done {
            version: Some(committed.index),
        },
        // The other keys of the batch were not written either, regardless of their conditions.
        Some(Err(Error::ConditionFailed { key, current })) => match *key == write.key.to_string() {
            true => Outcome::ConditionFailed { current: *current },
            false => Outcome::Failed,
        },
        Some(Err(error)) if error.is_definite() => Outcome::Failed,
        _ => Outcome::Unknown,
    };
    let condition = condition(write.condition);
    let action = match &write.value {
        Some(value) => Action::Put {
            value: value.to_vec(),
            condition,
        },
        None => Action::Delete { condition },
    };
    step(operation, &write.key, action, outcome)
}

/// The parts of an operation by key; `keys` are all keys of its shard.
fn steps(operation: &Operation, request: &Request, keys: &[Key]) -> Vec<Step> {
    let got = |key: &Key, record: Option<&Record>| step(operation, key, Action::Get, found(record));
    match (request, operation.response()) {
        (
            Request::Propose {
                command: Command::Write(writes),
                ..
            },
            _,
        ) => writes.iter().map(|write| written(operation, write)).collect(),
        (Request::Read { keys, .. }, Some(Response::Records { records, .. })) => {
            let pairs = keys.iter().zip(records);
            pairs.map(|(key, record)| got(key, record.as_ref())).collect()
        }
        (
            Request::ReadRange {
                start,
                end,
                after_start,
                ..
            },
            Some(Response::RecordPage { entries, next, .. }),
        ) => {
            let seen = |key: &&Key| {
                let begun = start
                    .as_ref()
                    .is_none_or(|start| *key > start || !after_start && *key == start);
                let before_end = next.as_ref().is_none_or(|next| *key <= next);
                begun && before_end && end.as_ref().is_none_or(|end| *key < end)
            };
            let records: BTreeMap<&Key, &Record> =
                entries.iter().map(|(key, record)| (key, record)).collect();
            let seen = keys.iter().filter(seen);
            seen.map(|key| got(key, records.get(key).copied())).collect()
        }
        _ => Vec::new(),
    }
}

/// The keys ever written in a shard.
fn keys(operations: &[(&Operation, &Request)]) -> Vec<Key> {
    let writes = operations.iter().flat_map(|(_, request)| match request {
        Request::Propose {
            command: Command::Write(writes),
            ..
        } => &writes[..],
        _ => &[],
    });
    let mut keys: Vec<Key> = writes.map(|write| write.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Invariant<World> for Linearizability {
    fn name(&self) -> &'static str {
        "linearizability"
    }

    fn observe(&mut self, _world: &World, _observation: Observation<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        check_history(world.history().operations())
    }
}

/// Runs the checker on all shards.
fn check_history(operations: &[Operation]) -> Result<(), String> {
    let mut groups: BTreeMap<GroupId, Vec<(&Operation, &Request)>> = BTreeMap::new();
    for operation in operations {
        if let Some((group, request)) = operation.shard_request()
            && !request.is_stale_read()
        {
            groups.entry(group).or_default().push((operation, request));
        }
    }
    for (group, operations) in groups {
        let keys = keys(&operations);
        let history: Vec<Step> = operations
            .iter()
            .flat_map(|(operation, request)| steps(operation, request, &keys))
            .collect();
        match check(&history, &BUDGET).map_err(|malformed| malformed.to_string())? {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable(violation) => return Err(format!("in {group}, {violation}")),
            Verdict::Unknown { keys } => {
                return Err(format!(
                    "{BUDGET:?} is too little to check these keys of {group}: {keys:?}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "linearizability_tests.rs"]
mod tests;
