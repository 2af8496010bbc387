//! Snapshots: what stands for a part of the log that is gone (section 7).
//!
//! The host is asked to make a snapshot of the state machine: when enough has been applied, or, if it keeps its state durably
//! by itself, when a member needs one (`settings::Snapshots`). It does so at its leisure, beside heartbeats and votes; when the bytes are durable, the record of the snapshot goes to the
//! disk like a vote does, and then the log before it is forgotten, in steps, but for some entries that
//! followers may still want.
//!
//! A member that lacks what is gone gets the snapshot in chunks. The leader asks its host for each chunk when
//! the window has room for it, so nothing large is ever in memory because of this. The receiver says how many
//! bytes it has from the beginning on; whatever is lost, from there it goes on, also with another leader, if
//! that has the very same snapshot. The host puts the chunks aside and, when all are there, checks the sum
//! over the whole. Only then the snapshot takes the place of log and state machine, at once: its record and
//! the cut of the log are one persist.

use bytes::Bytes;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::action::{Action, Notice};
use crate::configuration::Configuration;
use crate::message::Body;
use crate::progress::ProgressState;
use crate::server::{Raft, State, Turn};
use crate::settings::{Settings, Snapshots};
use crate::types::{LogIndex, LogPosition};

/// What a snapshot is. Equal metas are equal snapshots, whoever has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that is in it.
    pub position: LogPosition,
    /// The members that counted there.
    pub configuration: Configuration,
    /// How many bytes it has, at least one.
    pub size: u64,
    /// XXH3 over all of them.
    pub checksum: u64,
}

impl SnapshotMeta {
    /// About how many bytes it takes in memory; no fewer than on the wire.
    pub fn size_in_memory(&self) -> usize {
        let Configuration {
            voters,
            outgoing,
            learners,
        } = &self.configuration;
        size_of::<SnapshotMeta>() + (voters.len() + outgoing.len() + learners.len()) * 2 * size_of::<NodeId>()
    }
}

/// A snapshot that the host keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// What it is.
    pub meta: SnapshotMeta,
    /// What the host calls the place where the bytes are.
    pub handle: u64,
}

/// Where a group's log begins on a disk: a record that is written anew with each compaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogStart {
    /// The log begins behind here.
    pub base: LogPosition,
    /// The members that counted there.
    pub members: Configuration,
    /// What stands for the log up to the base, or beyond it. `None` if the host's own state does, and nobody
    /// has needed a snapshot of it.
    pub snapshot: Option<SnapshotRef>,
}

/// A snapshot on its way to a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    meta: SnapshotMeta,
    /// The member has this many bytes from the beginning on.
    has: u64,
    /// The host was asked for everything before this.
    asked: u64,
    /// When `has` last rose.
    moved: Instant,
}

impl Transfer {
    pub(super) fn new(meta: SnapshotMeta, now: Instant) -> Self {
        Transfer {
            meta,
            has: 0,
            asked: 0,
            moved: now,
        }
    }

    /// Asks the host for what the window takes.
    pub(super) fn ask(&mut self, to: NodeId, settings: &Settings, outputs: &mut Vec<Action>) {
        let window = u64::from(settings.chunk_bytes) * u64::from(settings.chunk_window);
        while self.asked < self.meta.size.min(self.has + window) {
            let length = u64::from(settings.chunk_bytes).min(self.meta.size - self.asked);
            outputs.push(Action::ReadChunk {
                to,
                position: self.meta.position,
                offset: self.asked,
                length: length as u32,
            });
            self.asked += length;
        }
    }

    /// The member says what it has.
    pub(super) fn received(&mut self, position: LogPosition, offset: u64, now: Instant) {
        if position == self.meta.position && offset > self.has && offset <= self.meta.size {
            self.has = offset;
            self.asked = self.asked.max(offset);
            self.moved = now;
        }
    }

    /// Starts over; the answer to the first chunk says where it really is.
    pub(super) fn rewind(&mut self) {
        self.has = 0;
        self.asked = 0;
    }

    /// Something was lost, or the member has crashed and lost what it had.
    pub(super) fn rewind_if_stuck(&mut self, now: Instant, patience: std::time::Duration) {
        if now.since(self.moved) >= patience {
            self.moved = now;
            self.rewind();
        }
    }
}

/// A snapshot that is being received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incoming {
    meta: SnapshotMeta,
    /// So many bytes are there, from the beginning on.
    has: u64,
}

