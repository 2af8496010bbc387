//! Readiness: a change is answered when the nodes serve it.
//!
//! A change that is committed, or known to this node, does not mean that its roles exist: the node role
//! starts them, a little later, and reports it by [`Message::Defined`]. Until then an answer would send its
//! client to a node that does not serve the keyspace yet.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::api::Response;
use quorate_protocol::control_command::Outcome;
use quorate_protocol::keyspace::Mode;
use quorate_protocol::message::Message;
use quorate_protocol::role::{Effect, RoleId};
use quorate_raft::event::{ReadLevel, ReadRequest};

use crate::control::pending::{Attempt, PendingKind, PendingRequest};
use crate::control::{Control, PUSH, SERVE_TIMEOUT};
use crate::turn::Turn;

impl Control {
    /// A change was applied: it is answered when the reachable nodes serve it.
    pub(super) fn done(&mut self, id: u64, outcome: Outcome, turn: &mut Turn<'_>) {
        let generation = self.applied().map_or(0, |(_, state)| state.generation());
        let until = turn.now.instant + SERVE_TIMEOUT;
        self.set(
            id,
            Attempt::Serving {
                outcome,
                generation,
                until,
            },
        );
        // The heartbeat round of a read publishes the commit index to the others.
        let push = ReadRequest {
            id: PUSH,
            deadline: until,
            level: ReadLevel::Linearizable,
            query: Bytes::new(),
        };
        self.start_read(push, turn);
    }

    /// This node has caught up with the leader, or failed to.
    pub(super) fn queried(&mut self, id: u64, caught_up: bool, turn: &mut Turn<'_>) {
        let Some(pending) = self
            .pending
            .get(&id)
            .filter(|pending| pending.attempt == Attempt::Reading)
        else {
            return;
        };
        let generation = self.applied().map_or(0, |(_, state)| state.generation());
        match &pending.kind {
            // Answered when the node role serves what this node knows.
            _ if caught_up => {
                let until = pending.answer_by;
                let outcome = Outcome::Done;
                self.set(
                    id,
                    Attempt::Serving {
                        outcome,
                        generation,
                        until,
                    },
                );
            }
            PendingKind::List => self.list(id, turn),
            _ => self.pause(id, turn.now),
        }
    }

    /// A node serves all keyspaces of a generation.
    pub(super) fn serves(&mut self, node: NodeId, generation: u64, turn: &mut Turn<'_>) {
        let known = self.serving.entry(node).or_default();
        *known = generation.max(*known);
        if node == self.me() {
            // The node role serves the last published state, also after the next start.
            if generation == self.known.generation() && self.saved.has(generation) {
                self.gc.collect(self.known.dropped_ids(), turn.effects);
            }
            self.announce_ready(turn);
        }
    }

    /// Reports to the leader what this node serves.
    pub(super) fn announce_ready(&self, turn: &mut Turn<'_>) {
        let served = self.serving.get(&self.me()).copied();
        if let (Some(generation), Some(leader)) = (served, self.leader())
            && leader != self.me()
            && self.alive(leader)
        {
            let deadline = turn.now.instant + SERVE_TIMEOUT;
            self.send(
                Self::peer_role(leader),
                generation,
                deadline,
                Message::Defined,
                turn,
            );
        }
    }

    fn is_served(&self, node: NodeId, generation: u64) -> bool {
        self.serving
            .get(&node)
            .is_some_and(|served| *served >= generation)
    }

    pub(super) fn answer_served(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let Some(pending) = self.pending.get(&id) else {
                continue;
            };
            let Attempt::Serving {
                outcome,
                generation,
                until,
            } = &pending.attempt
            else {
                continue;
            };
            let here = self.is_served(self.me(), *generation);
            match &pending.kind {
                PendingKind::Change(_) => {
                    let everywhere = here
                        && self
                            .configured()
                            .ids()
                            .all(|node| !self.alive(node) || self.is_served(node, *generation));
                    let refused = matches!(outcome, Outcome::Refused(_));
                    if everywhere || refused || *until <= now {
                        let result = outcome.clone().into_response();
                        self.finish(id, result, turn);
                    }
                }
                PendingKind::List if here => self.list(id, turn),
                PendingKind::Relay(_, _, request) if here => {
                    let keyspace = request.keyspace();
                    self.relay(id, keyspace, turn);
                }
                PendingKind::List | PendingKind::Relay(..) => {}
            }
        }
    }

    pub(super) fn list(&mut self, id: u64, turn: &mut Turn<'_>) {
        let keyspaces = self.known.keyspaces().values().cloned().collect();
        self.finish(id, Ok(Response::Keyspaces(keyspaces)), turn);
    }

    /// Passes a request to the coordinator or forwarder of its keyspace, if it exists.
    fn relay(&mut self, id: u64, keyspace: Option<KeyspaceId>, turn: &mut Turn<'_>) {
        let known = keyspace.and_then(|keyspace| self.known.keyspaces().get(&keyspace));
        let Some(known) = known else {
            let names: Vec<&str> = self
                .known
                .keyspaces()
                .values()
                .map(|one| one.settings.name.as_str())
                .collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            let error = Error::NotFound(format!(
                "keyspace {} does not exist on {} (known: {names}): it was dropped, or was never there; open the \
                 keyspace again by its name",
                keyspace.map_or_else(String::new, |keyspace| keyspace.to_string()),
                self.me()
            ));
            return self.finish(id, Err(error), turn);
        };
        let to = match known.settings.mode {
            Mode::Quorum => RoleId::Coordinator(known.id),
            Mode::Consensus => RoleId::Forwarder(known.id),
        };
        if let Some(PendingRequest {
            kind: PendingKind::Relay(client, header, request),
            ..
        }) = self.pending.remove(&id)
        {
            turn.effects.push(Effect::Relay {
                to,
                client,
                header,
                request,
            });
        }
    }
}
