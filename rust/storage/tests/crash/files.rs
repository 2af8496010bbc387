//! Files of rows in a process that will crash: saved, received and loaded, between changes of the rows.
//!
//! It performs numbered steps and acknowledges each. After any crash, the rows are those of one version if the marker
//! exists, every file is complete, and nothing acknowledged is lost.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_storage::files::{Direct, FileError, FileThreads};
use quorate_storage::thread::{Config, Hooks};
use quorate_storage::{DataDir, LmdbStore, Options, StateWrite, StorageThread, Store, Table};

use crate::workload::{CLUSTER, NODE};

const PREFIX: &str = "g/";
const MARKER: &str = "g/applied";

/// The acknowledged steps, with the version of the rows and the files after each.
const STEPS: [(u64, &[u64]); 8] = [
    (0, &[]),
    (1, &[]),
    (1, &[1]),
    (2, &[1]),
    (2, &[1, 2]),
    (1, &[1, 2]),
    (3, &[1, 2]),
    (3, &[1, 2, 3]),
];

/// The version of the rows of a file.
const VERSIONS: [u64; 4] = [0, 1, 1, 3];

fn file(number: u64) -> FileId {
    FileId { owner: 1, number }
}

/// The rows of a version; some are larger than a page, and each version has rows that others do not have.
fn rows(version: u64) -> Vec<(Bytes, Bytes)> {
    let value = |number: u64| {
        let length = if number.is_multiple_of(13) { 9000 } else { 300 };
        format!("{version}:").bytes().cycle().take(length).collect()
    };
    let row = |number: u64| (format!("g/row {number:03}").into(), value(number));
    let mut rows = vec![(MARKER.into(), version.to_string().into())];
    rows.extend((version * 10..version * 10 + 40).map(row));
    rows
}

/// The changes from one version to another.
fn change(from: u64, to: u64) -> Vec<StateWrite> {
    let write = |key: Bytes, value| StateWrite {
        table: Table::Groups,
        key,
        value,
    };
    let gone = if from == 0 { Vec::new() } else { rows(from) };
    let gone = gone.into_iter().map(|(key, _)| write(key, None));
    let come = rows(to).into_iter().map(|(key, value)| write(key, Some(value)));
    gone.chain(come).collect()
}

fn save(number: u64) -> FileTask {
    FileTask::Save {
        file: file(number),
        table: Table::Groups,
        prefix: PREFIX.into(),
        marker: MARKER.into(),
    }
}

fn load(number: u64) -> FileTask {
    FileTask::Load {
        file: file(number),
        table: Table::Groups,
        prefix: PREFIX.into(),
        marker: MARKER.into(),
    }
}

fn read(number: u64) -> FileTask {
    FileTask::Read {
        file: file(number),
        offset: 0,
        length: u32::MAX,
    }
}

struct Process {
    storage: StorageThread,
    threads: FileThreads,
    flushed: Receiver<Vec<u64>>,
}

impl Process {
    fn apply_rows(&self, from: u64, to: u64) {
        self.storage.handle().apply_rows(0, to, change(from, to));
        while !self.flushed.recv().unwrap().contains(&to) {}
    }

    fn perform(&self, task: FileTask) -> FileDone {
        let (to, answer) = channel();
        self.threads
            .submit(task, Box::new(move |done| to.send(done).unwrap()));
        answer.recv().unwrap().unwrap()
    }
}

