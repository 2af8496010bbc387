//! The threads that own the store in a node.
//!
//! ```text
//! handle.submit(request) ──► [storage-journal]  queue, commit, complete          one transaction at a time
//!                                   │ unapplied bytes         ▲ room
//!                                   ▼                         │
//!                            [storage-state]    apply in the background
//! ```
//!
//! Each environment's write transactions belong to one thread, and applying never delays a commit. Requests submitted
//! during a commit share the next one. Derived rows ([`StorageHandle::apply_rows`]) bypass the journal: they are readable
//! when the call returns, and the state thread reports when they are flushed. That thread also loads rows of files
//! ([`StorageHandle::bulk`]), between two rounds of applying. If the state falls behind, commits wait for it; if it has no
//! room, they end with [`Outcome::Full`].
//!
//! **Bounds.** The handle accepts all requests, so that no effect of a role is lost. Admission and the windows of
//! replication bound the requests in a node.
//!
//! **Failure.** After a fatal error or a panic, `on_fatal` is called and both threads end. Pending requests are not
//! answered: recovery determines what is on disk.

mod state;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_core::store::StateWrite;
use thiserror::Error;

use self::state::StateThread;
use crate::bulk::Bulk;
use crate::error::CommitError;
use crate::queue::{CommitQueue, Completion, Limits, Outcome, Request};
use crate::store::{Applier, Committer, op_bytes};
use crate::sys;
use crate::unflushed::{Flushed, Unflushed};

/// When to apply, and how much may be unapplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sizes of batches and of the queue.
    pub limits: Limits,
    /// Unapplied bytes that trigger a round of applying.
    pub apply_bytes: usize,
    /// Bytes of one transaction of the state.
    pub apply_step_bytes: usize,
    /// Unapplied bytes at which commits wait for the state. They are held in memory.
    pub max_unapplied_bytes: usize,
    /// Time without a commit that triggers a round of applying.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            limits: Limits::default(),
            apply_bytes: 16 << 20,
            apply_step_bytes: 4 << 20,
            max_unapplied_bytes: 64 << 20,
            idle: Duration::from_millis(500),
        }
    }
}

/// Report of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// Requests in the batch.
    pub requests: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
    /// When it began.
    pub started: Instant,
    /// How long it took, including syncs.
    pub duration: Duration,
    /// Its outcome.
    pub outcome: Outcome,
}

/// Report of one round of applying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyReport {
    /// Transactions of the state.
    pub steps: usize,
    /// How long it took, including syncs.
    pub duration: Duration,
}

/// Observes the store, for metrics and spans. Called on the store's threads: must not block.
pub trait Observer: Send + Sync {
    /// A batch was committed, or rejected for lack of space.
    fn committed(&self, _report: &CommitReport) {}

    /// A round of applying is complete.
    fn applied(&self, _report: &ApplyReport) {}
}

/// Ignores all reports.
impl Observer for () {}

/// Called at most once, when the store fails.
pub type FatalHook = Box<dyn Fn(String) + Send + Sync>;

/// The callbacks of the threads.
pub struct Hooks {
    /// Called once per commit, with the completed requests, grouped by owner. On the journal thread: must not block.
    pub on_completed: Box<dyn Fn(Vec<Completion>) + Send>,
    /// Called with flushed derived rows, grouped by owner, oldest first. On the state thread: must not block.
    pub on_flushed: Box<dyn Fn(Vec<Flushed>) + Send>,
    /// Called at most once: the store failed, the node must stop.
    pub on_fatal: FatalHook,
    /// Metrics and spans.
    pub observer: Arc<dyn Observer>,
}

/// The store's threads have ended: nothing can be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the storage thread has stopped")]
pub struct Stopped;

enum Command {
    Commit(Request),
    Stop,
}

/// Submits requests, from any thread.
#[derive(Clone)]
pub struct StorageHandle {
    commands: Sender<Command>,
    queued: Arc<AtomicUsize>,
    limits: Limits,
    unflushed: Arc<Unflushed>,
    shared: Arc<Shared>,
}

impl StorageHandle {
    /// Queues a request; `on_completed` reports its outcome.
    ///
    /// # Errors
    /// [`Stopped`] if the threads have ended. Requests queued when the threads fail are never answered.
    pub fn submit(&self, request: Request) -> Result<(), Stopped> {
        let bytes = self.limits.request_weight(&request);
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        self.commands.send(Command::Commit(request)).map_err(|_| {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            Stopped
        })
    }

