//! Applies the faults of the schedule to the world.

use std::time::Duration;

use quorate_consensus::shard::Shard;
use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;
use quorate_protocol::role::{Event, RoleId};
use quorate_raft::Raft;
use quorate_raft::types::GroupId;
use quorate_roles::Instance;
use quorate_versions::KeyState;

use super::World;
use crate::disk::DiskConditions;
use crate::network::{Conditions, Endpoint, Host, MessageFaults};
use crate::record::Hosted;
use crate::rng::Delay;
use crate::schedule::{Fault, Stop};

impl World {
    /// Applies a fault now.
    pub fn apply(&mut self, fault: Fault) {
        self.event_log.record(self.now, "world", "fault", &fault);
        match fault {
            Fault::Crash { node, stop } => self.crash(node, stop),
            Fault::Blackout => {
                for node in self.nodes() {
                    self.crash(node, Stop::PowerCut);
                }
            }
            Fault::Restart(node) => self.start_node(node),
            Fault::Pause(node) => self.pause(node),
            Fault::Resume(node) => self.resume(node),
            Fault::Block { from, to, both_ways } => {
                for &a in &from {
                    for &b in &to {
                        let (a, b) = (Endpoint::Node(a), Endpoint::Node(b));
                        self.block(a, b);
                        if both_ways {
                            self.block(b, a);
                        }
                    }
                }
            }
            Fault::IsolateLeader => {
                if let Some(leader) = self.busiest_leader() {
                    for other in self.nodes().filter(|other| *other != leader) {
                        self.block(Endpoint::Node(leader), Endpoint::Node(other));
                        self.block(Endpoint::Node(other), Endpoint::Node(leader));
                    }
                }
            }
            Fault::HideFromClients(node) => {
                for client in 0..self.config.clients {
                    let (client, node) = (Endpoint::Client(client), Endpoint::Node(node));
                    self.block(client, node);
                    self.block(node, client);
                }
            }
            Fault::Degrade {
                from,
                to,
                delay_micros,
                loss_percent,
            } => {
                self.change_path(Endpoint::Node(from), Endpoint::Node(to), |path| {
                    path.delay = Delay::uniform(path.delay.least, Duration::from_micros(delay_micros));
                    path.loss = f64::from(loss_percent) / 100.0;
                });
            }
            Fault::HealNetwork => self.with_network(|network, now, flights| network.heal(now, flights)),
            Fault::CutConnections => self.cut_connections(),
            Fault::SlowDisk { node, sync_micros } => {
                self.change_disk(node, |disk| disk.sync.most = Duration::from_micros(sync_micros));
            }
            Fault::FullDisk(node) => self.change_disk(node, |disk| disk.full = true),
            Fault::FullLeader { control } => {
                let leader = match control {
                    true => self.control_leader(),
                    false => self.busiest_leader(),
                };
                if let Some(leader) = leader {
                    self.change_disk(leader, |disk| disk.full = true);
                }
            }
            Fault::HealDisks => {
                for node in self.nodes() {
                    self.change_disk(node, |disk| *disk = DiskConditions::default());
                }
            }
            Fault::HealDisk(node) => self.change_disk(node, |disk| *disk = DiskConditions::default()),
            Fault::CorruptRecord(node) => self.corrupt_record(node),
            Fault::Skew { node, micros } => {
                self.machines.get_mut(&node).expect("the node exists").skew_micros = micros;
            }
            Fault::Drift { node, percent } => self.drift(node, percent),
            Fault::MessageFaults { percent, late_micros } => {
                let often = f64::from(percent) / 100.0;
                let held_for = Duration::from_micros(late_micros);
                self.message_faults = MessageFaults {
                    loss: often / 2.0,
                    repetition: often,
                    reordering: often * 2.0,
                    held_for,
                };
            }
            Fault::HealAll => self.heal_all(),
        }
    }

    fn crash(&mut self, node: NodeId, stop: Stop) {
        if self.config.bugs.has(Bug::RestartedInPlace) && stop == Stop::Killed && self.is_up(node) {
            return self.restart_shards_in_place(node);
        }
        if self.end_process(node) {
            let host = match stop {
                Stop::Killed => Host::Refusing,
                Stop::PowerCut => Host::Silent,
            };
            self.with_network(|network, now, flights| {
                network.set_host(now, Endpoint::Node(node), host, flights)
            });
        }
    }

