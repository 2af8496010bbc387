//! Files of rows: saved in a snapshot, sent in parts, and loaded in place of other rows.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_core::error::Error;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_storage::files::format::sum;
use quorate_storage::{StateWrite, Table};

use super::{apply_all, delete, get, put, scan, write};
use crate::Bench;

const TABLE: Table = Table::Groups;
const FILE: FileId = FileId { owner: 7, number: 1 };
const PREFIX: &[u8] = b"g7/";
/// The last key of the group: it is deleted first nevertheless.
const MARKER: &str = "g7/zz applied";

fn row(number: usize, value: impl Into<Bytes>) -> StateWrite {
    put(TABLE, format!("g7/row {number:04}"), value)
}

fn marker(value: &'static str) -> StateWrite {
    put(TABLE, MARKER, value)
}

fn save(file: FileId) -> FileTask {
    FileTask::Save {
        file,
        table: TABLE,
        prefix: PREFIX.into(),
        marker: MARKER.into(),
    }
}

fn load(file: FileId) -> FileTask {
    FileTask::Load {
        file,
        table: TABLE,
        prefix: PREFIX.into(),
        marker: MARKER.into(),
    }
}

fn keep(number: Option<u64>) -> FileTask {
    FileTask::Retain {
        owner: FILE.owner,
        number,
    }
}

fn read(file: FileId, offset: u64, length: u32) -> FileTask {
    FileTask::Read { file, offset, length }
}

/// Saves the rows; returns size, checksum, and the marker in the copy.
fn saved(bench: &mut impl Bench, file: FileId) -> (u64, u64, Option<Bytes>) {
    match bench.files(save(file)) {
        Ok(FileDone::Saved {
            size,
            checksum,
            marker,
        }) => (size, checksum, marker),
        other => panic!("{other:?}"),
    }
}

