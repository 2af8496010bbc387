//! Tests of the cluster with a toy protocol: every node keeps a list of numbers; it persists a new one and sends it to the
//! others.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::Process;
use crate::protocol::AddressOf;
use crate::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, Default, PartialEq)]
struct Lists {
    node: u8,
    seen: Vec<u64>,
    durable: Vec<u64>,
    news: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Start,
    Add(u64),
    Apply(u64),
    Read,
    Received(u64),
    Timer(u64),
    Persisted(u64),
    Refused(u64),
    Flushed(u64),
    Found(Vec<u64>),
    Peer(u8, bool),
}

#[derive(Clone, Debug, PartialEq)]
enum Effect {
    Tell(u8, u64),
    Keep(u64, bool),
    Apply(u64),
    Read,
    Wake(u64, u64),
    Say(String),
}

#[derive(Debug, Default)]
struct Numbers {
    kept: Vec<u64>,
    derived: Vec<u64>,
    flushed: usize,
}

impl Store for Numbers {
    type Op = u64;
    type Rows = u64;
    type Query = ();
    type Answer = Vec<u64>;
    type Task = ();
    type Done = ();

    fn apply(&mut self, op: &u64) {
        self.kept.push(*op);
    }
    fn takes_away(op: &u64) -> bool {
        *op == 0
    }
    fn apply_rows(&mut self, row: u64) {
        self.derived.push(row);
    }
    fn flush(&mut self) {
        self.flushed += 1;
    }
    fn crash(&mut self) {
        self.derived.truncate(self.flushed);
    }
    fn read(&self, (): &()) -> Vec<u64> {
        [&self.kept[..], &self.derived].concat()
    }
    fn step(&mut self, (): &mut (), _full: bool) -> Option<()> {
        Some(())
    }
    fn flushes((): &()) -> bool {
        false
    }
}

struct Toy;

impl Protocol for Toy {
    type NodeId = u8;
    type Role = ();
    type Instance = Lists;
    type Event = Event;
    type Effect = Effect;
    type Message = u64;
    type Output = String;
    type Store = Numbers;

    const LINKS: bool = true;
    const SESSIONS: bool = true;

    fn start(&mut self, node: u8, _boot: u64) -> Vec<Hosted<Self>> {
        let instance = Lists {
            node,
            ..Lists::default()
        };
        vec![Hosted {
            role: (),
            seed: u64::from(node),
            instance,
        }]
    }

    fn handle(lists: &mut Lists, clock: Clock, _: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => effects.push(Effect::Wake(1, clock.instant + 5_000)),
            Event::Add(number) => {
                // Large numbers use timers, and multiples of a thousand two.
                effects.push(Effect::Keep(number, number >= 100));
                let others = (1..=3).filter(|node| *node != lists.node);
                effects.extend(others.map(|node| Effect::Tell(node, number)));
            }
            Event::Apply(number) => effects.push(Effect::Apply(number)),
            Event::Read => effects.push(Effect::Read),
            Event::Received(number) => lists.seen.push(number),
            Event::Persisted(number) => lists.durable.push(number),
            other => lists.news.push(format!("{other:?}")),
        }
        if let Some(news) = lists.news.pop() {
            effects.push(Effect::Say(news));
        }
    }

    fn action(&mut self, _: AddressOf<Self>, effect: Effect, _: &Process<Self>) -> Action<Self> {
        match effect {
            Effect::Tell(node, message) => Action::Send {
                to: Address { node, role: () },
                message,
            },
            Effect::Keep(token, background) => Action::Persist {
                token,
                background,
                ops: if background {
                    vec![token, token + 1]
                } else {
                    vec![token]
                },
            },
            Effect::Apply(row) => Action::ApplyRows {
                token: row,
                rows: row,
            },
            Effect::Read => Action::Read { token: 0, query: () },
            Effect::Wake(id, at) => Action::SetTimer { id, at },
            Effect::Say(text) => Action::Output(text),
        }
    }

    fn has_connection(number: &u64) -> bool {
        *number >= 50
    }

    fn event(input: Input<Self>) -> Event {
        match input {
            Input::Start => Event::Start,
            Input::Message { message, .. } => Event::Received(message),
            Input::Timer { id } => Event::Timer(id),
            Input::Persisted { token } => Event::Persisted(token),
            Input::Refused { token } => Event::Refused(token),
            Input::Flushed { token } => Event::Flushed(token),
            Input::Read { answer, .. } => Event::Found(answer),
            Input::Peer { node, up } => Event::Peer(node, up),
            Input::File { .. } => unreachable!("the toy protocol has no files"),
        }
    }
}