impl Raft {
    /// The snapshot that stands for the beginning of the log, if one does.
    pub fn kept(&self) -> Option<&SnapshotRef> {
        self.kept.as_ref()
    }

    // ---- making one ----

    /// Asks for a snapshot when one is due; later, while the last one is still on its way to somebody.
    pub(super) fn ask_if_due(&mut self, turn: &mut Turn<'_>) {
        let settings = &self.setup.settings;
        if settings.snapshots == Snapshots::OnDemand {
            return;
        }
        let index = self.log.released();
        let last = self.kept.as_ref().map_or(0, |kept| kept.meta.position.index.0);
        let entries = index.0 - last;
        let due = entries >= settings.snapshot_every * self.patience()
            || self.since_snapshot >= settings.snapshot_bytes * self.patience() as usize;
        if due {
            self.ask_for_snapshot(turn);
        }
    }

    /// Asks for a snapshot of what is applied now, unless one is being made.
    pub(super) fn ask_for_snapshot(&mut self, turn: &mut Turn<'_>) {
        if !self.taking {
            let index = self.log.released();
            let term = self
                .log
                .term_at(index)
                .expect("what is applied is there, or the base");
            self.taking = true;
            turn.outputs.push(Action::TakeSnapshot {
                position: LogPosition { term, index },
            });
        }
    }

    /// Whether enough of the log can go to be worth the while, if the host's state machine survives a crash as it is
    /// after `flushed`. Cheap.
    pub fn is_worth_compacting(&self, flushed: LogIndex) -> bool {
        flushed.0 >= self.log.base().index.0 + self.setup.settings.snapshot_every * self.patience()
    }

    /// The host's state machine survives a crash, without the log, as it was after this entry or later. (Only
    /// a host whose snapshots are made on demand says so.) When that is worth the while, the log before is
    /// forgotten.
    ///
    /// # Panics
    /// If that entry has not been given to it.
    pub fn flushed(&mut self, through: LogIndex, turn: &mut Turn<'_>) {
        let settings = &self.setup.settings;
        let point = self
            .log
            .compaction_point(through, settings.kept_entries, settings.kept_bytes);
        let (base, step) = (self.log.base().index, settings.snapshot_every * self.patience());
        if point.0 >= base.0 + step {
            self.log.compact(point);
            let base = self.log.base().index;
            self.kept = self.kept.take().filter(|kept| kept.meta.position.index >= base);
            self.write_beginning();
        }
        self.settle(turn);
    }

    /// How many times as much as usual may gather in the log: more while a snapshot is on its way, since its
    /// receiver needs what follows it.
    fn patience(&self) -> u64 {
        if self.is_sending() { 4 } else { 1 }
    }

    fn is_sending(&self) -> bool {
        let sends = |progress: &super::progress::Progress| {
            matches!(progress.state, ProgressState::Snapshot(_)) && !progress.cut_off
        };
        matches!(&self.state, State::Leader(leader) if leader.progress.values().any(sends))
    }

    /// The snapshot that was asked for is durable: `size` bytes, of which `checksum` is the XXH3, under
    /// `handle`. Says whether it is of use; it is not when a newer one came from the leader meanwhile.
    pub fn snapshot_taken(
        &mut self,
        position: LogPosition,
        size: u64,
        checksum: u64,
        handle: u64,
        turn: &mut Turn<'_>,
    ) -> bool {
        self.taking = false;
        let older = |kept: &SnapshotRef| kept.meta.position.index >= position.index;
        if self.kept.as_ref().is_some_and(older) {
            return false;
        }
        assert!(
            self.log.matches(position),
            "a snapshot of {position}, which was never applied here"
        );
        let settings = &self.setup.settings;
        let meta = SnapshotMeta {
            position,
            configuration: self.log.configuration_at(position.index).clone(),
            size,
            checksum,
        };
        let point = self
            .log
            .compaction_point(position.index, settings.kept_entries, settings.kept_bytes);
        self.log.compact(point);
        self.since_snapshot = 0;
        turn.notice(Notice::SnapshotTaken { position });
        self.keep(meta, handle);
        self.settle(turn);
        true
    }

    /// The snapshot that was asked for was not made. Another is asked for when the next entries are applied.
    pub fn snapshot_failed(&mut self) {
        self.taking = false;
    }

