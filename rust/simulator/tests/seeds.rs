//! Seeds: the correct program passes, the same seed gives the same run, and every deliberate bug is detected.

use std::time::Duration;

use quorate_core::bugs::{Bug, Bugs};
use quorate_simulator::seeds::{self, Summary};
use quorate_simulator::simulation::{Config, Simulation};

/// The number of seeds for a `share` of the usual number, which `QUORATE_SEEDS` sets.
fn seeds(share: f64) -> u64 {
    let usual = std::env::var("QUORATE_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(100.0);
    f64::max(usual * share, 1.0) as u64
}

fn pass(config: &Config, seeds: u64) -> Summary {
    match seeds::run(config, 0..seeds, seeds::threads(), |_, _| {}) {
        Ok(summary) => summary,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn all_invariants_hold_on_five_nodes() {
    let summary = pass(&Config::default(), seeds(1.0));
    let tally = summary.tally;
    // Enough faults to matter, but not so many that no operation succeeds.
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
fn all_invariants_hold_on_clusters_of_other_sizes() {
    for nodes in [1, 2, 3, 7] {
        pass(
            &Config {
                nodes,
                ..Config::default()
            },
            seeds(0.05),
        );
    }
}

#[test]
fn all_invariants_hold_with_many_clients() {
    pass(
        &Config {
            nodes: 3,
            clients: 32,
            nemesis: Duration::from_secs(3),
            ..Config::default()
        },
        seeds(0.02),
    );
}

/// Each of these seeds has shown a definite error of an executed write.
#[test]
fn seeds_that_failed_once_pass() {
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
fn the_same_seed_gives_the_same_run_and_others_differ() {
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

/// Asserts that a deliberate bug is detected within `within` seeds, and that the failing seed passes without it.
fn detects(name: &str, within: u64, invariants: &[&str]) {
    detects_on(Config::default(), name, within, invariants);
}

/// As [`detects`], with a configuration in which the bug shows more often.
fn detects_on(world: Config, name: &str, within: u64, invariants: &[&str]) {
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    let config = Config {
        bugs: seeds::deliberate([bug.expect("a known bug")]),
        ..world
    };
    let failure =
        seeds::run(&config, 0..within, seeds::threads(), |_, _| {}).expect_err("the bug is not detected");
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
fn a_value_sent_without_its_siblings_is_detected() {
    detects("siblings-dropped", 10, &["durability"]);
}

#[test]
fn a_restarted_counter_is_detected() {
    detects("counter-restarts", 10, &["dots unique"]);
}

#[test]
fn a_replica_id_kept_after_a_crash_is_detected() {
    let many_writers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    detects_on(many_writers, "id-kept-after-crash", 20, &["durability"]);
}

#[test]
fn an_election_without_a_pre_vote_is_detected() {
    detects("no-pre-vote", 10, &["stability"]);
}

#[test]
fn a_read_index_without_a_quorum_is_detected() {
    let invariants = ["reads of committed states", "linearizability"];
    let many_readers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    detects_on(many_readers, "stale-read-index", 40, &invariants);
}

#[test]
fn leftovers_of_a_dropped_keyspace_are_detected() {
    detects("gc-skipped", 10, &["no leftovers"]);
}

/// Contact with the leader does not bound the age of what a server has applied.
#[test]
fn a_staleness_measured_from_contact_with_the_leader_is_detected() {
    let many_readers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    detects_on(many_readers, "age-by-silence", 20, &["reads of committed states"]);
}

#[test]
fn a_vote_sent_before_it_is_durable_is_detected() {
    detects("vote-not-durable", 10, &["durable promises"]);
}

/// The role itself usually detects it: it receives completions of writes that it has not submitted.
#[test]
fn a_server_restarted_in_its_process_is_detected() {
    let invariants = [
        "no panic",
        "election safety",
        "leader completeness",
        "state machine safety",
        // The requests of the failed server are lost with it, and never answered.
        "bounded memory",
    ];
    detects("restarted-in-place", 20, &invariants);
}

#[test]
fn sessions_missing_in_a_snapshot_are_detected() {
    detects("sessions-lost-at-snapshot", 40, &["rows follow the log"]);
}

#[test]
fn an_entry_acknowledged_before_it_is_durable_is_detected() {
    detects("raft-ack-before-durable", 10, &["durable promises"]);
}

#[test]
fn a_write_acknowledged_before_it_is_durable_is_detected() {
    detects("ack-before-durable", 10, &["durable before acknowledged"]);
}

#[test]
fn counting_reachable_replicas_instead_of_acknowledgements_is_detected() {
    detects("write-quorum-by-liveness", 10, &["durable before acknowledged"]);
}

/// A duplicated message is rejected once and executed once.
#[test]
fn a_duplicated_forwarded_request_is_detected() {
    let many_writers = Config {
        nodes: 3,
        clients: 12,
        ..Config::default()
    };
    detects_on(many_writers, "duplicates-accepted", 40, &["definite errors"]);
}

/// An attempt without a response may have been executed, and a later one is rejected.
#[test]
fn a_forgotten_attempt_without_a_response_is_detected() {
    detects("doubt-forgotten", 80, &["definite errors"]);
}
