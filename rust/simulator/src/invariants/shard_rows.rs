//! The rows of a shard follow from its log.
//!
//! Rows are derived from the log, many entries at a time. The derived rows of a server are compared with a model that
//! executes the same log: each written row equals that of the model after the last of these entries, and each row that they
//! change is written. So all servers execute the same commands with the same effects. (State machine safety: Ongaro and
//! Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3.)

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_consensus::rows::{self, Marker};
use quorate_core::error::Error;
use quorate_core::files::FileTask;
use quorate_core::store::StateWrite;
use quorate_protocol::role::{Effect, Event, RoleId};
use quorate_protocol::shard_command::{Command, Write};
use quorate_raft::format;
use quorate_raft::types::GroupId;

use super::Server;
use crate::log_model::LogModel;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The applied index of each server's rows; unknown after a start, or while it loads a snapshot.
#[derive(Default)]
pub(super) struct ShardRows {
    applied: BTreeMap<Server, u64>,
}

/// The rows of records and entries changed by these log entries.
fn changed(log_model: &LogModel, group: GroupId, behind: u64, through: u64) -> BTreeSet<Bytes> {
    let executions = log_model.executions().range(behind + 1..=through);
    let done = executions.filter(|(_, execution)| execution.is_done());
    done.flat_map(|(index, execution)| match &execution.command {
        Command::Append { .. } => vec![rows::entry_key(group, *index)],
        Command::Write(writes) => {
            let row = |write: &Write| rows::record_key(group, &write.key);
            writes.iter().map(row).collect()
        }
    })
    .collect()
}

/// Whether a written row equals that of the model after this entry.
fn is_right(log_model: &LogModel, group: GroupId, index: u64, write: &StateWrite) -> Result<bool, String> {
    let text = |error: Error| error.to_string();
    let row = &write.key;
    if rows::records(group, None, None).contains(row) {
        let key = rows::decode_record_key(row).map_err(text)?;
        let record = write.value.as_ref().map(|value| rows::decode_record(value));
        return Ok(log_model.record_at(&key, index) == record.transpose().map_err(text)?.as_ref());
    }
    if rows::entries(group, 0).contains(row) {
        let value = write.value.as_ref().ok_or("an appended entry is deleted")?;
        let entry = rows::decode_entry(row, value).map_err(text)?;
        return Ok(entry.id <= index && log_model.appended().get(&entry.id) == Some(&entry));
    }
    if *row == rows::marker_key(group) {
        let value = write.value.as_ref().ok_or("the marker is deleted")?;
        let marker: Marker = format::decode("marker", value).map_err(|error| error.to_string())?;
        let entry = log_model.entry(index);
        return Ok(entry.is_some_and(|entry| entry.position() == marker.applied));
    }
    // The row of a session, which is checked by the executed commands.
    Ok(true)
}

fn check(
    log_model: &LogModel,
    server: Server,
    before: Option<u64>,
    index: u64,
    writes: &[StateWrite],
) -> Result<(), String> {
    for write in writes {
        if !is_right(log_model, server.group, index, write)? {
            return Err(format!(
                "{server} writes a wrong row after entry {index}: {write:?}"
            ));
        }
    }
    let written: BTreeSet<&Bytes> = writes.iter().map(|write| &write.key).collect();
    let Some(before) = before else { return Ok(()) };
    match changed(log_model, server.group, before, index)
        .iter()
        .find(|row| !written.contains(row))
    {
        Some(row) => Err(format!(
            "{server} has executed {before}..={index} without writing the row {row:?}"
        )),
        None => Ok(()),
    }
}

impl Invariant<World> for ShardRows {
    fn name(&self) -> &'static str {
        "rows follow the log"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Handled {
            node,
            role: RoleId::Shard(group),
            event,
            effects,
        } = observation
        else {
            return Ok(());
        };
        let server = Server { group, node };
        if matches!(event, Event::Start) {
            self.applied.remove(&server);
        }
        for effect in effects {
            if let Effect::Files {
                task: FileTask::Load { .. },
                ..
            } = effect
            {
                self.applied.remove(&server);
            }
            if let Effect::ApplyRows { token, writes } = effect {
                let before = self.applied.insert(server, *token);
                let log_model = world
                    .log_models()
                    .get(group)
                    .ok_or("executed without a committed entry")?;
                check(log_model, server, before, *token, writes)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