fn content(bench: &mut impl Bench, file: FileId) -> Bytes {
    match bench.files(read(file, 0, u32::MAX)) {
        Ok(FileDone::Chunk(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn is_there(bench: &mut impl Bench, file: FileId) -> bool {
    match bench.files(read(file, 0, 1)) {
        Ok(FileDone::Chunk(_)) => true,
        Err(Error::NotFound(_)) => false,
        other => panic!("{other:?}"),
    }
}

/// Writes a file from its content, in parts.
fn receive(bench: &mut impl Bench, file: FileId, bytes: &Bytes, part: usize) {
    for offset in (0..bytes.len()).step_by(part) {
        let written = bench.files(FileTask::Write {
            file,
            offset: offset as u64,
            bytes: bytes.slice(offset..bytes.len().min(offset + part)),
        });
        assert_eq!(written, Ok(FileDone::Written));
    }
}

fn seal(file: FileId, bytes: &Bytes) -> FileTask {
    let sum = sum(&bytes[..]).unwrap();
    FileTask::Seal {
        file,
        size: sum.size,
        checksum: sum.checksum,
    }
}

/// All rows of the table.
fn rows(bench: &mut impl Bench) -> Vec<(Bytes, Bytes)> {
    scan(&*bench.store().reader(), TABLE, b"", None, 100)
}

/// A group, and its neighbours in the table.
fn fill(bench: &mut impl Bench, count: usize) {
    let store = bench.store();
    write(store, [put(TABLE, "g6/last", "6"), put(TABLE, "g8", "8")]);
    write(store, [put(Table::Records, "g7/applied", "another table's")]);
    apply_all(store);
    let rows = (0..count).map(|number| row(number, format!("value {number}")));
    store.derived().apply_rows(rows.chain([marker("1")]).collect());
}

pub(crate) fn a_file_has_exactly_the_rows_derived_before<T: Bench>() {
    for applied in [false, true] {
        let mut bench = T::new();
        fill(&mut bench, 30);
        if applied {
            apply_all(bench.store());
        }
        // A newer value, a deleted row, and a new row: in the active layer over the frozen one or the state.
        bench.store().apply_step(1).unwrap();
        let derived = bench.store().derived();
        derived.apply_rows(vec![
            row(3, "younger"),
            delete(TABLE, "g7/row 0004"),
            row(99, "new"),
            marker("2"),
        ]);
        drop(derived);
        let group = |rows: Vec<(Bytes, Bytes)>| -> Vec<_> {
            rows.into_iter()
                .filter(|(key, _)| key.starts_with(PREFIX))
                .collect()
        };
        let before = rows(&mut bench);
        let (size, checksum, applied) = saved(&mut bench, FILE);
        assert_eq!(applied, Some("2".into()));
        let bytes = content(&mut bench, FILE);
        assert_eq!(
            (size, checksum),
            (bytes.len() as u64, sum(&bytes[..]).unwrap().checksum)
        );
        // In another store, over other rows.
        let mut other = T::new();
        write(
            other.store(),
            [
                put(TABLE, "g6/last", "6"),
                put(TABLE, "g8", "8"),
                row(50, "of old"),
            ],
        );
        other
            .store()
            .derived()
            .apply_rows(vec![row(3, "of old"), row(51, "of old"), marker("of old")]);
        receive(&mut other, FILE, &bytes, 100);
        assert_eq!(
            other.files(seal(FILE, &bytes)),
            Ok(FileDone::Sealed { intact: true })
        );
        assert_eq!(other.files(load(FILE)), Ok(FileDone::Loaded));
        for _ in 0..2 {
            assert_eq!(group(rows(&mut other)), group(before.clone()));
            assert_eq!(
                rows(&mut other).len(),
                before.len(),
                "the neighbours are unchanged"
            );
            assert_eq!(
                saved(&mut other, FILE).1,
                checksum,
                "the same rows give the same file"
            );
            apply_all(other.store());
            other.restart();
        }
        assert_eq!(rows(&mut bench), before, "saving changes nothing");
    }
}

pub(crate) fn a_file_without_rows_is_valid<T: Bench>() {
    let mut bench = T::new();
    assert_eq!(saved(&mut bench, FILE).2, None);
    fill(&mut bench, 3);
    assert_eq!(bench.files(load(FILE)), Ok(FileDone::Loaded));
    assert_eq!(rows(&mut bench).len(), 2, "the neighbours");
}

pub(crate) fn a_file_is_read_in_parts<T: Bench>() {
    let mut bench = T::new();
    fill(&mut bench, 20);
    let (size, ..) = saved(&mut bench, FILE);
    let whole = content(&mut bench, FILE);
    let mut chunk = |offset, length| match bench.files(read(FILE, offset, length)) {
        Ok(FileDone::Chunk(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(chunk(3, 10), whole[3..13]);
    assert_eq!(chunk(size - 5, 10), whole[whole.len() - 5..]);
    assert_eq!(chunk(size, 10), "");
    assert_eq!(chunk(u64::MAX, u32::MAX), "");
    let missing = bench.files(read(FileId { number: 2, ..FILE }, 0, 1)).unwrap_err();
    assert!(missing.to_string().contains("file 2 of group 0x7"), "{missing}");
}

pub(crate) fn a_file_with_another_checksum_is_removed<T: Bench>() {
    let mut bench = T::new();
    fill(&mut bench, 20);
    saved(&mut bench, FILE);
    let bytes = content(&mut bench, FILE);
    let other = FileId { number: 2, ..FILE };
    let not_found =
        |done: Result<FileDone, Error>| assert!(matches!(done, Err(Error::NotFound(_))), "{done:?}");
    not_found(bench.files(seal(other, &bytes)));
    let write = |offset: usize, bytes: &Bytes| FileTask::Write {
        file: other,
        offset: offset as u64,
        bytes: bytes.clone(),
    };
    not_found(bench.files(write(5, &bytes)));
    receive(&mut bench, other, &bytes.slice(..100), 30);
    assert!(matches!(
        bench.files(write(101, &bytes)),
        Err(Error::InvalidArgument(_))
    ));
    assert!(!is_there(&mut bench, other), "it is not sealed");
    not_found(bench.files(load(other)));
    assert_eq!(
        bench.files(seal(other, &bytes)),
        Ok(FileDone::Sealed { intact: false })
    );
    not_found(bench.files(seal(other, &bytes)));
    // Again, with a duplicated part.
    receive(&mut bench, other, &bytes.slice(..100), 30);
    receive(&mut bench, other, &bytes.slice(..50), 50);
    assert_eq!(bench.files(write(40, &bytes.slice(40..))), Ok(FileDone::Written));
    for _ in 0..2 {
        assert_eq!(
            bench.files(seal(other, &bytes)),
            Ok(FileDone::Sealed { intact: true })
        );
        assert_eq!(content(&mut bench, other), bytes);
        bench.restart();
    }
}

pub(crate) fn a_restart_keeps_only_complete_files<T: Bench>() {
    let mut bench = T::new();
    fill(&mut bench, 20);
    saved(&mut bench, FILE);
    let bytes = content(&mut bench, FILE);
    let [received, begun] = [2, 3].map(|number| FileId { number, ..FILE });
    receive(&mut bench, received, &bytes, 64);
    assert_eq!(
        bench.files(seal(received, &bytes)),
        Ok(FileDone::Sealed { intact: true })
    );
    receive(&mut bench, begun, &bytes, 64);
    bench.restart();
    assert_eq!(
        [FILE, received, begun].map(|file| is_there(&mut bench, file)),
        [true, true, false]
    );
    let done = bench.files(seal(begun, &bytes));
    assert!(matches!(done, Err(Error::NotFound(_))), "{done:?}");
}

pub(crate) fn all_files_of_an_owner_but_one_are_removed<T: Bench>() {
    let mut bench = T::new();
    fill(&mut bench, 2);
    let files = [(7, 1), (7, 2), (7, 18), (70, 2)].map(|(owner, number)| FileId { owner, number });
    for file in files {
        saved(&mut bench, file);
    }
    assert_eq!(bench.files(keep(Some(2))), Ok(FileDone::Retained));
    assert_eq!(
        files.map(|file| is_there(&mut bench, file)),
        [false, true, false, true]
    );
    assert_eq!(bench.files(keep(None)), Ok(FileDone::Retained));
    assert_eq!(
        bench.files(keep(None)),
        Ok(FileDone::Retained),
        "there is nothing left to remove"
    );
    assert_eq!(
        files.map(|file| is_there(&mut bench, file)),
        [false, false, false, true]
    );
}

pub(crate) fn a_damaged_file_changes_nothing<T: Bench>() {
    let mut bench = T::new();
    fill(&mut bench, 200);
    saved(&mut bench, FILE);
    bench
        .store()
        .derived()
        .apply_rows(vec![row(3, "younger"), marker("2")]);
    let before = rows(&mut bench);
    bench.corrupt(FILE, 5000);
    let done = bench.files(load(FILE));
    assert!(matches!(done, Err(Error::CorruptRecord(_))), "{done:?}");
    assert_eq!(rows(&mut bench), before);
    // A file of another group.
    saved(&mut bench, FILE);
    let done = bench.files(FileTask::Load {
        file: FILE,
        table: TABLE,
        prefix: "g6/".into(),
        marker: "g6/applied".into(),
    });
    assert!(matches!(done, Err(Error::CorruptRecord(_))), "{done:?}");
    assert_eq!(rows(&mut bench), before);
    // A marker that is not a row of the group.
    let done = bench.files(FileTask::Load {
        file: FILE,
        table: TABLE,
        prefix: PREFIX.into(),
        marker: "applied".into(),
    });
    assert!(matches!(done, Err(Error::InvalidArgument(_))), "{done:?}");
    assert_eq!(rows(&mut bench), before);
}

pub(crate) fn an_interrupted_load_leaves_no_marker<T: Bench>() {
    let mut after = 0;
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let mut bench = T::new();
        fill(&mut bench, 6);
        saved(&mut bench, FILE);
        // Several slices to delete, and several to write.
        let large = |number, byte: u8| row(number, vec![byte; 400_000]);
        bench
            .store()
            .derived()
            .apply_rows((0..6).map(|number| large(number, b'o')).collect());
        saved(&mut bench, FILE);
        bench.store().derived().apply_rows(
            (0..9)
                .map(|number| large(number, b'n'))
                .chain([marker("2")])
                .collect(),
        );
        let ended = bench.load_partly(load(FILE), after);
        bench.restart();
        let rows = rows(&mut bench);
        let found = get(bench.store(), TABLE, MARKER);
        if after == 0 {
            assert_eq!(found, None, "nothing was flushed");
        } else if after == 1 {
            assert_eq!(found, Some("2".into()), "only the derived rows are flushed");
            assert_eq!(rows.len(), 12);
        } else if ended {
            assert_eq!(found, Some("1".into()));
            assert_eq!(rows.len(), 9);
        } else if found.is_some() {
            // The last change, whose result was lost.
            assert_eq!(rows.len(), 9);
        } else {
            seen.insert(rows.len());
        }
        assert_eq!(
            bench.files(load(FILE)),
            Ok(FileDone::Loaded),
            "it is loaded again"
        );
        assert_eq!(get(bench.store(), TABLE, MARKER).unwrap(), "1");
        assert_eq!(scan(&*bench.store().reader(), TABLE, b"", None, 100).len(), 9);
        if ended {
            break;
        }
        after += 1;
    }
    assert!(
        seen.into_iter().eq([2, 5, 8]),
        "it was interrupted in the middle of either half"
    );
}

pub(crate) fn a_full_store_rejects_a_load_and_stays_usable<T: Bench>() {
    let mut bench = T::new();
    let rows = (0..40).map(|number| row(number, vec![b'v'; 50_000]));
    bench
        .store()
        .derived()
        .apply_rows(rows.chain([marker("1")]).collect());
    saved(&mut bench, FILE);
    let bytes = content(&mut bench, FILE);
    let mut small = T::small();
    fill(&mut small, 3);
    // If files have the same space limit as rows, the write of the file is rejected already.
    for offset in (0..bytes.len()).step_by(1 << 20) {
        let part = bytes.slice(offset..bytes.len().min(offset + (1 << 20)));
        let written = small.files(FileTask::Write {
            file: FILE,
            offset: offset as u64,
            bytes: part,
        });
        match written {
            Ok(FileDone::Written) => {}
            Err(Error::StorageFull(_)) => return,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        small.files(seal(FILE, &bytes)),
        Ok(FileDone::Sealed { intact: true })
    );
    let done = small.files(load(FILE));
    assert!(matches!(done, Err(Error::StorageFull(_))), "{done:?}");
    assert_eq!(get(small.store(), TABLE, MARKER), None);
    assert_eq!(get(small.store(), TABLE, "g8").unwrap(), "8");
    write(small.store(), [put(Table::Meta, "goes", "on")]);
}

pub(crate) fn random_groups_are_saved_and_loaded<T: Bench>() {
    let mut runner = TestRunner::new(Config {
        cases: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let value = prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..60));
    let row = ((0..40u8), value).prop_map(|(key, value)| StateWrite {
        table: TABLE,
        key: [PREFIX, &[key]].concat().into(),
        value: value.map(Bytes::from),
    });
    let run = (prop::collection::vec(row, 1..30), 0..3000usize);
    let runs = prop::collection::vec(run, 1..8);
    let strategy = (runs.clone(), runs);
    runner
        .run(&strategy, |(runs, others)| {
            let [mut bench, mut other] = [runs, others].map(|runs| {
                let mut bench = T::new();
                for (rows, budget) in runs {
                    bench.store().derived().apply_rows(rows);
                    bench.store().apply_step(budget).unwrap();
                }
                bench
            });
            saved(&mut bench, FILE);
            let bytes = content(&mut bench, FILE);
            receive(&mut other, FILE, &bytes, 1000);
            assert_eq!(
                other.files(seal(FILE, &bytes)),
                Ok(FileDone::Sealed { intact: true })
            );
            assert_eq!(other.files(load(FILE)), Ok(FileDone::Loaded));
            assert_eq!(rows(&mut other), rows(&mut bench));
            other.restart();
            assert_eq!(rows(&mut other), rows(&mut bench));
            Ok(())
        })
        .unwrap();
}