fn stopped(profile: Profile) -> Cluster<Toy> {
    Cluster::new(Toy, 1..=3, profile, 1, 0)
}

fn started(profile: Profile) -> Cluster<Toy> {
    let mut cluster = stopped(profile);
    cluster.start_all();
    cluster.trace.clear();
    cluster
}

fn lists(cluster: &Cluster<Toy>, node: u8) -> &Lists {
    cluster.instance(node, ()).expect("it is running")
}

fn said(cluster: &mut Cluster<Toy>) -> Vec<String> {
    let trace = std::mem::take(&mut cluster.trace).into_iter();
    let said = trace.filter_map(|event| match event {
        TraceEvent::Output(node, text) => Some(format!("{node} {text}")),
        _ => None,
    });
    said.collect()
}

fn add(cluster: &mut Cluster<Toy>, node: u8, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        cluster.input(node, (), Event::Add(number));
    }
}

#[test]
fn messages_stay_on_the_wire_until_delivered_dropped_or_duplicated() {
    let mut cluster = started(Profile::MANUAL);
    add(&mut cluster, 1, [7, 8]);
    cluster.advance(MS * 100);
    assert_eq!(cluster.wire.len(), 4);
    assert_eq!(lists(&cluster, 2).seen, []);
    cluster.blocked.insert((1, 3));
    assert_eq!(cluster.deliver_round(None, 1), 1);
    cluster.wire.push(cluster.wire[1]);
    cluster.run();
    assert_eq!(lists(&cluster, 2).seen, [7, 8, 8]);
    assert_eq!(cluster.wire.len(), 2, "blocked ones stay");
    cluster.blocked.clear();
    cluster.wire.remove(0);
    cluster.cut.insert((1, 3));
    cluster.run();
    assert_eq!(lists(&cluster, 3).seen, []);
    let lost = cluster
        .trace
        .iter()
        .filter(|event| matches!(event, TraceEvent::Lost(_, Loss::Network)));
    assert_eq!(lost.count(), 1);
}

#[test]
fn links_are_tracked_and_broken_by_crashes() {
    let mut cluster = stopped(Profile::MANUAL);
    cluster.start(1);
    cluster.start(2);
    assert_eq!(said(&mut cluster), ["2 Peer(1, true)", "1 Peer(2, true)"]);
    add(&mut cluster, 1, [7]);
    assert_eq!(cluster.wire.len(), 1, "no link to 3 exists");
    cluster.crash(2, Crash::default());
    assert_eq!(said(&mut cluster), ["1 Peer(2, false)"]);
    assert_eq!(cluster.wire.len(), 0, "it is lost with the connection");
    cluster.part(1, 2, true, true);
    cluster.start(2);
    assert_eq!(said(&mut cluster), Vec::<String>::new());
    cluster.part(1, 2, false, true);
    assert_eq!(said(&mut cluster), ["1 Peer(2, true)", "2 Peer(1, true)"]);
}

#[test]
fn timers_fire_in_order() {
    let mut cluster = stopped(Profile::MANUAL);
    cluster.start(2);
    cluster.advance(MS * 2);
    cluster.start(1);
    said(&mut cluster);
    cluster.advance(MS * 4);
    assert_eq!(
        (said(&mut cluster), cluster.now),
        (vec!["2 Timer(1)".to_owned()], 6_000)
    );
    cluster.advance(MS);
    assert_eq!(said(&mut cluster), ["1 Timer(1)"]);
}

