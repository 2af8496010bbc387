//! A disk in memory whose writes become durable on command.
//!
//! A disk holds a [`Store`] and pending requests. It may be slow ([`Disk::held`]), full ([`Disk::full`]), or stalled in the
//! background ([`Disk::background`]), and a [`Crash`] loses all or some of the pending requests.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

/// The contents of a disk.
pub trait Store: Default {
    /// An operation to make durable.
    type Op: Clone + PartialEq + Eq + Hash + Debug;
    /// Derived rows: visible immediately, durable once flushed.
    type Rows;
    /// A query.
    type Query: Clone;
    /// The result of a query.
    type Answer;
    /// A file task and its progress.
    type Task: Clone + PartialEq + Eq + Hash + Debug;
    /// The result of a file task.
    type Done;

    /// Makes an operation durable.
    fn apply(&mut self, op: &Self::Op);
    /// Whether an operation only removes data, so that it needs no space.
    fn takes_away(_op: &Self::Op) -> bool {
        false
    }
    /// Makes derived rows visible.
    fn apply_rows(&mut self, rows: Self::Rows);
    /// Flushes the oldest unflushed run of derived rows.
    fn flush(&mut self);
    /// Power failure: unflushed rows and incomplete files are lost.
    fn crash(&mut self);
    /// Answers a query.
    fn read(&self, query: &Self::Query) -> Self::Answer;
    /// Performs a step of a task; returns the result when it is done. `full`: the disk has no space.
    fn step(&mut self, task: &mut Self::Task, full: bool) -> Option<Self::Done>;
    /// Whether a task starts by flushing all derived rows.
    fn flushes(task: &Self::Task) -> bool;
}

/// A pending persist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight<P, O> {
    /// The role.
    pub owner: O,
    /// The role's token.
    pub token: u64,
    /// Whether it has low priority.
    pub background: bool,
    /// The operations.
    pub ops: Vec<P>,
}

/// What a crash leaves of pending requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// The number of persists that are durable.
    pub synced: usize,
    /// The number of durable operations of the next persist, if it is a background one.
    pub torn: usize,
    /// The number of flushed runs of derived rows.
    pub flushed: usize,
}

impl Crash {
    /// This many persists are durable, and nothing else.
    pub fn synced(synced: usize) -> Self {
        Crash {
            synced,
            ..Crash::default()
        }
    }
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk<S: Store, O> {
    /// Its contents.
    pub store: S,
    /// Persists complete only on command.
    pub held: bool,
    /// Rejects all writes.
    pub full: bool,
    /// A full disk still accepts operations that only remove data.
    pub reclaims: bool,
    /// Derived rows are flushed only on command.
    pub unflushed: bool,
    /// File tasks are performed only on command.
    pub files_held: bool,
    /// The number of background persists that it still performs, if limited.
    pub background: Option<u64>,
    /// Reads with this token never complete.
    pub slow: Option<u64>,
    /// Pending operations of ended roles: performed before later requests, except background ones.
    late: Vec<S::Op>,
    flights: VecDeque<Flight<S::Op, O>>,
    derived: VecDeque<(O, u64)>,
    tasks: BTreeMap<u64, VecDeque<(O, u64, S::Task)>>,
}

impl<S: Store, O> Default for Disk<S, O> {
    fn default() -> Self {
        Disk {
            store: S::default(),
            held: false,
            full: false,
            reclaims: false,
            unflushed: false,
            files_held: false,
            background: None,
            slow: None,
            late: Vec::new(),
            flights: VecDeque::new(),
            derived: VecDeque::new(),
            tasks: BTreeMap::new(),
        }
    }
}

/// The result of a step of a file task.
pub struct FileStep<S: Store, O> {
    /// The completed task, if any: role, token and result.
    pub done: Option<(O, u64, S::Done)>,
    /// The runs flushed by the step.
    pub flushed: Vec<(O, u64)>,
}

impl<S: Store, O: Copy> Disk<S, O> {
    // ---- persists ----

