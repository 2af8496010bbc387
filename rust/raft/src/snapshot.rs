//! Snapshots: they replace the compacted part of the log (section 7).
//!
//! The host takes a snapshot of the state machine when enough has been applied, or, if its state is durable
//! by itself, when a member needs one (`settings::Snapshots`). It does so in the background, beside
//! heartbeats and votes; when the bytes are durable, the record of the snapshot is written like a vote, and
//! then the log before it is trimmed, in steps, except for some entries that followers may still need.
//!
//! A member that lacks compacted entries receives the snapshot in chunks. The leader requests each chunk from
//! its host when the window has room, so no snapshot needs to be in memory as a whole. The receiver reports
//! how many contiguous bytes it has; after a loss the transfer resumes there, also with another leader, if
//! that has the very same snapshot. The host stores the chunks and, when all are there, verifies the checksum
//! of the whole. Only then does the snapshot replace log and state machine, atomically: its record and the
//! truncation of the log are one persist.

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

/// The identity of a snapshot. Equal metas mean equal snapshots, on any server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that it includes.
    pub position: LogPosition,
    /// The members in effect there.
    pub configuration: Configuration,
    /// Its size in bytes, at least one.
    pub size: u64,
    /// XXH3 over all bytes.
    pub checksum: u64,
}

impl SnapshotMeta {
    /// Approximate size in memory; at least the size on the wire.
    pub fn size_in_memory(&self) -> usize {
        let Configuration {
            voters,
            outgoing,
            learners,
        } = &self.configuration;
        size_of::<SnapshotMeta>() + (voters.len() + outgoing.len() + learners.len()) * 2 * size_of::<NodeId>()
    }
}

/// A snapshot that the host stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Its identity.
    pub meta: SnapshotMeta,
    /// The host's handle for its bytes.
    pub handle: u64,
}

/// The start of a group's log on disk: a record that each compaction rewrites.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogStart {
    /// The log begins after this position.
    pub base: LogPosition,
    /// The members in effect there.
    pub members: Configuration,
    /// The snapshot that covers the log up to the base, or beyond it. `None` if the host's own state does,
    /// and no member has needed a snapshot.
    pub snapshot: Option<SnapshotRef>,
}

/// A snapshot transfer to a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    meta: SnapshotMeta,
    /// The member has this many contiguous bytes.
    has: u64,
    /// Chunks before this offset have been requested from the host.
    requested: u64,
    /// When `has` last rose.
    moved: Instant,
}

impl Transfer {
    pub(super) fn new(meta: SnapshotMeta, now: Instant) -> Self {
        Transfer {
            meta,
            has: 0,
            requested: 0,
            moved: now,
        }
    }

    /// Requests the chunks that the window permits.
    pub(super) fn request_chunks(&mut self, to: NodeId, settings: &Settings, actions: &mut Vec<Action>) {
        let window = u64::from(settings.chunk_bytes) * u64::from(settings.chunk_window);
        while self.requested < self.meta.size.min(self.has + window) {
            let length = u64::from(settings.chunk_bytes).min(self.meta.size - self.requested);
            actions.push(Action::ReadChunk {
                to,
                position: self.meta.position,
                offset: self.requested,
                length: length as u32,
            });
            self.requested += length;
        }
    }

    /// The member reports what it has.
    pub(super) fn received(&mut self, position: LogPosition, offset: u64, now: Instant) {
        if position == self.meta.position && offset > self.has && offset <= self.meta.size {
            self.has = offset;
            self.requested = self.requested.max(offset);
            self.moved = now;
        }
    }

    /// Starts over; the answer to the first chunk gives the real offset.
    pub(super) fn rewind(&mut self) {
        self.has = 0;
        self.requested = 0;
    }

    /// Starts over if a chunk was lost, or the member has crashed and lost its chunks.
    pub(super) fn rewind_if_stuck(&mut self, now: Instant, timeout: std::time::Duration) {
        if now.since(self.moved) >= timeout {
            self.moved = now;
            self.rewind();
        }
    }
}

