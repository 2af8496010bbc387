//! Random runs: clients, networks, disks and crashes against real roles.
//!
//! [`invariants`] lists the properties. A run is a list of [`Step`]s; all disks are slow, so that crashes and refusals
//! affect writes in flight, and events inside a node arrive in any order. At the end connectivity is restored, every
//! deadline passes, and the keys are read at ALL.

use std::time::Duration;

use proptest::prelude::*;
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{PutItem, Request};
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_testing::Crash;
use quorate_versions::WriteId;

use super::testing::{Cluster, Keyspaces as _, Setup};
use invariants::Invariants;

mod forged;
mod invariants;
mod replay;

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const NODES: u16 = 4;
const KEYS: [&str; 3] = ["a", "b", "c"];
const TIMEOUT: Duration = Duration::from_millis(400);

/// A request of a client.
#[derive(Clone, Copy, Debug)]
enum ClientRequest {
    Put {
        with_context: bool,
    },
    Delete,
    Get,
    Scan {
        limit: u32,
    },
    /// The last put of the key again, with the same write id.
    Retry,
    /// Puts of `count` keys: this key and the following ones, wrapping around.
    PutMany {
        count: usize,
        with_context: bool,
    },
    /// Gets of `count` keys, likewise.
    GetMany {
        count: usize,
    },
}

/// An event of the cluster. `pick` chooses among the messages on the wire.
#[derive(Clone, Copy, Debug)]
enum Step {
    Request {
        node: u16,
        key: usize,
        level: u8,
        request: ClientRequest,
    },
    Deliver {
        pick: usize,
    },
    DeliverAll,
    Drop {
        pick: usize,
    },
    Repeat {
        pick: usize,
    },
    Persist {
        node: u16,
        count: usize,
    },
    Refuse {
        node: u16,
    },
    Full {
        node: u16,
        full: bool,
    },
    Crash {
        node: u16,
        synced: usize,
    },
    Restart {
        node: u16,
    },
    Link {
        from: u16,
        to: u16,
        up: bool,
    },
    Advance {
        millis: u64,
    },
}