    /// Queues a request.
    pub fn submit(&mut self, owner: O, token: u64, background: bool, ops: Vec<S::Op>) {
        if !background {
            self.catch_up();
        }
        // A persist without operations only waits for earlier ones.
        if background
            && !ops.is_empty()
            && let Some(left) = &mut self.background
        {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return,
            }
        }
        self.flights.push_back(Flight {
            owner,
            token,
            background,
            ops,
        });
    }

    /// The pending requests.
    pub fn flights(&self) -> impl ExactSizeIterator<Item = &Flight<S::Op, O>> {
        self.flights.iter()
    }

    /// Performs the oldest request, background ones last. Returns it and whether it was rejected.
    pub fn sync(&mut self) -> Option<(Flight<S::Op, O>, bool)> {
        let place = self.flights.iter().position(|flight| !flight.background);
        let flight = self.flights.remove(place.unwrap_or(0))?;
        let refused = self.full && !(self.reclaims && flight.ops.iter().all(S::takes_away));
        if !refused {
            self.apply(&flight.ops);
        }
        Some((flight, refused))
    }

    /// Delays operations of a role that has ended.
    pub fn delay(&mut self, ops: impl IntoIterator<Item = S::Op>) {
        self.late.extend(ops);
    }

    /// Performs the [delayed](Self::delay) operations.
    pub fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.apply(&late);
    }

    /// Removes the newest request without performing it.
    pub fn refuse_newest(&mut self) -> Option<Flight<S::Op, O>> {
        self.flights.pop_back()
    }

    /// Makes operations durable.
    pub fn apply(&mut self, ops: &[S::Op]) {
        for op in ops {
            self.store.apply(op);
        }
    }

    // ---- derived rows ----

    /// Makes derived rows visible.
    pub fn apply_rows(&mut self, owner: O, token: u64, rows: S::Rows) {
        self.store.apply_rows(rows);
        self.derived.push_back((owner, token));
    }

    /// Flushes the oldest `count` runs of derived rows; returns their owners.
    pub fn flush(&mut self, count: usize) -> Vec<(O, u64)> {
        let count = count.min(self.derived.len());
        for _ in 0..count {
            self.store.flush();
        }
        self.derived.drain(..count).collect()
    }

    // ---- files ----

    /// Queues a task.
    pub fn ask_file(&mut self, owner: O, token: u64, files: u64, task: S::Task) {
        self.tasks
            .entry(files)
            .or_default()
            .push_back((owner, token, task));
    }

    /// The owners of files with pending tasks.
    pub fn file_owners(&self) -> Vec<u64> {
        self.tasks.keys().copied().collect()
    }

    /// Performs a step of the first task on an owner's files.
    pub fn file_step(&mut self, files: u64) -> FileStep<S, O> {
        let mut step = FileStep {
            done: None,
            flushed: Vec::new(),
        };
        let Some((owner, token, mut task)) = self.tasks.get_mut(&files).and_then(VecDeque::pop_front) else {
            return step;
        };
        if S::flushes(&task) {
            step.flushed = self.flush(usize::MAX);
        }
        match self.store.step(&mut task, self.full) {
            Some(done) => step.done = Some((owner, token, done)),
            None => self
                .tasks
                .entry(files)
                .or_default()
                .push_front((owner, token, task)),
        }
        self.tasks.retain(|_, tasks| !tasks.is_empty());
        step
    }

    // ---- crashes ----

    /// Power failure; no request completes. Returns the operations that are durable, by persist.
    pub fn crash(&mut self, crash: Crash) -> Vec<Vec<S::Op>> {
        let mut there = Vec::new();
        let full = std::mem::take(&mut self.full);
        for _ in 0..crash.synced {
            there.extend(self.sync().map(|(flight, _)| flight.ops));
        }
        let next = self.flights.front();
        if let Some(flight) = next.filter(|_| self.flights.iter().all(|flight| flight.background)) {
            let ops: Vec<S::Op> = flight.ops.iter().take(crash.torn).cloned().collect();
            self.apply(&ops);
            there.extend((!ops.is_empty()).then_some(ops));
        }
        self.full = full;
        self.flush(crash.flushed);
        self.late.clear();
        self.flights.clear();
        self.derived.clear();
        self.tasks.clear();
        self.store.crash();
        there
    }
}
