//! A disk in memory whose every write becomes durable only when it is told so.
//!
//! What a disk stores is a [`Store`]; what it was asked for and has not done waits here. It may be slow ([`Disk::held`]), full
//! ([`Disk::full`]), stuck in the background ([`Disk::background`]), and a [`Crash`] takes what it has not done, or leaves
//! some of it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

/// What a disk stores.
pub trait Store: Default {
    /// Something to make durable.
    type Op: Clone + PartialEq + Eq + Hash + Debug;
    /// Rows that are seen at once, and survive a crash once they are flushed.
    type Rows;
    /// Something to read.
    type Query: Clone;
    /// What was there.
    type Answer;
    /// Something to do with files, and how far it is.
    type Task: Clone + PartialEq + Eq + Hash + Debug;
    /// What came of it.
    type Done;

    /// Makes an operation durable.
    fn apply(&mut self, op: &Self::Op);
    /// Whether an operation only takes away: it needs no space.
    fn takes_away(_op: &Self::Op) -> bool {
        false
    }
    /// Shows rows.
    fn apply_rows(&mut self, rows: Self::Rows);
    /// The rows that were derived first, of those that a crash would take, survive one from now on.
    fn flush(&mut self);
    /// Power is lost: what is not flushed, and is in no whole file, goes.
    fn crash(&mut self);
    /// Reads.
    fn read(&self, query: &Self::Query) -> Self::Answer;
    /// Does some of a task; the answer when it is done. `full` says that there is no space for anything new.
    fn step(&mut self, task: &mut Self::Task, full: bool) -> Option<Self::Done>;
    /// Whether a task begins with everything that was derived being flushed.
    fn flushes(task: &Self::Task) -> bool;
}

/// A persist that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight<P, O> {
    /// Who asked.
    pub owner: O,
    /// To be returned in the answer.
    pub token: u64,
    /// Others go before it.
    pub background: bool,
    /// What is to become durable.
    pub ops: Vec<P>,
}

/// What a crash leaves of what was in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// So many persists have reached the disk.
    pub synced: usize,
    /// And, if the next one is a background one, so many of its operations.
    pub torn: usize,
    /// So many of the derived runs are flushed.
    pub flushed: usize,
}

impl Crash {
    /// So many persists have reached the disk, and nothing else.
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
    /// What it has.
    pub store: S,
    /// It answers persists only when told to.
    pub held: bool,
    /// It refuses everything.
    pub full: bool,
    /// When it is full, it still does what only takes away.
    pub reclaims: bool,
    /// What is derived does not settle until it is told to.
    pub unflushed: bool,
    /// Tasks with files wait until it is told to do them.
    pub files_held: bool,
    /// It performs so many persists in the background, and none after those.
    pub background: Option<u64>,
    /// Reads with this token take longer than the test.
    pub slow: Option<u64>,
    /// Asked for by a role that has ended, and done before anything that is asked for later, but what is in the background.
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

/// What came of a step of a task.
pub struct FileStep<S: Store, O> {
    /// Whose task is done: token and answer.
    pub done: Option<(O, u64, S::Done)>,
    /// What is flushed on the way.
    pub flushed: Vec<(O, u64)>,
}

impl<S: Store, O: Copy> Disk<S, O> {
    // ---- persists ----

    /// Takes a request.
    pub fn submit(&mut self, owner: O, token: u64, background: bool, ops: Vec<S::Op>) {
        if !background {
            self.catch_up();
        }
        // A persist without operations only waits for those before it.
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

    /// The requests that were not answered.
    pub fn flights(&self) -> impl ExactSizeIterator<Item = &Flight<S::Op, O>> {
        self.flights.iter()
    }

    /// Does what waits longest, those in the background last. Whether it was refused.
    pub fn sync(&mut self) -> Option<(Flight<S::Op, O>, bool)> {
        let place = self.flights.iter().position(|flight| !flight.background);
        let flight = self.flights.remove(place.unwrap_or(0))?;
        let refused = self.full && !(self.reclaims && flight.ops.iter().all(S::takes_away));
        if !refused {
            self.apply(&flight.ops);
        }
        Some((flight, refused))
    }

    /// A role that has ended had asked for operations, which are still on their way.
    pub fn delay(&mut self, ops: impl IntoIterator<Item = S::Op>) {
        self.late.extend(ops);
    }

    /// Does what was [on its way](Self::delay).
    pub fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.apply(&late);
    }

    /// Takes the newest request out, undone.
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

    /// Shows rows.
    pub fn apply_rows(&mut self, owner: O, token: u64, rows: S::Rows) {
        self.store.apply_rows(rows);
        self.derived.push_back((owner, token));
    }

    /// The first so many derived runs survive a crash from now on: whose they are.
    pub fn flush(&mut self, count: usize) -> Vec<(O, u64)> {
        let count = count.min(self.derived.len());
        for _ in 0..count {
            self.store.flush();
        }
        self.derived.drain(..count).collect()
    }

    // ---- files ----

    /// Takes a task.
    pub fn ask_file(&mut self, owner: O, token: u64, files: u64, task: S::Task) {
        self.tasks
            .entry(files)
            .or_default()
            .push_back((owner, token, task));
    }

    /// Whose files there are tasks with.
    pub fn file_owners(&self) -> Vec<u64> {
        self.tasks.keys().copied().collect()
    }

    /// Does a step of the first task with someone's files.
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

    /// Power is lost; nobody hears of what is there. What is, persist by persist.
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