/// A snapshot that is being received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incoming {
    meta: SnapshotMeta,
    /// The number of contiguous bytes received.
    has: u64,
}

impl Raft {
    /// The snapshot that covers the start of the log, if any.
    pub fn snapshot_ref(&self) -> Option<&SnapshotRef> {
        self.snapshot_ref.as_ref()
    }

    // ---- taking_snapshot a snapshot ----

    /// Requests a snapshot when one is due; later, while the last one is still being sent.
    pub(super) fn request_snapshot_if_due(&mut self, turn: &mut Turn<'_>) {
        let settings = &self.setup.settings;
        if settings.snapshots == Snapshots::OnDemand {
            return;
        }
        let index = self.log.released();
        let last = self
            .snapshot_ref
            .as_ref()
            .map_or(0, |snapshot_ref| snapshot_ref.meta.position.index.0);
        let entries = index.0 - last;
        let due = entries >= settings.snapshot_every * self.compaction_factor()
            || self.since_snapshot >= settings.snapshot_bytes * self.compaction_factor() as usize;
        if due {
            self.request_snapshot(turn);
        }
    }

    /// Requests a snapshot of the applied state, unless one is being taken.
    pub(super) fn request_snapshot(&mut self, turn: &mut Turn<'_>) {
        if !self.taking_snapshot {
            let index = self.log.released();
            let term = self
                .log
                .term_at(index)
                .expect("an applied entry is in the log or at its base");
            self.taking_snapshot = true;
            turn.actions.push(Action::TakeSnapshot {
                position: LogPosition { term, index },
            });
        }
    }

    /// Whether compaction is worthwhile once the host's state machine is durable up to `flushed`. Cheap.
    pub fn is_worth_compacting(&self, flushed: LogIndex) -> bool {
        flushed.0 >= self.log.base().index.0 + self.setup.settings.snapshot_every * self.compaction_factor()
    }

    /// The host's state machine is durable, without the log, up to this entry or beyond. (Only for hosts with
    /// snapshots on demand.) Compacts the log when that is worthwhile.
    ///
    /// # Panics
    /// If that entry has not been applied.
    pub fn flushed(&mut self, through: LogIndex, turn: &mut Turn<'_>) {
        let settings = &self.setup.settings;
        let point = self
            .log
            .compaction_point(through, settings.retained_entries, settings.retained_bytes);
        let (base, step) = (
            self.log.base().index,
            settings.snapshot_every * self.compaction_factor(),
        );
        if point.0 >= base.0 + step {
            self.log.compact(point);
            let base = self.log.base().index;
            self.snapshot_ref = self
                .snapshot_ref
                .take()
                .filter(|snapshot_ref| snapshot_ref.meta.position.index >= base);
            self.write_log_start();
        }
        self.advance(turn);
    }

    /// The factor by which compaction is delayed: more while a snapshot is being sent, since its receiver
    /// needs the entries after it.
    fn compaction_factor(&self) -> u64 {
        if self.is_sending() { 4 } else { 1 }
    }

    fn is_sending(&self) -> bool {
        let sends = |progress: &super::progress::Progress| {
            matches!(progress.state, ProgressState::Snapshot(_)) && !progress.link_down
        };
        matches!(&self.state, State::Leader(leader) if leader.progress.values().any(sends))
    }

