//! Random runs: bounds hold (the link asserts them itself), no message arrives twice, and no message is lost on a session
//! without being reported as shed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use quorate_raft::types::GroupId;

use super::testing::{Ends, append, message};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enqueue {
        side: usize,
        sizes: Vec<usize>,
        left_ms: Option<u64>,
    },
    /// Appends to one of two groups.
    Append {
        side: usize,
        group: u32,
        sizes: Vec<usize>,
    },
    Sent(usize),
    Arrive(usize),
    Take(usize),
    Advance(u64),
    Repeat(usize),
    Disconnect,
    Connect,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        8 => 0usize..300,
        3 => 20_000usize..66_000,
        1 => 66_000usize..900_000,
    ];
    prop::collection::vec(size, 1..12)
}

fn steps(with_sessions: bool) -> impl Strategy<Value = Vec<Step>> {
    let sessions = if with_sessions { 2 } else { 0 };
    let step = prop_oneof![
        10 => (0usize..2, sizes(), prop::option::of(1u64..300))
            .prop_map(|(side, sizes, left_ms)| Step::Enqueue { side, sizes, left_ms }),
        6 => (0usize..2, 1u32..3, sizes())
            .prop_map(|(side, group, sizes)| Step::Append { side, group, sizes }),
        12 => (0usize..2).prop_map(Step::Sent),
        12 => (0usize..2).prop_map(Step::Arrive),
        8 => (0usize..2).prop_map(Step::Take),
        3 => (1u64..80).prop_map(Step::Advance),
        1 => (0usize..2).prop_map(Step::Repeat),
        sessions => Just(Step::Disconnect),
        sessions => Just(Step::Connect),
        1 => Just(Step::Advance(0)),
    ];
    prop::collection::vec(step, 1..120)
}

/// Small windows and lanes, so that every bound is reached.
fn tight() -> LinkSettings {
    LinkSettings {
        window_bytes: 300_000,
        window_count: 20,
        window_chunks: 3,
        data_queue_bytes: 200_000,
        queue_count: 30,
        ..LinkSettings::default()
    }
}

struct Run {
    ends: Ends,
    enqueued: u64,
    /// The group of each append.
    appends: BTreeMap<u64, u32>,
}

impl Run {
    /// The appends of each group arrive in order, on any lanes.
    fn appends_are_in_order(&self, side: usize) -> bool {
        let mut last = BTreeMap::new();
        let delivered = &self.ends.ends[side].delivered;
        let appends = delivered
            .iter()
            .filter_map(|number| Some((self.appends.get(number)?, number)));
        appends
            .into_iter()
            .all(|(group, number)| last.insert(group, number).is_none_or(|before| before < number))
    }

    fn step(&mut self, step: &Step) {
        let ends = &mut self.ends;
        match step {
            Step::Enqueue { side, sizes, left_ms } => {
                let now = ends.now;
                let first = self.enqueued;
                self.enqueued += sizes.len() as u64;
                let left = left_ms.map(Duration::from_millis);
                let batch = (first..)
                    .zip(sizes)
                    .map(|(request, size)| message(now, request, *size, left));
                ends.enqueue(*side, batch.collect());
            }
            Step::Append { side, group, sizes } => {
                let first = self.enqueued;
                self.enqueued += sizes.len() as u64;
                self.appends
                    .extend((first..self.enqueued).map(|number| (number, *group)));
                let batch = (first..)
                    .zip(sizes)
                    .map(|(request, size)| append(request, GroupId(*group), *size));
                ends.enqueue(*side, batch.collect());
            }
            Step::Sent(side) => drop(ends.sent(*side)),
            Step::Arrive(side) => drop(ends.arrive(*side)),
            Step::Take(side) => drop(ends.take(*side)),
            Step::Advance(ms) => ends.advance(Duration::from_millis(*ms)),
            Step::Repeat(side) => {
                if let Some(first) = ends.ends[*side].flight.front().cloned() {
                    ends.ends[*side].flight.push_front(first);
                }
            }
            Step::Disconnect => ends.disconnect(),
            Step::Connect => drop(ends.connect()),
        }
    }
}

fn run(steps: &[Step]) -> Run {
    let mut run = Run {
        ends: Ends::connected(tight()),
        enqueued: 0,
        appends: BTreeMap::new(),
    };
    for step in steps {
        run.step(step);
    }
    run
}

fn distinct(delivered: &[u64]) -> bool {
    delivered.iter().collect::<BTreeSet<_>>().len() == delivered.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn on_one_session_everything_arrives_once_or_is_reported_shed(steps in steps(false)) {
        let mut run = run(&steps);
        run.ends.settle_all();
        // Only the idle timeout may end the session here, if nothing arrives in a random run.
        prop_assume!(run.ends.ends.iter().all(|end| end.closed.is_empty()));
        let mut accounted = 0;
        for side in 0..2 {
            let end = &run.ends.ends[side];
            prop_assert!(distinct(&end.delivered));
            prop_assert!(run.appends_are_in_order(side));
            accounted += end.delivered.len() as u64 + end.shed_total();
            prop_assert_eq!(run.ends.links[side].queued_bytes(), 0);
        }
        prop_assert_eq!(accounted, run.enqueued);
    }

    #[test]
    fn over_many_sessions_nothing_arrives_twice_and_no_bound_breaks(steps in steps(true)) {
        let mut run = run(&steps);
        run.ends.settle_all();
        let mut accounted = 0;
        for side in 0..2 {
            let end = &run.ends.ends[side];
            prop_assert!(distinct(&end.delivered));
            prop_assert!(run.appends_are_in_order(side));
            accounted += end.delivered.len() as u64 + end.shed_total();
            let violations = run.ends.links[side].totals().violations;
            prop_assert_eq!(violations, 0, "a correct peer never violates the protocol");
        }
        prop_assert!(accounted <= run.enqueued);
    }

    #[test]
    fn no_bytes_panic_a_link(bytes in prop::collection::vec(any::<u8>(), 0..200), whole_header in any::<bool>()) {
        let mut ends = Ends::connected(tight());
        let session = ends.links[0].session().unwrap();
        let mut batch = bytes;
        if whole_header && batch.len() >= BATCH_HEADER {
            batch[0] = 1;
            batch[1..9].copy_from_slice(&session.0.to_le_bytes());
            batch[9..17].copy_from_slice(&1u64.to_le_bytes());
        }
        ends.handle(0, LinkEvent::Received { session, batch: batch.into() });
        ends.settle();
    }
}
