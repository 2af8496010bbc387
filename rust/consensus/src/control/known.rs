//! What a node knows by itself: the newest state that it knows to be committed, as it was applied, kept beside the log.
//!
//! A node that starts begins with what its disk has of it, so this is also what decides which keyspaces' roles ever start
//! again. A keyspace that is not in it any more is gone for good on this node, since ids are never given twice. So what it
//! has left may be removed once the state without it is durable, and not before ([`gc`](super::gc)).
//!
//! # Invariants
//! * The generation that is durable never falls: nothing is written before it was read, and one write is in flight at a time.
//! * The node role is told of keyspaces only when it was read.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::store::{JournalOp, Priority, Query, Rows};
use quorate_core::time::Instant;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::Header;
use quorate_protocol::role::{Effect, Event, RoleId};
use quorate_protocol::telemetry::TimelineEvent;

use crate::control::{Control, ControlPlane, PROPOSALS_TIMER};
use crate::host::OWN_TOKENS;
use crate::turn::Turn;

/// The read of it.
pub(super) const KNOWN_READ: u64 = OWN_TOKENS;
/// The persist of it.
pub(super) const KNOWN_SAVE: u64 = OWN_TOKENS;
/// The timer after which it is written again.
const KNOWN_TIMER: u64 = PROPOSALS_TIMER + 1;
/// The first timer that others may use.
pub(super) const KNOWN_TIMERS_END: u64 = KNOWN_TIMER + 1;
/// How long a full disk is left alone.
pub(super) const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Its name.
pub(super) fn known_key() -> Bytes {
    Bytes::from_static(b"control/known")
}

/// What the disk has of the state that this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Saved {
    /// Whether what the disk had at the start was read.
    loaded: bool,
    /// The generation that is durable.
    durable: u64,
    /// The generation that is on its way to the disk.
    in_flight: Option<u64>,
    /// The newest generation that the disk had no room for.
    refused: u64,
}

impl Saved {
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether a node that starts with what the disk has begins with this generation, or a later one.
    pub(super) fn has(&self, generation: u64) -> bool {
        self.loaded && self.durable >= generation
    }
}

impl Control {
    pub(super) fn read_known(turn: &mut Turn<'_>) {
        turn.effects.push(Effect::Read {
            token: KNOWN_READ,
            query: Query::Hard { key: known_key() },
        });
    }

    /// # Panics
    /// If what this node knows cannot be read: it must not go on without a keyspace that it holds data of.
    fn recall(&mut self, result: &Result<Rows, Error>, turn: &mut Turn<'_>) {
        let unreadable = |error: &dyn std::fmt::Display| -> ! {
            panic!("the control plane's state cannot be read: {error}")
        };
        let rows = result.as_ref().unwrap_or_else(|error| unreadable(error));
        if let Some((_, bytes)) = rows.rows.first() {
            let known = ControlPlane::load(bytes).unwrap_or_else(|error| unreadable(&error));
            let generation = known.generation();
            self.saved.durable = generation;
            if generation > self.known.generation() {
                turn.effects
                    .push(Effect::Emit(TimelineEvent::TopologyChanged { generation }));
                self.known = known;
            }
        }
        self.saved.loaded = true;
        self.tell_node(turn);
        self.save(turn);
        for event in std::mem::take(&mut self.early) {
            self.take(event, turn);
        }
    }

    /// Keeps what is known beside the log, one state after the other.
    pub(super) fn save(&mut self, turn: &mut Turn<'_>) {
        if self.known.generation() > self.saved.refused {
            self.write_known(turn);
        }
    }

    fn write_known(&mut self, turn: &mut Turn<'_>) {
        let generation = self.known.generation();
        let saved = &mut self.saved;
        if !saved.loaded || saved.in_flight.is_some() || generation <= saved.durable {
            return;
        }
        saved.in_flight = Some(generation);
        turn.effects.push(Effect::Persist {
            token: KNOWN_SAVE,
            priority: Priority::Normal,
            ops: vec![JournalOp::PutHard {
                key: known_key(),
                value: self.known.save(),
            }],
        });
    }

    fn on_saved(&mut self, turn: &mut Turn<'_>) {
        let generation = self.saved.in_flight.take();
        self.saved.durable = generation.unwrap_or(self.saved.durable);
        self.tell_node(turn);
        self.save(turn);
    }

    /// The disk has no room for it. It is served all the same, since the log has it too; but the next start may begin
    /// with an earlier state, and so it is written again.
    fn on_save_refused(&mut self, turn: &mut Turn<'_>) {
        let generation = self.saved.in_flight.take();
        self.saved.refused = generation.unwrap_or(self.saved.refused);
        turn.effects.push(Effect::SetTimer {
            id: KNOWN_TIMER,
            at: turn.now.instant + FULL_PAUSE,
        });
        self.tell_node(turn);
        self.save(turn);
    }

    /// Tells the node role which keyspaces there are.
    fn tell_node(&self, turn: &mut Turn<'_>) {
        let keyspaces = self.known.keyspaces().values().cloned().collect();
        let header = Header {
            generation: self.known.generation(),
            request: self.saved.durable.max(self.saved.refused),
            deadline: Instant::NEVER,
            trace: None,
        };
        turn.effects.push(Effect::SendLocal {
            to: RoleId::Node,
            header,
            message: LocalMessage::Keyspaces(keyspaces),
        });
    }

    /// Goes on with reading or saving what is known, if it is an answer to that.
    pub(super) fn save_on(&mut self, event: &Event, turn: &mut Turn<'_>) {
        match event {
            Event::Read {
                token: KNOWN_READ,
                result,
            } => self.recall(result, turn),
            Event::Persisted { tokens } if tokens.contains(&KNOWN_SAVE) => self.on_saved(turn),
            Event::PersistRefused { token: KNOWN_SAVE } => self.on_save_refused(turn),
            Event::Timer { id: KNOWN_TIMER } => self.write_known(turn),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
