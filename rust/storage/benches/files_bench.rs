//! Benchmark of saving a group's rows to a file and loading them, and of the latency of concurrent commits:
//! `cargo bench -p quorate-storage --bench files_bench -- [MEGABYTES] [VALUE_BYTES] [FOLDER]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate_core::files::{FileDone, FileId, FileTask};
use quorate_storage::files::{FileError, FileThreads};
use quorate_storage::thread::{Config, Hooks, StorageHandle};
use quorate_storage::{
    DataDir, JournalOp, LmdbStore, Options, Priority, Request, StateWrite, StorageThread, StreamId, Table,
};

const FILE: FileId = FileId { owner: 7, number: 1 };
const TABLE: Table = Table::Groups;

fn main() {
    let mut arguments = std::env::args().filter(|argument| argument != "--bench").skip(1);
    let mut number = |default: usize| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (megabytes, value_bytes) = (number(500), number(1000));
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = arguments
        .next()
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let dir = DataDir::open(&folder).expect("the folder can be used");
    let store = LmdbStore::open(&dir, &Options::default()).expect("the store opens");
    let files = store.files();
    let (journal, applier) = store.split();
    let (to_completed, completed) = channel();
    let hooks = Hooks {
        on_completed: Box::new(move |all| all.into_iter().for_each(|one| drop(to_completed.send(one)))),
        on_flushed: Box::new(|_| {}),
        on_fatal: Box::new(|why| panic!("{why}")),
        observer: Arc::new(()),
    };
    let storage = StorageThread::start(journal, applier, Config::default(), hooks).expect("threads");
    let threads = FileThreads::start(files, &storage.handle()).expect("threads");
    let handle = storage.handle();
    fill(&handle, megabytes << 20, value_bytes);

    let mut commits = Commits {
        handle,
        completed,
        next: 1,
    };
    commits.report("alone", || commits_for(Duration::from_secs(2)));
    let (prefix, marker) = ("g7/", "g7/applied");
    let tasks = [
        FileTask::Save {
            file: FILE,
            table: TABLE,
            prefix: prefix.into(),
            marker: marker.into(),
        },
        FileTask::Load {
            file: FILE,
            table: TABLE,
            prefix: prefix.into(),
            marker: marker.into(),
        },
    ];
    for (name, task) in ["save", "load"].into_iter().zip(tasks) {
        let (to, answer) = channel::<Result<FileDone, FileError>>();
        threads.submit(task, Box::new(move |done| drop(to.send(done))));
        let mut done = None;
        commits.report(name, || {
            let answer = &answer;
            let done = &mut done;
            move || {
                *done = answer.try_recv().ok();
                done.is_none()
            }
        });
        println!("      {:?}", done.expect("an answer").expect("done"));
    }
    drop(threads);
    storage.shutdown();
}

fn commits_for(time: Duration) -> impl FnMut() -> bool {
    let until = Instant::now() + time;
    move || Instant::now() < until
}

/// Derives rows of about this many bytes.
fn fill(handle: &StorageHandle, bytes: usize, value_bytes: usize) {
    let rows = bytes / (value_bytes + 20);
    for start in (0..rows).step_by(1000) {
        let row = |number: usize| StateWrite {
            table: TABLE,
            key: format!("g7/row {number:012}").into(),
            value: Some(vec![number as u8; value_bytes].into()),
        };
        handle.apply_rows(
            1,
            start as u64,
            (start..rows.min(start + 1000)).map(row).collect(),
        );
    }
    let marker = StateWrite {
        table: TABLE,
        key: "g7/applied".into(),
        value: Some("1".into()),
    };
    handle.apply_rows(1, rows as u64, vec![marker]);
}

/// Sequential small commits.
struct Commits {
    handle: StorageHandle,
    completed: Receiver<quorate_storage::Completion>,
    next: u64,
}

impl Commits {
    fn report<G: FnMut() -> bool>(&mut self, name: &str, more: impl FnOnce() -> G) {
        let mut micros = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a histogram");
        let started = Instant::now();
        let mut more = more();
        while more() {
            let begun = Instant::now();
            let op = JournalOp::Append {
                stream: StreamId(9),
                position: self.next,
                bytes: "entry".into(),
            };
            let request = Request {
                owner: 1,
                token: self.next,
                priority: Priority::Urgent,
                ops: vec![op],
            };
            self.handle.submit(request).expect("the store is open");
            self.completed.recv().expect("an answer");
            self.next += 1;
            micros.saturating_record(begun.elapsed().as_micros() as u64);
        }
        println!(
            "{name:5} {:6.2} s; commits beside it: {:5}, median {:6} us, 99% {:6} us, longest {:7} us",
            started.elapsed().as_secs_f64(),
            micros.len(),
            micros.value_at_quantile(0.5),
            micros.value_at_quantile(0.99),
            micros.max(),
        );
    }
}
