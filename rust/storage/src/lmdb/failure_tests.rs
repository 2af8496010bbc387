//! Damaged files, and mismatched data directories.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_core::store::{StateWrite, StreamId, Table};
use tempfile::TempDir;

use super::*;
use crate::error::ReadError;
use crate::frame::{self, Kind};
use crate::scrub::Scrubber;

pub(super) const LOG: StreamId = StreamId(1);

pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn open_with(&self, options: &Options) -> Result<LmdbStore, OpenError> {
        let dir = DataDir::open(self.0.path())?;
        dir.claim(ClusterId(1), NodeId(1), 1)?;
        LmdbStore::open(&dir, options)
    }

    pub(super) fn open(&self) -> Result<LmdbStore, OpenError> {
        self.open_with(&Options {
            zero_fill: 0,
            ..Options::default()
        })
    }

    pub(super) fn file(&self, part: &str) -> PathBuf {
        self.0.path().join(part).join("data.mdb")
    }

    /// Flips a bit of every occurrence of `text` in a data file.
    fn corrupt(&self, part: &str, text: &[u8]) {
        let path = self.file(part);
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> = (0..bytes.len() - text.len())
            .filter(|at| bytes[*at..].starts_with(text))
            .collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at + text.len() / 2] ^= 4);
        fs::write(&path, bytes).unwrap();
    }

    pub(super) fn copy(&self, part: &str) -> Vec<u8> {
        fs::read(self.file(part)).unwrap()
    }
}

pub(super) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> JournalOp {
    JournalOp::Write(vec![StateWrite {
        table: Table::Records,
        key: key.into(),
        value: Some(value.into()),
    }])
}

pub(super) fn append(position: u64, bytes: impl Into<Bytes>) -> JournalOp {
    JournalOp::Append {
        stream: LOG,
        position,
        bytes: bytes.into(),
    }
}

pub(super) fn apply_all(store: &mut LmdbStore) {
    while store.unapplied_bytes() > 0 {
        store.apply_step(usize::MAX).unwrap();
    }
}

#[test]
fn a_corrupt_row_is_never_served() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    for i in 0..20 {
        store
            .commit(&[put(format!("key {i:02}"), format!("a value, the {i:02}th"))])
            .unwrap();
    }
    apply_all(&mut store);
    drop(store);
    folder.corrupt("state", b"a value, the 07th");
    let store = folder.open().unwrap();
    let reader = store.reader();
    assert!(reader.get(Table::Records, b"key 06").unwrap().is_some());
    let error = reader.get(Table::Records, b"key 07").unwrap_err();
    assert!(
        matches!(&error, ReadError::Corrupt { table: Table::Records, key, .. } if key == "key 07"),
        "{error}"
    );
    let page = reader.range(Table::Records, b"", None, 99, 9999).unwrap();
    assert_eq!(
        (page.rows.len(), page.next),
        (7, Some("key 07".into())),
        "the page ends before it"
    );
    assert_eq!(
        reader
            .range(Table::Records, b"key 07", None, 99, 9999)
            .unwrap_err(),
        error
    );
    assert_eq!(
        reader
            .range(Table::Records, b"key 08", None, 99, 9999)
            .unwrap()
            .rows
            .len(),
        12
    );

    let mut scrubber = Scrubber::new();
    let (mut whole, mut corrupt) = (0, Vec::new());
    loop {
        let found = scrubber.step(&*reader, 100).unwrap();
        whole += found.rows;
        corrupt.extend(found.corrupt);
        if found.finished {
            break;
        }
    }
    assert_eq!(corrupt.len(), 1);
    assert_eq!(corrupt[0].key, "key 07");
    assert_eq!(whole, 19, "continues after the corrupt row");
}

