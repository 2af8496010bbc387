//! Runs that once violated an invariant do not violate it again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use quorate_simulator::seeds;
use quorate_simulator::simulation::{Config, Simulation};

/// One line per run: nodes, clients, seconds of the nemesis, seed, and the violated invariant.
const REGRESSIONS: &str = include_str!("regressions.txt");

fn parse(line: &str) -> Option<Config> {
    let mut words = line.split_whitespace();
    let mut number = || words.next()?.parse::<u64>().ok();
    Some(Config {
        nodes: number()? as u16,
        clients: number()? as u32,
        nemesis: Duration::from_secs(number()?),
        seed: number()?,
        ..Config::default()
    })
}

fn configs() -> Vec<Config> {
    let lines = REGRESSIONS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            parse(line).unwrap_or_else(|| panic!("expected: nodes clients nemesis seed invariant: {line:?}"))
        })
        .collect()
}

#[test]
fn earlier_violations_do_not_recur() {
    let configs = configs();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(config) = configs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(violation) = Simulation::run(config.clone()).violation {
                let replay = seeds::command(config);
                let mut failures = failures.lock().expect("no thread panics with the lock");
                failures.push(format!("{violation}\nreplay it with: {replay}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..seeds::threads() {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no thread panics with the lock");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
