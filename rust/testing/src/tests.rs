//! A protocol of a few lines, and what the cluster does with it: every node keeps a list of numbers; one that it is given it
//! makes durable and sends to the others.

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
                // Large ones take their time, and those of a thousand are two.
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
            Input::File { .. } => unreachable!("it has no files"),
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
    cluster.instance(node, ()).expect("it runs")
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
fn messages_wait_until_they_are_delivered_dropped_or_repeated() {
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
fn links_are_known_and_crashes_break_them() {
    let mut cluster = stopped(Profile::MANUAL);
    cluster.start(1);
    cluster.start(2);
    assert_eq!(said(&mut cluster), ["2 Peer(1, true)", "1 Peer(2, true)"]);
    add(&mut cluster, 1, [7]);
    assert_eq!(cluster.wire.len(), 1, "nobody knows 3");
    cluster.crash(2, Crash::default());
    assert_eq!(said(&mut cluster), ["1 Peer(2, false)"]);
    assert_eq!(cluster.wire.len(), 0, "it was on the connection");
    cluster.part(1, 2, true, true);
    cluster.start(2);
    assert_eq!(said(&mut cluster), Vec::<String>::new());
    cluster.part(1, 2, false, true);
    assert_eq!(said(&mut cluster), ["1 Peer(2, true)", "2 Peer(1, true)"]);
}

#[test]
fn timers_go_off_in_their_order() {
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
fn a_held_disk_answers_when_it_is_told_to_and_a_crash_leaves_what_it_leaves() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.held = true;
    add(&mut cluster, 1, [100, 1, 2, 3]);
    assert_eq!(lists(&cluster, 1).durable, []);
    cluster.persist(1, 2);
    assert_eq!(lists(&cluster, 1).durable, [1, 2], "the background comes last");
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
        assert_eq!(lists(&cluster, 1).durable, [], "nobody hears of it");
    }
    let torn: Vec<Vec<u64>> = torn.into_values().collect();
    assert_eq!(torn, [vec![], vec![], vec![3], vec![3, 100], vec![3, 100, 101]]);
}

#[test]
fn a_full_disk_refuses_and_one_that_is_stuck_does_nothing_in_the_background() {
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
fn derived_rows_are_seen_at_once_and_survive_a_crash_when_they_are_flushed() {
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
fn what_takes_how_long_is_drawn_and_the_same_seed_draws_the_same() {
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
    assert!(!seen.is_sorted(), "they overtake each other");
    let different: std::collections::BTreeSet<u64> = seen.iter().copied().collect();
    assert!(different.len() < 49, "some are lost");
    assert!(different.len() < seen.len(), "some come twice");
}

#[test]
fn a_scrambled_node_takes_its_mail_in_another_order() {
    let order = |seed: Option<u64>| {
        let mut cluster = started(Profile::MANUAL);
        if let Some(seed) = seed {
            cluster.scramble(seed);
        }
        cluster.node(1).disk.held = true;
        add(&mut cluster, 1, 1..20);
        // Several answers are in the mailbox at once when a disk catches up during a turn.
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
    assert_eq!(recordings.len(), 4, "one of each life");
    for recording in &recordings {
        recording.replay();
    }
    let changed = recordings
        .iter_mut()
        .find(|recording| !recording.end().seen.is_empty());
    let steps = &mut changed.expect("somebody was told").steps;
    steps.retain(|(_, event, _)| !matches!(event, Event::Received(1)));
    let replayed = seeds::outcome(|| {
        recordings.iter().for_each(|recording| drop(recording.replay()));
        Ok(())
    });
    assert!(
        replayed
            .unwrap_err()
            .contains("the same effects but another state")
    );
}

#[test]
fn persists_of_a_process_that_was_replaced_are_done_and_not_told() {
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
fn what_goes_over_connections_comes_twice_but_not_to_another_life() {
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
fn a_full_disk_may_still_do_what_takes_away() {
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
fn what_is_late_is_there_before_what_is_asked_for_after_it() {
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
fn a_slow_read_is_not_answered() {
    let mut cluster = started(Profile::MANUAL);
    cluster.node(1).disk.slow = Some(0);
    cluster.input(1, (), Event::Read);
    cluster.advance(MS);
    assert_eq!(said(&mut cluster), Vec::<String>::new());
    cluster.node(1).disk.slow = None;
    cluster.input(1, (), Event::Read);
    assert_eq!(said(&mut cluster), ["1 Found([])"]);
}
