//! The two LMDB environments: opening, checks, and their databases.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use quorate_core::store::StateWrite;

use super::coding::{self, EntryRange, JOURNAL_TAG, OWN_TAG};
use super::{Options, length};
use crate::datadir::{create_dir_durably, io_error, sync_dir};
use crate::error::OpenError;
use crate::frame::{self, HEADER_BYTES, Kind, RecordError};
use crate::memtable::Memtable;
use crate::store::{NODE_STREAM, TABLES};
use crate::sys;

pub(super) const DATA_FILE: &str = "data.mdb";

/// The version of the layout of both environments.
const LAYOUT_VERSION: u32 = 1;
const LAYOUT_KEY: &str = "layout";
const APPLIED_KEY: &[u8] = b"applied";

/// The names of the state's databases, in the order of [`TABLES`].
const TABLE_NAMES: [&str; TABLES.len()] = ["meta", "records", "token_index", "groups"];

/// The most concurrent read transactions.
const MAX_READERS: u32 = 1024;

pub(super) type Db = Database<'static, Raw, Raw>;

/// The journal: one database, see [`coding`] for its keys.
pub(super) struct JournalEnv {
    pub(super) env: Env<WithoutTls>,
    pub(super) entries: Db,
    path: PathBuf,
}

/// The state: a database for each table, and one for the store's metadata.
pub(super) struct StateEnv {
    pub(super) env: Env<WithoutTls>,
    pub(super) tables: [Db; TABLES.len()],
    own: Db,
    path: PathBuf,
}

/// The positions of the node's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    /// The first position in the journal, or the next one if it is empty.
    pub(super) first: u64,
    /// The position of the next entry.
    pub(super) next: u64,
}

impl JournalEnv {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let env = open(path, options.journal_map_size, 0, options.without_sync)?;
        let txn = env.write_txn().map_err(|error| lmdb_error(path, error))?;
        let entries = env
            .create_databases_and_commit(txn, |opener, txn| {
                let entries = opener.create_database(txn, None)?;
                check_layout(txn, &entries, &coding::own_key(LAYOUT_KEY), JOURNAL_TAG)?;
                Ok::<_, LayoutError>(CommitOrAbort::<_, ()>::Commit(entries))
            })
            .map_err(|error| error.at(path))?
            .unwrap_commit();
        Ok(JournalEnv {
            env,
            entries,
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The journal's file.
    pub(super) fn data_file(&self) -> PathBuf {
        self.path.join(DATA_FILE)
    }

    /// The end of the last page in use, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        (self.env.info().last_page_number as u64 + 1) * sys::page_bytes()
    }

    /// Loads the rows of the node's stream after the position `applied` into the memtable.
    pub(super) fn replay(&self, applied: u64, memtable: &mut Memtable) -> Result<Positions, OpenError> {
        let corrupt = |detail| OpenError::Corrupt {
            path: self.data_file(),
            detail,
        };
        let failed = |error| lmdb_error(&self.path, error);
        let txn = self.env.read_txn().map_err(failed)?;
        let range = EntryRange::new(NODE_STREAM, 0, u64::MAX);
        let mut first = None;
        let mut last = None;
        for entry in self.entries.range(&txn, &range).map_err(failed)? {
            let (key, stored) = entry.map_err(failed)?;
            let position =
                coding::entry_position(key).ok_or_else(|| corrupt("an entry has a malformed key".into()))?;
            let due = last.map_or_else(|| position.min(applied + 1), |last| last + 1);
            if position != due {
                return Err(corrupt(format!(
                    "entry {due} of the node's stream is missing before {position}"
                )));
            }
            first.get_or_insert(position);
            last = Some(position);
            if position > applied {
                let writes = decode_entry(key, &Bytes::copy_from_slice(stored))
                    .map_err(|why| corrupt(format!("entry {position} of the node's stream: {why}")))?;
                memtable.insert(writes, position);
            }
        }
        let last = last.unwrap_or(0);
        if last < applied {
            return Err(corrupt(format!(
                "it ends at entry {last} of the node's stream, but the state has applied entry {applied}"
            )));
        }
        Ok(Positions {
            first: first.unwrap_or(last + 1),
            next: last + 1,
        })
    }
}

/// The rows of an entry of the node's stream, as slices of `stored`.
fn decode_entry(key: &[u8], stored: &Bytes) -> Result<Vec<StateWrite>, RecordError> {
    frame::decode(Kind::Writes, JOURNAL_TAG, key, stored)?;
    coding::decode_writes(stored.slice(HEADER_BYTES..)).ok_or(RecordError::Content)
}

impl StateEnv {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let env = open(
            path,
            options.map_size,
            TABLES.len() as u32 + 1,
            options.without_sync,
        )?;
        let txn = env.write_txn().map_err(|error| lmdb_error(path, error))?;
        let (tables, own) = env
            .create_databases_and_commit(txn, |opener, txn| {
                let own = opener.create_database(txn, Some("own"))?;
                check_layout(txn, &own, LAYOUT_KEY.as_bytes(), OWN_TAG)?;
                let mut table = |index: usize| opener.create_database(txn, Some(TABLE_NAMES[index]));
                let tables = [table(0)?, table(1)?, table(2)?, table(3)?];
                Ok::<_, LayoutError>(CommitOrAbort::<_, ()>::Commit((tables, own)))
            })
            .map_err(|error| error.at(path))?
            .unwrap_commit();
        Ok(StateEnv {
            env,
            tables,
            own,
            path: path.to_owned(),
        })
    }

