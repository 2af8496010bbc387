//! Seeds: the correct program passes them, the same seed is the same run, and every mistake is noticed.

use std::time::Duration;

use quorate_core::bugs::{Bug, Bugs};
use quorate_simulator::seeds::{self, Summary};
use quorate_simulator::simulation::{Config, Simulation};

/// How many seeds to run where `share` of the usual number is wanted; `QUORATE_SEEDS` says how many are usual.
fn seeds(share: f64) -> u64 {
    let usual = std::env::var("QUORATE_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(300.0);
    f64::max(usual * share, 1.0) as u64
}

fn survive(config: &Config, seeds: u64) -> Summary {
    match seeds::run(config, 0..seeds, seeds::threads(), |_, _| {}) {
        Ok(summary) => summary,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn no_invariant_breaks_on_five_nodes() {
    let summary = survive(&Config::default(), seeds(1.0));
    let tally = summary.tally;
    // Trouble enough to be worth the name, and not so much that nothing gets done.
    assert!(
        tally.succeeded > 10 * tally.failed && tally.succeeded > 1_000 * summary.seeds,
        "{summary}"
    );
    assert!(
        tally.failed > summary.seeds && tally.unknown > summary.seeds,
        "{summary}"
    );
}

#[test]
fn no_invariant_breaks_on_clusters_of_other_sizes() {
    for nodes in [1, 2, 3, 7] {
        survive(
            &Config {
                nodes,
                ..Config::default()
            },
            seeds(0.05),
        );
    }
}

#[test]
fn many_clients_do_not_matter() {
    survive(
        &Config {
            nodes: 3,
            clients: 32,
            nemesis: Duration::from_secs(3),
            ..Config::default()
        },
        seeds(0.02),
    );
}

/// Each has shown a definite error of a write that was executed.
#[test]
fn seeds_that_have_failed_once_pass() {
    let runs = [
        (700_682, 5, 4, 8),
        (900_006, 5, 12, 20),
        (900_147, 5, 12, 20),
        (25, 5, 4, 8),
        (8, 3, 12, 8),
    ];
    for (seed, nodes, clients, nemesis) in runs {
        let report = Simulation::run(Config {
            seed,
            nodes,
            clients,
            nemesis: Duration::from_secs(nemesis),
            ..Config::default()
        });
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let run = |seed, keep_lines| {
        Simulation::run(Config {
            seed,
            hash: true,
            keep_lines,
            nemesis: Duration::from_secs(3),
            ..Config::default()
        })
    };
    let first = run(7, 0);
    assert!(first.hash.is_some());
    // Keeping the events as text must not change them.
    let again = run(7, 10);
    assert_eq!(
        (first.hash, first.steps, first.tally),
        (again.hash, again.steps, again.tally)
    );
    assert_eq!(again.lines.len(), 10);
    assert_ne!(first.hash, run(8, 0).hash);
}

/// A mistake is noticed within `within` seeds, and not for want of correctness elsewhere: the same seeds pass without it.
fn notices(name: &str, within: u64, invariants: &[&str]) {
    notices_on(Config::default(), name, within, invariants);
}

/// As [`notices`], where there is more going on that the mistake shows in.
fn notices_on(world: Config, name: &str, within: u64, invariants: &[&str]) {
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    let config = Config {
        bugs: seeds::deliberate([bug.expect("a known mistake")]),
        ..world
    };
    let failure =
        seeds::run(&config, 0..within, seeds::threads(), |_, _| {}).expect_err("the mistake goes unnoticed");
    let violation = failure
        .report
        .violation
        .as_ref()
        .expect("a failure has a violation");
    assert!(invariants.contains(&violation.invariant), "{failure}");
    let shown = failure.to_string();
    assert!(
        shown.contains(&format!(
            "--seeds {0}..{1}",
            failure.config.seed,
            failure.config.seed + 1
        )),
        "{shown}"
    );
    assert!(shown.contains(&format!("--bug {name}")), "{shown}");
    let correct = Simulation::run(Config {
        bugs: Bugs::none(),
        ..failure.config
    });
    assert_eq!(correct.violation, None);
}

#[test]
fn a_value_sent_without_its_siblings_is_noticed() {
    notices("siblings-dropped", 10, &["durability"]);
}

#[test]
fn a_counter_that_restarts_is_noticed() {
    notices("counter-restarts", 10, &["dots unique"]);
}

#[test]
fn an_id_that_is_kept_after_a_crash_is_noticed() {
    let many_writers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    notices_on(many_writers, "id-kept-after-crash", 20, &["durability"]);
}

#[test]
fn an_election_that_nobody_was_asked_about_is_noticed() {
    notices("no-pre-vote", 10, &["stability"]);
}

#[test]
fn a_leader_that_does_not_ask_whether_it_still_is_one_is_noticed() {
    let invariants = ["reads of committed states", "linearizability"];
    let many_readers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    notices_on(many_readers, "stale-read-index", 40, &invariants);
}

#[test]
fn what_stays_of_a_dropped_keyspace_is_noticed() {
    notices("sweeping-left-out", 10, &["no leftovers"]);
}

/// What a server has heard of its leader says nothing of what it has applied.
#[test]
fn an_age_that_counts_from_the_leaders_last_word_is_noticed() {
    let many_readers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    notices_on(many_readers, "age-by-silence", 20, &["reads of committed states"]);
}

#[test]
fn a_vote_that_leaves_before_the_disk_has_it_is_noticed() {
    notices("vote-not-durable", 10, &["durable promises"]);
}

/// The role itself finds out mostly: the disk tells it of things that it has never asked for.
#[test]
fn a_server_that_is_restarted_in_its_process_is_noticed() {
    let invariants = [
        "no panic",
        "election safety",
        "leader completeness",
        "state machine safety",
        // What the failed server was asked is asked of its successor by nobody.
        "bounded memory",
    ];
    notices("restarted-in-place", 20, &invariants);
}

#[test]
fn sessions_that_a_snapshot_lacks_are_noticed() {
    notices("sessions-lost-at-snapshot", 40, &["rows follow the log"]);
}

#[test]
fn an_entry_that_is_acknowledged_before_the_disk_is_noticed() {
    notices("raft-ack-before-durable", 10, &["durable promises"]);
}

#[test]
fn an_acknowledgement_before_the_disk_is_noticed() {
    notices("ack-before-durable", 10, &["durable before acknowledged"]);
}

#[test]
fn counting_the_living_instead_of_acknowledgements_is_noticed() {
    notices("write-quorum-by-liveness", 10, &["durable before acknowledged"]);
}

/// A message that comes twice is refused the one time and executed the other.
#[test]
fn a_request_of_another_node_that_counts_twice_is_noticed() {
    let many_writers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    notices_on(many_writers, "repeats-taken", 20, &["definite errors"]);
}

/// An attempt without an answer may have been executed, and a later one is refused.
#[test]
fn an_attempt_without_an_answer_that_is_forgotten_is_noticed() {
    notices("doubt-forgotten", 80, &["definite errors"]);
}
