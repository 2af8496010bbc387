//! Random clusters: nodes reject requests, fall silent, close connections, respond late, twice or with errors. In any
//! case, every operation ends exactly once and in time, and no put is retried after a node may have seen it.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::time::Instant;
use quorate_protocol::api::{PutItem, Request, Response};
use rand_core::Rng as _;

use super::super::{CallOptions, ClientCore, ClientEffect, ClientEvent, GRACE};
use super::harness::*;

/// The model of a put: whether an attempt may have been received without a response.
#[derive(Default)]
struct Seen {
    open: bool,
}

/// The numbers of the puts that a request has.
fn sequences(request: &Request) -> Vec<u64> {
    match request {
        Request::Put { write_id, .. } => vec![write_id.sequence],
        Request::PutMany { items, write_id, .. } => (0..items.len())
            .map(|place| write_id.nth(place).sequence)
            .collect(),
        _ => Vec::new(),
    }
}

fn item(text: &str) -> PutItem {
    PutItem {
        key: key(text),
        value: Some("v".into()),
        context: None,
    }
}

struct Run {
    cluster: Harness,
    random: Rng,
    deadlines: BTreeMap<u64, u64>,
    seen: BTreeMap<u64, Seen>,
    /// The number of arrivals that were inspected.
    pending: Vec<Arrived>,
}