#[test]
fn a_corrupt_row_is_repaired_by_a_write() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "a value that is corrupted")]).unwrap();
    apply_all(&mut store);
    drop(store);
    folder.corrupt("state", b"a value that is corrupted");
    let mut store = folder.open().unwrap();
    assert!(store.reader().get(Table::Records, b"key").is_err());
    store.commit(&[put("key", "new")]).unwrap();
    assert_eq!(
        store.reader().get(Table::Records, b"key").unwrap().unwrap(),
        "new"
    );
    assert_eq!(
        store
            .reader()
            .range(Table::Records, b"", None, 9, 99)
            .unwrap()
            .rows
            .len(),
        1
    );
}

#[test]
fn corrupt_entries_and_hard_states_are_never_served() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let hard = JournalOp::PutHard {
        key: "vote".into(),
        value: "for the third node".into(),
    };
    store
        .commit(&[append(1, "the first entry"), append(2, "the second entry"), hard])
        .unwrap();
    drop(store);
    folder.corrupt("journal", b"the second entry");
    folder.corrupt("journal", b"for the third node");
    let store = folder.open().unwrap();
    let reader = store.reader();
    assert_eq!(reader.log(LOG, 1, 9, 99).unwrap().len(), 1, "they end before it");
    let error = reader.log(LOG, 2, 9, 99).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::CorruptEntry {
                stream: LOG,
                position: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        reader.get_hard(b"vote"),
        Err(ReadError::CorruptHard { .. })
    ));
}

#[test]
fn corrupt_rows_of_the_journal_are_not_replayed() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "on its way to the state")]).unwrap();
    drop(store);
    folder.corrupt("journal", b"on its way to the state");
    let error = folder.open().err().unwrap();
    assert!(
        matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with("journal/data.mdb")),
        "{error}"
    );
    assert!(error.to_string().contains("entry 1"), "{error}");
}

#[test]
fn a_truncated_file_is_an_error_without_a_crash() {
    for part in ["journal", "state"] {
        let folder = Folder::new();
        let mut store = folder.open().unwrap();
        for i in 0..50 {
            store
                .commit(&[
                    put(format!("key {i}"), vec![b'v'; 3000]),
                    append(i, vec![b'e'; 3000]),
                ])
                .unwrap();
        }
        apply_all(&mut store);
        drop(store);
        let length = folder.copy(part).len() as u64;
        for bytes in [length / 2, 8192, 4096, 100] {
            fs::OpenOptions::new()
                .write(true)
                .open(folder.file(part))
                .unwrap()
                .set_len(bytes)
                .unwrap();
            let error = folder.open().err().unwrap();
            assert!(
                matches!(&error, OpenError::Truncated { path, .. } if *path == folder.file(part)),
                "{error}"
            );
        }
        fs::OpenOptions::new()
            .write(true)
            .open(folder.file(part))
            .unwrap()
            .set_len(0)
            .unwrap();
        assert!(matches!(folder.open(), Err(OpenError::DataMissing { .. })));
        fs::remove_dir_all(folder.0.path().join(part)).unwrap();
        assert!(matches!(folder.open(), Err(OpenError::DataMissing { .. })));
    }
}

#[test]
fn a_malformed_file_is_rejected() {
    for part in ["journal", "state"] {
        let folder = Folder::new();
        drop(folder.open().unwrap());
        fs::write(folder.file(part), vec![0xa5; 20_000]).unwrap();
        let error = folder.open().err().unwrap();
        assert!(
            matches!(&error, OpenError::Corrupt { path, .. } if *path == folder.file(part)),
            "{error}"
        );
    }
}

#[test]
fn a_journal_and_a_state_of_different_ages_are_rejected() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "0")]).unwrap();
    apply_all(&mut store);
    drop(store);
    let (old_journal, old_state) = (folder.copy("journal"), folder.copy("state"));
    let mut store = folder.open().unwrap();
    for i in 1..9 {
        store.commit(&[put("key", format!("{i}"))]).unwrap();
        apply_all(&mut store);
    }
    drop(store);
    let (new_journal, new_state) = (folder.copy("journal"), folder.copy("state"));

    fs::write(folder.file("state"), &old_state).unwrap();
    let error = folder.open().err().unwrap();
    assert!(error.to_string().contains("is missing before"), "{error}");
    fs::write(folder.file("state"), &new_state).unwrap();
    fs::write(folder.file("journal"), &old_journal).unwrap();
    let error = folder.open().err().unwrap();
    assert!(
        error.to_string().contains("the state has applied entry 9"),
        "{error}"
    );
    fs::write(folder.file("journal"), &new_journal).unwrap();
    let store = folder.open().unwrap();
    assert_eq!(store.reader().get(Table::Records, b"key").unwrap().unwrap(), "8");
}

