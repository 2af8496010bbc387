//! Local knowledge: the latest state that this node knows to be committed, saved as it was applied, beside
//! the log.
//!
//! A node starts with the saved state, so this also decides which keyspaces' roles start again. A keyspace
//! that is not in it any more is dropped for good on this node, since ids are never reused. So its data may
//! be removed once the state without it is durable, and not before ([`gc`](super::gc)).
//!
//! # Invariants
//! * The durable generation never decreases: nothing is written before the saved state was loaded, and one
//!   write is in flight at a time.
//! * Keyspaces are published to the node role only after it was loaded.

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

/// The token of the read.
pub(super) const KNOWN_READ: u64 = OWN_TOKENS;
/// The token of the persist.
pub(super) const KNOWN_SAVE: u64 = OWN_TOKENS;
/// The timer that retries the write.
const KNOWN_TIMER: u64 = PROPOSALS_TIMER + 1;
/// The first timer of other parts.
pub(super) const KNOWN_TIMERS_END: u64 = KNOWN_TIMER + 1;
/// The pause after a write to a full disk.
pub(super) const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The key of the saved state.
pub(super) fn known_key() -> Bytes {
    Bytes::from_static(b"control/known")
}

/// The state of the saved copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Saved {
    /// Whether it was loaded.
    loaded: bool,
    /// The durable generation.
    durable: u64,
    /// The generation whose write is in flight.
    in_flight: Option<u64>,
    /// The latest generation that the disk had no room for.
    refused: u64,
}

impl Saved {
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether a restarted node would start with this generation, or a later one.
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
    /// If the saved state cannot be decoded: the node must not run without a keyspace that it holds data of.
    fn load_known(&mut self, result: &Result<Rows, Error>, turn: &mut Turn<'_>) {
        let unreadable = |error: &dyn std::fmt::Display| -> ! {
            panic!("the control plane's state cannot be decoded: {error}")
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
        self.publish_keyspaces(turn);
        self.save(turn);
        for event in std::mem::take(&mut self.early) {
            self.take(event, turn);
        }
    }

    /// Saves the known state, one generation at a time.
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
        self.publish_keyspaces(turn);
        self.save(turn);
    }

    /// The disk has no room. The state is served anyway, since the log has it too; but the next start may use
    /// an earlier state, and so the write is retried.
    fn on_save_refused(&mut self, turn: &mut Turn<'_>) {
        let generation = self.saved.in_flight.take();
        self.saved.refused = generation.unwrap_or(self.saved.refused);
        turn.effects.push(Effect::SetTimer {
            id: KNOWN_TIMER,
            at: turn.now.instant + FULL_PAUSE,
        });
        self.publish_keyspaces(turn);
        self.save(turn);
    }

    /// Publishes the keyspaces to the node role.
    fn publish_keyspaces(&self, turn: &mut Turn<'_>) {
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

    /// Handles the results of loading and saving.
    pub(super) fn handle_known(&mut self, event: &Event, turn: &mut Turn<'_>) {
        match event {
            Event::Read {
                token: KNOWN_READ,
                result,
            } => self.load_known(result, turn),
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
