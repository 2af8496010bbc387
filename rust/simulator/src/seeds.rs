//! Runs many seeds on all processors, until one of them violates an invariant.

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

/// How many of the last events a failure report includes.
const TAIL: usize = 60;

/// The summary of many runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of seeds.
    pub seeds: u64,
    /// The number of events in all runs.
    pub steps: u64,
    /// The outcomes of all operations.
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

/// A seed whose run violated an invariant. Its display includes the faults, the last events, and the command that replays it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The configuration.
    pub config: Config,
    /// The report, with the last events.
    pub report: Report,
    /// The faults injected up to its end.
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

/// The command that replays this configuration.
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

/// Enables these deliberate bugs of the roles (see [`Bug::ALL`]).
///
/// A few hundred seeds detect all but one: `old-term-commit` shows when three leaders in a row crash at the right moments
/// (Figure 8 of the Raft paper), and only with small appends. The model and the random runs of `quorate-raft` cover it.
pub fn deliberate(bugs: impl IntoIterator<Item = Bug>) -> Bugs {
    Bugs::deliberate(bugs, Permit::for_tests())
}

/// Runs the seeds with this configuration on `threads` threads. `progress` is called after every run.
///
/// # Errors
/// The lowest of the seeds that violated an invariant before the other runs were stopped.
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

/// Runs the seeds as [`run`] does, until `continues`, which is called after every run, returns false. Runs in progress are
/// finished. Returns the summary of all runs.
pub fn survey(
    config: &Config,
    seeds: Range<u64>,
    threads: usize,
    continues: impl Fn(u64, &Report) -> bool + Sync,
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
            if !continues(seed, &report) {
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

/// Repeats a run, this time with its events as text.
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

/// A run that violated an invariant, as a line of `tests/regressions.txt`.
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

/// The number of threads for running seeds: the number of processors.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
