//! The storage threads, over a store controlled by the test: batching, completions, failures.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_storage::bulk::Bulk;
use quorate_storage::store::{Applier, Committer, DerivedRows};
use quorate_storage::thread::{ApplyReport, CommitReport, Config, Hooks};
use quorate_storage::{
    CommitError, Completion, DataDir, Flushed, JournalOp, Limits, LmdbStore, MemoryStore, Observer, Options,
    Outcome, Priority, Reader, Request, StateWrite, StorageThread, Store, StreamId, Table,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A committer that reports each batch and waits for its outcome from the test.
struct Puppet {
    batches: Sender<Vec<u64>>,
    verdicts: Receiver<Result<(), CommitError>>,
    unapplied: Arc<AtomicUsize>,
}

impl Committer for Puppet {
    fn commit(&mut self, batch: &[JournalOp]) -> Result<(), CommitError> {
        let position = |op: &JournalOp| match op {
            JournalOp::Append { position, .. } => *position,
            other => panic!("unexpected {other:?}"),
        };
        self.batches.send(batch.iter().map(position).collect()).unwrap();
        self.verdicts
            .recv_timeout(DEADLINE)
            .expect("the test sends the outcome of the commit")
    }

    fn unapplied_bytes(&self) -> usize {
        self.unapplied.load(Ordering::SeqCst)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        MemoryStore::new().reader()
    }
}

/// An applier that reports each step and waits for its result from the test.
struct PuppetApplier {
    steps: Sender<()>,
    verdicts: Receiver<(Result<bool, CommitError>, usize)>,
    unapplied: Arc<AtomicUsize>,
    derived: Arc<PuppetRows>,
}

impl Applier for PuppetApplier {
    fn apply_step(&mut self, _budget: usize) -> Result<bool, CommitError> {
        self.steps.send(()).unwrap();
        let (verdict, left) = self
            .verdicts
            .recv_timeout(DEADLINE)
            .expect("the test sends the result of the step");
        self.unapplied.store(left, Ordering::SeqCst);
        verdict
    }

    fn bulk(&mut self, change: &Bulk) -> Result<bool, CommitError> {
        panic!("unexpected {change:?}")
    }

    fn derived(&self) -> Arc<dyn DerivedRows> {
        Arc::clone(&self.derived) as _
    }

    fn flushed(&self) -> u64 {
        self.derived.flushed.load(Ordering::SeqCst)
    }

    fn unapplied_bytes(&self) -> usize {
        self.unapplied.load(Ordering::SeqCst) + self.derived.unapplied_bytes()
    }
}

/// Counts runs, and flushes as many as the test says.
#[derive(Default)]
struct PuppetRows {
    runs: AtomicU64,
    flushed: AtomicU64,
}

impl DerivedRows for PuppetRows {
    fn apply_rows(&self, _writes: Vec<StateWrite>) -> u64 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn unapplied_bytes(&self) -> usize {
        (self.runs.load(Ordering::SeqCst) - self.flushed.load(Ordering::SeqCst)) as usize
    }
}

#[derive(Default)]
struct Reports {
    commits: Mutex<Vec<CommitReport>>,
    applies: Mutex<Vec<ApplyReport>>,
}

impl Observer for Reports {
    fn committed(&self, report: &CommitReport) {
        self.commits.lock().unwrap().push(*report);
    }

    fn applied(&self, report: &ApplyReport) {
        self.applies.lock().unwrap().push(*report);
    }
}

/// The threads and the channels to control them, in the order in which they may be dropped.
struct Stage {
    thread: Option<StorageThread>,
    batches: Receiver<Vec<u64>>,
    commits: Sender<Result<(), CommitError>>,
    steps: Receiver<()>,
    applies: Sender<(Result<bool, CommitError>, usize)>,
    unapplied: Arc<AtomicUsize>,
    completed: Receiver<Completion>,
    fatal: Receiver<String>,
    flushed: Receiver<Vec<Flushed>>,
    derived: Arc<PuppetRows>,
    reports: Arc<Reports>,
}

fn config() -> Config {
    Config {
        limits: Limits {
            batch_bytes: 1000,
            slice_bytes: 200,
            row_bytes: 0,
        },
        apply_bytes: 100,
        apply_step_bytes: 50,
        max_unapplied_bytes: 1000,
        idle: Duration::from_millis(5),
    }
}

impl Stage {
    fn new(config: Config) -> Self {
        let (batches_to, batches) = mpsc::channel();
        let (commits, commit_verdicts) = mpsc::channel();
        let (steps_to, steps) = mpsc::channel();
        let (applies, apply_verdicts) = mpsc::channel();
        let (completed_to, completed) = mpsc::channel();
        let (fatal_to, fatal) = mpsc::channel();
        let unapplied = Arc::new(AtomicUsize::new(0));
        let derived = Arc::new(PuppetRows::default());
        let (flushed_sender, flushed) = mpsc::channel();
        let reports = Arc::new(Reports::default());
        let committer = Puppet {
            batches: batches_to,
            verdicts: commit_verdicts,
            unapplied: Arc::clone(&unapplied),
        };
        let applier = PuppetApplier {
            steps: steps_to,
            verdicts: apply_verdicts,
            unapplied: Arc::clone(&unapplied),
            derived: Arc::clone(&derived),
        };
        let hooks = Hooks {
            on_completed: Box::new(move |completions| {
                completions
                    .into_iter()
                    .for_each(|completion| completed_to.send(completion).unwrap());
            }),
            on_flushed: Box::new(move |ended| flushed_sender.send(ended).unwrap()),
            on_fatal: Box::new(move |detail| fatal_to.send(detail).unwrap()),
            observer: Arc::clone(&reports) as Arc<dyn Observer>,
        };
        let thread = Some(StorageThread::start(committer, applier, config, hooks).unwrap());
        Stage {
            thread,
            batches,
            commits,
            steps,
            applies,
            unapplied,
            completed,
            fatal,
            flushed,
            derived,
            reports,
        }
    }

    fn submit(&self, token: u64, priority: Priority, bytes: usize) {
        let handle = self.thread.as_ref().unwrap().handle();
        handle.submit(request(3, token, priority, bytes)).unwrap();
    }

    fn batch(&self) -> Vec<u64> {
        self.batches.recv_timeout(DEADLINE).expect("a batch is committed")
    }

    fn completion(&self) -> Completion {
        self.completed
            .recv_timeout(DEADLINE)
            .expect("requests are completed")
    }

    /// Waits until the threads accept no more requests.
    fn await_stop(&self) {
        let handle = self.thread.as_ref().unwrap().handle();
        let deadline = Instant::now() + DEADLINE;
        while handle.submit(request(3, 0, Priority::Normal, 100)).is_ok() {
            assert!(Instant::now() < deadline, "the threads still run");
            // The thread may be committing this request, before it detects the failure of the other one.
            let _ended = self.commits.send(Ok(()));
            std::thread::yield_now();
        }
    }
}

fn request(owner: u32, token: u64, priority: Priority, bytes: usize) -> Request {
    let bytes = Bytes::from(vec![0; bytes - 32]);
    let op = JournalOp::Append {
        stream: StreamId(1),
        position: token,
        bytes,
    };
    Request {
        owner,
        token,
        priority,
        ops: vec![op],
    }
}

fn durable(tokens: &[u64]) -> Completion {
    Completion {
        owner: 3,
        tokens: tokens.to_vec(),
        outcome: Outcome::Durable,
    }
}

#[test]
fn requests_during_a_commit_share_the_next_one_urgent_first() {
    let stage = Stage::new(config());
    stage.submit(1, Priority::Normal, 100);
    assert_eq!(stage.batch(), [1]);
    stage.submit(2, Priority::Normal, 100);
    stage.submit(3, Priority::Bulk, 100);
    stage.submit(4, Priority::Urgent, 100);
    stage.submit(5, Priority::Normal, 100);
    assert!(
        stage.completed.try_recv().is_err(),
        "no request completes before the commit returns"
    );
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.completion(), durable(&[1]));
    assert_eq!(stage.batch(), [4, 2, 5, 3]);
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.completion(), durable(&[4, 2, 5, 3]));
    let commits = stage.reports.commits.lock().unwrap();
    assert_eq!(
        (commits[0].requests, commits[0].bytes, commits[0].outcome),
        (1, 100, Outcome::Durable)
    );
}