#[test]
fn a_held_disk_completes_on_command_and_a_crash_leaves_a_part() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.held = true;
    add(&mut cluster, 1, [100, 1, 2, 3]);
    assert_eq!(lists(&cluster, 1).durable, []);
    cluster.persist(1, 2);
    assert_eq!(lists(&cluster, 1).durable, [1, 2], "background writes come last");
    let mut torn = BTreeMap::new();
    for crash in [
        Crash::default(),
        Crash::synced(1),
        Crash {
            synced: 1,
            torn: 1,
            flushed: 0,
        },
        Crash {
            synced: 0,
            torn: 1,
            flushed: 0,
        },
        Crash::synced(9),
    ] {
        let mut cluster = started(Profile::MANUAL);
        cluster.node(1).disk.held = true;
        add(&mut cluster, 1, [100, 3]);
        cluster.crash(1, crash);
        torn.insert(
            (crash.synced, crash.torn),
            cluster.node(1).disk.store.kept.clone(),
        );
        cluster.start(1);
        assert_eq!(cluster.persist(1, 9), 0, "nothing is in flight");
        assert_eq!(lists(&cluster, 1).durable, [], "it is not completed");
    }
    let torn: Vec<Vec<u64>> = torn.into_values().collect();
    assert_eq!(torn, [vec![], vec![], vec![3], vec![3, 100], vec![3, 100, 101]]);
}

#[test]
fn a_full_disk_rejects_writes_and_a_stalled_one_performs_no_background_writes() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.full = true;
    add(&mut cluster, 1, [1]);
    cluster.node(1).disk.full = false;
    cluster.node(1).disk.background = Some(1);
    add(&mut cluster, 1, [200, 300, 2]);
    assert_eq!(said(&mut cluster), ["1 Refused(1)"]);
    assert_eq!(lists(&cluster, 1).durable, [200, 2]);
    cluster.node(1).disk.held = true;
    add(&mut cluster, 1, [3, 4]);
    cluster.refuse_newest(1);
    cluster.persist(1, 9);
    assert_eq!(said(&mut cluster), ["1 Refused(4)"]);
    assert_eq!(cluster.node(1).disk.store.kept, [200, 201, 2, 3]);
}

#[test]
fn derived_rows_are_visible_immediately_and_durable_when_flushed() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.unflushed = true;
    for number in [5, 6, 7] {
        cluster.input(1, (), Event::Apply(number));
    }
    cluster.input(1, (), Event::Read);
    assert_eq!(said(&mut cluster), ["1 Found([5, 6, 7])"]);
    let crash = Crash {
        flushed: 2,
        ..Crash::default()
    };
    cluster.crash(1, crash);
    assert_eq!(cluster.node(1).disk.store.derived, [5, 6]);
    cluster.node(1).disk.unflushed = false;
    cluster.start(1);
    said(&mut cluster);
    cluster.input(1, (), Event::Apply(8));
    assert_eq!(said(&mut cluster), ["1 Flushed(8)"]);
}

#[test]
fn latencies_are_random_and_reproducible() {
    let run = |seed| {
        let profile = Profile {
            latency: Some((100, 9_000)),
            lost: 200,
            repeated: 200,
            disk: Some((100, 3_000)),
            flushing: Some((100, 3_000)),
        };
        let mut cluster = Cluster::new(Toy, 1..=3, profile, seed, 0);
        cluster.start_all();
        add(&mut cluster, 1, 1..50);
        assert_eq!(lists(&cluster, 1).durable, []);
        cluster.advance(MS * 500);
        assert_eq!(lists(&cluster, 1).durable, (1..50).collect::<Vec<_>>());
        lists(&cluster, 2).seen.clone()
    };
    let seen = run(1);
    assert_eq!(seen, run(1));
    assert_ne!(seen, run(2));
    assert!(!seen.is_sorted(), "messages are reordered");
    let different: std::collections::BTreeSet<u64> = seen.iter().copied().collect();
    assert!(different.len() < 49, "some are dropped");
    assert!(different.len() < seen.len(), "some are duplicated");
}

