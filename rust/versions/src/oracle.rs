//! Random histories of replicas and clients, compared with causal histories: the definition that version
//! vectors compress. The oracle records, for each write, the whole set of writes that it had seen.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::ids::ReplicaId;

use super::tests::{bytes, replica, timestamp};
use super::*;

const REPLICAS: usize = 4;
const CLIENTS: usize = 3;

type Dots = BTreeSet<Dot>;

#[derive(Clone, Debug)]
enum Step {
    /// A put through a replica, with the client's last context, or without.
    Put {
        at: usize,
        context_of: Option<usize>,
        delete: bool,
    },
    /// A client reads one replica and stores the context.
    Read { at: usize, client: usize },
    /// A client reads the merged states of two replicas, as a quorum read does.
    ReadTwo {
        first: usize,
        second: usize,
        client: usize,
    },
    /// A replica sends its state to another.
    Send { from: usize, to: usize },
    /// A replica coordinates writes of other keys.
    Elsewhere { at: usize, count: u64 },
    /// A replica's state becomes durable.
    Sync { at: usize },
    /// A replica crashes, and recovers its durable state, under a new replica id. Others may have the rest.
    Crash { at: usize },
    /// A replica loses its data directory and restarts empty, under a new replica id.
    Replace { at: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..REPLICAS;
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (at.clone(), proptest::option::of(client.clone()), proptest::bool::weighted(0.2))
            .prop_map(|(at, context_of, delete)| Step::Put { at, context_of, delete }),
        3 => (at.clone(), client.clone()).prop_map(|(at, client)| Step::Read { at, client }),
        2 => (at.clone(), at.clone(), client)
            .prop_map(|(first, second, client)| Step::ReadTwo { first, second, client }),
        6 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::Send { from, to }),
        1 => (at.clone(), 1..5u64).prop_map(|(at, count)| Step::Elsewhere { at, count }),
        3 => at.clone().prop_map(|at| Step::Sync { at }),
        1 => at.clone().prop_map(|at| Step::Crash { at }),
        1 => at.prop_map(|at| Step::Replace { at }),
    ]
}

/// The code under test.
struct System {
    states: Vec<KeyState>,
    durable: Vec<KeyState>,
    counters: Vec<DotCounter>,
    contexts: Vec<VersionVector>,
    ids: u64,
}

/// The writes seen by each replica and each client, and by each write.
#[derive(Default)]
struct Oracle {
    seen: Vec<Dots>,
    durable: Vec<Dots>,
    contexts: Vec<Dots>,
    histories: BTreeMap<Dot, Dots>,
}

impl Oracle {
    /// The writes among `seen` that no other of them had seen.
    fn siblings(&self, seen: &Dots) -> Dots {
        let replaced: Dots = seen
            .iter()
            .flat_map(|dot| &self.histories[dot])
            .copied()
            .collect();
        seen - &replaced
    }
}

impl System {
    fn issue(&mut self, at: usize) -> Dot {
        if let Some(reservation) = self.counters[at].reservation() {
            self.counters[at].reserved(reservation);
        }
        self.counters[at].issue().expect("a block is reserved")
    }

    fn take_new_id(&mut self, at: usize) {
        self.ids += 1;
        let id = ReplicaId::new(self.counters[at].replica().node(), 0xffff + self.ids);
        self.counters[at] = DotCounter::recover(id, 0, 4);
    }
}

fn play(steps: &[Step]) -> (System, Oracle) {
    let counter = |at: usize| DotCounter::recover(replica(at as u16 + 1), 0, 4);
    let mut system = System {
        states: vec![KeyState::default(); REPLICAS],
        durable: vec![KeyState::default(); REPLICAS],
        counters: (0..REPLICAS).map(counter).collect(),
        contexts: vec![VersionVector::new(); CLIENTS],
        ids: 0,
    };
    let mut oracle = Oracle {
        seen: vec![Dots::new(); REPLICAS],
        durable: vec![Dots::new(); REPLICAS],
        contexts: vec![Dots::new(); CLIENTS],
        histories: BTreeMap::new(),
    };
    for (index, step) in steps.iter().enumerate() {
        play_step(&mut system, &mut oracle, index as u64, step);
        compare(&system, &oracle);
    }
    (system, oracle)
}

