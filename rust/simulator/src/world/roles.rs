//! The shell of the simulated roles: events in, effects out.

use std::time::Duration;

use quorate_consensus::shard::Shard;
use quorate_core::ids::{BootId, NodeId};
use quorate_core::store::Query;
use quorate_core::time::Instant;
use quorate_protocol::link::LinkEvent;
use quorate_protocol::role::{Address, Effect, Event, RoleId, Spec, Surroundings};
use quorate_protocol::wire::Envelope;
use quorate_raft::settings::Timing;
use quorate_roles::Instance;
use quorate_storage::{Completion, Flushed, Outcome, Request};

use super::clock::Clock;
use super::machine::{Process, RoleHost};
use super::{QueuedEvent, Served, World};
use crate::disk::{Begun, FilesStep};
use crate::network::{Endpoint, Host};
use crate::observation::Observation;
use crate::record::Hosted;

/// The maximum delay of a message within a process.
const LONGEST_MAIL: Duration = Duration::from_micros(30);

impl World {
    /// Starts the process of a node.
    pub(super) fn start_node(&mut self, node: NodeId) {
        if self.is_up(node) {
            return;
        }
        let boot = BootId(self.rng.number());
        let reading = Instant(self.rng.below(1_000_000));
        self.event_log.record(self.now, node, "starts", &boot);
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let clock = Clock::new(self.now, reading, machine.drift_percent);
        machine.process = Some(Process::new(boot, clock));
        machine.paused = None;
        self.with_network(|network, now, flights| {
            network.set_host(now, Endpoint::Node(node), Host::Serving, flights);
        });
        self.start_peers(node, boot);
        let instance = Instance::node(&self.surroundings(node));
        self.create(node, RoleId::Node, instance);
    }

    /// Ends the process of a node, at any moment. Returns false if it was not running.
    pub(super) fn end_process(&mut self, node: NodeId) -> bool {
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let Some(process) = machine.process.take() else {
            return false;
        };
        machine.paused = None;
        machine.disk.crash();
        for (role, host) in process.roles {
            let recording = host.hosted.into_recording();
            self.recordings
                .instances
                .extend(recording.map(|recording| (node, role, recording)));
        }
        for (peer, port) in process.peers {
            let recording = port.link.into_recording();
            self.recordings
                .links
                .extend(recording.map(|recording| (node, peer, recording)));
        }
        true
    }

    /// The surroundings with which a role on this node is created.
    pub(super) fn surroundings(&self, node: NodeId) -> Surroundings {
        let machine = &self.machines[&node];
        let up = |peer: &NodeId| {
            let process = machine.process.as_ref();
            *peer == node
                || process
                    .and_then(|process| process.link(*peer))
                    .is_some_and(|link| link.is_up())
        };
        Surroundings {
            replica: machine.replica,
            placement: self.placement.clone(),
            alive: self.nodes().filter(up).collect(),
            raft: Timing::default(),
            bugs: self.config.bugs,
        }
    }

    fn create(&mut self, node: NodeId, role: RoleId, instance: Instance) {
        let seed = self.rng.number();
        let record = self.config.record;
        let process = self.process_mut(node);
        process.last_instance += 1;
        let host = RoleHost {
            instance: process.last_instance,
            hosted: Hosted::new(instance, seed, record),
            timers: Default::default(),
        };
        process.roles.insert(role, host);
        self.deliver(node, role, Event::Start);
    }

    /// The running process of a node.
    pub(super) fn process_mut(&mut self, node: NodeId) -> &mut Process {
        let machine = self.machines.get_mut(&node).expect("the node exists");
        machine.process.as_mut().expect("its program is running")
    }

    /// Delivers an event to a role's mailbox. Events delivered at the same time keep their order.
    pub(super) fn mail(&mut self, node: NodeId, role: RoleId, event: Event, delay: Duration) {
        let boot = self.process_mut(node).boot;
        self.queue.push(
            self.now + delay,
            QueuedEvent::Mail {
                node,
                boot,
                role,
                event: Box::new(event),
            },
        );
    }

