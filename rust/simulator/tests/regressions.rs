//! Runs that once broke an invariant do not break it again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use quorate_simulator::seeds;
use quorate_simulator::simulation::{Config, Simulation};

/// A line for each run: nodes, clients, seconds of the nemesis, seed, and what it broke.
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
            parse(line).unwrap_or_else(|| panic!("write: nodes clients nemesis seed invariant: {line:?}"))
        })
        .collect()
}

#[test]
fn what_once_broke_an_invariant_does_not_any_more() {
    let configs = configs();
    let (next, broken) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(config) = configs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(violation) = Simulation::run(config.clone()).violation {
                let replay = seeds::command(config);
                let mut broken = broken.lock().expect("no thread panics with the lock");
                broken.push(format!("{violation}\nreplay it with: {replay}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..seeds::threads() {
            scope.spawn(work);
        }
    });
    let broken = broken.into_inner().expect("no thread panics with the lock");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
