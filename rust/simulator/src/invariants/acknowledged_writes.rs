//! Writes acknowledged by a shard are present at the end, on every member.
//!
//! An appended entry is present. A key that was put has that value or a later one; it is absent only if a client deleted it.
//! This compares the disks with the history of the clients, independently of the logs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_consensus::rows;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_protocol::api::{LogEntry, Record, Request, Response};
use quorate_protocol::shard_command::Command;
use quorate_raft::types::GroupId;

use crate::history::Operation;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks only the end of the run.
pub(super) struct AcknowledgedWrites;

/// The rows of a group on a disk.
#[derive(Default)]
struct Found {
    records: BTreeMap<Key, Record>,
    entries: BTreeMap<u64, LogEntry>,
}

impl Found {
    fn on(world: &World, node: NodeId, group: GroupId) -> Result<Self, Error> {
        let mut found = Found::default();
        for (row, value) in world.group_rows(node, group) {
            if rows::records(group, None, None).contains(&row) {
                let key = rows::decode_record_key(&row)?;
                found.records.insert(key, rows::decode_record(&value)?);
            } else if rows::entries(group, 0).contains(&row) {
                let entry = rows::decode_entry(&row, &value)?;
                found.entries.insert(entry.id, entry);
            }
        }
        Ok(found)
    }

    /// Whether it has the effects of this command at this log index. `deleted`: keys that may have been deleted.
    fn has(&self, index: u64, command: &Command, deleted: &BTreeSet<&Key>) -> bool {
        match command {
            Command::Append { source, data } => {
                let entry = self.entries.get(&index);
                entry.is_some_and(|entry| entry.source == *source && entry.data == *data)
            }
            Command::Write(writes) => writes.iter().all(|write| match self.records.get(&write.key) {
                None => deleted.contains(&write.key),
                Some(record) if record.version == index => Some(&record.value) == write.value.as_ref(),
                Some(record) => record.version > index,
            }),
        }
    }
}

fn commands(operations: &[Operation], of: GroupId) -> impl Iterator<Item = (&Operation, &Command)> {
    operations
        .iter()
        .filter_map(move |operation| match operation.shard_request()? {
            (group, Request::Propose { command, .. }) if group == of => Some((operation, command)),
            _ => None,
        })
}

/// The keys that clients deleted, or tried to.
fn deleted(operations: &[Operation], group: GroupId) -> BTreeSet<&Key> {
    let writes = commands(operations, group).flat_map(|(_, command)| match command {
        Command::Write(writes) => &writes[..],
        Command::Append { .. } => &[],
    });
    writes
        .filter(|write| write.value.is_none())
        .map(|write| &write.key)
        .collect()
}

impl Invariant<World> for AcknowledgedWrites {
    fn name(&self) -> &'static str {
        "acknowledged writes"
    }

    fn observe(&mut self, _world: &World, _observation: Observation<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        let operations = world.history().operations();
        for (_, group) in world.groups() {
            let deleted = deleted(operations, group.id);
            for &node in &group.members {
                let found = Found::on(world, node, group.id).map_err(|error| error.to_string())?;
                for (operation, command) in commands(operations, group.id) {
                    if let Some(Response::Committed(committed)) = operation.response()
                        && !found.has(committed.index, command, &deleted)
                    {
                        return Err(format!("{node} lacks the effects of {operation:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}
