//! What a host does when a file task for its snapshots has ended.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::error::Error;
use quorate_core::files::FileDone;
use quorate_core::store::Rows;
use quorate_protocol::role::Effect;
use quorate_raft::format;

use crate::host::machine::Machine;
use crate::host::recovery::Beginning;
use crate::host::snapshots::Purpose;
use crate::host::{Host, LOAD_TIMER};
use crate::rows::Marker;
use crate::turn::Turn;

/// How long a server waits when there was no room for the rows of a snapshot.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

fn senseless(why: &str) -> String {
    format!("the rows of the snapshot that it was sent make no sense: {why}")
}

impl<M: Machine> Host<M> {
    /// A file task has ended.
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
        self.tidy(turn);
    }

    /// Forgets files that nobody needs, when that cannot take one that somebody is about to need.
    pub(super) fn tidy(&mut self, turn: &mut Turn<'_>) {
        // The record of another may be on its way to the disk.
        let recorded =
            self.raft.snapshot_ref().map(|snapshot_ref| snapshot_ref.handle) == self.snapshots.current;
        if recorded && self.snapshots.may_forget(self.raft.log().commit()) {
            self.snapshots.forget_others(turn);
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
                self.snapshots.untidy = true;
                let handle = intact.then_some(number);
                self.drive(turn, |raft, turn| raft.snapshot_received(&meta, handle, turn));
            }
            (Purpose::Seal { .. }, _) => self.raft.snapshot_refused(),
            (Purpose::Load, Ok(_)) => self.read_loaded(None, turn),
            (Purpose::Load, Err(Error::StorageFull(_))) => turn.push(Effect::SetTimer {
                id: LOAD_TIMER,
                at: turn.now.instant + LOAD_PAUSE,
            }),
            // There is nothing else to stand on.
            (Purpose::Load, Err(error)) => {
                let why = format!("the snapshot that its log begins with cannot be loaded: {error}");
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
                // If it is of use, it is the group's when the record of it is durable.
                self.snapshots.untidy |= !used;
            }
            _ => self.raft.snapshot_failed(),
        }
        self.compact(turn);
    }

    /// Forgets what of the log is not needed any longer: it waits while a snapshot is made, which needs the entry that it
    /// ends with.
    pub(super) fn compact(&mut self, turn: &mut Turn<'_>) {
        let flushed = self.snapshots.flushed;
        if !self.snapshots.taking && self.raft.is_worth_compacting(flushed) {
            self.drive(turn, |raft, turn| raft.flushed(flushed, turn));
            if self.raft.snapshot_ref().is_none() && self.snapshots.current.take().is_some() {
                // The rows stand for the beginning of the log again.
                self.snapshots.untidy = true;
                self.tidy(turn);
            }
        }
    }

    /// The rows are there: what a server begins with is read from them.
    fn read_loaded(&mut self, after: Option<Bytes>, turn: &mut Turn<'_>) {
        let token = self.token();
        let beginning = match self.snapshots.loaded.take() {
            Some((_, beginning)) if after.is_some() => beginning,
            _ => Beginning::default(),
        };
        self.snapshots.loaded = Some((token, beginning));
        turn.push(Effect::Read {
            token,
            query: Beginning::<M>::query(self.group, after),
        });
    }

    /// Takes a page of them; gives it back if it is none.
    ///
    /// If they make no sense, this server breaks down: there is nothing else to stand on.
    pub(super) fn snapshot_rows(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        turn: &mut Turn<'_>,
    ) -> Option<Result<Rows, Error>> {
        let Some((_, beginning)) = self
            .snapshots
            .loaded
            .as_mut()
            .filter(|(asked, _)| *asked == token)
        else {
            return Some(result);
        };
        let taken = match result {
            Ok(page) => beginning.take(page),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Err(why) => self.broken = Some(senseless(&why)),
            Ok(Some(after)) => self.read_loaded(Some(after), turn),
            Ok(None) => {
                let (_, beginning) = self.snapshots.loaded.take().expect("it was just there");
                let beginning = match self.raft.bugs().has(Bug::SessionsLostAtSnapshot) {
                    true => beginning.without_sessions(),
                    false => beginning,
                };
                let (state, marker) = match beginning.state(self.group) {
                    Ok(found) => found,
                    Err(why) => {
                        self.broken = Some(senseless(&why));
                        return None;
                    }
                };
                match self.snapshots.loading {
                    // Another came meanwhile.
                    Some((position, _)) if position != marker.applied => {
                        self.snapshots.load_if_possible(turn);
                    }
                    _ => {
                        self.snapshots.loading = None;
                        self.pipeline.restored(state, marker);
                        self.snapshots.flushed = self.snapshots.flushed.max(marker.applied.index);
                        self.tidy(turn);
                    }
                }
            }
        }
        None
    }
}