#[test]
fn an_interrupted_creation_is_repeated() {
    let folder = Folder::new();
    DataDir::open(folder.0.path())
        .unwrap()
        .claim(ClusterId(1), NodeId(1), 1)
        .unwrap();
    fs::create_dir(folder.0.path().join("journal")).unwrap();
    fs::write(folder.file("journal"), vec![0; 5000]).unwrap();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "value")]).unwrap();
}

#[test]
fn a_store_is_opened_once() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let reader = store.reader();
    assert!(matches!(folder.open(), Err(OpenError::DirectoryInUse { .. })));
    drop(store);
    assert!(
        matches!(folder.open(), Err(OpenError::DirectoryInUse { .. })),
        "a reader keeps it open"
    );
    drop(reader);
    folder.open().unwrap();
}

#[test]
fn a_newer_layout_is_rejected() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let shared = store.journal.shared();
    let key = coding::own_key("layout");
    let mut stored = Vec::new();
    frame::encode(
        &mut stored,
        Kind::Own,
        coding::JOURNAL_TAG,
        &key,
        &2_u32.to_le_bytes(),
    );
    let mut txn = shared.journal.env.write_txn().unwrap();
    shared.journal.entries.put(&mut txn, &key, &stored).unwrap();
    txn.commit().unwrap();
    drop((shared, store));
    let error = folder.open().err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::FormatTooNew {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn golden_bytes_of_the_metadata() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "value")]).unwrap();
    apply_all(&mut store);
    drop(store);
    let holds = |part: &str, bytes: &[u8]| {
        folder
            .copy(part)
            .windows(bytes.len())
            .any(|window| window == bytes)
    };
    let own = |tag: u8, key: &[u8], content: &[u8]| {
        let mut stored = key.to_vec();
        frame::encode(&mut stored, Kind::Own, tag, key, content);
        stored
    };
    assert!(holds("journal", &own(0xff, b"\x01layout", &[1, 0, 0, 0])));
    assert!(holds("state", &own(0xfe, b"layout", &[1, 0, 0, 0])));
    assert!(holds("state", &own(0xfe, b"applied", &[1, 0, 0, 0, 0, 0, 0, 0])));
    let mut row = b"key".to_vec();
    frame::encode(&mut row, Kind::Row, 1, b"key", b"value");
    assert!(holds("state", &row));
    let mut entry = vec![3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let key = entry.clone();
    frame::encode(
        &mut entry,
        Kind::Writes,
        0xff,
        &key,
        b"\x01\x01\x03\x00\x05\x00\x00\x00keyvalue",
    );
    assert!(holds("journal", &entry));
}

#[test]
fn rounds_of_derived_rows_leave_the_last_entry_in_the_journal() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    store.commit(&[put("key", "value")]).unwrap();
    apply_all(&mut store);
    for _ in 0..3 {
        store.derived().apply_rows(vec![StateWrite {
            table: Table::Meta,
            key: "derived".into(),
            value: Some("row".into()),
        }]);
        apply_all(&mut store);
    }
    // Entries of another stream: only trimmable entries are removed.
    store.commit(&[append(1, "entry")]).unwrap();
    drop(store);
    let mut store = folder.open().expect("the journal and the state belong together");
    store.commit(&[put("key", "newer")]).unwrap();
    drop(store);
    let store = folder.open().unwrap();
    let value = store.reader().get(Table::Records, b"key").unwrap();
    assert_eq!(value.as_deref(), Some(&b"newer"[..]));
}