    /// The delay of a message within a process.
    pub(super) fn mail_time(&mut self) -> Duration {
        self.rng.between(Duration::from_micros(1), LONGEST_MAIL)
    }

    /// Passes an event to a role and performs its effects. Events for a role that does not exist are dropped.
    pub(super) fn deliver(&mut self, node: NodeId, role: RoleId, event: Event) {
        let now = self.clocks(node);
        let process = self.process_mut(node);
        let Some(host) = process.roles.get_mut(&role) else {
            return;
        };
        let effects = host.hosted.handle(now, event.clone());
        let who = format_args!("{node} {role:?}");
        self.event_log.record(self.now, who, "takes", &event);
        for effect in &effects {
            self.event_log.record(self.now, who, "wants", effect);
        }
        let result = self.write_model.observe(Address { node, role }, &event, &effects);
        self.check_invariant("dots unique", result);
        self.watch_group(node, role, &event);
        self.observe(Observation::Handled {
            node,
            role,
            event: &event,
            effects: &effects,
        });
        for effect in effects {
            self.perform(node, role, effect);
        }
    }

    /// Updates the log model with the committed entries of a server.
    fn watch_group(&mut self, node: NodeId, role: RoleId, event: &Event) {
        if role == RoleId::Control {
            return self.watch_control(node);
        }
        let RoleId::Shard(group) = role else { return };
        if matches!(event, Event::Start) {
            self.log_models.restarted(group, node);
        }
        let mut log_models = std::mem::take(&mut self.log_models);
        if let Some(raft) = self.shard(node, group).and_then(Shard::raft) {
            let result = log_models.watch(group, node, raft);
            self.check_invariant("state machine safety", result);
        }
        self.log_models = log_models;
    }

    fn watch_control(&mut self, node: NodeId) {
        let mut log_model = std::mem::take(&mut self.control_log_model);
        if let Some(raft) = self.control(node).and_then(|control| control.raft()) {
            let result = log_model.watch(raft);
            self.check_invariant("state machine safety", result);
        }
        self.control_log_model = log_model;
    }

    fn perform(&mut self, node: NodeId, role: RoleId, effect: Effect) {
        match effect {
            Effect::Send { to, header, message } if to.node == node => {
                let from = Address { node, role };
                let delay = self.mail_time();
                self.mail(
                    node,
                    to.role,
                    Event::Message {
                        from,
                        header,
                        message,
                    },
                    delay,
                );
            }
            Effect::Send { to, header, message } => {
                let envelope = Envelope {
                    from: role,
                    to: to.role,
                    header,
                    message,
                };
                self.link_event(node, to.node, LinkEvent::Enqueue(vec![envelope]));
            }
            Effect::SendLocal { to, header, message } => {
                let delay = self.mail_time();
                let event = Event::Local {
                    from: role,
                    header,
                    message,
                };
                self.mail(node, to, event, delay);
            }
            Effect::EndTurn => {
                let delay = self.mail_time();
                self.mail(node, role, Event::TurnEnded, delay);
            }
            Effect::Reply { client, response } => self.reply(node, client, response),
            Effect::Persist { token, priority, ops } => {
                let owner = self.process_mut(node).roles[&role].instance;
                let machine = self.machines.get_mut(&node).expect("the node exists");
                machine.disk.submit(Request {
                    owner,
                    token,
                    priority,
                    ops,
                });
                self.begin_commit(node);
            }
            Effect::ApplyRows { token, writes } => {
                let owner = self.process_mut(node).roles[&role].instance;
                let machine = self.machines.get_mut(&node).expect("the node exists");
                machine.disk.apply_rows(owner, token, writes);
            }
            Effect::Read { token, query } => self.read(node, role, token, query),
            Effect::Files { token, task } => {
                let process = self.process_mut(node);
                let (boot, instance) = (process.boot, process.roles[&role].instance);
                let owner = task.owner();
                let machine = self.machines.get_mut(&node).expect("the node exists");
                if let Some(time) = machine.disk.ask_files(instance, token, task) {
                    self.queue
                        .push(self.now + time, QueuedEvent::Files { node, boot, owner });
                }
            }
            Effect::SetTimer { id, at } => self.set_role_timer(node, role, id, at),
            Effect::Reconcile(specs) => self.reconcile(node, specs),
            Effect::Relay {
                to,
                client,
                header,
                request,
            } => {
                let delay = self.mail_time();
                let event = Event::Request {
                    client,
                    header,
                    request,
                };
                self.mail(node, to, event, delay);
            }
            // Telemetry; all of it is in the event log.
            Effect::Emit(_) | Effect::Span(_) | Effect::Measure(_) | Effect::Group(_) => {}
        }
    }

