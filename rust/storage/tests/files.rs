//! The file threads, on a real store: concurrency with a long task, the order of tasks, and closing a store during a task.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_storage::files::{FileError, FileThreads};
use quorate_storage::thread::{Config, Hooks};
use quorate_storage::{
    Completion, DataDir, Flushed, JournalOp, LmdbStore, Options, Priority, Reader, Request, StateWrite,
    StorageThread, Store, StreamId, Table,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TABLE: Table = Table::Groups;
const FILE: FileId = FileId { owner: 7, number: 1 };

struct Stage {
    threads: Option<FileThreads>,
    storage: StorageThread,
    reader: Arc<dyn Reader>,
    completed: Receiver<(Instant, Completion)>,
    flushed: Receiver<(Instant, Flushed)>,
}

fn send_all<T>(to: Sender<(Instant, T)>) -> Box<dyn Fn(Vec<T>) + Send>
where
    T: Send + 'static,
{
    Box::new(move |all| {
        for one in all {
            // The test may have ended.
            let _ = to.send((Instant::now(), one));
        }
    })
}

impl Stage {
    fn open(folder: &std::path::Path) -> Stage {
        let dir = DataDir::open(folder).unwrap();
        let store = LmdbStore::open(&dir, &Options::default()).unwrap();
        let (reader, files) = (store.reader(), store.files());
        let (journal, applier) = store.split();
        let (to_completed, completed) = channel();
        let (flushed_sender, flushed) = channel();
        let hooks = Hooks {
            on_completed: send_all(to_completed),
            on_flushed: send_all(flushed_sender),
            on_fatal: Box::new(|why| panic!("{why}")),
            observer: Arc::new(()),
        };
        // Bulk loads must not depend on when derived rows are applied.
        let config = Config {
            idle: Duration::from_millis(20),
            ..Config::default()
        };
        let storage = StorageThread::start(journal, applier, config, hooks).unwrap();
        let threads = Some(FileThreads::start(files, &storage.handle()).unwrap());
        Stage {
            threads,
            storage,
            reader,
            completed,
            flushed,
        }
    }

    fn submit(&self, task: FileTask) -> Receiver<(Instant, Result<FileDone, FileError>)> {
        let (to, answer) = channel();
        let on_answer = move |done| {
            // The test may have ended.
            let _ = to.send((Instant::now(), done));
        };
        self.threads.as_ref().unwrap().submit(task, Box::new(on_answer));
        answer
    }

    fn perform(&self, task: FileTask) -> FileDone {
        let answer = self.submit(task).recv_timeout(DEADLINE);
        answer.expect("a result in time").1.expect("the task is done")
    }

    /// Persists a small entry; returns how long it took.
    fn commit(&self, token: u64) -> Duration {
        let started = Instant::now();
        let op = JournalOp::Append {
            stream: StreamId(9),
            position: token,
            bytes: Bytes::from_static(b"entry"),
        };
        let request = Request {
            owner: 1,
            token,
            priority: Priority::Urgent,
            ops: vec![op],
        };
        self.storage.handle().submit(request).unwrap();
        let (_, completion) = self.completed.recv_timeout(DEADLINE).expect("a commit in time");
        assert_eq!(completion.tokens, [token]);
        started.elapsed()
    }

    fn apply_rows(&self, token: u64, writes: Vec<StateWrite>) {
        self.storage.handle().apply_rows(1, token, writes);
    }
}

fn put(key: String, value: Vec<u8>) -> StateWrite {
    StateWrite {
        table: TABLE,
        key: key.into(),
        value: Some(value.into()),
    }
}

/// Derives rows of a group of about this many megabytes.
fn fill(stage: &Stage, megabytes: u64) {
    for part in 0..megabytes {
        let row = |number| put(format!("g7/{part:04}/{number:04}"), vec![number as u8; 4000]);
        stage.apply_rows(part, (0..250).map(row).collect());
    }
    stage.apply_rows(megabytes, vec![put("g7/applied".to_owned(), b"1".to_vec())]);
}

fn save() -> FileTask {
    FileTask::Save {
        file: FILE,
        table: TABLE,
        prefix: "g7/".into(),
        marker: "g7/applied".into(),
    }
}

fn load() -> FileTask {
    FileTask::Load {
        file: FILE,
        table: TABLE,
        prefix: "g7/".into(),
        marker: "g7/applied".into(),
    }
}

#[test]
fn a_load_delays_neither_commits_nor_other_groups() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::open(folder.path());
    fill(&stage, 50);
    let FileDone::Saved { size, .. } = stage.perform(save()) else {
        panic!("not saved");
    };
    assert!(size > 50_000_000);
    while let Ok((_, flushed)) = stage.flushed.recv_timeout(DEADLINE) {
        if flushed.tokens.contains(&50) {
            break;
        }
    }
    let started = Instant::now();
    let loaded = stage.submit(load());
    // All of these complete during the load.
    let other = FileId { owner: 8, number: 1 };
    let missing = stage.submit(FileTask::Read {
        file: other,
        offset: 0,
        length: 1,
    });
    let (read_at, missing) = missing.recv_timeout(DEADLINE).unwrap();
    assert_eq!(missing, Err(FileError::NotFound(other)));
    stage.apply_rows(1000, vec![put("g8/row".to_owned(), b"derived".to_vec())]);
    let (flushed_at, flushed) = stage
        .flushed
        .recv_timeout(DEADLINE)
        .expect("the rows are flushed in time");
    assert_eq!(flushed.tokens, [1000]);
    assert_eq!(stage.reader.get(TABLE, b"g8/row").unwrap().unwrap(), "derived");
    let mut commits = Vec::new();
    let (loaded_at, done) = loop {
        commits.push(stage.commit(commits.len() as u64 + 1));
        match loaded.try_recv() {
            Ok(done) => break done,
            Err(TryRecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(done, Ok(FileDone::Loaded));
    assert!(read_at < loaded_at && flushed_at < loaded_at);
    let took = loaded_at - started;
    let longest = commits.iter().max().unwrap();
    // A commit that waited for the load, or for a large part of it, would take as long.
    assert!(commits.len() > 3, "{} commits in {took:?}", commits.len());
    assert!(
        *longest < took / 2 || *longest < Duration::from_millis(100),
        "a commit took {longest:?} of {took:?}"
    );
    assert_eq!(stage.reader.get(TABLE, b"g7/applied").unwrap().unwrap(), "1");
}

#[test]
fn tasks_of_an_owner_are_performed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::open(folder.path());
    fill(&stage, 1);
    let read = || FileTask::Read {
        file: FILE,
        offset: 0,
        length: 7,
    };
    let keep = |number| FileTask::Retain {
        owner: FILE.owner,
        number,
    };
    for _ in 0..20 {
        let tasks = [
            save(),
            read(),
            keep(Some(1)),
            load(),
            read(),
            keep(None),
            read(),
            load(),
        ];
        let answers = tasks.map(|task| stage.submit(task));
        let [saved, first, kept, loaded, second, forgotten, third, nothing] =
            answers.map(|answer| answer.recv_timeout(DEADLINE).expect("a result in time").1);
        assert!(matches!(saved, Ok(FileDone::Saved { .. })), "{saved:?}");
        assert_eq!(first, Ok(FileDone::Chunk("quorate".into())));
        assert_eq!(kept, Ok(FileDone::Retained));
        assert_eq!(loaded, Ok(FileDone::Loaded));
        assert_eq!(second, first);
        assert_eq!(forgotten, Ok(FileDone::Retained));
        assert_eq!(third, Err(FileError::NotFound(FILE)));
        assert_eq!(nothing, Err(FileError::NotFound(FILE)));
    }
}

#[test]
fn a_store_can_be_closed_during_a_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::open(folder.path());
    fill(&stage, 20);
    stage.perform(save());
    let loaded = stage.submit(load());
    let marker = || stage.reader.get(TABLE, b"g7/applied").unwrap();
    let deadline = Instant::now() + DEADLINE;
    while marker().is_some() {
        assert!(Instant::now() < deadline, "the load begins");
        std::thread::yield_now();
    }
    stage.threads = None;
    drop(stage);
    assert!(loaded.recv_timeout(DEADLINE).is_err(), "the task is not answered");
    // The directory is free once the last thread has ended.
    let stage = loop {
        match DataDir::open(folder.path()) {
            Ok(dir) => {
                drop(dir);
                break Stage::open(folder.path());
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(stage.reader.get(TABLE, b"g7/applied").unwrap(), None);
    assert_eq!(stage.perform(load()), FileDone::Loaded);
    assert_eq!(stage.reader.get(TABLE, b"g7/applied").unwrap().unwrap(), "1");
}