    /// Makes a snapshot the group's.
    fn keep(&mut self, meta: SnapshotMeta, handle: u64) {
        self.kept = Some(SnapshotRef { meta, handle });
        self.write_beginning();
    }

    pub(super) fn write_beginning(&mut self) {
        let base = self.log.base();
        self.stable.begin(LogStart {
            base,
            members: self.log.configuration_at(base.index).clone(),
            snapshot: self.kept.clone(),
        });
    }

    /// The record of the beginning is durable: what came before it may go.
    pub(super) fn begins_durably(&mut self, log_start: LogStart, turn: &mut Turn<'_>) {
        if let Some(kept) = log_start.snapshot {
            turn.outputs.push(Action::SnapshotKept { handle: kept.handle });
        }
        self.stable.trim(log_start.base.index);
    }

    // ---- sending it ----

    /// The host has read a chunk that it was asked for, or has that snapshot no longer: then, if it can make another
    /// at any time, it is asked to.
    pub fn chunk_read(
        &mut self,
        to: NodeId,
        position: LogPosition,
        offset: u64,
        bytes: Option<Bytes>,
        turn: &mut Turn<'_>,
    ) {
        if let State::Leader(leader) = &mut self.state
            && let Some(progress) = leader.progress.get_mut(&to)
            && let ProgressState::Snapshot(transfer) = &progress.state
            && transfer.meta.position == position
        {
            match bytes {
                None => {
                    progress.probe();
                    if self.setup.settings.snapshots == Snapshots::OnDemand {
                        self.kept = self.kept.take().filter(|kept| kept.meta.position != position);
                    }
                }
                Some(bytes) => {
                    let meta = Box::new(transfer.meta.clone());
                    self.send(to, Body::Snapshot { meta, offset, bytes }, turn);
                }
            }
        }
        self.settle(turn);
    }

    // ---- receiving it ----

    pub(super) fn on_chunk(
        &mut self,
        from: NodeId,
        meta: SnapshotMeta,
        offset: u64,
        bytes: Bytes,
        turn: &mut Turn<'_>,
    ) {
        let position = meta.position;
        if position.index <= self.log.commit() {
            // It has all that. What is committed here is in every later leader's log.
            let commit = self.log.commit();
            let follower = self.following();
            follower.received = follower.received.max(commit);
            return self.acknowledge(from, turn);
        }
        let has = match &self.incoming {
            Some(incoming) if incoming.meta == meta => incoming.has,
            // The rest of one that is not wanted any more. If the leader means it, it begins again soon.
            Some(_) if offset > 0 => return,
            _ => 0,
        };
        let mut incoming = Incoming { meta, has };
        if offset == has && has < incoming.meta.size {
            incoming.has += bytes.len() as u64;
            turn.outputs.push(Action::StoreChunk {
                meta: incoming.meta.clone(),
                offset,
                bytes,
            });
            if incoming.has >= incoming.meta.size {
                turn.outputs.push(Action::InstallSnapshot(incoming.meta.clone()));
            }
        }
        let offset = incoming.has;
        self.incoming = Some(incoming);
        self.send(from, Body::SnapshotReceived { position, offset }, turn);
    }

    /// The disk had no space for the snapshot that was received: it is received again.
    pub fn snapshot_refused(&mut self) {
        self.incoming = None;
    }

    /// A whole snapshot is durable under `handle`, or its sum is wrong (`None`). [`Action::Restore`] says
    /// when to put it in the place of the state machine; it does not come if that has got beyond it
    /// meanwhile.
    pub fn snapshot_received(&mut self, meta: &SnapshotMeta, handle: Option<u64>, turn: &mut Turn<'_>) {
        let position = meta.position;
        if self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.meta == *meta)
        {
            self.incoming = None;
        }
        match handle {
            Some(handle) if position.index > self.log.commit() => {
                self.log.restore(position, meta.configuration.clone());
                turn.outputs.push(Action::Restore { position });
                if self.log.base() == position {
                    self.stable.has_nothing_before(position.index);
                }
                self.since_snapshot = 0;
                self.keep(meta.clone(), handle);
                if let State::Follower(follower) = &mut self.state {
                    follower.received = follower.received.max(position.index);
                }
                turn.notice(Notice::SnapshotInstalled { position });
            }
            Some(_) => {}
            None => turn.notice(Notice::SnapshotCorrupt { position }),
        }
        self.settle(turn);
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
