//! At the end, all members of a shard have the same rows, which are those of the log model.
//!
//! (The point of a replicated state machine: Schneider, "Implementing fault-tolerant services using the state machine approach",
//! 1990.)

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::rows;
use quorate_core::error::Error;
use quorate_protocol::api::LogEntry;
use quorate_raft::types::GroupId;

use crate::log_model::LogModel;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// Checks only the end of the run.
pub(super) struct ReplicasEqual;

/// Whether the rows equal those of the model, except for sessions.
fn are_right(log_model: &LogModel, group: GroupId, found: &[(Bytes, Bytes)]) -> Result<bool, Error> {
    let (mut records, mut entries) = (BTreeMap::new(), Vec::new());
    for (row, value) in found {
        if rows::records(group, None, None).contains(row) {
            records.insert(rows::decode_record_key(row)?, rows::decode_record(value)?);
        } else if rows::entries(group, 0).contains(row) {
            entries.push(rows::decode_entry(row, value)?);
        }
    }
    let appended: Vec<&LogEntry> = log_model.appended().values().collect();
    Ok(log_model.records_at(u64::MAX).into_iter().eq(&records) && appended.into_iter().eq(&entries))
}

impl Invariant<World> for ReplicasEqual {
    fn name(&self) -> &'static str {
        "replicas equal"
    }

    fn observe(&mut self, _world: &World, _observation: Observation<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        let nothing = LogModel::default();
        for (_, group) in world.groups() {
            let log_model = world.log_models().get(group.id).unwrap_or(&nothing);
            let first = world.group_rows(group.members[0], group.id);
            for &node in &group.members {
                let found = world.group_rows(node, group.id);
                let applied = world.shard(node, group.id).and_then(|shard| shard.applied());
                if found != first {
                    return Err(format!(
                        "{node} has other rows in {} than {}: {found:?} and {first:?}",
                        group.id, group.members[0]
                    ));
                }
                if applied.is_none_or(|applied| applied.0 != log_model.last()) {
                    return Err(format!(
                        "{node} has executed {} up to {applied:?}, but {} is committed",
                        group.id,
                        log_model.last()
                    ));
                }
            }
            if !are_right(log_model, group.id, &first).map_err(|error| error.to_string())? {
                return Err(format!("the rows of {} differ from its log: {first:?}", group.id));
            }
        }
        Ok(())
    }
}