impl Run {
    fn chance(&mut self, one_in: u64) -> bool {
        self.random.next_u64().is_multiple_of(one_in)
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    /// Looks at what has arrived since the last time.
    fn collect(&mut self) {
        for arrived in std::mem::take(&mut self.cluster.arrived) {
            for sequence in sequences(&arrived.frame.request) {
                let seen = self.seen.entry(sequence).or_default();
                assert!(!seen.open, "put {sequence} was retried while it may be in flight");
                seen.open = true;
            }
            self.pending.push(arrived);
        }
    }

    fn answer(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.pick(self.pending.len() as u64) as usize;
        let arrived = self.pending.swap_remove(index);
        if !self.cluster.open.contains_key(&arrived.connection) {
            return;
        }
        let own = |place: usize| match place % 3 {
            0 => Err(Error::unavailable(2, 1)),
            _ => Ok(()),
        };
        let response = match self.pick(10) {
            0 => Err(Error::Overloaded("busy".to_owned())),
            1 => Err(Error::Closed("stopping".to_owned())),
            2 => Err(Error::NotFound("no keyspace".to_owned())),
            3 => Err(Error::unavailable(2, 1)),
            _ => Ok(match &arrived.frame.request {
                Request::Put { .. } => written(),
                Request::PutMany { items, .. } => {
                    let Response::Written(written) = written() else {
                        panic!("a write");
                    };
                    let all = (0..items.len()).map(|place| own(place).map(|()| written.clone()));
                    Response::WrittenMany(all.collect())
                }
                Request::GetMany { keys, .. } => {
                    let Response::Entry(entry) = entry() else {
                        panic!("an entry");
                    };
                    let all = (0..keys.len()).map(|place| own(place).map(|()| entry.clone()));
                    Response::Entries(all.collect())
                }
                _ => entry(),
            }),
        };
        if response.is_err() {
            for sequence in sequences(&arrived.frame.request) {
                self.seen.get_mut(&sequence).unwrap().open = false;
            }
        }
        self.cluster.reply(&arrived, response);
    }

    fn disturb(&mut self, nodes: u16) {
        let node = 1 + self.pick(u64::from(nodes)) as u16;
        let behaviour = match self.pick(4) {
            0 => Behaviour::Refusing,
            1 => Behaviour::Silent,
            _ => Behaviour::Up,
        };
        self.cluster.behaviour.insert(address(node), behaviour);
        let open: Vec<u64> = self.cluster.open.keys().copied().collect();
        if !open.is_empty() && self.chance(3) {
            let connection = open[self.pick(open.len() as u64) as usize];
            self.cluster.open.remove(&connection);
            // Sometimes none of the pending bytes were written: then the nodes have not seen them.
            let written = if self.chance(3) { 0 } else { u64::MAX };
            if written == 0 {
                for arrived in self
                    .pending
                    .extract_if(.., |arrived| arrived.connection == connection)
                {
                    for sequence in sequences(&arrived.frame.request) {
                        self.seen.get_mut(&sequence).unwrap().open = false;
                    }
                }
            }
            self.cluster.event(ClientEvent::Disconnected {
                connection,
                written,
                error: Error::ConnectionLost("cut".to_owned()),
            });
        }
    }

    fn submit(&mut self) {
        let text = format!("k{}", self.pick(50));
        let many = self.pick(30) as usize;
        let request = match self.pick(5) {
            0 => get(&text),
            1 => Request::Status,
            2 => get_many(&(0..many).map(|number| format!("k{number}")).collect::<Vec<_>>()),
            3 => put_many((0..many).map(|number| item(&format!("k{number}"))).collect()),
            _ => put(&text),
        };
        let timeout = Duration::from_millis(1 + self.pick(3000));
        let deadline = self.cluster.now + timeout.as_micros() as u64;
        let op = self.cluster.submit_with(request, CallOptions::timeout(timeout));
        self.deadlines.insert(op, deadline);
    }

    fn check_deadlines(&self) {
        let grace = GRACE.as_micros() as u64;
        for (op, deadline) in &self.deadlines {
            assert!(
                self.cluster.completed.contains_key(op) || self.cluster.now < deadline + grace,
                "operation {op} is overdue"
            );
        }
    }
}

fn run(seed: u64) {
    let mut random = rng_from_seed(seed);
    let nodes = 1 + (random.next_u64() % 5) as u16;
    let mut cluster = Harness::new(nodes);
    cluster.rng = rng_from_seed(seed ^ 0x5eed);
    cluster.event(ClientEvent::Start);
    let mut run = Run {
        cluster,
        random,
        deadlines: BTreeMap::new(),
        seen: BTreeMap::new(),
        pending: Vec::new(),
    };
    for _ in 0..600 {
        match run.pick(10) {
            0..=2 => run.submit(),
            3..=6 => run.answer(),
            7 => run.disturb(nodes),
            _ => {
                let pause = Duration::from_micros(run.pick(200_000));
                run.cluster.advance(pause);
            }
        }
        run.collect();
        run.check_deadlines();
    }
    run.cluster.advance(Duration::from_secs(10));
    run.collect();
    run.check_deadlines();
    assert_eq!(run.cluster.core.in_flight(), 0);
    // After the faults, it works again.
    for node in 1..=nodes {
        run.cluster.behaviour.insert(address(node), Behaviour::Up);
    }
    run.cluster.advance(Duration::from_secs(30));
    assert_eq!(
        run.cluster.core.connected_nodes().len(),
        usize::from(nodes),
        "seed {seed}"
    );
    run.cluster.arrived.clear();
    let op = run.cluster.submit(put("after"));
    let arrived = run.cluster.take();
    run.cluster.reply(&arrived, Ok(written()));
    assert!(run.cluster.outcome(op).result.is_ok());
}

#[test]
fn every_operation_ends_once_and_no_put_is_repeated_blindly() {
    for seed in 0..300 {
        run(seed);
    }
}

#[test]
fn recorded_events_replay_to_the_same_effects() {
    let mut recorder = Harness::new(3);
    let mut inputs = Vec::new();
    let mut record = |now, event: ClientEvent| inputs.push((now, event));
    for (at, event) in [
        (0, ClientEvent::Start),
        (1, ClientEvent::Connected { connection: 1 }),
        (
            2,
            ClientEvent::Submit {
                op: 1,
                request: put("a"),
                options: CallOptions {
                    trace: super::super::Trace::New,
                    ..CallOptions::default()
                },
            },
        ),
        (
            3,
            ClientEvent::Disconnected {
                connection: 2,
                written: 0,
                error: Error::ConnectionRefused("refused".to_owned()),
            },
        ),
        (900_000, ClientEvent::Timer),
        (5_000_000, ClientEvent::Timer),
    ] {
        recorder.now = 1_000_000 + at;
        record(recorder.instants(), event);
    }
    let play = || {
        let mut core: ClientCore = recorder.core.clone();
        let mut rng = rng_from_seed(9);
        let mut effects: Vec<ClientEffect> = Vec::new();
        for (now, event) in &inputs {
            assert!(now.instant > Instant(0));
            core.handle(*now, &mut rng, event.clone(), &mut effects);
        }
        (core, effects)
    };
    let (first, second) = (play(), play());
    assert_eq!(first, second);
    assert!(first.1.len() > 5);
}
