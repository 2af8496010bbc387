//! Many seeds, on all processors, until one of them shows something.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{fmt, thread};

use quorate_core::bugs::{Bug, Bugs};
use quorate_permit::Permit;

use crate::history::Tally;
use crate::observation::Violation;
use crate::schedule::Fault;
use crate::simulation::{Config, Report, Simulation};

/// How many of the last events a failure shows.
const TAIL: usize = 60;

/// What many runs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many things happened in all of them.
    pub steps: u64,
    /// How all of their operations ended.
    pub tally: Tally,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.tally.succeeded += report.tally.succeeded;
        self.tally.failed += report.tally.failed;
        self.tally.unknown += report.tally.unknown;
        self.tally.waiting += report.tally.waiting;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            succeeded,
            failed,
            unknown,
            ..
        } = self.tally;
        write!(
            f,
            "{} seeds, {} steps; operations: {succeeded} succeeded, {failed} failed, {unknown} unknown",
            self.seeds, self.steps
        )
    }
}

/// A seed whose run broke an invariant. Shown, it tells what is needed to understand it, and the command to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was run.
    pub config: Config,
    /// How it ended, with its last events.
    pub report: Report,
    /// What went wrong in it by intention, up to its end.
    pub faults: Vec<(std::time::Duration, Fault)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.config.seed, self.report)?;
        writeln!(f, "faults, in seconds after the setup:")?;
        for (at, fault) in &self.faults {
            writeln!(f, "{:>12.6} {fault:?}", at.as_secs_f64())?;
        }
        writeln!(f, "the last {} events:", self.report.lines.len())?;
        for line in &self.report.lines {
            writeln!(f, "{line}")?;
        }
        if let Some(violation) = &self.report.violation {
            writeln!(f, "{violation}")?;
        }
        write!(f, "replay it with: {}", command(&self.config))
    }
}

/// The one command that runs this configuration again.
pub fn command(config: &Config) -> String {
    let Config {
        seed,
        nodes,
        clients,
        nemesis,
        bugs,
        ..
    } = config;
    let mut command = format!(
        "cargo run -p quorate-simulator --example simulate -- --seeds {seed}..{} --nodes {nodes} --clients {clients} \
         --nemesis {}",
        seed + 1,
        nemesis.as_secs()
    );
    for bug in bugs.iter() {
        command.push_str(" --bug ");
        command.push_str(bug.name());
    }
    command
}

/// Has the roles make these mistakes ([`Bug::ALL`] has their names).
///
/// A few hundred seeds notice all but one: `old-term-commit` shows when three leaders in a row die at the right moments
/// (Figure 8 of the Raft paper), and only where appends are small. The model and the random runs of `quorate-raft` look for that.
pub fn deliberate(bugs: impl IntoIterator<Item = Bug>) -> Bugs {
    Bugs::deliberate(bugs, Permit::for_tests())
}

/// Runs the seeds, each with this configuration otherwise, on `threads` threads. `progress` is told of every run as it
/// ends.
///
/// # Errors
/// The lowest of the seeds that broke an invariant before the others were called off.
pub fn run(
    config: &Config,
    seeds: Range<u64>,
    threads: usize,
    progress: impl Fn(u64, &Report) + Sync,
) -> Result<Summary, Box<Failure>> {
    let lowest = Mutex::new(None::<u64>);
    let summary = survey(config, seeds, threads, |seed, report| {
        progress(seed, report);
        if report.violation.is_some() {
            let mut lowest = lowest.lock().expect("no thread panics with the lock");
            *lowest = Some(lowest.map_or(seed, |other| other.min(seed)));
        }
        report.violation.is_none()
    });
    match lowest.into_inner().expect("no thread panics with the lock") {
        None => Ok(summary),
        Some(seed) => Err(Box::new(explain(Config {
            seed,
            ..config.clone()
        }))),
    }
}

/// Runs the seeds as [`run`] does, and goes on whatever they come to until `go_on`, which is told of every run as it ends,
/// says no. Runs that have begun by then end. What all of them came to.
pub fn survey(
    config: &Config,
    seeds: Range<u64>,
    threads: usize,
    go_on: impl Fn(u64, &Report) -> bool + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let outcome = Mutex::new(Summary::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let report = Simulation::run(Config {
                seed,
                ..config.clone()
            });
            if !go_on(seed, &report) {
                stop.store(true, Ordering::Relaxed);
            }
            outcome
                .lock()
                .expect("no thread panics with the lock")
                .add(&report);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    outcome.into_inner().expect("no thread panics with the lock")
}

/// Runs a seed again, this time with its events as text: the run is the same.
pub fn explain(config: Config) -> Failure {
    let keep_lines = config.keep_lines.max(TAIL);
    let report = Simulation::run(Config {
        hash: true,
        keep_lines,
        ..config.clone()
    });
    let mut faults = Simulation::new(config.clone()).schedule().faults.clone();
    faults.retain(|(at, _)| *at <= report.lasted);
    Failure {
        config,
        report,
        faults,
    }
}

/// A run that broke an invariant, as a line of `tests/regressions.txt`.
pub fn regression(config: &Config, violation: &Violation) -> String {
    let Config {
        seed,
        nodes,
        clients,
        nemesis,
        ..
    } = config;
    format!(
        "{nodes} {clients} {} {seed} {}",
        nemesis.as_secs(),
        violation.invariant
    )
}

/// How many threads to run seeds on: as many as there are processors.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
