//! An operation with a definite error has no effect.
//!
//! `Unavailable`, `StorageFull` or any other definite error guarantees the client that its operation has had no effect and
//! never will. So its write must not appear anywhere. (Kingsbury's Jepsen and Maelstrom distinguish definite from indefinite
//! errors for this reason: a checker may ignore the former.)
//!
//! | operation | identified by | must not appear in |
//! |---|---|---|
//! | a put | its value, which is unique in a run | responses, messages, disks |
//! | a put or a delete | its write id | the writes with dots |
//! | a command, with or without a value | its session and sequence number | the executed commands of a group |
//! | an alteration or a drop of a keyspace | its write id | the executed changes of the control plane |
//! | a creation | the keyspace's name | the same, unless another creation accounts for it |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::ids::KeyspaceId;
use quorate_protocol::api::Response;
use quorate_protocol::control_command::{Command, Outcome};
use quorate_protocol::local::LocalMessage;
use quorate_protocol::role::{Effect, RoleId};
use quorate_raft::types::GroupId;
use quorate_versions::{KeyState, WriteId};

use super::states_sent;
use crate::control_log_model::Executed;
use crate::history::Action;
use crate::names::OperationRef;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The operations that failed definitely, and the executed ones.
#[derive(Default)]
pub(super) struct DefiniteErrors {
    /// By the value that they tried to write.
    failed: BTreeMap<Bytes, usize>,
    /// Puts and deletes with dots.
    born: BTreeSet<WriteId>,
    /// The number of checked entries of each group.
    seen: BTreeMap<GroupId, u64>,
    /// Executed operations.
    executed: BTreeMap<usize, String>,
}

impl DefiniteErrors {
    fn check_value(&self, world: &World, value: &Bytes, place: &str) -> Result<(), String> {
        match self.failed.get(value) {
            None => Ok(()),
            Some(&number) => lie(world, number, place),
        }
    }

    fn check(&self, world: &World, state: &KeyState, place: &str) -> Result<(), String> {
        state
            .values()
            .try_for_each(|value| self.check_value(world, value, place))
    }

    /// Checks at the time of failure whether the value is present already.
    fn failed(&mut self, world: &World, number: usize, keyspace: KeyspaceId) -> Result<(), String> {
        if let Some(place) = self.executed.get(&number) {
            return lie(world, number, place);
        }
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

    /// Records that an operation was executed; fails if it had failed definitely.
    fn executed(&mut self, world: &World, asked: Option<OperationRef>, place: String) -> Result<(), String> {
        let Some(OperationRef::Work(number)) = asked else {
            return Ok(());
        };
        if world.history().operations()[number].failed_definitely() {
            return lie(world, number, &place);
        }
        self.executed.entry(number).or_insert(place);
        Ok(())
    }

    /// Checks the writes to which a replica has assigned dots.
    fn made_events(&mut self, world: &World, effects: &[Effect]) -> Result<(), String> {
        for effect in effects {
            if let Effect::SendLocal {
                message: LocalMessage::Assigned { dot, state, .. },
                ..
            } = effect
                && let Some(event) = state.sibling(*dot)
                && self.born.insert(event.write_id)
            {
                let asked = world.names().of_write(event.write_id);
                self.executed(world, asked, format!("the write {dot:?}"))?;
            }
        }
        Ok(())
    }

    /// Checks the newly executed commands of a group.
    fn committed(&mut self, world: &World, group: GroupId) -> Result<(), String> {
        let Some(log_model) = world.log_models().get(group) else {
            return Ok(());
        };
        let seen = self.seen.insert(group, log_model.last()).unwrap_or(0);
        for index in seen + 1..=log_model.last() {
            if let Some(call) = log_model.call(index) {
                let asked = world.names().of_command(group, call);
                self.executed(world, asked, format!("entry {index} of {group}"))?;
            }
        }
        Ok(())
    }
}

/// The error for a write that failed definitely but is present.
fn lie(world: &World, number: usize, place: &str) -> Result<(), String> {
    let operation = &world.history().operations()[number];
    Err(format!(
        "a write that failed definitely is in {place}: {operation:?}"
    ))
}

/// Whether a change of keyspaces had an effect.
fn took_effect(executed: &Executed) -> bool {
    match &executed.outcome {
        Outcome::Keyspace { created, .. } => {
            *created || !matches!(executed.command, Command::CreateKeyspace(_))
        }
        Outcome::Done | Outcome::Refused(_) => false,
    }
}

/// Checks that alterations and drops that failed definitely were not executed.
fn check_changes(world: &World) -> Result<(), String> {
    for executed in world.control_log_model().executed() {
        if let Some(OperationRef::Change(number)) = world.names().of_write(executed.id)
            && let change @ (_, Some(Err(error))) = &world.changes()[number]
            && error.is_definite()
            && took_effect(executed)
        {
            return Err(format!(
                "a change that failed definitely was executed: {change:?}: {executed:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that every created keyspace has a creation that succeeded, or whose outcome is unknown.
fn check_creations(world: &World) -> Result<(), String> {
    for executed in world.control_log_model().executed() {
        let (Command::CreateKeyspace(wanted), Outcome::Keyspace { keyspace, .. }) =
            (&executed.command, &executed.outcome)
        else {
            continue;
        };
        let accounts_for = |(number, (settings, answer)): (usize, &crate::world::Creation)| {
            settings == wanted
                && match answer {
                    Some(Ok(Response::Keyspace {
                        keyspace: created, ..
                    })) => created.id == keyspace.id || world.was_retried(number),
                    Some(Ok(_)) | None => true,
                    Some(Err(error)) => !error.is_definite(),
                }
        };
        if took_effect(executed) && !world.creations().iter().enumerate().any(accounts_for) {
            let attempts = world
                .creations()
                .iter()
                .filter(|(settings, _)| settings == wanted);
            let attempts: Vec<_> = attempts.map(|(_, answer)| answer).collect();
            return Err(format!(
                "{keyspace:?} was created, but all of its creations failed definitely: {attempts:?}"
            ));
        }
    }
    Ok(())
}

impl Invariant<World> for DefiniteErrors {
    fn name(&self) -> &'static str {
        "definite errors"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Handled {
                node, role, effects, ..
            } => {
                match role {
                    RoleId::Replica(_) => self.made_events(world, effects)?,
                    RoleId::Shard(group) => self.committed(world, group)?,
                    _ => {}
                }
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
                    .try_for_each(|version| {
                        self.check_value(world, &version.value, "the response to a client")
                    })
            }
        }
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        check_changes(world)?;
        check_creations(world)
    }
}
