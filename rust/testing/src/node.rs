//! One node: a persistent disk, and a process that may crash and restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_core::Rng as _;

use crate::disk::Disk;
use crate::protocol::{Alive, Clock, Hosted, Protocol, Rng, rng_from_seed};
use crate::recording::Recording;

/// A node.
pub struct Node<P: Protocol> {
    /// Its disk.
    pub disk: Disk<P::Store, P::Role>,
    /// The skew of its wall clock.
    pub skew_micros: i64,
    /// The recordings of the instances of earlier boots, if enabled.
    pub recordings: Vec<Recording<P>>,
    pub(crate) process: Option<Process<P>>,
    pub(crate) boots: u64,
    /// When its disk has completed all requests, which it does in order.
    pub(crate) syncs_at: u64,
    /// Owners of files with a scheduled step.
    pub(crate) filing: BTreeSet<u64>,
}

/// The process of a node.
pub struct Process<P: Protocol> {
    pub(crate) roles: BTreeMap<P::Role, Running<P>>,
    pub(crate) timers: BTreeMap<(P::Role, u64), u64>,
    mailbox: VecDeque<Mail<P>>,
    /// Its pending persists. Those of an earlier process are not answered.
    awaited: BTreeSet<(P::Role, u64)>,
    pub(crate) alive: Alive<P>,
    boot: u64,
}

struct Mail<P: Protocol> {
    role: P::Role,
    event: P::Event,
    /// Whether it must not be overtaken.
    fixed: bool,
}

pub(crate) struct Running<P: Protocol> {
    pub(crate) instance: P::Instance,
    rng: Rng,
    recording: Option<Recording<P>>,
}

impl<P: Protocol> Node<P> {
    pub(crate) fn new() -> Self {
        Node {
            disk: Disk::default(),
            skew_micros: 0,
            recordings: Vec::new(),
            process: None,
            boots: 0,
            syncs_at: 0,
            filing: BTreeSet::new(),
        }
    }

    /// Whether its process is running.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// How often it was started.
    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// Its process, if running.
    pub fn process(&self) -> Option<&Process<P>> {
        self.process.as_ref()
    }

    /// A running instance.
    pub fn instance(&self, role: P::Role) -> Option<&P::Instance> {
        let running = self.process.as_ref()?.roles.get(&role)?;
        Some(&running.instance)
    }

    /// Ends the process and keeps the recordings.
    pub(crate) fn end(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        let ended = process.roles.into_values().filter_map(|running| {
            let recording = running.recording?;
            Some(recording.ended(running.instance))
        });
        self.recordings.extend(ended);
    }
}

impl<P: Protocol> Process<P> {
    pub(crate) fn new(node: P::NodeId, boot: u64) -> Self {
        Process {
            roles: BTreeMap::new(),
            timers: BTreeMap::new(),
            mailbox: VecDeque::new(),
            awaited: BTreeSet::new(),
            alive: [node].into(),
            boot,
        }
    }

    /// Its roles.
    pub fn roles(&self) -> impl DoubleEndedIterator<Item = P::Role> {
        self.roles.keys().copied()
    }

    /// Whether it has a role.
    pub fn has(&self, role: P::Role) -> bool {
        self.roles.contains_key(&role)
    }

    /// The nodes that it can reach, itself included.
    pub fn alive(&self) -> &Alive<P> {
        &self.alive
    }

    /// The number of its boot, from 1.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Records a pending persist of a role.
    pub(crate) fn awaits(&mut self, role: P::Role, token: u64) {
        assert!(
            self.awaited.insert((role, token)),
            "{role:?} has two persists with token {token} in flight"
        );
    }

    /// Whether a role has this pending persist; removes it.
    pub(crate) fn is_told(&mut self, role: P::Role, token: u64) -> bool {
        self.awaited.remove(&(role, token))
    }

    pub(crate) fn host(&mut self, hosted: Hosted<P>, record: bool) {
        let Hosted { role, seed, instance } = hosted;
        let running = Running {
            recording: record.then(|| Recording::new(role, instance.clone(), seed)),
            instance,
            rng: rng_from_seed(seed),
        };
        self.roles.insert(role, running);
    }

    /// Delivers an event to a role's mailbox: at the end, or at a random place behind fixed events.
    pub(crate) fn mail(&mut self, role: P::Role, event: P::Event, fixed: bool, scrambler: Option<&mut Rng>) {
        let place = match scrambler {
            Some(rng) if !fixed => {
                let after = self.mailbox.iter().rposition(|mail| mail.fixed);
                let after = after.map_or(0, |place| place + 1);
                after + rng.next_u64() as usize % (self.mailbox.len() - after + 1)
            }
            _ => self.mailbox.len(),
        };
        self.mailbox.insert(place, Mail { role, event, fixed });
    }

    /// The role that handled the next event, and its effects.
    pub(crate) fn handle_next(&mut self, clock: Clock) -> Option<(P::Role, Vec<P::Effect>)> {
        let Mail { role, event, .. } = self.mailbox.pop_front()?;
        let mut effects = Vec::new();
        if let Some(running) = self.roles.get_mut(&role) {
            let recorded = running.recording.is_some().then(|| event.clone());
            P::handle(
                &mut running.instance,
                clock,
                &mut running.rng,
                event,
                &mut effects,
            );
            if let (Some(recording), Some(event)) = (&mut running.recording, recorded) {
                recording.steps.push((clock, event, effects.clone()));
            }
        }
        Some((role, effects))
    }
}