#[test]
fn a_scrambled_node_reorders_its_mail() {
    let order = |seed: Option<u64>| {
        let mut cluster = started(Profile::MANUAL);
        if let Some(seed) = seed {
            cluster.scramble(seed);
        }
        cluster.node(1).disk.held = true;
        add(&mut cluster, 1, 1..20);
        // Several results are in the mailbox at once when a disk catches up during a turn.
        cluster.node(1).disk.held = false;
        add(&mut cluster, 1, [20]);
        lists(&cluster, 1).durable.clone()
    };
    let sorted: Vec<u64> = (1..=20).collect();
    assert_eq!(order(None), sorted);
    assert_ne!(order(Some(1)), sorted);
    assert_eq!(order(Some(1)), order(Some(1)));
}

#[test]
fn a_recording_replays_and_one_with_a_step_missing_does_not() {
    let mut cluster = stopped(Profile::MANUAL);
    cluster.record = true;
    cluster.start_all();
    add(&mut cluster, 1, [1, 2]);
    cluster.run();
    cluster.crash(2, Crash::default());
    cluster.start(2);
    let mut recordings = cluster.into_recordings();
    assert_eq!(recordings.len(), 4, "one per boot");
    for recording in &recordings {
        recording.replay();
    }
    let changed = recordings
        .iter_mut()
        .find(|recording| !recording.end().seen.is_empty());
    let steps = &mut changed.expect("a recording with steps").steps;
    steps.retain(|(_, event, _)| !matches!(event, Event::Received(1)));
    let replayed = seeds::outcome(|| {
        recordings.iter().for_each(|recording| drop(recording.replay()));
        Ok(())
    });
    assert!(
        replayed
            .unwrap_err()
            .contains("the same effects but another final state")
    );
}

#[test]
fn persists_of_a_replaced_process_are_performed_but_not_completed() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.held = true;
    add(&mut cluster, 1, [1]);
    cluster.restart_in_place(1);
    add(&mut cluster, 1, [2]);
    cluster.persist(1, 9);
    assert_eq!(lists(&cluster, 1).durable, [2]);
    assert_eq!(cluster.node(1).disk.store.kept, [1, 2]);
}

#[test]
fn messages_over_connections_are_duplicated_only_within_a_boot() {
    let mut cluster = started(Profile::STEADY);
    cluster.repeat = Some(MS * 10);
    add(&mut cluster, 1, [7, 50]);
    cluster.advance(MS * 5);
    assert_eq!(lists(&cluster, 2).seen, [7, 50]);
    cluster.crash(3, Crash::default());
    cluster.start(3);
    cluster.advance(MS * 20);
    assert_eq!(lists(&cluster, 2).seen, [7, 50, 50]);
    assert_eq!(lists(&cluster, 3).seen, []);
}

#[test]
fn a_full_disk_may_accept_removals() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.full = true;
    add(&mut cluster, 1, [0]);
    assert_eq!(said(&mut cluster), ["1 Refused(0)"]);
    cluster.node(1).disk.reclaims = true;
    add(&mut cluster, 1, [0, 1]);
    assert_eq!(lists(&cluster, 1).durable, [0]);
    assert_eq!(said(&mut cluster), ["1 Refused(1)"]);
}

#[test]
fn delayed_operations_are_performed_before_later_ones() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.delay([8, 9]);
    add(&mut cluster, 1, [100]);
    assert_eq!(cluster.node(1).disk.store.kept, [100, 101]);
    add(&mut cluster, 1, [1]);
    assert_eq!(cluster.node(1).disk.store.kept, [100, 101, 8, 9, 1]);
    cluster.node(1).disk.delay([10]);
    cluster.crash(1, Crash::default());
    cluster.start(1);
    add(&mut cluster, 1, [2]);
    assert_eq!(cluster.node(1).disk.store.kept, [100, 101, 8, 9, 1, 2]);
}

#[test]
fn a_slow_read_does_not_complete() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.slow = Some(0);
    cluster.input(1, (), Event::Read);
    cluster.advance(MS);
    assert_eq!(said(&mut cluster), Vec::<String>::new());
    cluster.node(1).disk.slow = None;
    cluster.input(1, (), Event::Read);
    assert_eq!(said(&mut cluster), ["1 Found([])"]);
}
