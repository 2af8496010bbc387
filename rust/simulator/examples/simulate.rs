//! Runs seeds of the simulation, shows how far it has come, and explains the first seed that breaks an invariant.
//!
//! ```text
//! cargo run -p quorate-simulator --example simulate -- --seeds 0..1000 --nodes 5
//! ```

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_simulator::seeds::{self, BUGS};
use quorate_simulator::simulation::Config;

const USAGE: &str =
    "usage: simulate [--seeds FROM..TO] [--nodes N] [--clients N] [--trouble SECONDS] [--threads N]
                [--bug NAME]... [--lines N] [--quiet]

  --seeds    which seeds to run (0..100)
  --nodes    nodes of each simulated cluster (5)
  --clients  clients of each simulated cluster (4)
  --trouble  how long things go wrong, in seconds of simulated time (8)
  --threads  how many seeds to run at a time (as many as there are processors)
  --bug      a mistake that the roles are to make: siblings-dropped, counter-restarts, id-kept-after-crash,
             ack-before-durable, write-quorum-by-liveness, vote-not-durable, old-term-commit, no-pre-vote,
             stale-read-index, raft-ack-before-durable, restarted-in-place,
             sessions-lost-at-snapshot, age-by-silence, sweeping-left-out
  --lines    how many of the last events to show when an invariant breaks (60)
  --quiet    no progress";

struct Options {
    config: Config,
    from: u64,
    to: u64,
    threads: usize,
    quiet: bool,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        config: Config::default(),
        from: 0,
        to: 100,
        threads: seeds::threads(),
        quiet: false,
    };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        if name == "--quiet" {
            options.quiet = true;
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
                        .map_err(|_| format!("--seeds {value}: {text:?} is no number"))
                };
                (options.from, options.to) = (bound(from)?, bound(to)?);
            }
            "--nodes" => options.config.nodes = number()?.clamp(1, 64) as u16,
            "--clients" => options.config.clients = number()?.clamp(1, 1_000) as u32,
            "--trouble" => options.config.trouble = Duration::from_secs(number()?),
            "--threads" => options.threads = number()? as usize,
            "--lines" => options.config.keep_lines = number()? as usize,
            "--bug" => {
                let (_, set) = BUGS
                    .iter()
                    .find(|(known, _)| *known == value)
                    .ok_or_else(|| format!("--bug {value}: unknown"))?;
                set(&mut options.config.bugs);
            }
            _ => return Err(format!("{name}: unknown option")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let Options {
        mut config,
        from,
        to,
        threads,
        quiet,
    } = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Keeping lines costs time; a seed that fails is run again with them.
    let lines = std::mem::take(&mut config.keep_lines);
    let began = Instant::now();
    let done = AtomicU64::new(0);
    let show = !quiet && std::io::stderr().is_terminal();
    let result = seeds::run(&config, from..to, threads, |seed, _| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if show {
            eprint!(
                "\r{done} of {} seeds, last {seed}, {:.0} s ",
                to - from,
                began.elapsed().as_secs_f64()
            );
            let _ = std::io::stderr().flush();
        }
    });
    if show {
        eprintln!();
    }
    match result {
        Ok(summary) => {
            println!(
                "{summary}; {:.1} s, no invariant broken",
                began.elapsed().as_secs_f64()
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