    /// A deliberate bug: failed servers are restarted in the same process, while the disk still performs writes of the old
    /// ones, whose completions are delivered to the new ones.
    fn restart_shards_in_place(&mut self, node: NodeId) {
        let surroundings = self.surroundings(node);
        for spec in self.process_mut(node).specs.clone() {
            let created = Instance::create(&spec, &surroundings).expect("it was created before");
            for (role, instance) in created {
                let seed = self.rng.number();
                if matches!(role, RoleId::Shard(_))
                    && let Some(host) = self.process_mut(node).roles.get_mut(&role)
                {
                    host.hosted = Hosted::new(instance, seed, false);
                    host.timers.clear();
                    self.deliver(node, role, Event::Start);
                }
            }
        }
    }

    fn pause(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("the node exists");
        if machine.process.is_some() {
            machine.paused.get_or_insert_default();
        }
    }

    fn resume(&mut self, node: NodeId) {
        let missed = self
            .machines
            .get_mut(&node)
            .expect("the node exists")
            .paused
            .take();
        for event in missed.into_iter().flatten() {
            self.queue.push(self.now, event);
        }
    }

    fn block(&mut self, from: Endpoint, to: Endpoint) {
        self.change_path(from, to, |path| path.blocked = true);
    }

    /// The node that leads the most groups of consensus keyspaces, if any.
    fn busiest_leader(&self) -> Option<NodeId> {
        let leads = |node: NodeId, group: GroupId| {
            let raft = self.shard(node, group).and_then(Shard::raft);
            raft.is_some_and(Raft::is_leader)
        };
        let led = |node: &NodeId| self.groups().filter(|(_, group)| leads(*node, group.id)).count();
        self.nodes().filter(|node| led(node) > 0).max_by_key(led)
    }

    /// The leader of the control plane, if any.
    fn control_leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| {
            let raft = self.control(*node).and_then(|control| control.raft());
            raft.is_some_and(Raft::is_leader)
        };
        self.nodes().find(leads)
    }

    fn change_path(&mut self, from: Endpoint, to: Endpoint, change: impl FnOnce(&mut Conditions)) {
        let path = (from, to);
        let mut conditions = self.network.conditions(from, to);
        change(&mut conditions);
        self.with_network(|network, now, flights| network.set_conditions(now, path, conditions, flights));
    }

    fn change_disk(&mut self, node: NodeId, change: impl FnOnce(&mut DiskConditions)) {
        let disk = &mut self.machines.get_mut(&node).expect("the node exists").disk;
        let mut conditions = disk.conditions();
        change(&mut conditions);
        disk.set_conditions(conditions);
    }

    fn corrupt_record(&mut self, node: NodeId) {
        let Some((keyspace, key)) = self
            .machines
            .get_mut(&node)
            .and_then(|machine| machine.disk.corrupt_record())
        else {
            return;
        };
        self.corrupted = true;
        let others = self.owners(keyspace, &key).iter().filter(|owner| **owner != node);
        let left = others.fold(KeyState::default(), |left, owner| {
            left.merge(&self.durable(*owner, keyspace, &key))
        });
        self.write_model.forfeit(keyspace, &key, left.clock());
    }

    /// Breaks half of all connections.
    fn cut_connections(&mut self) {
        for node in self.nodes() {
            for (session, _) in self.network.sessions_of(Endpoint::Node(node)) {
                if self.rng.chance(0.5) {
                    self.with_network(|network, now, flights| network.cut(now, session, flights));
                }
            }
        }
    }

    fn heal_all(&mut self) {
        self.message_faults = MessageFaults::default();
        self.with_network(|network, now, flights| network.heal(now, flights));
        for node in self.nodes() {
            let machine = self.machines.get_mut(&node).expect("the node exists");
            machine.skew_micros = 0;
            machine.disk.set_conditions(DiskConditions::default());
            self.drift(node, 0);
            self.resume(node);
            self.start_node(node);
        }
    }
}
