//! Elections that should not happen, and the duration of those that should.

use quorate_core::bugs::Bugs;
use quorate_core::time::Instant;

use super::*;
use crate::status::Activity;
use crate::types::Term;

fn elected(cluster: &mut Cluster) -> (NodeId, Term) {
    cluster.live(Duration::from_secs(2));
    leader(cluster).expect("a leader within two seconds")
}

fn leader(cluster: &Cluster) -> Option<(NodeId, Term)> {
    let rafts = cluster.nodes.keys().filter_map(|node| cluster.raft(*node));
    rafts
        .filter(|raft| raft.is_leader())
        .map(|raft| (raft.me(), raft.term()))
        .next()
}

/// Whether a partitioned follower rejoins without an election.
fn rejoins_quietly(seed: u64, bugs: Bugs) -> bool {
    let mut setup = Setup::of(3);
    (setup.seed, setup.bugs) = (seed, bugs);
    let mut cluster = setup.started();
    let (first, term) = elected(&mut cluster);
    let mut rng = rng_from_seed(seed);
    let lonely = cluster
        .names()
        .into_iter()
        .find(|node| *node != first)
        .expect("a follower");
    cluster.cut = cluster
        .names()
        .into_iter()
        .flat_map(|node| [(node, lonely), (lonely, node)])
        .collect();
    cluster.live(Duration::from_millis(rng.next_u64() % 3000));
    cluster.cut.clear();
    cluster.live(Duration::from_secs(1));
    leader(&cluster) == Some((first, term))
}

#[test]
fn a_partitioned_server_rejoins_without_an_election() {
    for seed in 0..20 {
        assert!(rejoins_quietly(seed, Bugs::none()), "seed {seed}");
    }
    let bugs = bug("no_pre_vote").expect("a bug");
    assert!(
        (0..20).any(|seed| !rejoins_quietly(seed, bugs)),
        "no_pre_vote is not caught"
    );
}

#[test]
fn a_healthy_group_has_one_election() {
    let mut cluster = Setup::of(5).started();
    let (first, term) = elected(&mut cluster);
    for _ in 0..200 {
        cluster.propose(first, Request::Plain("add x 1".into()), TIMEOUT);
        cluster.live(Duration::from_millis(50));
        assert_eq!(leader(&cluster), Some((first, term)));
    }
    let activity = |node| {
        let status = cluster
            .group(node)
            .and_then(|group| group.status(Instant(cluster.now)));
        status.expect("it runs").activity
    };
    let leading = activity(first);
    assert_eq!((leading.elections_won, leading.commands), (1, 200));
    assert!(leading.heartbeats_sent >= 4 * 200, "{leading:?}");
    let open = leading.heartbeats_sent - leading.heartbeats_answered;
    assert!(open <= 4, "at most one round is in flight: {leading:?}");
    assert!(leading.election_micros < 20_000, "{leading:?}");
    for node in cluster.names().into_iter().filter(|node| *node != first) {
        let Activity {
            commands,
            heartbeats_sent,
            ..
        } = activity(node);
        assert_eq!(
            (commands, heartbeats_sent),
            (0, 0),
            "each command is counted by one server"
        );
    }
}

/// The time from the leader's crash to the next leader, in milliseconds.
fn failover(seed: u64, links_report: bool) -> u64 {
    let mut setup = Setup::of(3);
    setup.seed = seed;
    let mut cluster = setup.started();
    let (first, _) = elected(&mut cluster);
    cluster.crash(first, Crash::default());
    for node in cluster.names() {
        if links_report && node != first {
            cluster.link(node, first, false);
        }
    }
    (1..)
        .find(|_| {
            cluster.live(Duration::from_millis(1));
            leader(&cluster).is_some()
        })
        .expect("another leader")
}

#[test]
fn a_killed_leader_is_replaced_at_once_with_link_events_and_within_two_timeouts_without() {
    let mut with_links: Vec<u64> = (0..31).map(|seed| failover(seed, true)).collect();
    let mut without_links: Vec<u64> = (0..31).map(|seed| failover(seed, false)).collect();
    with_links.sort_unstable();
    without_links.sort_unstable();
    println!("failover in milliseconds: {with_links:?}, without links {without_links:?}");
    assert!(with_links[15] <= 15 && with_links[30] <= 80, "{with_links:?}");
    assert!(
        without_links[15] >= 100 && without_links[30] <= 700,
        "{without_links:?}"
    );
}
