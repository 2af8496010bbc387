//! Random faults, and the healing of them all at the end.

use std::time::Duration;

use quorate_checker::figure3::Verdict;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use quorate_protocol::api::Request;
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_testing::{Crash, Profile};
use rand_core::Rng as _;

use super::{Run, TIMEOUT};
use crate::shard::testing::{Consensus as _, KEYSPACE};

impl Run {
    pub(super) fn nemesis(&mut self) -> Verdict {
        match self.below(23) {
            0..5 => {
                let node = if self.below(2) == 0 {
                    self.leader()
                } else {
                    self.node()
                };
                self.crash(node);
            }
            5..11 => {
                let node = self.node();
                if !self.cluster.is_up(node) {
                    self.cluster.start(node);
                }
            }
            11 | 12 => {
                let lonely = self.leader();
                let one_way = self.below(3);
                // The others may notice at once, and elect another leader before this one knows.
                let noticed = self.below(2) == 0;
                for other in self.cluster.names().into_iter().filter(|node| *node != lonely) {
                    if noticed {
                        self.cluster.link(other, lonely, false);
                    }
                    if one_way != 1 {
                        self.cluster.cut.insert((lonely, other));
                    }
                    if one_way != 2 {
                        self.cluster.cut.insert((other, lonely));
                    }
                }
            }
            13..15 => self.cluster.cut.clear(),
            15 => {
                let (from, to, up) = (self.node(), self.node(), self.below(3) > 0);
                if from != to && (!up || self.cluster.is_up(to)) {
                    self.cluster.link(from, to, up);
                }
            }
            16 => {
                let (node, full) = (self.node(), self.below(2) == 0);
                self.cluster.node(node).disk.full = full;
            }
            17 => {
                let node = self.node();
                self.cluster.node(node).disk.full = false;
            }
            18 => {
                let (node, skew) = (self.node(), self.below(400_000) as i64 - 200_000);
                self.cluster.node(node).skew_micros = skew;
            }
            19 => {
                let node = self.node();
                self.cluster.refuse_newest(node);
            }
            20 => {
                let node = self.node();
                self.cluster.node(node).disk.held = true;
            }
            21 => {
                let node = self.node();
                self.cluster.release(node);
            }
            _ => {
                for node in self.cluster.names() {
                    for other in self.cluster.names() {
                        if node != other && self.cluster.is_up(other) {
                            self.cluster.link(node, other, true);
                        }
                    }
                }
            }
        }
        self.check()
    }

    /// A leader with uncommitted entries crashes; another member restarts in its place.
    pub(super) fn hunt(&mut self) -> Verdict {
        let groups = self.cluster.groups();
        let group = self.one_of(&groups);
        let caught = |node: &NodeId| {
            let raft = self.cluster.shard(*node, group).and_then(|shard| shard.raft());
            raft.is_some_and(|raft| raft.is_leader() && raft.log().commit() < raft.log().last().index)
        };
        let nodes = self.cluster.names();
        if let Some(leader) = nodes.iter().copied().find(caught) {
            let down: Vec<NodeId> = nodes
                .into_iter()
                .filter(|node| !self.cluster.is_up(*node))
                .collect();
            self.crash(leader);
            if !down.is_empty() {
                let back = self.one_of(&down);
                self.cluster.start(back);
            }
        }
        self.check()
    }

    fn crash(&mut self, node: NodeId) {
        if self.cluster.is_up(node) {
            let mut below = |bound: u64| (self.rng.next_u64() % bound) as usize;
            let crash = Crash {
                synced: below(3),
                torn: below(3),
                flushed: below(4),
            };
            self.invariants.crashed(node);
            self.cluster.crash(node, crash);
            let disk = &mut self.cluster.node(node).disk;
            (disk.full, disk.held) = (false, false);
        }
    }

    /// In a healthy group every member knows that its state is recent.
    fn track_staleness(&mut self) -> Verdict {
        for group in self.cluster.groups() {
            for node in self.cluster.names() {
                let Some(shard) = self.cluster.shard(node, group) else {
                    continue;
                };
                let age = shard.raft().zip(shard.applied());
                let age = age.and_then(|(raft, applied)| raft.age_micros(applied, Instant(self.cluster.now)));
                if age.is_none_or(|micros| micros > 40_000) {
                    return Err(format!(
                        "liveness: {node} does not report a recent state of {group} after healing: {age:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Heals all faults. Then every group must accept a command at every node, and its members must have
    /// equal rows.
    pub(super) fn heal(&mut self) -> Verdict {
        self.cluster.cut.clear();
        self.cluster.profile = Profile {
            disk: Some((50, 500)),
            flushing: Some((100, 5_000)),
            ..Profile::STEADY
        };
        for node in self.cluster.names() {
            self.cluster.node(node).disk.full = false;
            self.cluster.release(node);
            if !self.cluster.is_up(node) {
                self.cluster.start(node);
            }
        }
        for node in self.cluster.names() {
            for other in self.cluster.names() {
                if node != other {
                    self.cluster.link(node, other, true);
                }
            }
        }
        self.live(Duration::from_millis(1000))?;
        for group in self.cluster.groups() {
            for node in self.cluster.names() {
                let write = Write {
                    key: self.own_key(group),
                    value: Some(self.value()),
                    condition: Condition::Any,
                };
                let request = Request::Propose {
                    keyspace: KEYSPACE,
                    group,
                    command: Command::Write(vec![write]),
                    session: None,
                };
                let operation = self.cluster.operations + 1;
                let by = Instant(self.cluster.now) + TIMEOUT;
                self.invariants
                    .submitted(operation, node, request.clone(), group, by);
                self.cluster.ask(node, group, request, TIMEOUT);
                let done = self.invariants.done.0;
                self.live(Duration::from_millis(50))?;
                if self.invariants.done.0 <= done {
                    return Err(format!(
                        "liveness: {group} accepts no command at {node} after healing"
                    ));
                }
            }
        }
        self.live(Duration::from_millis(500))?;
        self.invariants.check_thoroughly(&self.cluster)?;
        self.invariants.end()?;
        self.track_staleness()?;
        for group in self.cluster.groups() {
            let applied = |node: &NodeId| {
                let shard = self.cluster.shard(*node, group)?;
                Some((*node, shard.applied()?.0, shard.in_progress()))
            };
            let nodes = self.cluster.names();
            let all: Vec<_> = nodes.iter().filter_map(applied).collect();
            let wanted = (self.invariants.committed(group), 0);
            if all
                .iter()
                .any(|(_, applied, pending)| (*applied, *pending) != wanted)
            {
                return Err(format!(
                    "liveness: {group} should reach {wanted:?} after healing, but: {all:?}"
                ));
            }
        }
        let forwarders = self
            .cluster
            .names()
            .into_iter()
            .filter_map(|node| self.cluster.forwarder(node));
        match forwarders.map(|forwarder| forwarder.in_progress()).sum() {
            0 => Ok(()),
            left => Err(format!("{left} leaked pending requests")),
        }
    }
}