#[test]
fn a_full_store_rejects_requests_and_stays_usable() {
    let stage = Stage::new(config());
    stage.submit(1, Priority::Normal, 100);
    stage.commits.send(Err(CommitError::Full)).unwrap();
    assert_eq!(
        stage.completion(),
        Completion {
            outcome: Outcome::Full,
            ..durable(&[1])
        }
    );
    stage.submit(2, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.completion(), durable(&[2]));
}

#[test]
fn a_failed_commit_completes_no_request_and_ends_the_threads() {
    let stage = Stage::new(config());
    stage.submit(1, Priority::Normal, 100);
    assert_eq!(stage.batch(), [1]);
    stage.submit(2, Priority::Normal, 100);
    stage
        .commits
        .send(Err(CommitError::Fatal("the disk broke".into())))
        .unwrap();
    assert_eq!(stage.fatal.recv_timeout(DEADLINE).unwrap(), "the disk broke");
    stage.await_stop();
    assert_eq!(
        stage.completed.recv_timeout(DEADLINE),
        Err(RecvTimeoutError::Disconnected)
    );
    assert!(stage.batches.try_recv().is_err(), "nothing is retried");
    assert!(stage.fatal.try_recv().is_err(), "reported once");
}

#[test]
fn a_failed_step_of_applying_ends_the_threads() {
    let stage = Stage::new(config());
    stage.unapplied.store(200, Ordering::SeqCst);
    stage.submit(1, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    stage.steps.recv_timeout(DEADLINE).unwrap();
    stage
        .applies
        .send((Err(CommitError::Fatal("the other disk broke".into())), 200))
        .unwrap();
    assert_eq!(
        stage.fatal.recv_timeout(DEADLINE).unwrap(),
        "the other disk broke"
    );
    stage.await_stop();
}

#[test]
fn a_panic_is_a_failure() {
    let stage = Stage::new(config());
    let handle = stage.thread.as_ref().unwrap().handle();
    // The test committer panics on this operation.
    let ops = vec![JournalOp::Trim {
        stream: StreamId(1),
        through: 1,
    }];
    handle
        .submit(Request {
            owner: 3,
            token: 1,
            priority: Priority::Normal,
            ops,
        })
        .unwrap();
    let detail = stage.fatal.recv_timeout(DEADLINE).unwrap();
    assert!(detail.contains("storage-journal panicked"), "{detail}");
    stage.await_stop();
}

#[test]
fn the_batch_in_flight_counts_as_queued() {
    let stage = Stage::new(config());
    let handle = stage.thread.as_ref().unwrap().handle();
    stage.submit(1, Priority::Normal, 900);
    assert_eq!(stage.batch(), [1]);
    for token in 2..=6 {
        stage.submit(token, Priority::Normal, 900);
    }
    assert!(handle.queued_bytes() >= 6 * 900, "the batch in flight counts");
    for token in 1..=6 {
        stage.commits.send(Ok(())).unwrap();
        assert_eq!(stage.completion(), durable(&[token]));
    }
    assert_eq!(handle.queued_bytes(), 0);
}

#[test]
fn shutdown_commits_what_is_queued() {
    let mut stage = Stage::new(config());
    stage.submit(1, Priority::Normal, 900);
    assert_eq!(stage.batch(), [1]);
    for token in 2..=4 {
        stage.submit(token, Priority::Normal, 900);
    }
    for _ in 1..=4 {
        stage.commits.send(Ok(())).unwrap();
    }
    let handle = stage.thread.as_ref().unwrap().handle();
    stage.thread.take().unwrap().shutdown();
    let tokens: Vec<u64> = stage
        .completed
        .iter()
        .flat_map(|completion| completion.tokens)
        .collect();
    assert_eq!(tokens, [1, 2, 3, 4]);
    assert!(handle.submit(request(3, 5, Priority::Normal, 100)).is_err());
    assert!(stage.fatal.try_recv().is_err());
}

#[test]
fn commits_wait_while_the_state_is_far_behind() {
    let stage = Stage::new(config());
    stage.unapplied.store(2000, Ordering::SeqCst);
    stage.submit(1, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.batch(), [1]);
    stage.completion();
    stage
        .steps
        .recv_timeout(DEADLINE)
        .expect("there is enough to apply");
    stage.submit(2, Priority::Normal, 100);
    stage.applies.send((Ok(true), 1500)).unwrap();
    stage.steps.recv_timeout(DEADLINE).expect("the round continues");
    assert!(stage.batches.try_recv().is_err(), "the state is still far behind");
    stage.applies.send((Ok(false), 0)).unwrap();
    assert_eq!(stage.batch(), [2]);
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.completion(), durable(&[2]));
    assert_eq!(stage.reports.applies.lock().unwrap()[0].steps, 2);
}

