//! Snapshots of a group: its rows in a file, for members that lack what has gone from the log.
//!
//! The file is a copy of all rows as of one moment; the marker among them says of which log position. It is made while
//! entries go on being applied. A member that receives one puts its parts into a file of its own, checks the whole, makes it
//! the beginning of its log, and only when that record is durable puts the rows in the place of its own. Should it crash on
//! the way, it finds at its start that its rows are older than the beginning of its log, and loads the file again
//! ([`Server::start`]). Were its own rows touched any earlier, a crash could leave it with neither.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_core::ids::NodeId;
use quorate_core::store::{Rows, Table};
use quorate_protocol::role::Effect;
use quorate_raft::format;
use quorate_raft::snapshot::SnapshotMeta;
use quorate_raft::types::{GroupId, LogIndex, LogPosition};

use crate::shard::recovery::Beginning;
use crate::shard::rows::{self, Marker};
use crate::shard::server::{LOAD_TIMER, Server};
use crate::shard::turn::Turn;

/// How long a server waits when there was no room for the rows of a snapshot.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

/// What a file task was for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Take {
        number: u64,
    },
    Chunk {
        to: NodeId,
        position: LogPosition,
        offset: u64,
    },
    Store {
        number: u64,
    },
    Seal {
        number: u64,
        meta: SnapshotMeta,
    },
    Load,
    Keep,
}

/// The files of a group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SnapshotManager {
    group: GroupId,
    /// The file that stands for the beginning of the log, durably.
    current: Option<u64>,
    last_number: u64,
    last_task: u64,
    tasks: BTreeMap<u64, Purpose>,
    /// The file that is being received, and what is to be in it.
    incoming: Option<(LogPosition, u64)>,
    /// There may be files that nobody needs.
    untidy: bool,
    /// Whole files that came from a leader, by what is in them.
    sealed: BTreeMap<LogPosition, u64>,
    taking: bool,
    /// The file whose rows are to be the group's, until they are.
    loading: Option<(LogPosition, u64)>,
    /// The rows that were loaded, read again.
    loaded: Option<(u64, Beginning)>,
    /// The rows up to this entry survive a crash.
    pub(super) flushed: LogIndex,
}

impl SnapshotManager {
    pub(super) fn new(group: GroupId, current: Option<u64>) -> Self {
        SnapshotManager {
            group,
            current,
            last_number: current.unwrap_or(0),
            last_task: 0,
            tasks: BTreeMap::new(),
            incoming: None,
            untidy: false,
            sealed: BTreeMap::new(),
            taking: false,
            loading: None,
            loaded: None,
            flushed: LogIndex(0),
        }
    }

    fn file(&self, number: u64) -> FileId {
        FileId {
            owner: u64::from(self.group.0),
            number,
        }
    }

    fn ask(&mut self, purpose: Purpose, task: FileTask, turn: &mut Turn<'_>) {
        self.last_task += 1;
        self.tasks.insert(self.last_task, purpose);
        turn.push(Effect::Files {
            token: self.last_task,
            task,
        });
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Of earlier boots nothing is of use but the current file.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        self.forget_others(turn);
    }

    fn forget_others(&mut self, turn: &mut Turn<'_>) {
        let task = FileTask::Keep {
            owner: u64::from(self.group.0),
            number: self.current,
        };
        self.untidy = false;
        self.ask(Purpose::Keep, task, turn);
    }

    // ---- making and sending one ----

    /// A member needs a snapshot.
    pub(super) fn take(&mut self, turn: &mut Turn<'_>) {
        self.taking = true;
        let number = self.next_number();
        let task = FileTask::Save {
            file: self.file(number),
            table: Table::Groups,
            prefix: rows::prefix(self.group),
            marker: rows::marker_key(self.group),
        };
        self.ask(Purpose::Take { number }, task, turn);
    }

    pub(super) fn read_chunk(
        &mut self,
        to: NodeId,
        handle: u64,
        (position, offset, length): (LogPosition, u64, u32),
        turn: &mut Turn<'_>,
    ) {
        let task = FileTask::Read {
            file: self.file(handle),
            offset,
            length,
        };
        self.ask(Purpose::Chunk { to, position, offset }, task, turn);
    }

    // ---- receiving one ----

    pub(super) fn store_chunk(
        &mut self,
        position: LogPosition,
        offset: u64,
        bytes: Bytes,
        turn: &mut Turn<'_>,
    ) {
        let number = match self.incoming {
            Some((_, number)) if offset > 0 => number,
            _ => self.next_number(),
        };
        self.incoming = Some((position, number));
        let task = FileTask::Write {
            file: self.file(number),
            offset,
            bytes,
        };
        self.ask(Purpose::Store { number }, task, turn);
    }

    /// # Panics
    /// If nothing was received.
    pub(super) fn seal(&mut self, meta: SnapshotMeta, turn: &mut Turn<'_>) {
        let (_, number) = self.incoming.expect("it has a first part");
        let task = FileTask::Seal {
            file: self.file(number),
            size: meta.size,
            checksum: meta.checksum,
        };
        self.ask(Purpose::Seal { number, meta }, task, turn);
    }

    fn is_incoming(&self, number: u64) -> bool {
        self.incoming.is_some_and(|(_, incoming)| incoming == number)
    }

    /// The file with this snapshot, which is the beginning of the log now.
    pub(super) fn received(&mut self, position: LogPosition) -> u64 {
        let number = self.sealed.remove(&position).expect("it was sealed before");
        self.sealed.retain(|other, _| other.index > position.index);
        number
    }

    /// Puts a file's rows in the place of the group's, once it is the beginning of the log durably.
    pub(super) fn load(&mut self, position: LogPosition, number: u64, turn: &mut Turn<'_>) {
        self.loading = Some((position, number));
        self.load_if_possible(turn);
    }

    /// Does so, unless it has to wait: for the record of the log's beginning, or for rows that are being loaded.
    pub(super) fn load_if_possible(&mut self, turn: &mut Turn<'_>) {
        let busy = self.loaded.is_some() || self.tasks.values().any(|purpose| *purpose == Purpose::Load);
        let Some((_, number)) = self.loading.filter(|(_, number)| self.current == Some(*number)) else {
            return;
        };
        if !busy {
            let task = FileTask::Load {
                file: self.file(number),
                table: Table::Groups,
                prefix: rows::prefix(self.group),
                marker: rows::marker_key(self.group),
            };
            self.ask(Purpose::Load, task, turn);
        }
    }

    /// This file is the beginning of the log, durably.
    pub(super) fn keep(&mut self, handle: u64, turn: &mut Turn<'_>) {
        self.current = Some(handle);
        self.untidy = true;
        self.load_if_possible(turn);
    }

    /// Whether nobody needs other files than the current one.
    fn may_forget(&self, commit: LogIndex) -> bool {
        let on_the_way = |purpose: &Purpose| {
            matches!(
                purpose,
                Purpose::Take { .. } | Purpose::Store { .. } | Purpose::Seal { .. } | Purpose::Load
            )
        };
        let incoming = self.incoming.is_some_and(|(position, _)| position.index > commit);
        let loading = self
            .loading
            .is_some_and(|(_, number)| self.current != Some(number));
        self.untidy && !incoming && !loading && !self.tasks.values().any(on_the_way)
    }
}

fn senseless(why: &str) -> String {
    format!("the rows of the snapshot that it was sent make no sense: {why}")
}

impl Server {
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
        let recorded = self.raft.kept().map(|kept| kept.handle) == self.snapshots.current;
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
            if self.raft.kept().is_none() && self.snapshots.current.take().is_some() {
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
            query: Beginning::query(self.group, after),
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
