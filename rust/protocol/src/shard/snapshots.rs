//! Snapshots of a group: its rows in a file, for members that lack what has gone from the log.
//!
//! The file is a copy of all rows as of one moment; the marker among them says of which log position. It is made while
//! entries go on being applied. A member that receives one puts its parts into a file of its own, checks the whole, makes it
//! the beginning of its log (that is when the snapshot is *installed*, durably), and then puts the rows in the place of its
//! own. Should it crash on the way, it finds at its start that its rows are older than the beginning of its log, and loads
//! the file again ([`Server::start`]).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Error;
use crate::files::{FileDone, FileId, FileTask};
use crate::ids::NodeId;
use crate::raft::format;
use crate::raft::snapshot::SnapshotMeta;
use crate::raft::types::{GroupId, LogIndex, LogPosition};
use crate::role::{Effect, Rows};
use crate::shard::rows::{self, Marker};
use crate::shard::server::Server;
use crate::shard::starting::Beginning;
use crate::shard::turn::Turn;
use crate::store::Table;

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
pub(super) struct SnapshotDesk {
    group: GroupId,
    /// The file that stands for the beginning of the log.
    current: Option<u64>,
    last_number: u64,
    last_task: u64,
    tasks: BTreeMap<u64, Purpose>,
    /// The file that is being received.
    incoming: u64,
    /// Whole files that came from a leader, by what is in them.
    sealed: BTreeMap<LogPosition, u64>,
    taking: bool,
    /// The file whose rows are to be the group's, until they are.
    loading: Option<(LogPosition, u64)>,
    /// The rows that were loaded, read again.
    loaded: Option<(u64, Beginning)>,
    /// The rows up to this entry survive a crash.
    pub(super) settled: LogIndex,
}

