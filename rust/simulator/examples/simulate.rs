//! Runs seeds of the simulation, shows progress, and reports the first seed that violates an invariant.
//!
//! ```text
//! cargo run -p quorate-simulator --example simulate -- --seeds 0..1000 --nodes 5
//! ```

use quorate_core::bugs::Bug;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_simulator::seeds::{self, deliberate};
use quorate_simulator::simulation::Config;

const USAGE: &str =
    "usage: simulate [--seeds FROM..TO] [--nodes N] [--clients N] [--nemesis SECONDS] [--threads N]
                [--bug NAME]... [--lines N] [--quiet] [--keep-going [--minutes M]]

  --seeds    which seeds to run (0..100)
  --nodes    nodes of each simulated cluster (5)
  --clients  clients of each simulated cluster (4)
  --nemesis  how long faults are injected, in seconds of simulated time (8)
  --threads  how many seeds to run at a time (as many as there are processors)
  --bug      a deliberate bug of the roles: siblings-dropped, counter-restarts, id-kept-after-crash,
             ack-before-durable, write-quorum-by-liveness, vote-not-durable, old-term-commit, no-pre-vote,
             stale-read-index, raft-ack-before-durable, restarted-in-place,
             sessions-lost-at-snapshot, age-by-silence, gc-skipped, duplicates-accepted,
             doubt-forgotten
  --lines    how many of the last events to show when an invariant is violated (60)
  --quiet    no progress
  --keep-going  run all seeds, and list those that violate an invariant instead of reporting the first:
             a line `regression: NODES CLIENTS NEMESIS SEED INVARIANT`, and the command that replays it
  --minutes  start no seed after this time";

struct Options {
    config: Config,
    from: u64,
    to: u64,
    threads: usize,
    quiet: bool,
    keep_going: bool,
    patience: Option<Duration>,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        config: Config::default(),
        from: 0,
        to: 100,
        threads: seeds::threads(),
        quiet: false,
        keep_going: false,
        patience: None,
    };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let flag = match name.as_str() {
            "--quiet" => Some(&mut options.quiet),
            "--keep-going" => Some(&mut options.keep_going),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} {value}: not a number"))
        };
        match name.as_str() {
            "--seeds" => {
                let (from, to) = value
                    .split_once("..")
                    .ok_or_else(|| format!("--seeds {value}: write FROM..TO"))?;
                let bound = |text: &str| {
                    text.parse()
                        .map_err(|_| format!("--seeds {value}: {text:?} is not a number"))
                };
                (options.from, options.to) = (bound(from)?, bound(to)?);
            }
            "--nodes" => options.config.nodes = number()?.clamp(1, 64) as u16,
            "--clients" => options.config.clients = number()?.clamp(1, 1_000) as u32,
            "--nemesis" => options.config.nemesis = Duration::from_secs(number()?),
            "--minutes" => options.patience = Some(Duration::from_secs(60 * number()?)),
            "--threads" => options.threads = number()? as usize,
            "--lines" => options.config.keep_lines = number()? as usize,
            "--bug" => {
                let known = Bug::ALL.into_iter().find(|bug| bug.name() == value);
                let bug = known.ok_or_else(|| format!("--bug {value}: unknown"))?;
                options.config.bugs = deliberate(options.config.bugs.iter().chain([bug]));
            }
            _ => return Err(format!("{name}: unknown option")),
        }
    }
    Ok(options)
}

/// The progress of a run of many seeds.
struct Progress {
    seeds: u64,
    done: AtomicU64,
    began: Instant,
    shown: bool,
}

impl Progress {
    fn note(&self, seed: u64) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown {
            let seconds = self.began.elapsed().as_secs_f64();
            eprint!("\r{done} of {} seeds, last {seed}, {seconds:.0} s ", self.seeds);
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let progress = Progress {
        seeds: options.to.saturating_sub(options.from),
        done: AtomicU64::new(0),
        began: Instant::now(),
        shown: !options.quiet && std::io::stderr().is_terminal(),
    };
    match options.keep_going {
        true => survey(options, &progress),
        false => run(options, &progress),
    }
}

/// Runs seeds up to the first that violates an invariant, which is reported.
fn run(options: Options, progress: &Progress) -> ExitCode {
    let mut config = options.config;
    // Keeping lines costs time; a failing seed is run again with them.
    let lines = std::mem::take(&mut config.keep_lines);
    let result = seeds::run(&config, options.from..options.to, options.threads, |seed, _| {
        progress.note(seed);
    });
    progress.end();
    match result {
        Ok(summary) => {
            println!(
                "{summary}; {:.1} s, no invariant broken",
                progress.began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(failure) if lines > 0 => {
            config.seed = failure.config.seed;
            config.keep_lines = lines;
            println!("{}", seeds::explain(config));
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all seeds, or as many as fit into the time; lists those that violate an invariant.
fn survey(options: Options, progress: &Progress) -> ExitCode {
    let config = options.config;
    let broken = AtomicU64::new(0);
    let summary = seeds::survey(
        &config,
        options.from..options.to,
        options.threads,
        |seed, report| {
            if let Some(violation) = &report.violation {
                let config = Config {
                    seed,
                    ..config.clone()
                };
                broken.fetch_add(1, Ordering::Relaxed);
                println!("regression: {}", seeds::regression(&config, violation));
                println!("  {violation}\n  replay it with: {}", seeds::command(&config));
            }
            progress.note(seed);
            options
                .patience
                .is_none_or(|patience| progress.began.elapsed() < patience)
        },
    );
    progress.end();
    let broken = broken.into_inner();
    println!(
        "{summary}; {:.1} s, {broken} broke an invariant",
        progress.began.elapsed().as_secs_f64()
    );
    match broken {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
