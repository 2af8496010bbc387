//! Benchmark of durable commits per second of the store, through its threads:
//! `cargo bench -p quorate-storage --bench commit_bench -- [SECONDS] [ZERO_FILL_BYTES] [FOLDER]`.
//!
//! Each producer keeps a number of small writes in flight, like the coordinators of a node: with one in flight every write
//! waits for its own sync; with many they share syncs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate_storage::thread::{ApplyReport, CommitReport, Config, Hooks};
use quorate_storage::{
    DataDir, JournalOp, LmdbStore, Observer, Options, Priority, Reader, Request, StateWrite, StorageThread,
    Store, Table,
};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;

struct Watch {
    requests: AtomicUsize,
    micros: Mutex<Histogram<u64>>,
    applies: Mutex<Vec<Duration>>,
}

impl Observer for Watch {
    fn committed(&self, report: &CommitReport) {
        self.requests.fetch_add(report.requests, Ordering::Relaxed);
        self.micros
            .lock()
            .unwrap()
            .saturating_record(report.duration.as_micros() as u64);
    }

    fn applied(&self, report: &ApplyReport) {
        self.applies.lock().unwrap().push(report.duration);
    }
}

fn next_number(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % KEYS
}

fn key(number: u64) -> String {
    format!("keyspace/key-{number:08}")
}

fn request(owner: u32, token: u64, seed: &mut u64) -> Request {
    let number = next_number(seed);
    let key = key(number);
    let row = StateWrite {
        table: Table::Records,
        key: key.clone().into(),
        value: Some(vec![b'v'; VALUE_BYTES + 60].into()),
    };
    let index = StateWrite {
        table: Table::TokenIndex,
        key: format!("{:016x}{key}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        value: Some(Default::default()),
    };
    Request {
        owner,
        token,
        priority: Priority::Normal,
        ops: vec![JournalOp::Write(vec![row, index])],
    }
}

/// Random reads per second on one thread, of applied, unapplied and missing rows.
fn read(reader: &dyn Reader) -> f64 {
    const READS: u32 = 200_000;
    let mut seed = 7;
    let began = Instant::now();
    for _ in 0..READS {
        let key = key(next_number(&mut seed));
        std::hint::black_box(reader.get(Table::Records, key.as_bytes()).expect("a read"));
    }
    f64::from(READS) / began.elapsed().as_secs_f64()
}

fn measure(producers: usize, in_flight: usize, time: Duration, zero_fill: u64, folder: &PathBuf) {
    let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
    let began = Instant::now();
    let dir = DataDir::open(folder.path()).expect("a data directory");
    let store = LmdbStore::open(
        &dir,
        &Options {
            zero_fill,
            ..Options::default()
        },
    )
    .expect("a store");
    let opened = began.elapsed();
    let reader = store.reader();
    let (journal, applier) = store.split();
    let watch = Arc::new(Watch {
        requests: AtomicUsize::new(0),
        micros: Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram")),
        applies: Mutex::new(Vec::new()),
    });
    let (done, mailboxes): (Vec<_>, Vec<_>) = (0..producers).map(|_| mpsc::channel()).unzip();
    let hooks = Hooks {
        on_completed: Box::new(move |completions| {
            for completion in completions {
                // The last completions of an ended producer are not counted.
                let _ = done[completion.owner as usize].send(completion.tokens.len());
            }
        }),
        on_flushed: Box::new(|_| {}),
        on_fatal: Box::new(|detail| panic!("{detail}")),
        observer: Arc::clone(&watch) as Arc<dyn Observer>,
    };
    let thread = StorageThread::start(journal, applier, Config::default(), hooks).expect("threads");
    let began = Instant::now();
    let workers: Vec<_> = mailboxes
        .into_iter()
        .enumerate()
        .map(|(owner, mailbox)| {
            let handle = thread.handle();
            std::thread::spawn(move || {
                let mut seed = owner as u64 + 1;
                let mut token = 0;
                let mut credit = in_flight;
                while began.elapsed() < time {
                    for _ in 0..credit {
                        token += 1;
                        handle
                            .submit(request(owner as u32, token, &mut seed))
                            .expect("a running store");
                    }
                    credit = mailbox.recv().expect("a completion");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a producer");
    }
    let elapsed = began.elapsed().as_secs_f64();
    thread.shutdown();
    let reads_per_second = read(&*reader);
    let requests = watch.requests.load(Ordering::Relaxed) as f64;
    let micros = watch.micros.lock().unwrap();
    let applies = watch.applies.lock().unwrap();
    println!(
        "{producers:>3} producers x {in_flight:>3}: {:>9.0} writes/s  {:>6.0} commits/s  {:>6.1} a commit  \
         commit p50 {:>5} us  p99 {:>6} us  max {:>6} us  {} applies, longest {:?}  \
         {reads_per_second:>8.0} reads/s  opened in {opened:?}",
        requests / elapsed,
        micros.len() as f64 / elapsed,
        requests / micros.len() as f64,
        micros.value_at_quantile(0.5),
        micros.value_at_quantile(0.99),
        micros.max(),
        applies.len(),
        applies.iter().max().copied().unwrap_or_default(),
    );
}

fn main() {
    let mut arguments = std::env::args().filter(|argument| argument != "--bench").skip(1);
    let seconds = arguments
        .next()
        .map_or(3.0, |text| text.parse().expect("seconds"));
    let zero_fill = arguments
        .next()
        .map_or(Options::default().zero_fill, |text| text.parse().expect("bytes"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    for (producers, in_flight) in [(1, 1), (1, 64), (4, 16), (8, 64)] {
        measure(
            producers,
            in_flight,
            Duration::from_secs_f64(seconds),
            zero_fill,
            &folder,
        );
    }
}
