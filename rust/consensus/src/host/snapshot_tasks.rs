//! Completion of file tasks for snapshots.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::error::Error;
use quorate_core::files::FileDone;
use quorate_core::store::Rows;
use quorate_protocol::role::Effect;
use quorate_raft::format;

use crate::host::machine::Machine;
use crate::host::recovery::InitialRows;
use crate::host::snapshots::Purpose;
use crate::host::{Host, LOAD_TIMER};
use crate::rows::Marker;
use crate::turn::Turn;

/// The pause before a retry when there was no room for the rows of a snapshot.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

fn malformed_rows(why: &str) -> String {
    format!("the rows of the received snapshot are malformed: {why}")
}

impl<M: Machine> Host<M> {
    /// A file task is complete.
    pub(super) fn file_task_ended(
        &mut self,
        token: u64,
        result: Result<FileDone, Error>,
        turn: &mut Turn<'_>,
    ) {
        let Some(purpose) = self.snapshots.tasks.remove(&token) else {
            return;
        };
        self.file_done(purpose, result, turn);
        self.delete_unneeded(turn);
    }

    /// Deletes unneeded files, unless one may be needed soon.
    pub(super) fn delete_unneeded(&mut self, turn: &mut Turn<'_>) {
        // The record of another may be in flight.
        let recorded =
            self.raft.snapshot_ref().map(|snapshot_ref| snapshot_ref.handle) == self.snapshots.current;
        if recorded && self.snapshots.may_delete_others(self.raft.log().commit()) {
            self.snapshots.delete_others(turn);
        }
    }

    fn file_done(&mut self, purpose: Purpose, result: Result<FileDone, Error>, turn: &mut Turn<'_>) {
        match (purpose, result) {
            (
                Purpose::Take { number },
                Ok(FileDone::Saved {
                    size,
                    checksum,
                    marker,
                }),
            ) => self.taken(number, (size, checksum), marker, turn),
            (Purpose::Take { .. }, _) => {
                self.snapshots.taking = false;
                self.raft.snapshot_failed();
                self.compact(turn);
            }
            (Purpose::Chunk { to, position, offset }, result) => {
                let bytes = match result {
                    Ok(FileDone::Chunk(bytes)) => Some(bytes),
                    _ => None,
                };
                self.drive(turn, |raft, turn| {
                    raft.chunk_read(to, position, offset, bytes, turn)
                });
            }
            (Purpose::Store { number }, Err(_)) if self.snapshots.is_incoming(number) => {
                self.snapshots.incoming = None;
                self.raft.snapshot_refused();
            }
            (Purpose::Seal { number, meta }, Ok(FileDone::Sealed { intact })) => {
                if self.snapshots.is_incoming(number) {
                    self.snapshots.incoming = None;
                }
                if intact && meta.position.index > self.raft.log().commit() {
                    self.snapshots.sealed.insert(meta.position, number);
                }
                self.snapshots.may_have_unneeded = true;
                let handle = intact.then_some(number);
                self.drive(turn, |raft, turn| raft.snapshot_received(&meta, handle, turn));
            }
            (Purpose::Seal { .. }, _) => self.raft.snapshot_refused(),
            (Purpose::Load, Ok(_)) => self.read_loaded(None, turn),
            (Purpose::Load, Err(Error::StorageFull(_))) => turn.push(Effect::SetTimer {
                id: LOAD_TIMER,
                at: turn.now.instant + LOAD_PAUSE,
            }),
            // There is no other state to start from.
            (Purpose::Load, Err(error)) => {
                let why = format!("the snapshot at the start of its log cannot be loaded: {error}");
                self.broken = Some(why);
            }
            (Purpose::Store { .. } | Purpose::Keep, _) => {}
        }
    }

    fn taken(
        &mut self,
        number: u64,
        (size, checksum): (u64, u64),
        marker: Option<Bytes>,
        turn: &mut Turn<'_>,
    ) {
        self.snapshots.taking = false;
        let marker = marker.map(|bytes| format::decode::<Marker>("marker", &bytes));
        match marker {
            Some(Ok(Marker { applied, .. })) if applied.index >= self.raft.log().base().index => {
                let used = self.drive(turn, |raft, turn| {
                    raft.snapshot_taken(applied, size, checksum, number, turn)
                });
                // If it is used, it becomes current when its record is durable.
                self.snapshots.may_have_unneeded |= !used;
            }
            _ => self.raft.snapshot_failed(),
        }
        self.compact(turn);
    }

    /// Compacts the log. This waits while a snapshot is taken, which needs the entry at its position.
    pub(super) fn compact(&mut self, turn: &mut Turn<'_>) {
        let flushed = self.snapshots.flushed;
        if !self.snapshots.taking && self.raft.is_worth_compacting(flushed) {
            self.drive(turn, |raft, turn| raft.flushed(flushed, turn));
            if self.raft.snapshot_ref().is_none() && self.snapshots.current.take().is_some() {
                // The rows cover the start of the log again.
                self.snapshots.may_have_unneeded = true;
                self.delete_unneeded(turn);
            }
        }
    }

    /// The rows are loaded: reads those that a server starts with.
    fn read_loaded(&mut self, after: Option<Bytes>, turn: &mut Turn<'_>) {
        let token = self.token();
        let initial_rows = match self.snapshots.loaded.take() {
            Some((_, initial_rows)) if after.is_some() => initial_rows,
            _ => InitialRows::default(),
        };
        self.snapshots.loaded = Some((token, initial_rows));
        turn.push(Effect::Read {
            token,
            query: InitialRows::<M>::query(self.group, after),
        });
    }

    /// Takes a page of them; returns it if it is not one.
    ///
    /// If they are malformed, this server stops: there is no other state to start from.
    pub(super) fn snapshot_rows(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        turn: &mut Turn<'_>,
    ) -> Option<Result<Rows, Error>> {
        let Some((_, initial_rows)) = self
            .snapshots
            .loaded
            .as_mut()
            .filter(|(pending, _)| *pending == token)
        else {
            return Some(result);
        };
        let taken = match result {
            Ok(page) => initial_rows.take(page),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Err(why) => self.broken = Some(malformed_rows(&why)),
            Ok(Some(after)) => self.read_loaded(Some(after), turn),
            Ok(None) => {
                let (_, initial_rows) = self.snapshots.loaded.take().expect("rows are being read");
                let initial_rows = match self.raft.bugs().has(Bug::SessionsLostAtSnapshot) {
                    true => initial_rows.without_sessions(),
                    false => initial_rows,
                };
                let (state, marker) = match initial_rows.state(self.group) {
                    Ok(found) => found,
                    Err(why) => {
                        self.broken = Some(malformed_rows(&why));
                        return None;
                    }
                };
                match self.snapshots.loading {
                    // A later snapshot arrived meanwhile.
                    Some((position, _)) if position != marker.applied => {
                        self.snapshots.load_if_possible(turn);
                    }
                    _ => {
                        self.snapshots.loading = None;
                        self.pipeline.restored(state, marker);
                        self.snapshots.flushed = self.snapshots.flushed.max(marker.applied.index);
                        self.delete_unneeded(turn);
                    }
                }
            }
        }
        None
    }
}