    /// Makes rows readable that `owner` derives from its own log; `on_flushed` reports when they are durable. See
    /// [`DerivedRows`](crate::store::DerivedRows).
    ///
    /// # Panics
    /// If a row violates the store's contract: a key that is empty or too long.
    pub fn apply_rows(&self, owner: u32, token: u64, writes: Vec<StateWrite>) {
        self.unflushed.apply_rows(owner, token, writes);
        self.shared
            .set_backlog(|| self.unflushed.unapplied_bytes(), Instant::now());
    }

    /// Makes a change that bypasses the journal, on the state thread between two rounds of applying, and waits for it. Returns
    /// the result of [`Store::bulk`](crate::store::Store::bulk).
    ///
    /// # Errors
    /// [`Stopped`] if the threads have ended, or end before the change is made.
    pub fn bulk(&self, change: Bulk) -> Result<Result<bool, CommitError>, Stopped> {
        let (answer, answered) = sync_channel(1);
        let mut backlog = self.shared.backlog();
        if backlog.stopped {
            return Err(Stopped);
        }
        backlog.bulk.push_back((change, answer));
        drop(backlog);
        self.shared.changed.notify_all();
        answered.recv().map_err(|_| Stopped)
    }

    /// Bytes that are pending or being committed.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// The two threads. Dropping it shuts them down.
pub struct StorageThread {
    handle: StorageHandle,
    threads: Vec<JoinHandle<()>>,
}

impl StorageThread {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        committer: impl Committer + 'static,
        applier: impl Applier + 'static,
        config: Config,
        hooks: Hooks,
    ) -> std::io::Result<Self> {
        let (commands, incoming) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            config,
            on_fatal: Mutex::new(Some(hooks.on_fatal)),
            observer: hooks.observer,
            backlog: Mutex::new(Backlog {
                unapplied: applier.unapplied_bytes(),
                last_commit: Instant::now(),
                no_room: false,
                bulk: VecDeque::new(),
                stopped: false,
            }),
            changed: Condvar::new(),
            commands: commands.clone(),
        });
        let unflushed = Arc::new(Unflushed::new(applier.derived()));
        let handle = StorageHandle {
            commands,
            queued: Arc::clone(&queued),
            limits: config.limits,
            unflushed: Arc::clone(&unflushed),
            shared: Arc::clone(&shared),
        };
        let mut started = StorageThread {
            handle,
            threads: Vec::new(),
        };
        let journal = JournalThread {
            committer,
            queue: CommitQueue::new(config.limits),
            incoming,
            queued,
            on_completed: hooks.on_completed,
            shared: Arc::clone(&shared),
            stopping: false,
        };
        started.spawn("storage-journal", Arc::clone(&shared), move || journal.run())?;
        let state = StateThread {
            applier,
            unflushed,
            on_flushed: hooks.on_flushed,
            shared: Arc::clone(&shared),
        };
        started.spawn("storage-state", shared, move || state.run())?;
        Ok(started)
    }

    /// A handle to submit requests.
    pub fn handle(&self) -> StorageHandle {
        self.handle.clone()
    }

    /// Commits what is queued, then ends the threads.
    pub fn shutdown(self) {
        drop(self);
    }

    fn spawn(
        &mut self,
        name: &str,
        shared: Arc<Shared>,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let guarded = move || {
            let _guard = StopOnExit(shared);
            body();
        };
        self.threads
            .push(std::thread::Builder::new().name(name.to_owned()).spawn(guarded)?);
        Ok(())
    }
}

impl Drop for StorageThread {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.handle.commands.send(Command::Stop);
        for thread in self.threads.drain(..) {
            // A panic has been reported as fatal.
            let _ = thread.join();
        }
    }
}

/// The shared state of the threads.
struct Shared {
    config: Config,
    on_fatal: Mutex<Option<FatalHook>>,
    observer: Arc<dyn Observer>,
    backlog: Mutex<Backlog>,
    changed: Condvar,
    commands: Sender<Command>,
}

