//! One node of the lab: its disk, its role instances and their mailboxes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_core::Rng as _;

use super::Setup;
use super::disk::{Disk, Flight};
use super::recording::Recording;
use crate::bugs::Bugs;
use crate::ids::{NodeId, ReplicaId};
use crate::instance::Instance;
use crate::placement::Placement;
use crate::raft::settings::Timing;
use crate::role::{Effect, Event, Rng, Role, RoleId, Spec, Surroundings, rng_from_seed};
use crate::store::StateWrite;
use crate::time::{Instant, Now};

/// A role instance with what its shell keeps for it.
struct Hosted {
    instance: Instance,
    rng: Rng,
    timers: BTreeMap<u64, Instant>,
    recording: Recording,
}

/// A persist that a disk has dealt with.
pub(super) struct Flushed {
    pub(super) writes: Vec<StateWrite>,
    pub(super) refused: bool,
}

/// A node.
pub(in crate::quorum) struct Machine {
    pub(in crate::quorum) node: NodeId,
    pub(in crate::quorum) disk: Disk,
    /// Added to the wall clock.
    pub(in crate::quorum) skew_micros: i64,
    /// What its roles were given, those of earlier boots too.
    pub(in crate::quorum) recordings: Vec<Recording>,
    placement: Placement,
    bugs: Bugs,
    seed: u64,
    boots: u64,
    alive: BTreeSet<NodeId>,
    roles: BTreeMap<RoleId, Hosted>,
    mailbox: VecDeque<(RoleId, Event)>,
    /// Decides about the order of the mailbox; `None` keeps it.
    scrambler: Option<Rng>,
}

impl Machine {
    pub(super) fn new(node: NodeId, placement: Placement, alive: BTreeSet<NodeId>, setup: &Setup) -> Self {
        Machine {
            node,
            disk: Disk::default(),
            skew_micros: 0,
            recordings: Vec::new(),
            placement,
            bugs: setup.bugs,
            seed: setup.seed,
            boots: 0,
            alive,
            roles: BTreeMap::new(),
            mailbox: VecDeque::new(),
            scrambler: setup
                .scrambled
                .then(|| rng_from_seed(setup.seed ^ u64::from(node.0))),
        }
    }

    pub(in crate::quorum) fn running(&self) -> bool {
        !self.roles.is_empty()
    }

    pub(in crate::quorum) fn has(&self, role: RoleId) -> bool {
        self.roles.contains_key(&role)
    }

    pub(in crate::quorum) fn instance(&self, role: RoleId) -> Option<&Instance> {
        self.roles.get(&role).map(|hosted| &hosted.instance)
    }

    pub(super) fn roles(&self) -> Vec<RoleId> {
        self.roles.keys().copied().collect()
    }

    pub(in crate::quorum) fn alive(&self) -> &BTreeSet<NodeId> {
        &self.alive
    }

    pub(super) fn set_alive(&mut self, alive: BTreeSet<NodeId>) {
        self.alive = alive;
    }

