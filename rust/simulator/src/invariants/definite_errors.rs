//! A definite error means what it says.
//!
//! A client that is told `Unavailable`, `StorageFull` or any other definite error has been promised that its write has
//! had no effect and never will. So its value must not be anywhere: in no answer, in no message, on no disk. (Kingsbury's
//! Jepsen and Maelstrom tell definite from indefinite errors for this reason: a checker may drop the former.)

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::api::Response;
use quorate_protocol::ids::KeyspaceId;
use quorate_protocol::versions::KeyState;

use super::{Invariant, Observation, states_sent};
use crate::history::Action;
use crate::world::World;

/// The values of writes that have failed for certain. Values are unique in a run, so each names its write.
#[derive(Default)]
pub(super) struct DefiniteErrors {
    failed: BTreeMap<Bytes, usize>,
}

impl DefiniteErrors {
    fn check_value(&self, world: &World, value: &Bytes, place: &str) -> Result<(), String> {
        match self.failed.get(value) {
            None => Ok(()),
            Some(&operation) => {
                let operation = &world.history().operations()[operation];
                Err(format!(
                    "a write that failed definitely is in {place}: {operation:?}"
                ))
            }
        }
    }

    fn check(&self, world: &World, state: &KeyState, place: &str) -> Result<(), String> {
        state
            .values()
            .try_for_each(|value| self.check_value(world, value, place))
    }

    /// The moment of failure: is it there already?
    fn failed(&mut self, world: &World, number: usize, keyspace: KeyspaceId) -> Result<(), String> {
        let operation = &world.history().operations()[number];
        let Action::Put {
            key,
            value: Some(value),
            ..
        } = &operation.action
        else {
            return Ok(());
        };
        self.failed.insert(value.clone(), number);
        for node in world.nodes() {
            self.check(
                world,
                &world.durable(node, keyspace, key),
                &format!("the durable state on {node}"),
            )?;
        }
        Ok(())
    }
}

impl Invariant for DefiniteErrors {
    fn name(&self) -> &'static str {
        "definite errors"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Handled { node, effects, .. } => {
                states_sent(effects).try_for_each(|(_, _, state)| {
                    self.check(world, state, &format!("a state that {node} sends"))
                })
            }
            Observation::Committed { node, changes } => changes.iter().try_for_each(|change| {
                let (_, _, state) = change.decode()?;
                self.check(world, &state, &format!("the durable state on {node}"))
            }),
            Observation::Completed { operation } => {
                let completed = &world.history().operations()[operation];
                if completed.failed_definitely() {
                    return self.failed(world, operation, completed.keyspace);
                }
                let entries: Vec<_> = match &completed.completed {
                    Some((_, Ok(Response::Entry(entry)))) => vec![entry],
                    Some((_, Ok(Response::Page(page)))) => {
                        page.entries.iter().map(|(_, entry)| entry).collect()
                    }
                    _ => Vec::new(),
                };
                entries
                    .iter()
                    .flat_map(|entry| &entry.versions)
                    .try_for_each(|version| self.check_value(world, &version.value, "the answer to a client"))
            }
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