    /// The position of the node's stream up to which the rows are applied; 0 if none are.
    pub(super) fn applied(&self) -> Result<u64, OpenError> {
        let failed = |error| lmdb_error(&self.path, error);
        let txn = self.env.read_txn().map_err(failed)?;
        let Some(stored) = self.own.get(&txn, APPLIED_KEY).map_err(failed)? else {
            return Ok(0);
        };
        let content = frame::decode(Kind::Own, OWN_TAG, APPLIED_KEY, stored);
        content
            .and_then(|content| {
                content
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| RecordError::Content)
            })
            .map_err(|why| OpenError::Corrupt {
                path: self.path.join(DATA_FILE),
                detail: format!("its applied position: {why}"),
            })
    }

    /// Writes the applied position into a transaction that applies rows.
    pub(super) fn put_applied(&self, txn: &mut RwTxn<'_>, position: u64) -> heed::Result<()> {
        let mut stored = Vec::new();
        frame::encode(
            &mut stored,
            Kind::Own,
            OWN_TAG,
            APPLIED_KEY,
            &position.to_le_bytes(),
        );
        self.own.put(txn, APPLIED_KEY, &stored)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens an environment after checking its data file, or creates one.
#[allow(unsafe_code)]
fn open(
    path: &Path,
    map_size: usize,
    databases: u32,
    without_sync: bool,
) -> Result<Env<WithoutTls>, OpenError> {
    create_dir_durably(path)?;
    let exists = length::check(&path.join(DATA_FILE))?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(map_size)
        .max_dbs(databases)
        .max_readers(MAX_READERS);
    if without_sync {
        // SAFETY: only a test of data loss sets this.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: the lock of the data directory excludes other processes from the mapped file, and its length was just
    // checked.
    let env = unsafe { options.open(path) }.map_err(|error| lmdb_error(path, error))?;
    if !exists {
        sync_dir(path)?;
    }
    Ok(env)
}

/// Removes an environment's folder and its contents.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes the layout's version to a new environment, or checks it.
fn check_layout(
    txn: &mut RwTxn<'_>,
    db: &Database<'_, Raw, Raw>,
    key: &[u8],
    tag: u8,
) -> Result<(), LayoutError> {
    let Some(version) = read_layout(txn, db, key, tag)? else {
        let mut stored = Vec::new();
        frame::encode(&mut stored, Kind::Own, tag, key, &LAYOUT_VERSION.to_le_bytes());
        return Ok(db.put(txn, key, &stored)?);
    };
    if version > LAYOUT_VERSION {
        Err(LayoutError::TooNew(version))
    } else {
        Ok(())
    }
}

fn read_layout(
    txn: &RoTxn<'_>,
    db: &Database<'_, Raw, Raw>,
    key: &[u8],
    tag: u8,
) -> Result<Option<u32>, LayoutError> {
    let Some(stored) = db.get(txn, key)? else {
        return Ok(None);
    };
    let content = frame::decode(Kind::Own, tag, key, stored).map_err(LayoutError::Corrupt)?;
    let version = content
        .try_into()
        .map_err(|_| LayoutError::Corrupt(RecordError::Content))?;
    Ok(Some(u32::from_le_bytes(version)))
}

enum LayoutError {
    Lmdb(heed::Error),
    TooNew(u32),
    Corrupt(RecordError),
}

impl From<heed::Error> for LayoutError {
    fn from(error: heed::Error) -> Self {
        LayoutError::Lmdb(error)
    }
}

impl LayoutError {
    fn at(self, path: &Path) -> OpenError {
        let file = path.join(DATA_FILE);
        match self {
            LayoutError::Lmdb(error) => lmdb_error(path, error),
            LayoutError::TooNew(found) => OpenError::FormatTooNew {
                path: file,
                found,
                supported: LAYOUT_VERSION,
            },
            LayoutError::Corrupt(why) => OpenError::Corrupt {
                path: file,
                detail: format!("the version of its layout: {why}"),
            },
        }
    }
}

/// Converts an error of LMDB while the environment at `path` was being opened.
pub(super) fn lmdb_error(path: &Path, error: heed::Error) -> OpenError {
    error_while("open", path, error)
}

/// Describes an error of LMDB on an open environment.
pub(super) fn describe_error(action: &'static str, path: &Path, error: heed::Error) -> String {
    match error_while(action, path, error) {
        OpenError::Lmdb { path, detail } => format!("{action} {}: {detail}", path.display()),
        error => error.to_string(),
    }
}

fn error_while(action: &'static str, path: &Path, error: heed::Error) -> OpenError {
    match error {
        heed::Error::Io(source) => OpenError::Io {
            action,
            path: path.to_owned(),
            source,
        },
        heed::Error::Mdb(
            error @ (MdbError::Invalid
            | MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::VersionMismatch),
        ) => OpenError::Corrupt {
            path: path.join(DATA_FILE),
            detail: error.to_string(),
        },
        error => OpenError::Lmdb {
            path: path.to_owned(),
            detail: error.to_string(),
        },
    }
}

/// Whether the map is full; the transaction with this error has changed nothing.
pub(super) fn is_map_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::MapFull))
}
