//! The actor of a toy role on a real store: derived rows are visible to later reads, and rows are saved to a file and
//! loaded again.

use bytes::Bytes;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_core::ids::{ClusterId, NodeId};
use quorate_core::store::{StateWrite, Table};
use quorate_storage::files::FileThreads;
use quorate_storage::thread::{Config, Hooks, StorageThread};
use quorate_storage::{DataDir, LmdbStore, Options, Store};

use super::tests::{Behaviour, Ports, reply, requests, run_on};
use super::*;
use crate::files::Files;

const FILE: FileId = FileId { owner: 7, number: 1 };
const PREFIX: Bytes = Bytes::from_static(b"group");
const MARKER: Bytes = Bytes::from_static(b"group applied");

/// One effect: a row, and the applied index.
fn apply_row(token: u64, row: &'static str, applied: &'static str) -> Effect {
    let write = |key: Bytes, value: &'static str| StateWrite {
        table: Table::Groups,
        key,
        value: Some(value.into()),
    };
    Effect::ApplyRows {
        token,
        writes: vec![write(row.into(), applied), write(MARKER, applied)],
    }
}

fn read(token: u64) -> Effect {
    let query = Query::Range {
        table: Table::Groups,
        start: PREFIX,
        end: Bytes::from_static(b"grouq"),
        limit_rows: 9,
        limit_bytes: 999,
    };
    Effect::Read { token, query }
}

fn files(token: u64, task: FileTask) -> Effect {
    Effect::Files { token, task }
}

fn load(file: FileId) -> FileTask {
    FileTask::Load {
        file,
        table: Table::Groups,
        prefix: PREFIX,
        marker: MARKER,
    }
}

fn is_first(rows: &Result<quorate_core::store::Rows, Error>) -> bool {
    let rows = &rows.as_ref().unwrap().rows;
    rows[..]
        == [
            (MARKER, "1".into()),
            (Bytes::from_static(b"group row 1"), "1".into()),
        ]
}

#[tokio::test]
async fn derived_rows_are_read_saved_and_loaded() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Start => effects.extend([
            apply_row(1, "group row 1", "1"),
            read(1),
            files(
                2,
                FileTask::Save {
                    file: FILE,
                    table: Table::Groups,
                    prefix: PREFIX,
                    marker: MARKER,
                },
            ),
        ]),
        Event::Read { token: 1, result } => assert!(is_first(&result), "{result:?}"),
        Event::Files { token: 2, result } => {
            let Ok(FileDone::Saved { marker, .. }) = result else {
                panic!("{result:?}");
            };
            assert_eq!(marker, Some("1".into()));
            effects.extend([apply_row(3, "group row 2", "2"), files(4, load(FILE))]);
        }
        Event::Files { token: 4, result } => {
            assert_eq!(result, Ok(FileDone::Loaded));
            effects.push(read(5));
        }
        Event::Read { token: 5, result } => {
            assert!(is_first(&result), "{result:?}");
            effects.push(files(6, load(FileId { number: 2, ..FILE })));
        }
        Event::Files { token: 6, result } => {
            assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
            effects.push(reply(6));
        }
        _ => {}
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(ClusterId(1), NodeId(1), 1).unwrap();
    let store = LmdbStore::open(&dir, &Options::default()).unwrap();
    let (reader, on_disk) = (store.reader(), store.files());
    let (journal, applier) = store.split();
    let hooks = Hooks {
        on_completed: Box::new(|_| {}),
        on_flushed: Box::new(|_| {}),
        on_fatal: Box::new(|why| panic!("{why}")),
        observer: Arc::new(()),
    };
    let storage = StorageThread::start(journal, applier, Config::default(), hooks).unwrap();
    let threads = FileThreads::start(on_disk, &storage.handle()).unwrap();
    let running = run_on(behaviour, [], |_, fatal| Ports {
        commits: Arc::new(storage.handle()),
        files: Arc::new(Files::new(threads, folder.path(), fatal.clone())),
        reader,
    })
    .await;
    let outside = &running.outside;
    outside
        .until(|outside| requests(outside) == [6] || !outside.fatal.lock().unwrap().is_empty())
        .await;
    assert_eq!(*outside.fatal.lock().unwrap(), []);
}