/// Performs the steps, and writes the number of each to `acks`.
pub(crate) fn run(folder: &Path, without_sync: bool, mut acks: impl Write) {
    let dir = DataDir::open(folder).unwrap();
    dir.claim(CLUSTER, NODE, 0).unwrap();
    let options = Options {
        zero_fill: 0,
        without_sync,
        ..Options::default()
    };
    let store = LmdbStore::open(&dir, &options).unwrap();
    let files = store.files();
    let (journal, applier) = store.split();
    let (flushed_sender, flushed) = channel();
    let hooks = Hooks {
        on_completed: Box::new(|_| {}),
        on_flushed: Box::new(move |all| {
            all.into_iter()
                .for_each(|one| flushed_sender.send(one.tokens).unwrap())
        }),
        on_fatal: Box::new(|detail| panic!("{detail}")),
        observer: Arc::new(()),
    };
    let config = Config {
        apply_bytes: 1,
        ..Config::default()
    };
    let storage = StorageThread::start(journal, applier, config, hooks).unwrap();
    let process = Process {
        threads: FileThreads::start(files, &storage.handle()).unwrap(),
        storage,
        flushed,
    };
    // In one write, which is one record of the trace.
    let mut acknowledge = |step: usize| acks.write_all(format!("{step}\n").as_bytes()).unwrap();
    process.apply_rows(0, 1);
    acknowledge(1);
    let FileDone::Saved { size, checksum, .. } = process.perform(save(1)) else {
        panic!("not saved");
    };
    acknowledge(2);
    process.apply_rows(1, 2);
    acknowledge(3);
    let FileDone::Chunk(bytes) = process.perform(read(1)) else {
        panic!("not read");
    };
    for offset in (0..bytes.len()).step_by(7000) {
        process.perform(FileTask::Write {
            file: file(2),
            offset: offset as u64,
            bytes: bytes.slice(offset..bytes.len().min(offset + 7000)),
        });
    }
    let sealed = process.perform(FileTask::Seal {
        file: file(2),
        size,
        checksum,
    });
    assert_eq!(sealed, FileDone::Sealed { intact: true });
    acknowledge(4);
    process.perform(load(2));
    acknowledge(5);
    process.apply_rows(1, 3);
    acknowledge(6);
    process.perform(save(3));
    acknowledge(7);
    drop(process.threads);
    process.storage.shutdown();
}

/// Opens the store after a crash, and checks that acknowledged steps are present; returns an error otherwise.
pub(crate) fn check(folder: &Path, acknowledged: u64, options: &Options) -> Result<(), String> {
    let acknowledged = acknowledged as usize;
    let dir = DataDir::open(folder).map_err(|error| error.to_string())?;
    dir.claim(CLUSTER, NODE, 1).map_err(|error| error.to_string())?;
    let mut store = LmdbStore::open(&dir, options).map_err(|error| error.to_string())?;
    let found = content(&store)?;
    let marker = found
        .iter()
        .find(|(key, _)| key == MARKER)
        .map(|(_, value)| value);
    let mut possible = vec![STEPS[acknowledged].0];
    possible.extend(STEPS.get(acknowledged + 1).map(|(version, _)| *version));
    let version = match marker {
        Some(marker) => (1..=3)
            .find(|version| marker == &version.to_string())
            .ok_or("a malformed marker")?,
        None => 0,
    };
    // During a load there is no marker, and any part of the rows.
    let loading = acknowledged == 4 && version == 0;
    if !loading && !possible.contains(&version) {
        return Err(format!(
            "step {acknowledged} was acknowledged, the rows are of version {version}"
        ));
    }
    if !loading && version > 0 && found != rows(version)
        || version == 0 && acknowledged == 0 && !found.is_empty()
    {
        return Err(format!("the rows are not those of version {version}"));
    }
    let files = store.files();
    for number in 1..=3 {
        let must_be_there = STEPS[acknowledged].1.contains(&number);
        match files.perform(&read(number), &mut Direct(&mut store)) {
            Err(FileError::NotFound(_)) if !must_be_there => continue,
            Err(error) => return Err(format!("after step {acknowledged}: {error}")),
            Ok(_) => {}
        }
        files
            .perform(&load(number), &mut Direct(&mut store))
            .map_err(|error| format!("load file {number} after step {acknowledged}: {error}"))?;
        if content(&store)? != rows(VERSIONS[number as usize]) {
            return Err(format!("file {number} has other rows than were saved"));
        }
    }
    Ok(())
}

fn content(store: &LmdbStore) -> Result<Vec<(Bytes, Bytes)>, String> {
    let page = store.reader().range(Table::Groups, b"", None, 1000, usize::MAX);
    Ok(page.map_err(|error| error.to_string())?.rows)
}
