//! One node of the lab: a disk that stays, and a process that comes and goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::Disk;
use super::ledger::Ledger;
use crate::ids::NodeId;
use crate::raft::RaftGroup;
use crate::raft::alphabet::{Effect, Event};
use crate::raft::settings::Setup;
use crate::role::{Rng, Role, rng_from_seed};
use crate::store::{JournalOp, Priority};
use crate::time::{Instant, Now};

/// What one process was given and what it did.
pub(in crate::raft) struct Life {
    seed: u64,
    setup: Setup,
    steps: Vec<(Now, Event, Vec<Effect>)>,
    end: Option<RaftGroup<Ledger>>,
}

impl Life {
    /// Gives the same events to a new server. Panics where it does anything else.
    pub(in crate::raft) fn replay(&self) {
        let mut group = RaftGroup::<Ledger>::new(self.setup.clone());
        let mut rng = rng_from_seed(self.seed);
        for (now, event, expected) in &self.steps {
            let mut effects = Vec::new();
            group.handle(*now, &mut rng, event.clone(), &mut effects);
            assert_eq!(&effects, expected, "after {event:?}");
        }
        assert_eq!(Some(group), self.end, "the same effects but another state");
    }
}

/// A node.
pub(in crate::raft) struct Machine {
    setup: Setup,
    seed: u64,
    pub(in crate::raft) group: Option<RaftGroup<Ledger>>,
    rng: Rng,
    pub(in crate::raft) disk: Disk,
    /// The persists in flight that the process which runs now has asked for. Nobody hears of others.
    awaited: BTreeSet<u64>,
    pub(super) timers: BTreeMap<u64, Instant>,
    pub(super) mailbox: VecDeque<Event>,
    pub(in crate::raft) skew_micros: i64,
    /// Everything that its processes were given and did, if it is recorded.
    pub(in crate::raft) lives: Option<Vec<Life>>,
}

impl Machine {
    pub(super) fn new(setup: Setup, seed: u64) -> Self {
        Machine {
            setup,
            seed,
            group: None,
            rng: rng_from_seed(seed),
            disk: Disk::default(),
            awaited: BTreeSet::new(),
            timers: BTreeMap::new(),
            mailbox: VecDeque::new(),
            skew_micros: 0,
            lives: None,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.setup.me
    }

    pub(super) fn boot(&mut self) {
        assert!(self.group.is_none(), "{} runs already", self.node());
        self.seed = self.seed.wrapping_add(1_000_000);
        self.rng = rng_from_seed(self.seed);
        self.group = Some(RaftGroup::new(self.setup.clone()));
        if let Some(lives) = &mut self.lives {
            lives.push(Life {
                seed: self.seed,
                setup: self.setup.clone(),
                steps: Vec::new(),
                end: None,
            });
        }
    }

    pub(in crate::raft) fn crash(&mut self, synced: usize) {
        for _ in 0..synced {
            if let Some(flight) = self.disk.next() {
                self.disk.apply(&flight.ops);
            }
        }
        self.disk.flights.clear();
        self.fail();
    }

    /// The server is gone, but not what it has asked the disk for.
    pub(super) fn fail(&mut self) {
        self.awaited.clear();
        let group = self.group.take();
        if let Some(life) = self.lives.as_mut().and_then(|lives| lives.last_mut())
            && group.is_some()
        {
            life.end = group;
        }
        self.timers.clear();
        self.mailbox.clear();
    }

    pub(super) fn submit(&mut self, token: u64, priority: Priority, ops: Vec<JournalOp>) {
        self.disk.submit(token, priority, ops);
        self.awaited.insert(token);
    }

    pub(super) fn handle_next(&mut self, now: Now) -> Option<Vec<Effect>> {
        let event = self.mailbox.pop_front()?;
        let mut effects = Vec::new();
        let group = self.group.as_mut()?;
        let recorded = self.lives.is_some().then(|| event.clone());
        group.handle(now, &mut self.rng, event, &mut effects);
        if let Some(life) = self.lives.as_mut().and_then(|lives| lives.last_mut())
            && let Some(event) = recorded
        {
            life.steps.push((now, event, effects.clone()));
        }
        Some(effects)
    }

    pub(super) fn next_timer(&self) -> Option<(Instant, u64)> {
        self.timers.iter().map(|(id, at)| (*at, *id)).min()
    }

    /// Deals with the next persist in flight; says what it was and whether it was refused.
    pub(super) fn flush_one(&mut self) -> Option<(Vec<JournalOp>, bool)> {
        let flight = self.disk.next()?;
        let token = flight.token;
        let refused = self.disk.full;
        let answer = if refused {
            Event::PersistRefused { token }
        } else {
            self.disk.apply(&flight.ops);
            Event::Persisted { tokens: vec![token] }
        };
        if self.awaited.remove(&token) {
            self.mailbox.push_back(answer);
        }
        Some((flight.ops, refused))
    }
}
