use std::fs::OpenOptions;

use quorate_core::store::{JournalOp, StateWrite, Table};

use super::*;
use crate::lmdb::{LmdbStore, Options};
use crate::{DataDir, Store};

/// A store with rows written, replaced and deleted, so that the free lists have pages.
fn aged(folder: &Path) {
    let dir = DataDir::open(folder).unwrap();
    let mut store = LmdbStore::open(
        &dir,
        &Options {
            zero_fill: 0,
            ..Options::default()
        },
    )
    .unwrap();
    for round in 0..30_u32 {
        let row = |key: u32| StateWrite {
            table: Table::Records,
            key: key.to_be_bytes().to_vec().into(),
            value: (key % 7 != round % 7).then(|| vec![round as u8; 700].into()),
        };
        store
            .commit(&[JournalOp::Write((0..300).map(row).collect())])
            .unwrap();
        while store.apply_step(50_000).unwrap() {}
    }
}

fn cut(path: &Path, bytes: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

#[test]
fn an_intact_file_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!check(&folder.path().join("none")).unwrap());
    aged(folder.path());
    for part in ["journal", "state"] {
        assert!(check(&folder.path().join(part).join("data.mdb")).unwrap());
    }
}

/// For every truncation, the check rejects the file, or all pages in use are present.
#[test]
fn a_truncated_file_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    aged(folder.path());
    let path = folder.path().join("state/data.mdb");
    let length = std::fs::metadata(&path).unwrap().len();
    let mut refused = 0;
    for cut_pages in 1..length / 4096 {
        cut(&path, length - cut_pages * 4096);
        match check(&path) {
            Err(OpenError::Truncated { expected, found, .. }) => {
                assert!(expected > found && expected <= length, "{expected} {found}");
                refused += 1;
            }
            other => assert!(other.unwrap(), "only an empty file counts as missing"),
        }
    }
    assert!(refused > length / 4096 / 2, "{refused} of {length} bytes");
    cut(&path, 100);
    assert!(matches!(check(&path), Err(OpenError::Truncated { .. })));
}

#[test]
fn a_file_that_lacks_only_free_pages_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    aged(folder.path());
    let path = folder.path().join("state/data.mdb");
    let pages = Pages {
        file: File::open(&path).unwrap(),
        path: &path,
        length: u64::MAX,
    };
    let first = pages.meta(0).unwrap();
    let second = pages.meta(first.page_size).unwrap();
    let newest = if first.transaction < second.transaction {
        second
    } else {
        first
    };
    let length = std::fs::metadata(&path).unwrap().len();
    let pages = Pages { length, ..pages };
    let all: BTreeSet<u64> = (2..=newest.last_page).collect();
    let mut in_use = all.clone();
    pages
        .remove_free(newest.free_root, newest.page_size, &mut in_use, 0)
        .unwrap();
    assert!(in_use.len() < all.len(), "the store has free pages");
    let last_in_use = in_use.last().unwrap();
    cut(&path, (last_in_use + 1) * newest.page_size);
    assert!(check(&path).unwrap());
    cut(&path, last_in_use * newest.page_size);
    assert!(matches!(check(&path), Err(OpenError::Truncated { .. })));
}

#[test]
fn a_malformed_file_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.mdb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(matches!(check(&path), Err(OpenError::Corrupt { .. })));
    std::fs::write(&path, vec![0; 10_000]).unwrap();
    assert!(matches!(check(&path), Err(OpenError::Corrupt { .. })));
}
