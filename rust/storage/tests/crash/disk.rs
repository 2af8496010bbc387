//! A disk that may lose unsynced data in a power failure: the durable content of every file, and the pending changes. A
//! crash image includes any subset of the latter, in units of a sector.
//!
//! The same holds for folders: the name of a created or renamed file is durable only once the folder is synced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::trace::Event;

const SECTOR: usize = 512;

/// A file, independent of its name.
type FileId = usize;

/// A change of a file that is not synced yet.
#[derive(Clone)]
struct Pending {
    id: u64,
    file: FileId,
    change: Change,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Truncate { length: u64 },
}

/// A change of a folder that is not synced yet.
#[derive(Clone)]
struct PendingEntry {
    id: u64,
    folder: PathBuf,
    removed: Option<PathBuf>,
    added: PathBuf,
    /// `None`: a folder.
    file: Option<FileId>,
}

/// Which pending changes reach the disk.
pub(crate) enum Fate<'a> {
    Lost,
    Kept,
    /// The first sectors and entries, in the order in which they were written.
    First(usize),
    /// Each sector and each entry at random.
    Mixed(&'a mut Coin),
}

impl Fate<'_> {
    fn keeps(&mut self) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::First(left) => {
                let keeps = *left > 0;
                *left = left.saturating_sub(1);
                keeps
            }
            Fate::Mixed(coin) => coin.toss(),
        }
    }
}

/// A seeded random source.
pub(crate) struct Coin(pub(crate) u64);

impl Coin {
    fn toss(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 40 & 1 == 1
    }
}

#[derive(Default)]
pub(crate) struct Disk {
    /// Files by name, as the process sees them.
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, Option<FileId>>,
    durable: Vec<Vec<u8>>,
    pending: Vec<Pending>,
    pending_entries: Vec<PendingEntry>,
    /// The changes that a sync in progress makes durable when it returns.
    covered: BTreeMap<u64, Vec<u64>>,
    next_entry: u64,
}

impl Disk {
    /// Applies an event of the process.
    pub(crate) fn perform(&mut self, event: &Event) {
        match event {
            Event::Create(path) => {
                let file = self.durable.len();
                self.durable.push(Vec::new());
                self.names.insert(path.clone(), file);
                self.enter(None, path, Some(file));
            }
            Event::MakeDir(path) => self.enter(None, path, None),
            Event::Rename(from, to) => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), file);
                self.enter(Some(from.clone()), to, Some(file));
            }
            Event::Write {
                id,
                path,
                offset,
                data,
            } => {
                let change = Change::Write {
                    offset: *offset,
                    data: data.clone(),
                };
                self.pending.push(Pending {
                    id: *id,
                    file: self.names[path],
                    change,
                });
            }
            Event::Truncate { id, path, length } => {
                let change = Change::Truncate { length: *length };
                self.pending.push(Pending {
                    id: *id,
                    file: self.names[path],
                    change,
                });
            }
            Event::Sync { id, path } => {
                let covered = match self.names.get(path) {
                    Some(file) => self
                        .pending
                        .iter()
                        .filter(|p| p.file == *file)
                        .map(|p| p.id)
                        .collect(),
                    None => self
                        .pending_entries
                        .iter()
                        .filter(|e| e.folder == *path)
                        .map(|e| e.id)
                        .collect(),
                };
                self.covered.insert(*id, covered);
            }
            Event::End(id) => {
                let covered = self.covered.remove(id).unwrap_or_else(|| vec![*id]);
                for change in extract(&mut self.pending, |pending| covered.contains(&pending.id)) {
                    apply(&mut self.durable[change.file], &change.change, &mut Fate::Kept);
                }
                for entry in extract(&mut self.pending_entries, |entry| covered.contains(&entry.id)) {
                    enter(&mut self.durable_names, &entry);
                }
            }
            Event::Acknowledged(_) => {}
        }
    }

    fn enter(&mut self, removed: Option<PathBuf>, path: &Path, file: Option<FileId>) {
        // Counted separately from the ids of writes, which a sync of a file covers.
        self.next_entry += 1;
        self.pending_entries.push(PendingEntry {
            id: u64::MAX - self.next_entry,
            folder: path.parent().unwrap().to_owned(),
            removed,
            added: path.to_owned(),
            file,
        });
    }

    /// Sectors and entries that a power failure may lose.
    pub(crate) fn pending(&self) -> usize {
        let sectors = |pending: &Pending| match &pending.change {
            Change::Write { data, .. } => data.len().div_ceil(SECTOR),
            Change::Truncate { .. } => 1,
        };
        self.pending.iter().map(sectors).sum::<usize>() + self.pending_entries.len()
    }

    /// Writes the disk's content after a power failure to `target`, in place of `root`.
    pub(crate) fn write_image(&self, root: &Path, target: &Path, fate: &mut Fate<'_>) {
        let mut files = self.durable.clone();
        for pending in &self.pending {
            apply(&mut files[pending.file], &pending.change, fate);
        }
        let mut names = self.durable_names.clone();
        for entry in &self.pending_entries {
            if fate.keeps() {
                enter(&mut names, entry);
            }
        }
        std::fs::create_dir(target).unwrap();
        // In name order a folder comes before its contents; the contents of a lost folder are lost.
        for (path, file) in &names {
            let path = target.join(path.strip_prefix(root).unwrap());
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match file {
                None => std::fs::create_dir_all(&path).unwrap(),
                // The lock file is created again.
                Some(_) if path.ends_with("lock.mdb") => {}
                Some(file) => std::fs::write(&path, &files[*file]).unwrap(),
            }
        }
    }
}

fn enter(names: &mut BTreeMap<PathBuf, Option<FileId>>, entry: &PendingEntry) {
    if let Some(removed) = &entry.removed {
        names.remove(removed);
    }
    names.insert(entry.added.clone(), entry.file);
}

fn extract<T>(all: &mut Vec<T>, taken: impl Fn(&T) -> bool) -> Vec<T> {
    let (taken, kept) = std::mem::take(all).into_iter().partition(taken);
    *all = kept;
    taken
}

/// Applies a change to a file's content, or those sectors of it that reach the disk.
fn apply(content: &mut Vec<u8>, change: &Change, fate: &mut Fate<'_>) {
    match change {
        Change::Truncate { length } => {
            if fate.keeps() {
                content.resize(*length as usize, 0);
            }
        }
        Change::Write { offset, data } => {
            let mut at = *offset as usize;
            let mut data = &data[..];
            while !data.is_empty() {
                let (sector, rest) = data.split_at(data.len().min(SECTOR - at % SECTOR));
                if fate.keeps() {
                    if content.len() < at + sector.len() {
                        content.resize(at + sector.len(), 0);
                    }
                    content[at..at + sector.len()].copy_from_slice(sector);
                }
                at += sector.len();
                data = rest;
            }
        }
    }
}