fn client_request() -> impl Strategy<Value = ClientRequest> {
    prop_oneof![
        4 => any::<bool>().prop_map(|with_context| ClientRequest::Put { with_context }),
        1 => Just(ClientRequest::Delete),
        3 => Just(ClientRequest::Get),
        1 => (1..4u32).prop_map(|limit| ClientRequest::Scan { limit }),
        1 => Just(ClientRequest::Retry),
        2 => (1..6usize, any::<bool>()).prop_map(|(count, with_context)| ClientRequest::PutMany { count, with_context }),
        1 => (1..6usize).prop_map(|count| ClientRequest::GetMany { count }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 1..=NODES;
    let pick = || 0..64usize;
    prop_oneof![
        12 => (node(), 0..KEYS.len(), 1..=3u8, client_request())
            .prop_map(|(node, key, level, request)| Step::Request { node, key, level, request }),
        12 => pick().prop_map(|pick| Step::Deliver { pick }),
        4 => Just(Step::DeliverAll),
        2 => pick().prop_map(|pick| Step::Drop { pick }),
        2 => pick().prop_map(|pick| Step::Repeat { pick }),
        12 => (node(), 1..4usize).prop_map(|(node, count)| Step::Persist { node, count }),
        1 => node().prop_map(|node| Step::Refuse { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, full)| Step::Full { node, full }),
        1 => (node(), 0..3usize).prop_map(|(node, synced)| Step::Crash { node, synced }),
        2 => node().prop_map(|node| Step::Restart { node }),
        2 => (node(), node(), any::<bool>()).prop_map(|(from, to, up)| Step::Link { from, to, up }),
        3 => (1..200u64).prop_map(|millis| Step::Advance { millis }),
    ]
}

/// A cluster with its invariants.
struct Run {
    cluster: Cluster,
    invariants: Invariants,
}

impl Run {
    fn new(bugs: Bugs) -> Self {
        let setup = Setup {
            nodes: NODES,
            seed: 1,
            bugs,
            scrambled: true,
        };
        let mut cluster = setup.started();
        cluster.create_keyspace(KeyspaceSettings::quorum("ks", 3));
        cluster.trace.clear();
        for node in cluster.nodes.values_mut() {
            node.disk.held = true;
        }
        Run {
            cluster,
            invariants: Invariants::new(3),
        }
    }

    fn submit(&mut self, node: NodeId, key: usize, level: Level, request: ClientRequest) {
        if !self.cluster.serves(node, KEYSPACE) {
            return;
        }
        let number = self.cluster.operations + 1;
        let level = Some(level);
        let first = key;
        let nth = |place: usize| Key::try_from(KEYS[(first + place) % KEYS.len()]).expect("a short key");
        let (keyspace, key) = (KEYSPACE, nth(0));
        let put = |value: Option<String>, context, sequence| Request::Put {
            keyspace,
            key: key.clone(),
            value: value.map(Into::into),
            context,
            level,
            write_id: WriteId { client: 1, sequence },
        };
        let request = match request {
            ClientRequest::Put { with_context } => {
                let context = self.invariants.context(&key).filter(|_| with_context);
                put(Some(format!("v{number}")), context, number)
            }
            ClientRequest::Delete => put(None, None, number),
            ClientRequest::Retry => match self.invariants.last_put(&key) {
                Some(first) => put(Some(format!("v{first}")), None, first),
                None => return,
            },
            ClientRequest::Get => Request::Get { keyspace, key, level },
            ClientRequest::GetMany { count } => Request::GetMany {
                keyspace,
                keys: (0..count).map(nth).collect(),
                level,
            },
            ClientRequest::PutMany { count, with_context } => {
                let item = |place: usize| {
                    let key = nth(place);
                    PutItem {
                        // Sometimes a delete.
                        value: (place != 2).then(|| format!("v{number}.{place}").into()),
                        context: self.invariants.context(&key).filter(|_| with_context),
                        key,
                    }
                };
                Request::PutMany {
                    keyspace,
                    items: (0..count).map(item).collect(),
                    level,
                    // Distinct from those of single puts.
                    write_id: WriteId {
                        client: 2,
                        sequence: number * 16,
                    },
                }
            }
            ClientRequest::Scan { limit } => Request::Scan {
                keyspace,
                start: None,
                end: None,
                after_start: false,
                limit,
                level,
            },
        };
        self.invariants.requested(number, node, &request);
        assert_eq!(self.cluster.submit(node, KEYSPACE, request, TIMEOUT), number);
    }

    fn step(&mut self, step: Step) {
        let running = |cluster: &Cluster, node| cluster.is_up(NodeId(node));
        let wire = self.cluster.wire.len();
        match step {
            Step::Request {
                node,
                key,
                level,
                request,
            } => self.submit(NodeId(node), key, Level::Count(level), request),
            Step::Deliver { pick } if wire > 0 => self.cluster.deliver(pick % wire),
            Step::DeliverAll => drop(self.cluster.deliver_round(None, usize::MAX)),
            Step::Drop { pick } if wire > 0 => drop(self.cluster.wire.remove(pick % wire)),
            Step::Repeat { pick } if wire > 0 => {
                self.cluster.wire.push(self.cluster.wire[pick % wire].clone())
            }
            Step::Persist { node, count } => drop(self.cluster.persist(NodeId(node), count)),
            Step::Refuse { node } => self.cluster.refuse_newest(NodeId(node)),
            Step::Full { node, full } => self.cluster.node(NodeId(node)).disk.full = full,
            Step::Crash { node, synced } if running(&self.cluster, node) => {
                self.cluster.crash(NodeId(node), Crash::synced(synced));
                self.invariants.crashed(NodeId(node));
            }
            Step::Restart { node } if !running(&self.cluster, node) => self.cluster.start(NodeId(node)),
            Step::Link { from, to, up } if from != to && running(&self.cluster, to) => {
                self.cluster.link(NodeId(from), NodeId(to), up);
            }
            Step::Advance { millis } => self.cluster.advance(Duration::from_millis(millis)),
            _ => {}
        }
        self.invariants.observe(&mut self.cluster, KEYSPACE);
    }

    /// Restores connectivity, lets all deadlines pass, then reads the keys at ALL.
    fn finish(mut self) -> Vec<String> {
        for node in 1..=NODES {
            self.step(Step::Restart { node });
            let disk = &mut self.cluster.node(NodeId(node)).disk;
            (disk.held, disk.full) = (false, false);
            self.cluster.persist(NodeId(node), usize::MAX);
            for to in 1..=NODES {
                self.step(Step::Link {
                    from: node,
                    to,
                    up: true,
                });
            }
        }
        self.cluster.run();
        self.cluster.advance(Duration::from_secs(5));
        self.invariants.observe(&mut self.cluster, KEYSPACE);
        // The first read repairs; the second one finds equal replicas.
        for _ in 0..2 {
            for key in 0..KEYS.len() {
                self.submit(NodeId(1), key, Level::All, ClientRequest::Get);
                self.cluster.run();
                self.cluster.advance(Duration::from_secs(5));
                self.invariants.observe(&mut self.cluster, KEYSPACE);
            }
        }
        let keys = KEYS.iter().map(|key| Key::try_from(*key).expect("a short key"));
        let broken = self.invariants.verdict(&self.cluster, KEYSPACE, keys);
        for recording in self.cluster.into_recordings() {
            recording.replay();
        }
        broken
    }
}

/// The properties that a run of these steps violates.
fn violations(bugs: Bugs, steps: &[Step]) -> Vec<String> {
    let mut run = Run::new(bugs);
    for step in steps {
        run.step(*step);
    }
    run.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn hold_in_random_runs(steps in proptest::collection::vec(step(), 1..150)) {
        let broken = violations(Bugs::none(), &steps);
        prop_assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}

/// Each deliberate mistake of [`Bugs`] violates a property, in a scenario in which the correct roles violate none.
mod mistakes {
    use super::*;

    const PUT: ClientRequest = ClientRequest::Put { with_context: false };

    fn put(node: u16, level: u8) -> Step {
        Step::Request {
            node,
            key: 0,
            level,
            request: PUT,
        }
    }

    fn persist(node: u16) -> Step {
        Step::Persist { node, count: 9 }
    }

    /// The correct roles keep the properties in this scenario, and the mistake violates one with `what` in its message.
    fn caught(bugs: Bugs, what: &str, steps: &[Step]) {
        assert_eq!(violations(Bugs::none(), steps), Vec::<String>::new());
        let broken = violations(bugs, steps);
        assert!(
            broken.iter().any(|property| property.contains(what)),
            "not caught as {what:?}: {broken:?}"
        );
    }

    /// Key a is on n2, n4 and n1. n2 writes; n1 acknowledges before its disk has it, and crashes.
    #[test]
    fn an_acknowledgement_before_the_disk_is_caught() {
        let bugs = quorate_testing::bugs([Bug::AckBeforeDurable]);
        let steps = [put(2, 2), Step::DeliverAll, persist(2), Step::DeliverAll];
        caught(bugs, "acknowledged by n", &steps);
    }

    /// Only n2 has the write, but all are alive.
    #[test]
    fn a_quorum_of_the_living_is_caught() {
        let bugs = quorate_testing::bugs([Bug::WriteQuorumByLiveness]);
        caught(bugs, "of 3 required", &[put(2, 3), persist(2)]);
    }

    /// n2 gives a dot that it loses in a crash, and gives the same dot again.
    #[test]
    fn a_counter_that_restarts_is_caught() {
        let bugs = quorate_testing::bugs([Bug::CounterRestarts]);
        let steps = [
            put(2, 2),
            Step::DeliverAll,
            Step::Crash { node: 2, synced: 0 },
            Step::Restart { node: 2 },
            persist(2),
            put(2, 2),
        ];
        caught(bugs, "was given twice", &steps);
    }

    /// n2 gives a dot that it loses in a crash; n1 has it. n2's next dot under the same id claims to have seen it.
    #[test]
    fn an_id_that_is_kept_after_a_crash_is_caught() {
        let bugs = quorate_testing::bugs([Bug::IdKeptAfterCrash]);
        let steps = [
            persist(2),
            put(2, 2),
            Step::DeliverAll,
            persist(1),
            Step::Crash { node: 2, synced: 0 },
            Step::Restart { node: 2 },
            persist(2),
            put(2, 2),
            persist(2),
        ];
        caught(bugs, "disappeared", &steps);
    }

    /// n2 and n4 write without seeing each other, and n1 merges both. Then n1 adds a third value, with a context that
    /// has seen neither, and sends only that one, with a clock that covers all.
    #[test]
    fn a_value_without_its_siblings_is_caught() {
        let bugs = quorate_testing::bugs([Bug::SiblingsDropped]);
        let read = Step::Request {
            node: 1,
            key: 0,
            level: 1,
            request: ClientRequest::Get,
        };
        let add = Step::Request {
            node: 1,
            key: 0,
            level: 3,
            request: ClientRequest::Put { with_context: true },
        };
        let steps = [
            read,
            put(2, 2),
            put(4, 2),
            persist(2),
            persist(4),
            Step::DeliverAll,
            persist(1),
            persist(2),
            persist(4),
            Step::DeliverAll,
            add,
            persist(1),
            Step::DeliverAll,
            persist(2),
            persist(4),
            Step::DeliverAll,
        ];
        caught(bugs, "disappeared", &steps);
    }

    /// Random runs find each of them, too.
    #[test]
    fn random_runs_catch_them_all() {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;

        let mistakes = [
            quorate_testing::bugs([Bug::SiblingsDropped]),
            quorate_testing::bugs([Bug::CounterRestarts]),
            quorate_testing::bugs([Bug::IdKeptAfterCrash]),
            quorate_testing::bugs([Bug::AckBeforeDurable]),
            quorate_testing::bugs([Bug::WriteQuorumByLiveness]),
        ];
        for bugs in mistakes {
            let mut runner = TestRunner::deterministic();
            let story = proptest::collection::vec(step(), 150);
            let caught = (0..400).any(|_| {
                let steps = story.new_tree(&mut runner).expect("steps").current();
                !violations(bugs, &steps).is_empty()
            });
            assert!(caught, "{bugs:?}");
        }
    }
}