impl SnapshotDesk {
    pub(super) fn new(group: GroupId, current: Option<u64>) -> Self {
        SnapshotDesk {
            group,
            current,
            last_number: current.unwrap_or(0),
            last_task: 0,
            tasks: BTreeMap::new(),
            incoming: 0,
            sealed: BTreeMap::new(),
            taking: false,
            loading: None,
            loaded: None,
            settled: LogIndex(0),
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
        position: LogPosition,
        (offset, length): (u64, u32),
        turn: &mut Turn<'_>,
    ) {
        let task = FileTask::Read {
            file: self.file(self.current.unwrap_or(0)),
            offset,
            length,
        };
        self.ask(Purpose::Chunk { to, position, offset }, task, turn);
    }

    // ---- receiving one ----

    pub(super) fn store_chunk(&mut self, offset: u64, bytes: Bytes, turn: &mut Turn<'_>) {
        if offset == 0 {
            self.incoming = self.next_number();
        }
        let number = self.incoming;
        let task = FileTask::Write {
            file: self.file(number),
            offset,
            bytes,
        };
        self.ask(Purpose::Store { number }, task, turn);
    }

    pub(super) fn seal(&mut self, meta: SnapshotMeta, turn: &mut Turn<'_>) {
        let number = self.incoming;
        let task = FileTask::Seal {
            file: self.file(number),
            size: meta.size,
            checksum: meta.checksum,
        };
        self.ask(Purpose::Seal { number, meta }, task, turn);
    }

    /// The file with this snapshot, which is the beginning of the log now.
    pub(super) fn received(&mut self, position: LogPosition) -> u64 {
        let number = self.sealed.remove(&position).expect("it was sealed before");
        self.sealed.retain(|other, _| other.index > position.index);
        number
    }

    /// Puts a file's rows in the place of the group's, after those that are being put there now.
    pub(super) fn load(&mut self, position: LogPosition, number: u64, turn: &mut Turn<'_>) {
        let busy = self.loading.is_some();
        self.loading = Some((position, number));
        self.loaded = None;
        if !busy {
            self.load_next(turn);
        }
    }

    fn load_next(&mut self, turn: &mut Turn<'_>) {
        if let Some((_, number)) = self.loading {
            let task = FileTask::Load {
                file: self.file(number),
                table: Table::Groups,
                prefix: rows::prefix(self.group),
                marker: rows::marker_key(self.group),
            };
            self.ask(Purpose::Load, task, turn);
        }
    }

    /// This file is the beginning of the log, durably: others may go, unless one is on its way in.
    pub(super) fn keep(&mut self, handle: u64, turn: &mut Turn<'_>) {
        self.current = Some(handle);
        let on_the_way = |purpose: &Purpose| {
            matches!(
                purpose,
                Purpose::Take { .. } | Purpose::Store { .. } | Purpose::Seal { .. } | Purpose::Load
            )
        };
        if self.sealed.is_empty() && self.incoming <= handle && !self.tasks.values().any(on_the_way) {
            self.forget_others(turn);
        }
    }
}

impl Server {
    /// A file task has ended.
    ///
    /// # Panics
    /// If the rows of an installed snapshot cannot be loaded: this server has nothing else to stand on.
    pub(super) fn file_task_ended(
        &mut self,
        token: u64,
        result: Result<FileDone, Error>,
        turn: &mut Turn<'_>,
    ) {
        let Some(purpose) = self.snapshots.tasks.remove(&token) else {
            return;
        };
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
            (Purpose::Store { number }, Err(_)) if number == self.snapshots.incoming => {
                self.raft.snapshot_refused();
            }
            (Purpose::Seal { number, meta }, Ok(FileDone::Sealed { intact })) => {
                if intact && meta.position.index > self.raft.log().commit() {
                    self.snapshots.sealed.insert(meta.position, number);
                }
                let handle = intact.then_some(number);
                self.drive(turn, |raft, turn| raft.snapshot_received(&meta, handle, turn));
            }
            (Purpose::Seal { .. }, _) => self.raft.snapshot_refused(),
            (Purpose::Load, Ok(_)) => self.read_loaded(None, turn),
            (Purpose::Load, Err(Error::StorageFull(_))) => self.snapshots.load_next(turn),
            (Purpose::Load, Err(error)) => {
                panic!("the snapshot of group {} cannot be loaded: {error}", self.group)
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
                if used {
                    self.snapshots.current = Some(number);
                }
            }
            _ => self.raft.snapshot_failed(),
        }
        self.compact(turn);
    }

    /// Forgets what of the log is not needed any longer: it waits while a snapshot is made, which needs the entry that it
    /// ends with.
    pub(super) fn compact(&mut self, turn: &mut Turn<'_>) {
        let settled = self.snapshots.settled;
        if !self.snapshots.taking && self.raft.is_worth_compacting(settled) {
            self.drive(turn, |raft, turn| raft.settled(settled, turn));
            if self.raft.kept().is_none() && self.snapshots.current.take().is_some() {
                // The rows stand for the beginning of the log again.
                self.snapshots.forget_others(turn);
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
    /// # Panics
    /// If they make no sense.
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
        let broken =
            |why: String| -> ! { panic!("the snapshot of group {} makes no sense: {why}", self.group) };
        let page = result.unwrap_or_else(|error| broken(error.to_string()));
        match beginning.take(page) {
            Err(why) => broken(why),
            Ok(Some(after)) => self.read_loaded(Some(after), turn),
            Ok(None) => {
                let (_, beginning) = self.snapshots.loaded.take().expect("it was just there");
                let (state, marker) = beginning.state(self.group).unwrap_or_else(|why| broken(why));
                match self.snapshots.loading {
                    // Another came meanwhile.
                    Some((position, _)) if position != marker.applied => self.snapshots.load_next(turn),
                    _ => {
                        self.snapshots.loading = None;
                        self.pipeline.restored(state, marker);
                        self.snapshots.settled = self.snapshots.settled.max(marker.applied.index);
                    }
                }
            }
        }
        None
    }
}