    // ---- instances ----

    /// Reconciles the role instances with the specs of the node role.
    fn reconcile(&mut self, node: NodeId, specs: Vec<Spec>) {
        let current = std::mem::replace(&mut self.process_mut(node).specs, specs.clone());
        let stays = |spec: &Spec| specs.iter().any(|wanted| wanted.is_same(spec));
        for spec in current.iter().filter(|spec| !stays(spec)) {
            if let Spec::Quorum(keyspace) | Spec::Consensus(keyspace) = spec {
                self.gone.insert(keyspace.id);
            }
            for role in roles_of(spec) {
                self.deliver(node, role, Event::Dropped);
                if let Some(host) = self.process_mut(node).roles.remove(&role) {
                    let recording = host.hosted.into_recording();
                    self.recordings
                        .instances
                        .extend(recording.map(|recording| (node, role, recording)));
                }
            }
        }
        let is_there = |spec: &Spec| current.iter().any(|existing| existing.is_same(spec));
        for spec in specs.iter().filter(|spec| !is_there(spec)) {
            let created = Instance::create(spec, &self.surroundings(node));
            for (role, instance) in
                created.expect("a keyspace was checked against the topology when it was created")
            {
                self.create(node, role, instance);
            }
            if let Spec::Quorum(keyspace) | Spec::Consensus(keyspace) = spec
                && !self.served.contains_key(&keyspace.id)
            {
                let preference = self.placement.preference(keyspace.settings.replicas);
                let preference = preference.expect("its instances were created with the same");
                self.served.insert(
                    keyspace.id,
                    Served {
                        keyspace: keyspace.clone(),
                        preference,
                    },
                );
            }
        }
    }

    // ---- timers ----

    fn set_role_timer(&mut self, node: NodeId, role: RoleId, timer: u64, at: Instant) {
        let process = self.process_mut(node);
        let set = process.next_set();
        let boot = process.boot;
        let Some(host) = process.roles.get_mut(&role) else {
            return;
        };
        host.timers.insert(timer, (set, at));
        let instance = host.instance;
        self.await_role_timer(node, at, boot, instance, timer, set);
    }

    fn await_role_timer(
        &mut self,
        node: NodeId,
        due: Instant,
        boot: BootId,
        instance: u32,
        timer: u64,
        set: u64,
    ) {
        if let Some(at) = self.when(node, due) {
            self.queue.push(
                at,
                QueuedEvent::RoleTimer {
                    node,
                    boot,
                    instance,
                    timer,
                    set,
                },
            );
        }
    }

    pub(super) fn role_timer(&mut self, node: NodeId, boot: BootId, instance: u32, timer: u64, set: u64) {
        if !self.is_running(node, boot) {
            return;
        }
        let process = self.process_mut(node);
        let Some(role) = process.role_of(instance) else {
            return;
        };
        let timers = &mut process.roles.get_mut(&role).expect("just found").timers;
        let Some(&(current, due)) = timers.get(&timer).filter(|(current, _)| *current == set) else {
            return;
        };
        if !self.is_due(node, due) {
            return self.await_role_timer(node, due, boot, instance, timer, current);
        }
        let host = self.process_mut(node).roles.get_mut(&role).expect("just found");
        host.timers.remove(&timer);
        self.deliver(node, role, Event::Timer { id: timer });
    }

    // ---- the disk ----

