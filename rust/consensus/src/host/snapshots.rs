//! Snapshots of a group: its rows in a file, for members that lack compacted entries.
//!
//! The file is a copy of all rows as of one moment; the marker among them records the log position. It is
//! made while entries continue to be applied. A member that receives one writes its chunks into a file of its
//! own, verifies the whole, makes it the start of its log, and only when that record is durable replaces its
//! own rows. If it crashes on the way, it finds at its start that its rows are older than the start of its
//! log, and loads the file again (`Host::start`). If its own rows were touched any earlier, a crash could
//! leave it with neither.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::files::{FileId, FileTask};
use quorate_core::ids::NodeId;
use quorate_core::store::Table;
use quorate_protocol::role::Effect;
use quorate_raft::snapshot::SnapshotMeta;
use quorate_raft::types::{GroupId, LogIndex, LogPosition};

use crate::host::machine::Machine;
use crate::host::recovery::InitialRows;
use crate::rows::{self};
use crate::turn::Turn;

/// The purpose of a file task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
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

/// The snapshot files of a group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SnapshotManager<M> {
    group: GroupId,
    /// The file that durably covers the start of the log.
    pub(super) current: Option<u64>,
    last_number: u64,
    last_task: u64,
    pub(super) tasks: BTreeMap<u64, Purpose>,
    /// The file that is being received, and its position.
    pub(super) incoming: Option<(LogPosition, u64)>,
    /// Whether there may be unneeded files.
    pub(super) may_have_unneeded: bool,
    /// Complete files received from a leader, by position.
    pub(super) sealed: BTreeMap<LogPosition, u64>,
    pub(super) taking: bool,
    /// The file whose rows are being loaded.
    pub(super) loading: Option<(LogPosition, u64)>,
    /// The loaded rows that are read again.
    pub(super) loaded: Option<(u64, InitialRows<M>)>,
    /// The rows up to this entry are durable.
    pub(super) flushed: LogIndex,
}

impl<M: Machine> SnapshotManager<M> {
    pub(super) fn new(group: GroupId, current: Option<u64>) -> Self {
        SnapshotManager {
            group,
            current,
            last_number: current.unwrap_or(0),
            last_task: 0,
            tasks: BTreeMap::new(),
            incoming: None,
            may_have_unneeded: false,
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

    fn start_task(&mut self, purpose: Purpose, task: FileTask, turn: &mut Turn<'_>) {
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

    /// Of the files of earlier boots only the current one is of use.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        self.delete_others(turn);
    }

    pub(super) fn delete_others(&mut self, turn: &mut Turn<'_>) {
        let task = FileTask::Retain {
            owner: u64::from(self.group.0),
            number: self.current,
        };
        self.may_have_unneeded = false;
        self.start_task(Purpose::Keep, task, turn);
    }

    // ---- taking and sending a snapshot ----

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
        self.start_task(Purpose::Take { number }, task, turn);
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
        self.start_task(Purpose::Chunk { to, position, offset }, task, turn);
    }

    // ---- receiving a snapshot ----

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
        self.start_task(Purpose::Store { number }, task, turn);
    }

    /// # Panics
    /// If nothing was received.
    pub(super) fn seal(&mut self, meta: SnapshotMeta, turn: &mut Turn<'_>) {
        let (_, number) = self.incoming.expect("it has a first chunk");
        let task = FileTask::Seal {
            file: self.file(number),
            size: meta.size,
            checksum: meta.checksum,
        };
        self.start_task(Purpose::Seal { number, meta }, task, turn);
    }

    pub(super) fn is_incoming(&self, number: u64) -> bool {
        self.incoming.is_some_and(|(_, incoming)| incoming == number)
    }

    /// The file with this snapshot, which is now the start of the log.
    pub(super) fn received(&mut self, position: LogPosition) -> u64 {
        let number = self.sealed.remove(&position).expect("it was sealed");
        self.sealed.retain(|other, _| other.index > position.index);
        number
    }

    /// Replaces the group's rows with a file's, once the record of the start of the log is durable.
    pub(super) fn load(&mut self, position: LogPosition, number: u64, turn: &mut Turn<'_>) {
        self.loading = Some((position, number));
        self.load_if_possible(turn);
    }

    /// Starts loading, unless it must wait for that record, or for another load.
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
            self.start_task(Purpose::Load, task, turn);
        }
    }

    /// This file durably covers the start of the log.
    pub(super) fn set_current(&mut self, handle: u64, turn: &mut Turn<'_>) {
        self.current = Some(handle);
        self.may_have_unneeded = true;
        self.load_if_possible(turn);
    }

    /// Whether no file but the current one is needed.
    pub(super) fn may_delete_others(&self, commit: LogIndex) -> bool {
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
        self.may_have_unneeded && !incoming && !loading && !self.tasks.values().any(on_the_way)
    }
}