    /// The requested snapshot is durable under `handle`: `size` bytes with this XXH3 `checksum`. Returns
    /// whether it is used; it is not if the leader has sent a newer one meanwhile.
    pub fn snapshot_taken(
        &mut self,
        position: LogPosition,
        size: u64,
        checksum: u64,
        handle: u64,
        turn: &mut Turn<'_>,
    ) -> bool {
        self.taking_snapshot = false;
        let older = |snapshot_ref: &SnapshotRef| snapshot_ref.meta.position.index >= position.index;
        if self.snapshot_ref.as_ref().is_some_and(older) {
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
        let point =
            self.log
                .compaction_point(position.index, settings.retained_entries, settings.retained_bytes);
        self.log.compact(point);
        self.since_snapshot = 0;
        turn.notice(Notice::SnapshotTaken { position });
        self.set_snapshot(meta, handle);
        self.advance(turn);
        true
    }

    /// The requested snapshot failed. The next one is requested when more entries are applied.
    pub fn snapshot_failed(&mut self) {
        self.taking_snapshot = false;
    }

    /// Makes a snapshot the group's current one.
    fn set_snapshot(&mut self, meta: SnapshotMeta, handle: u64) {
        self.snapshot_ref = Some(SnapshotRef { meta, handle });
        self.write_log_start();
    }

    pub(super) fn write_log_start(&mut self) {
        let base = self.log.base();
        self.stable.set_log_start(LogStart {
            base,
            members: self.log.configuration_at(base.index).clone(),
            snapshot: self.snapshot_ref.clone(),
        });
    }

    /// The start of the log is durable: older data can be deleted.
    pub(super) fn log_start_durable(&mut self, log_start: LogStart, turn: &mut Turn<'_>) {
        if let Some(snapshot_ref) = log_start.snapshot {
            turn.actions.push(Action::SnapshotDurable {
                handle: snapshot_ref.handle,
            });
        }
        self.stable.trim(log_start.base.index);
    }

    // ---- sending a snapshot ----

    /// The host has read a requested chunk, or no longer has that snapshot; with snapshots on demand, a new
    /// one is then requested.
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
                        self.snapshot_ref = self
                            .snapshot_ref
                            .take()
                            .filter(|snapshot_ref| snapshot_ref.meta.position != position);
                    }
                }
                Some(bytes) => {
                    let meta = Box::new(transfer.meta.clone());
                    self.send(to, Body::Snapshot { meta, offset, bytes }, turn);
                }
            }
        }
        self.advance(turn);
    }

    // ---- receiving a snapshot ----

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
            // This server has all of it: what is committed here is in every later leader's log.
            let commit = self.log.commit();
            let follower = self.following();
            follower.received = follower.received.max(commit);
            return self.acknowledge(from, turn);
        }
        let has = match &self.incoming {
            Some(incoming) if incoming.meta == meta => incoming.has,
            // A later chunk of another snapshot. If the leader sends that one now, it starts over soon.
            Some(_) if offset > 0 => return,
            _ => 0,
        };
        let mut incoming = Incoming { meta, has };
        if offset == has && has < incoming.meta.size {
            incoming.has += bytes.len() as u64;
            turn.actions.push(Action::StoreChunk {
                meta: incoming.meta.clone(),
                offset,
                bytes,
            });
            if incoming.has >= incoming.meta.size {
                turn.actions.push(Action::InstallSnapshot(incoming.meta.clone()));
            }
        }
        let offset = incoming.has;
        self.incoming = Some(incoming);
        self.send(from, Body::SnapshotReceived { position, offset }, turn);
    }

    /// The disk had no space for the received snapshot: it is received again.
    pub fn snapshot_refused(&mut self) {
        self.incoming = None;
    }

    /// A whole snapshot is durable under `handle`, or its checksum is wrong (`None`). [`Action::Restore`]
    /// follows when it is to replace the state machine, unless that has advanced beyond it meanwhile.
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
                turn.actions.push(Action::Restore { position });
                if self.log.base() == position {
                    self.stable.has_nothing_before(position.index);
                }
                self.since_snapshot = 0;
                self.set_snapshot(meta.clone(), handle);
                if let State::Follower(follower) = &mut self.state {
                    follower.received = follower.received.max(position.index);
                }
                turn.notice(Notice::SnapshotInstalled { position });
            }
            Some(_) => {}
            None => turn.notice(Notice::SnapshotCorrupt { position }),
        }
        self.advance(turn);
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