    /// Whether that is news.
    pub(super) fn set_link(&mut self, to: NodeId, up: bool) -> bool {
        match up {
            true => self.alive.insert(to),
            false => self.alive.remove(&to),
        }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            replica: ReplicaId::new(self.node, 0xd1),
            placement: self.placement.clone(),
            alive: self.alive.clone(),
            raft: Timing::default(),
            bugs: self.bugs,
        }
    }

    // ---- life ----

    pub(super) fn boot(&mut self) {
        assert!(!self.running(), "{} is running", self.node);
        self.boots += 1;
        let instance = Instance::node(&self.surroundings());
        self.host(RoleId::Node, instance);
    }

    pub(super) fn crash(&mut self, synced: usize) -> Vec<Flushed> {
        let flushed = (0..synced).filter_map(|_| self.flush_one()).collect();
        for (_, hosted) in std::mem::take(&mut self.roles) {
            self.recordings.push(hosted.recording.ended(hosted.instance));
        }
        self.mailbox.clear();
        self.disk.in_flight.clear();
        flushed
    }

    /// Gives up what the roles have been given and done so far.
    pub(in crate::quorum) fn into_recordings(mut self) -> Vec<Recording> {
        self.crash(0);
        self.recordings
    }

    fn host(&mut self, role: RoleId, instance: Instance) {
        // A seed of its own per instance, as every shell gives it.
        let names = self.roles.len() as u64 + if role == RoleId::Node { 1 } else { 2 };
        let seed = self.seed ^ u64::from(self.node.0) << 48 ^ self.boots << 32 ^ names << 16;
        let hosted = Hosted {
            recording: Recording::new(instance.clone(), seed),
            instance,
            rng: rng_from_seed(seed),
            timers: BTreeMap::new(),
        };
        self.roles.insert(role, hosted);
    }

    pub(super) fn reconcile(&mut self, specs: &[Spec]) {
        for spec in specs.iter().filter(|spec| !matches!(spec, Spec::Control)) {
            let instances =
                Instance::create(spec, &self.surroundings()).expect("the keyspace fits the cluster");
            for (role, instance) in instances {
                if !self.roles.contains_key(&role) {
                    self.host(role, instance);
                    self.enqueue(role, Event::Start);
                }
            }
        }
    }

    // ---- events ----

    pub(super) fn enqueue(&mut self, role: RoleId, event: Event) {
        let place = match (&mut self.scrambler, &event) {
            (None, _) | (_, Event::Start | Event::Peer { .. }) => self.mailbox.len(),
            (Some(rng), _) => {
                // The first event comes first, and news of a peer in its order.
                let fixed = |(_, event): &(RoleId, Event)| matches!(event, Event::Start | Event::Peer { .. });
                let after = self.mailbox.iter().rposition(fixed).map_or(0, |place| place + 1);
                after + rng.next_u64() as usize % (self.mailbox.len() - after + 1)
            }
        };
        self.mailbox.insert(place, (role, event));
    }

    pub(super) fn handle_next(&mut self, now: Now) -> Option<(RoleId, Vec<Effect>)> {
        let (role, event) = self.mailbox.pop_front()?;
        let Some(hosted) = self.roles.get_mut(&role) else {
            return Some((role, Vec::new()));
        };
        let mut effects = Vec::new();
        hosted.recording.input(now, &event);
        hosted.instance.handle(now, &mut hosted.rng, event, &mut effects);
        hosted.recording.output(&effects);
        Some((role, effects))
    }

    pub(super) fn set_timer(&mut self, role: RoleId, id: u64, at: Instant) {
        let hosted = self.roles.get_mut(&role).expect("it asked for the timer");
        hosted.timers.insert(id, at);
    }

    pub(super) fn next_timer(&self) -> Option<(Instant, RoleId, u64)> {
        let timers = self
            .roles
            .iter()
            .flat_map(|(role, hosted)| hosted.timers.iter().map(|(id, at)| (*at, *role, *id)));
        timers.min()
    }

    pub(super) fn take_timer(&mut self, role: RoleId, id: u64) {
        let hosted = self.roles.get_mut(&role).expect("its timer went off");
        hosted.timers.remove(&id);
    }

    /// Deals with the first persist in flight.
    pub(super) fn flush_one(&mut self) -> Option<Flushed> {
        let flight = self.disk.in_flight.pop_front()?;
        Some(self.answer(flight, self.disk.full))
    }

    pub(super) fn refuse_newest(&mut self) -> Option<Flushed> {
        let flight = self.disk.in_flight.pop_back()?;
        Some(self.answer(flight, true))
    }

    fn answer(&mut self, flight: Flight, refused: bool) -> Flushed {
        let token = flight.token;
        let event = if refused {
            Event::PersistRefused { token }
        } else {
            self.disk.apply(&flight.writes);
            Event::Persisted { tokens: vec![token] }
        };
        self.enqueue(flight.role, event);
        Flushed {
            writes: flight.writes,
            refused,
        }
    }
}
