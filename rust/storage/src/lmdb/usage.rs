//! The usage of the store, and why it is full.
//!
//! Three resources can run out, each with its own remedy: the space of the file system, and the map of either environment.
//! Each writer records in a [`Mark`] what was full when rows were last rejected.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use super::{LmdbStore, Shared};
use crate::sys;

/// The resource that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The file system of the data directory.
    FileSystem,
    /// The map of the journal.
    Journal,
    /// The map of the state.
    State,
}

/// Whether a writer last found no room, and where. Cheap to read from any thread.
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU8);

impl Mark {
    const ALL: [Full; 3] = [Full::FileSystem, Full::Journal, Full::State];

    pub(super) fn set(&self, full: Full) {
        self.0.store(full as u8 + 1, Ordering::Release);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Full> {
        let index = usize::from(self.0.load(Ordering::Acquire)).checked_sub(1)?;
        Mark::ALL.get(index).copied()
    }
}

/// The used space and the limit of an environment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Used now, without free pages.
    pub used_bytes: u64,
    /// The maximum size.
    pub limit_bytes: u64,
}

/// The usage of a store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The journal.
    pub journal: Extent,
    /// The state.
    pub state: Extent,
    /// Bytes that can still be written to the file system.
    pub available_bytes: u64,
    /// Why rows are rejected, and the remedy; `None` while there is room.
    pub full: Option<String>,
}

/// Reports the usage of a store while it is open.
#[derive(Clone)]
pub struct Gauge(Weak<Shared>);

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauge")
    }
}

impl LmdbStore {
    /// A gauge of the store's usage, for any thread.
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::downgrade(&self.applier.shared()))
    }
}

impl Gauge {
    /// Whether the last rows were rejected. Cheap.
    pub fn has_refused(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.marked().is_some())
    }

    /// Reads the usage of the environments and the file system. `None` if the store is closed or cannot be read.
    pub fn read(&self) -> Option<Usage> {
        let shared = self.0.upgrade()?;
        let available_bytes = shared.available_bytes().ok()?;
        Some(Usage {
            journal: shared.journal_extent().ok()?,
            state: shared.state_extent().ok()?,
            available_bytes,
            full: shared.full_reason(available_bytes),
        })
    }

    /// Why rows are rejected now, and the remedy; `None` while there is room.
    pub fn full_reason(&self) -> Option<String> {
        let shared = self.0.upgrade()?;
        let available_bytes = shared.available_bytes().ok()?;
        shared.full_reason(available_bytes)
    }
}

impl Shared {
    fn marked(&self) -> Option<Full> {
        self.state_full.get().or_else(|| self.commit_full.get())
    }

    /// What is full now. The file system is checked again, since others use it and its state may have changed.
    fn full(&self, available_bytes: u64) -> Option<Full> {
        let scarce = available_bytes < self.reserve_bytes;
        match self.marked() {
            None | Some(Full::FileSystem) => scarce.then_some(Full::FileSystem),
            full => full,
        }
    }

    fn full_reason(&self, available_bytes: u64) -> Option<String> {
        let directory = self.dir.path().display();
        let bytes = |map: usize| map as u64;
        Some(match self.full(available_bytes)? {
            Full::FileSystem => format!(
                "the file system of data directory {directory} has {available_bytes} bytes left and {} are \
                 reserved: free disk space there",
                self.reserve_bytes
            ),
            Full::State => format!(
                "data directory {directory} has reached the limit map_size_bytes={}: raise that setting and \
                 restart the node",
                bytes(self.state.env.info().map_size)
            ),
            Full::Journal => format!(
                "the journal in data directory {directory} has reached its limit of {} bytes: wait until its rows are \
                 applied",
                bytes(self.journal.env.info().map_size)
            ),
        })
    }

    fn journal_extent(&self) -> heed::Result<Extent> {
        let txn = self.journal.env.read_txn()?;
        let pages = pages(&self.journal.entries.stat(&txn)?);
        Ok(extent(pages, self.journal.env.info().map_size))
    }

    fn state_extent(&self) -> heed::Result<Extent> {
        let txn = self.state.env.read_txn()?;
        let mut used = 0;
        for table in &self.state.tables {
            used += pages(&table.stat(&txn)?);
        }
        Ok(extent(used, self.state.env.info().map_size))
    }
}

fn pages(stat: &heed::DatabaseStat) -> u64 {
    (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64
}

fn extent(pages: u64, map_size: usize) -> Extent {
    Extent {
        used_bytes: pages * sys::page_bytes(),
        limit_bytes: map_size as u64,
    }
}