/// The backlog of the state behind the journal.
struct Backlog {
    unapplied: usize,
    last_commit: Instant,
    /// Whether the state has no room: commits do not wait for it, since the store rejects rows itself.
    no_room: bool,
    /// Pending changes that bypass the journal, and their waiters.
    bulk: VecDeque<(Bulk, SyncSender<Result<bool, CommitError>>)>,
    stopped: bool,
}

impl Shared {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().expect("no holder of the backlog panics")
    }

    /// Updates the backlog, and wakes the state thread if it has work or a timeout to wait for.
    fn set_backlog(&self, unapplied: impl FnOnce() -> usize, now: Instant) {
        let mut backlog = self.backlog();
        // Under the lock, so that an older value cannot replace a newer one.
        let unapplied = unapplied();
        let before = std::mem::replace(&mut backlog.unapplied, unapplied);
        backlog.last_commit = now;
        let threshold = self.config.apply_bytes;
        if (before == 0 && unapplied > 0) || (before < threshold && unapplied >= threshold) {
            self.changed.notify_all();
        }
    }

    fn fail(&self, detail: String) {
        let on_fatal = self.on_fatal.lock().expect("no holder of the hook panics").take();
        if let Some(on_fatal) = on_fatal {
            on_fatal(detail);
        }
    }
}

/// Ends the other thread when this one ends, and reports a panic.
struct StopOnExit(Arc<Shared>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or("storage").to_owned();
            self.0.fail(format!("the thread {name} panicked"));
        }
        let mut backlog = self.0.backlog();
        backlog.stopped = true;
        // Dropping them fails their waiters.
        backlog.bulk.clear();
        drop(backlog);
        self.0.changed.notify_all();
        // The journal thread may have ended already.
        let _ = self.0.commands.send(Command::Stop);
    }
}

struct JournalThread<C> {
    committer: C,
    queue: CommitQueue,
    incoming: Receiver<Command>,
    queued: Arc<AtomicUsize>,
    on_completed: Box<dyn Fn(Vec<Completion>) + Send>,
    shared: Arc<Shared>,
    stopping: bool,
}

impl<C: Committer> JournalThread<C> {
    fn run(mut self) {
        sys::request_short_slice();
        loop {
            self.receive();
            if self.shared.backlog().stopped {
                return;
            }
            if self.queue.is_empty() && self.stopping {
                return;
            }
            self.wait_for_the_state();
            if !self.commit_next() {
                return;
            }
        }
    }

    /// Takes all pending commands; waits for one if nothing is queued.
    fn receive(&mut self) {
        if self.queue.is_empty() && !self.stopping {
            match self.incoming.recv() {
                Ok(command) => self.take(command),
                Err(_) => self.stopping = true,
            }
        }
        while let Ok(command) = self.incoming.try_recv() {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Commit(request) => self.queue.push(request),
            Command::Stop => self.stopping = true,
        }
    }

    fn wait_for_the_state(&self) {
        let limit = self.shared.config.max_unapplied_bytes;
        let mut backlog = self.shared.backlog();
        while backlog.unapplied >= limit && !backlog.no_room && !backlog.stopped {
            backlog = self
                .shared
                .changed
                .wait(backlog)
                .expect("no holder of the backlog panics");
        }
    }

    /// Commits the next batch and completes its requests; `false` after a failure.
    fn commit_next(&mut self) -> bool {
        let Some(batch) = self.queue.next_batch() else {
            return true;
        };
        let requests = self.queue.in_flight_requests();
        let bytes = batch.iter().map(op_bytes).sum();
        let started = Instant::now();
        let outcome = match self.committer.commit(&batch) {
            Ok(()) => Outcome::Durable,
            Err(CommitError::Full) => Outcome::Full,
            Err(CommitError::Fatal(detail)) => {
                self.shared.fail(detail);
                return false;
            }
        };
        let duration = started.elapsed();
        let queued_before = self.queue.queued_bytes();
        let completions = self.queue.finish(outcome);
        self.queued
            .fetch_sub(queued_before - self.queue.queued_bytes(), Ordering::Relaxed);
        if !completions.is_empty() {
            (self.on_completed)(completions);
        }
        self.shared.observer.committed(&CommitReport {
            requests,
            bytes,
            started,
            duration,
            outcome,
        });
        self.shared
            .set_backlog(|| self.committer.unapplied_bytes(), started + duration);
        true
    }
}
