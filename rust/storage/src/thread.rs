//! The threads that own the store in a node.
//!
//! ```text
//! handle.submit(request) ──► [storage-journal]  queue, commit, tell the owners   one transaction at a time
//!                                   │ unapplied bytes         ▲ room
//!                                   ▼                         │
//!                            [storage-state]    apply in the background
//! ```
//!
//! Each environment's write transactions belong to one thread for good, and applying never delays a commit. Whatever
//! is submitted during a commit shares the next one. Derived rows ([`StorageHandle::apply_rows`]) pass the journal by: they
//! are readable when the call returns, and the applying thread says when they are flushed. Rows of files are put in place
//! ([`StorageHandle::bulk`]) by that thread, between two rounds of applying. If the state falls far behind, commits
//! wait for it; if it has no room, they answer [`Outcome::Full`].
//!
//! **Bounds.** The handle takes everything, so that no effect of a role is lost half way. What may be on its way through a
//! node is bounded where requests are admitted, and by the windows of replication.
//!
//! **Failure.** After a fatal error, and after a panic, `on_fatal` is called and both threads end. Nobody is answered
//! any more: what is on disk is for recovery to find out.

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

/// When to apply, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sizes of batches and of the queue.
    pub limits: Limits,
    /// Unapplied bytes from which on the state is brought up to date.
    pub apply_bytes: usize,
    /// Bytes of one transaction of the state.
    pub apply_step_bytes: usize,
    /// Unapplied bytes at which commits wait for the state. They are held in memory.
    pub max_unapplied_bytes: usize,
    /// Time without a commit after which the state is brought up to date anyway.
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

/// What one commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// Requests in the batch.
    pub requests: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
    /// When it began.
    pub started: Instant,
    /// How long it took, syncs included.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// What one round of applying did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyReport {
    /// Transactions of the state.
    pub steps: usize,
    /// How long it took, syncs included.
    pub duration: Duration,
}

/// Watches the store at work, for metrics and spans. Called on the store's threads: be quick.
pub trait Observer: Send + Sync {
    /// A batch was committed, or refused for want of space.
    fn committed(&self, _report: &CommitReport) {}

    /// The state was brought up to date.
    fn applied(&self, _report: &ApplyReport) {}
}

/// Watches nothing.
impl Observer for () {}

/// Told, at most once, that the store failed.
pub type FatalHook = Box<dyn Fn(String) + Send + Sync>;

/// What the threads call.
pub struct Hooks {
    /// Once per commit, with the requests that it ended, grouped by owner. On the journal's thread: be quick.
    pub on_completed: Box<dyn Fn(Vec<Completion>) + Send>,
    /// Derived rows that are flushed, grouped by owner, oldest first. On the state's thread: be quick.
    pub on_flushed: Box<dyn Fn(Vec<Flushed>) + Send>,
    /// At most once: the store failed, the node must stop.
    pub on_fatal: FatalHook,
    /// Metrics and spans.
    pub observer: Arc<dyn Observer>,
}

/// The store's threads have ended: nothing can be made durable any more.
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
    /// Puts a request in the queue; `on_completed` tells how it ended.
    ///
    /// # Errors
    /// [`Stopped`] if the threads have ended. A request that is queued when they end after a failure is never answered.
    pub fn submit(&self, request: Request) -> Result<(), Stopped> {
        let bytes = self.limits.request_weight(&request);
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        self.commands.send(Command::Commit(request)).map_err(|_| {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            Stopped
        })
    }

    /// Makes rows readable that `owner` derives from its own log; `on_flushed` tells when they survive a crash. See
    /// [`DerivedRows`](crate::store::DerivedRows).
    ///
    /// # Panics
    /// If a row breaks the store's contract: a key that is empty or too long.
    pub fn apply_rows(&self, owner: u32, token: u64, writes: Vec<StateWrite>) {
        self.unflushed.apply_rows(owner, token, writes);
        self.shared
            .set_backlog(|| self.unflushed.unapplied_bytes(), Instant::now());
    }

    /// Has the state's thread make a change past the journal, between two rounds of applying, and waits for it. See
    /// [`Store::bulk`](crate::store::Store::bulk), whose answer it gives.
    ///
    /// # Errors
    /// [`Stopped`] if the threads have ended, or end before the change was made.
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

    /// Bytes that wait or are being committed.
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
    /// If the system has no thread to give.
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

    /// Where requests go.
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
        // A thread that has ended already does not listen, which is as good.
        let _ = self.handle.commands.send(Command::Stop);
        for thread in self.threads.drain(..) {
            // A panic has been reported as fatal.
            let _ = thread.join();
        }
    }
}

/// What the threads share.
struct Shared {
    config: Config,
    on_fatal: Mutex<Option<FatalHook>>,
    observer: Arc<dyn Observer>,
    backlog: Mutex<Backlog>,
    changed: Condvar,
    commands: Sender<Command>,
}

/// How far the state is behind the journal.
struct Backlog {
    unapplied: usize,
    last_commit: Instant,
    /// The state has no room: waiting for it is pointless, the store refuses rows itself.
    no_room: bool,
    /// Changes of the state past the journal, and who waits for them.
    bulk: VecDeque<(Bulk, SyncSender<Result<bool, CommitError>>)>,
    stopped: bool,
}

impl Shared {
    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().expect("no holder of the backlog panics")
    }

    /// Says how far the state is behind, and wakes its thread if it has something to do or to time.
    fn set_backlog(&self, unapplied: impl FnOnce() -> usize, now: Instant) {
        let mut backlog = self.backlog();
        // Under the lock, lest an older figure replace a newer one.
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
        // Nobody will make them: who waits learns it from this.
        backlog.bulk.clear();
        drop(backlog);
        self.0.changed.notify_all();
        // The journal's thread may be gone already.
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
        sys::ask_for_short_slice();
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

    /// Takes all that is waiting; waits for something if nothing is queued.
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

    /// Commits the next batch and tells its owners; `false` after a failure.
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