fn play_step(system: &mut System, oracle: &mut Oracle, index: u64, step: &Step) {
    match *step {
        Step::Put {
            at,
            context_of,
            delete,
        } => {
            let dot = system.issue(at);
            let write_id = WriteId {
                client: 1,
                sequence: index,
            };
            let value = (!delete).then(|| bytes(&index.to_string()));
            let context = context_of.map(|client| &system.contexts[client]);
            system.states[at] = system.states[at]
                .put(dot, value, timestamp(index), write_id, context)
                .expect("the dot is new");
            let history = match context_of {
                Some(client) => oracle.contexts[client].clone(),
                None => oracle.seen[at].clone(),
            };
            oracle.seen[at].extend(&history);
            oracle.seen[at].insert(dot);
            oracle.histories.insert(dot, history);
        }
        Step::Read { at, client } => {
            system.contexts[client] = system.states[at].clock().clone();
            oracle.contexts[client] = oracle.seen[at].clone();
        }
        Step::ReadTwo {
            first,
            second,
            client,
        } => {
            let merged = system.states[first].merge(&system.states[second]);
            system.contexts[client] = merged.clock().clone();
            oracle.contexts[client] = &oracle.seen[first] | &oracle.seen[second];
        }
        Step::Send { from, to } => {
            system.states[to] = system.states[to].merge(&system.states[from]);
            oracle.seen[to] = &oracle.seen[to] | &oracle.seen[from];
        }
        Step::Elsewhere { at, count } => {
            for _ in 0..count {
                system.issue(at);
            }
        }
        Step::Sync { at } => {
            system.durable[at] = system.states[at].clone();
            oracle.durable[at] = oracle.seen[at].clone();
        }
        Step::Crash { at } => {
            system.take_new_id(at);
            system.states[at] = system.durable[at].clone();
            oracle.seen[at] = oracle.durable[at].clone();
        }
        Step::Replace { at } => {
            system.take_new_id(at);
            system.states[at] = KeyState::default();
            system.durable[at] = KeyState::default();
            oracle.seen[at].clear();
            oracle.durable[at].clear();
        }
    }
}

fn compare(system: &System, oracle: &Oracle) {
    for (state, seen) in system.states.iter().zip(&oracle.seen) {
        let siblings: Dots = state.siblings().iter().map(|sibling| sibling.dot).collect();
        assert_eq!(siblings, oracle.siblings(seen), "siblings of {state:?}");
        let covered: Dots = oracle
            .histories
            .keys()
            .copied()
            .filter(|dot| state.clock().contains(*dot))
            .collect();
        assert_eq!(&covered, seen, "clock of {state:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn replicas_agree_with_their_causal_histories(steps in vec(step(), 1..60)) {
        play(&steps);
    }

    #[test]
    fn replicas_that_exchange_states_in_any_order_converge(
        steps in vec(step(), 1..40),
        order in Just((0..REPLICAS).flat_map(|from| (0..REPLICAS).map(move |to| (from, to))).collect::<Vec<_>>())
            .prop_shuffle(),
        again: bool,
    ) {
        let (mut system, mut oracle) = play(&steps);
        // Sent all at once, received in any order and partly twice: each has the state at its sending.
        let sent: Vec<KeyState> = system.states.clone();
        for (from, to) in order.iter().chain(order.iter().take(if again { REPLICAS } else { 0 })) {
            system.states[*to] = system.states[*to].merge(&sent[*from]);
        }
        let all = oracle.seen.iter().fold(Dots::new(), |all, seen| &all | seen);
        oracle.seen = vec![all; REPLICAS];
        compare(&system, &oracle);
        for state in &system.states[1..] {
            prop_assert_eq!(state, &system.states[0]);
            prop_assert_eq!(state.digest(), system.states[0].digest());
            prop_assert!(state.includes(&system.states[0]));
        }
    }
}