#[test]
fn commits_do_not_wait_for_a_state_without_room() {
    let stage = Stage::new(config());
    stage.unapplied.store(2000, Ordering::SeqCst);
    stage.submit(1, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    stage.completion();
    stage.steps.recv_timeout(DEADLINE).unwrap();
    stage.applies.send((Err(CommitError::Full), 2000)).unwrap();
    stage.submit(2, Priority::Normal, 100);
    stage.commits.send(Err(CommitError::Full)).unwrap();
    assert_eq!(
        stage.completion(),
        Completion {
            outcome: Outcome::Full,
            ..durable(&[2])
        }
    );
    stage.steps.recv_timeout(DEADLINE).expect("the step is retried");
    stage.applies.send((Ok(false), 0)).unwrap();
    stage.submit(3, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    assert_eq!(stage.completion(), durable(&[3]));
}

#[test]
fn an_idle_store_applies_small_amounts() {
    let stage = Stage::new(config());
    stage.unapplied.store(10, Ordering::SeqCst);
    stage.submit(1, Priority::Normal, 100);
    stage.commits.send(Ok(())).unwrap();
    stage.steps.recv_timeout(DEADLINE).expect("an idle store applies");
    stage.applies.send((Ok(false), 0)).unwrap();
}

/// The real store, from several threads.
#[test]
fn every_producer_reads_its_writes() {
    const PRODUCERS: u32 = 4;
    const WRITES: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let dir = DataDir::open(folder.path()).unwrap();
    let store = LmdbStore::open(&dir, &Options::default()).unwrap();
    let reader = store.reader();
    let (journal, applier) = store.split();
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..PRODUCERS).map(|_| mpsc::channel()).unzip();
    let hooks = Hooks {
        on_completed: Box::new(move |completions| {
            for completion in completions {
                assert_eq!(completion.outcome, Outcome::Durable);
                mailboxes[completion.owner as usize]
                    .send(completion.tokens)
                    .unwrap();
            }
        }),
        on_flushed: Box::new(|_| {}),
        on_fatal: Box::new(|detail| panic!("{detail}")),
        observer: Arc::new(()),
    };
    let config = Config {
        apply_bytes: 5000,
        apply_step_bytes: 2000,
        ..Config::default()
    };
    let thread = StorageThread::start(journal, applier, config, hooks).unwrap();
    let producers: Vec<_> = inboxes
        .into_iter()
        .zip(0..)
        .map(|(inbox, owner)| {
            let (handle, reader) = (thread.handle(), Arc::clone(&reader));
            std::thread::spawn(move || {
                for token in 0..WRITES {
                    let key = Bytes::from(format!("{owner}/{}", token % 50));
                    let value = Bytes::from(format!("{token}"));
                    let row = StateWrite {
                        table: Table::Records,
                        key: key.clone(),
                        value: Some(value.clone()),
                    };
                    let ops = vec![JournalOp::Write(vec![row])];
                    handle
                        .submit(Request {
                            owner,
                            token,
                            priority: Priority::Normal,
                            ops,
                        })
                        .unwrap();
                    assert_eq!(inbox.recv_timeout(DEADLINE).unwrap(), [token]);
                    assert_eq!(reader.get(Table::Records, &key).unwrap(), Some(value));
                }
            })
        })
        .collect();
    producers
        .into_iter()
        .for_each(|producer| producer.join().unwrap());
    thread.shutdown();
    drop((reader, dir));
    let dir = DataDir::open(folder.path()).unwrap();
    let store = LmdbStore::open(&dir, &Options::default()).unwrap();
    let page = store
        .reader()
        .range(Table::Records, b"", None, 1000, usize::MAX)
        .unwrap();
    assert_eq!(page.rows.len(), 50 * PRODUCERS as usize);
}

#[test]
fn owners_are_notified_when_derived_rows_are_flushed() {
    let stage = Stage::new(config());
    let handle = stage.thread.as_ref().unwrap().handle();
    for (owner, token) in [(1, 10), (2, 20), (1, 11), (2, 21)] {
        handle.apply_rows(owner, token, Vec::new());
    }
    // Derived rows are applied even without a commit.
    stage.steps.recv_timeout(DEADLINE).unwrap();
    stage.derived.flushed.store(3, Ordering::SeqCst);
    stage.applies.send((Ok(false), 0)).unwrap();
    let flushed = stage.flushed.recv_timeout(DEADLINE).unwrap();
    let of = |owner, tokens: &[u64]| Flushed {
        owner,
        tokens: tokens.to_vec(),
    };
    assert_eq!(flushed, [of(1, &[10, 11]), of(2, &[20])]);
    handle.apply_rows(1, 12, Vec::new());
    stage.steps.recv_timeout(DEADLINE).unwrap();
    stage.derived.flushed.store(5, Ordering::SeqCst);
    stage.applies.send((Ok(false), 0)).unwrap();
    assert_eq!(
        stage.flushed.recv_timeout(DEADLINE).unwrap(),
        [of(2, &[21]), of(1, &[12])]
    );
}
