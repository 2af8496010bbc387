//! Model checking: all executions of three servers, within bounds.
//!
//! [`properties`](super::properties) tests long random runs; this explores *all* short ones. Breadth first,
//! from a new group, every possible action is taken in every state: a timeout passes, a message arrives, a
//! disk completes a write, a server crashes and recovers. Messages are an unordered set, and any may remain
//! there for ever: that is reordering and loss; some arrive twice. The properties of Figure 3 are checked in
//! every state. A violation is reported with a shortest counterexample.
//!
//! The system under test is the real [`Raft`](super::Raft), with a real recovery from a disk of the harness.
//! To make the state space finite,
//! * timeouts are actions, a clock advances only with its server's heartbeats, and all random numbers are the
//!   same;
//! * no voter is sticky, and all explorations but one omit pre-votes: a deaf voter, or a refused pre-vote,
//!   behaves like lost messages;
//! * the number of messages in flight is bounded; beyond it, one is lost;
//! * check-quorum, snapshots and reads are left to the random runs.
//!
//! # Why not a library
//! Of `stateright`, the obvious candidate, only the breadth-first search would be of use: some forty lines
//! ([`explore`]). Its actors would have to wrap the server, its network and its crashes do not model writes
//! in flight, and it clones all servers for each step, where this computes the effect of an input on one
//! server only once ([`server`]). It also includes a web server.
//!
//! # Bounds
//! The bounds in the tests are chosen for a few seconds each. `RAFT_MODEL=large` explores 2.8, 64 and 100
//! million states, all that exist within its bounds, without a violation; that takes up to eight gigabytes
//! and half an hour: `RAFT_MODEL=large cargo test -p quorate-raft --lib model:: -- --nocapture --test-threads
//! 1`.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_core::bugs::{Bug, Bugs};

use server::Catalog;
use world::{Action, Bounds, World};

mod server;
mod world;

/// The result of an exploration.
struct Report {
    /// The number of distinct states within the bounds, or up to the violation.
    states: usize,
    /// The maximum distance of a state from the start.
    depth: usize,
    /// The violated property, and the trace that leads there.
    violation: Option<(String, Vec<String>)>,
}

/// The origin of a state: the index of its predecessor, and the action.
type Origin = Option<(usize, Action)>;

