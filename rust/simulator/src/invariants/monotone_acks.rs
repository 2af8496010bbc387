//! Acknowledged writes stay visible.
//!
//! A read invoked after the acknowledgement of a write sees that write, or one that replaced it, if their levels overlap
//! (R + W > N). So quorums implement a regular register (Lamport, "On interprocess communication", 1986): the set of
//! acknowledged writes that reads cover only grows.

use std::collections::BTreeMap;

use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::{Entry, Response};
use quorate_versions::Dot;

use crate::history::{Action, Operation};
use crate::observation::{Invariant, Observation};
use crate::world::World;
use crate::write_model::Birth;

/// An acknowledged write.
struct Acknowledged {
    dot: Dot,
    at: Instant,
    required: u8,
}

/// Acknowledged writes by key, in the order of their acknowledgement.
#[derive(Default)]
pub(super) struct MonotoneAcks {
    acknowledged: BTreeMap<(KeyspaceId, Key), Vec<Acknowledged>>,
}

impl MonotoneAcks {
    fn check(&self, world: &World, read: &Operation, key: &Key, entry: Option<&Entry>) -> Result<(), String> {
        let replicas = world.replicas(read.keyspace);
        let required = world.required(read.keyspace, read.level);
        let writes = self
            .acknowledged
            .get(&(read.keyspace, key.clone()))
            .map_or(&[][..], Vec::as_slice);
        // Scans omit deleted keys, and it is undetermined whether a delete won.
        let deleted = || world.write_model().was_deleted(read.keyspace, key);
        for write in writes {
            let overlap = write.required + required > replicas && write.at < read.invoked;
            let visible = || entry.map_or_else(deleted, |entry| entry.context.contains(write.dot));
            let forfeited = || {
                let birth = world.write_model().birth(read.keyspace, write.dot);
                birth.is_some_and(|birth: &Birth| birth.forfeited)
            };
            if overlap && !visible() && !forfeited() {
                return Err(format!(
                    "{:?} of {key} was acknowledged at {:.6} s but a later read at {} does not cover it: {read:?}",
                    write.dot,
                    write.at.0 as f64 / 1e6,
                    read.level
                ));
            }
        }
        Ok(())
    }
}

impl Invariant<World> for MonotoneAcks {
    fn name(&self) -> &'static str {
        "monotone acknowledgements"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Completed { operation } = observation else {
            return Ok(());
        };
        let operation = &world.history().operations()[operation];
        let Some((at, Ok(response))) = &operation.completed else {
            return Ok(());
        };
        match (&operation.action, response) {
            (Action::Put { key, .. }, Response::Written(written)) => {
                let required = world.required(operation.keyspace, operation.level);
                let writes = self
                    .acknowledged
                    .entry((operation.keyspace, key.clone()))
                    .or_default();
                writes.push(Acknowledged {
                    dot: written.dot,
                    at: *at,
                    required,
                });
                Ok(())
            }
            // Shards are linearizable: see `super::linearizability`.
            (Action::Shard(_), _) => Ok(()),
            (Action::Get { key }, Response::Entry(entry)) => self.check(world, operation, key, Some(entry)),
            (Action::Scan { start, end, .. }, Response::Page(page)) => {
                let within = |key: &Key| {
                    start.as_ref().is_none_or(|start| key >= start)
                        && end.as_ref().is_none_or(|end| key < end)
                        && page.next.as_ref().is_none_or(|next| key <= next)
                };
                let keys = self
                    .acknowledged
                    .keys()
                    .filter(|(keyspace, key)| *keyspace == operation.keyspace && within(key));
                for (_, key) in keys {
                    let entry = page
                        .entries
                        .iter()
                        .find(|(found, _)| found == key)
                        .map(|(_, entry)| entry);
                    self.check(world, operation, key, entry)?;
                }
                Ok(())
            }
            (action, response) => Err(format!("unexpected response type for {action:?}: {response:?}")),
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