    /// Answers from the durable state at some moment between now and the response.
    fn read(&mut self, node: NodeId, role: RoleId, token: u64, query: Query) {
        let early = self.rng.chance(0.5);
        let process = self.process_mut(node);
        let (boot, instance) = (process.boot, process.roles[&role].instance);
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let delay = machine.disk.read_time();
        if early {
            let result = machine.disk.read(&query);
            self.mail(node, role, Event::Read { token, result }, delay);
        } else {
            self.queue.push(
                self.now + delay,
                QueuedEvent::Read {
                    node,
                    boot,
                    instance,
                    token,
                    query,
                },
            );
        }
    }

    pub(super) fn read_done(&mut self, node: NodeId, boot: BootId, instance: u32, token: u64, query: &Query) {
        if self.is_running(node, boot)
            && let Some(role) = self.process_mut(node).role_of(instance)
        {
            let result = self.machines[&node].disk.read(query);
            self.deliver(node, role, Event::Read { token, result });
        }
    }

    pub(super) fn files_step(&mut self, node: NodeId, boot: BootId, owner: u64) {
        if !self.is_running(node, boot) {
            return;
        }
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let FilesStep {
            answer,
            flushed,
            next,
        } = machine.disk.files_step(owner);
        self.mail_flushed(node, flushed);
        if let Some((instance, token, result)) = answer
            && let Some(role) = self.process_mut(node).role_of(instance)
        {
            self.mail(node, role, Event::Files { token, result }, Duration::ZERO);
        }
        if let Some(time) = next {
            self.queue
                .push(self.now + time, QueuedEvent::Files { node, boot, owner });
        }
    }

    fn mail_flushed(&mut self, node: NodeId, flushed: Vec<Flushed>) {
        for Flushed { owner, tokens } in flushed {
            if let Some(role) = self.process_mut(node).role_of(owner) {
                self.mail(node, role, Event::Flushed { tokens }, Duration::ZERO);
            }
        }
    }

    /// Starts a commit of the pending requests.
    fn begin_commit(&mut self, node: NodeId) {
        let boot = self.process_mut(node).boot;
        loop {
            let machine = self.machines.get_mut(&node).expect("the node exists");
            match machine.disk.begin() {
                Begun::Nothing => return,
                Begun::Syncing(time) => {
                    return self
                        .queue
                        .push(self.now + time, QueuedEvent::Synced { node, boot });
                }
                Begun::Refused(completions) => self.complete_commits(node, completions),
            }
        }
    }

    pub(super) fn synced(&mut self, node: NodeId, boot: BootId) {
        if !self.is_running(node, boot) {
            return;
        }
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let (completions, changes) = machine.disk.synced();
        self.observe(Observation::Committed {
            node,
            changes: &changes,
        });
        self.complete_commits(node, completions);
        let machine = self.machines.get_mut(&node).expect("the node exists");
        let flushed = machine.disk.apply();
        self.mail_flushed(node, flushed);
        self.begin_commit(node);
    }

    fn complete_commits(&mut self, node: NodeId, completions: Vec<Completion>) {
        for Completion {
            owner,
            tokens,
            outcome,
        } in completions
        {
            let Some(role) = self.process_mut(node).role_of(owner) else {
                continue;
            };
            match outcome {
                Outcome::Durable => self.mail(node, role, Event::Persisted { tokens }, Duration::ZERO),
                Outcome::Full => {
                    for token in tokens {
                        self.mail(node, role, Event::PersistRefused { token }, Duration::ZERO);
                    }
                }
            }
        }
    }
}

/// The role instances of a spec.
fn roles_of(spec: &Spec) -> Vec<RoleId> {
    match spec {
        Spec::Control => vec![RoleId::Control],
        Spec::Quorum(keyspace) => vec![RoleId::Replica(keyspace.id), RoleId::Coordinator(keyspace.id)],
        Spec::Consensus(keyspace) => {
            let shards = keyspace.groups.iter().map(|group| RoleId::Shard(group.id));
            shards.chain([RoleId::Forwarder(keyspace.id)]).collect()
        }
    }
}