/// Takes every action in every state that follows the actions named by `begin`. A state is remembered by 64
/// bits of its hash: among some million states, the probability of a collision is one in a million.
fn explore(bugs: Bugs, bounds: &Bounds, begin: &[&str]) -> Report {
    let mut catalog = Catalog::new(bugs);
    let mut first = World::new(&mut catalog);
    for line in begin {
        let wanted = |action: &Action| first.describe(*action, &catalog) == *line;
        let action = first.actions(&catalog, bounds).into_iter().find(wanted);
        let action = action.unwrap_or_else(|| panic!("impossible action: {line}"));
        first = first
            .after(action, &mut catalog, bounds)
            .expect("no property is violated yet");
    }
    let mut seen = BTreeSet::from([fingerprint(&first)]);
    let mut origins: Vec<Origin> = vec![None];
    let mut frontier = VecDeque::from([(first, 0, 0)]);
    let mut longest = 0;
    while let Some((world, place, depth)) = frontier.pop_front() {
        longest = depth;
        for action in world.actions(&catalog, bounds) {
            match world.after(action, &mut catalog, bounds) {
                Ok(next) => {
                    if seen.insert(fingerprint(&next)) {
                        frontier.push_back((next, origins.len(), depth + 1));
                        origins.push(Some((place, action)));
                    }
                }
                // A server that detects its mistake stops. This looks for mistakes that no server detects.
                Err(assertion) if bugs.has(Bug::RestartedInPlace) && assertion.starts_with("assertion") => {}
                Err(property) => {
                    let mut actions = vec![action];
                    let mut place = place;
                    while let Some((before, action)) = origins[place] {
                        actions.push(action);
                        place = before;
                    }
                    actions.reverse();
                    return Report {
                        states: origins.len(),
                        depth: actions.len(),
                        violation: Some((property, replay(first, &actions, &mut catalog, bounds))),
                    };
                }
            }
        }
    }
    let (servers, messages) = catalog.size();
    println!("composed of {servers} states of servers and {messages} messages");
    Report {
        states: origins.len(),
        depth: longest,
        violation: None,
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// A line for each action.
fn replay(first: World, actions: &[Action], catalog: &mut Catalog, bounds: &Bounds) -> Vec<String> {
    let mut world = first;
    let mut lines = Vec::new();
    for action in actions {
        lines.push(world.describe(*action, catalog));
        if let Ok(next) = world.after(*action, catalog, bounds) {
            world = next;
        }
    }
    lines
}

fn large() -> bool {
    std::env::var("RAFT_MODEL").is_ok_and(|size| size == "large")
}

/// Asserts that no property is violated within these bounds.
fn holds(name: &str, bugs: Bugs, bounds: &Bounds) {
    let begin = &[];
    let report = explore(bugs, bounds, begin);
    println!(
        "{name}: {} states, depth {}, within {bounds:?}",
        report.states, report.depth
    );
    if let Some((property, trace)) = report.violation {
        panic!("{name}: {property}\n{}", trace.join("\n"));
    }
}

/// Asserts that these mistakes violate a property; prints a shortest trace.
fn caught(name: &str, bugs: Bugs, bounds: &Bounds, begin: &[&str], property: &str) {
    let report = explore(bugs, bounds, begin);
    let Some((found, trace)) = report.violation else {
        panic!(
            "{name} is not caught in {} states within {bounds:?}",
            report.states
        );
    };
    println!(
        "{name}: {found}; {} states\n  {}",
        report.states,
        [begin, &trace.iter().map(String::as_str).collect::<Vec<_>>()]
            .concat()
            .join("\n  ")
    );
    assert_eq!(trace.len(), report.depth);
    assert!(
        found.starts_with(property),
        "{name} violates another property than {property}: {found}"
    );
}

/// Fewer states without pre-votes; safety does not depend on them.
fn without_pre_votes(bugs: impl IntoIterator<Item = Bug>) -> Bugs {
    quorate_testing::bugs(bugs.into_iter().chain([Bug::NoPreVote]))
}

const SMALL: Bounds = Bounds {
    terms: 2,
    commands: 1,
    crashes: 1,
    beats: 0,
    repeats: 0,
    wire: 3,
    slow_disks: true,
};

#[test]
fn writes_that_take_their_time_keep_the_properties() {
    let bounds = match large() {
        true => SMALL,
        false => Bounds {
            commands: 0,
            wire: 2,
            ..SMALL
        },
    };
    holds("slow disks", without_pre_votes([]), &bounds);
}

#[test]
fn commands_and_crashes_keep_the_properties() {
    let quick = Bounds {
        slow_disks: false,
        ..SMALL
    };
    let bounds = match large() {
        true => Bounds {
            beats: 1,
            repeats: 1,
            ..quick
        },
        false => quick,
    };
    holds("quick disks", without_pre_votes([]), &bounds);
}

#[test]
fn pre_votes_keep_the_properties() {
    let quick = Bounds {
        slow_disks: false,
        ..SMALL
    };
    let bounds = match large() {
        true => quick,
        false => Bounds { terms: 1, ..quick },
    };
    holds("pre-votes", Bugs::none(), &bounds);
}

#[test]
fn a_vote_that_is_not_durable_is_caught() {
    let bugs = without_pre_votes([Bug::VoteNotDurable]);
    caught("vote_not_durable", bugs, &SMALL, &[], "election safety");
}

#[test]
fn an_acknowledgement_before_the_disk_is_caught() {
    let bugs = without_pre_votes([Bug::RaftAckBeforeDurable]);
    caught("ack_before_durable", bugs, &SMALL, &[], "leader completeness");
}

#[test]
fn committing_an_old_term_by_counting_is_caught() {
    let bugs = without_pre_votes([Bug::OldTermCommit]);
    let bounds = Bounds {
        terms: 4,
        commands: 0,
        wire: 4,
        slow_disks: false,
        ..SMALL
    };
    // Figure 8 up to (b): two successive leaders each have an entry that no other server has.
    let begin = [
        "n1 starts an election in t1",
        "n1 -> n2 t1 Vote last 0@t0",
        "n2 -> n1 t1 VoteAnswer yes",
        "n2 starts an election in t2",
        "n2 -> n3 t2 Vote last 0@t0",
        "n3 -> n2 t2 VoteAnswer yes",
        "n1 crashes and recovers",
    ];
    caught("old_term_commit", bugs, &bounds, &begin, "leader completeness");
}

#[test]
fn a_restart_in_place_is_caught() {
    let bugs = without_pre_votes([Bug::RestartedInPlace]);
    let bounds = Bounds {
        terms: 1,
        commands: 0,
        crashes: 2,
        repeats: 1,
        ..SMALL
    };
    caught("restarted_in_place", bugs, &bounds, &[], "election safety");
}
