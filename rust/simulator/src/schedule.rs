//! The nemesis: a seeded schedule of faults that ends with all faults healed.

use std::time::Duration;

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::rng::SimRng;

/// How a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The process dies (SIGKILL, a panic); its host keeps running and closes its connections.
    Killed,
    /// The host loses power; its peers are not notified.
    PowerCut,
}

/// A fault, or its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A node stops. Unfinished disk operations may be lost.
    Crash {
        /// The node.
        node: NodeId,
        /// How it stops.
        stop: Stop,
    },
    /// All nodes lose power at the same instant.
    Blackout,
    /// A stopped node restarts.
    Restart(NodeId),
    /// A node is paused (SIGSTOP, a long page fault, a busy hypervisor): it keeps its memory and misses its timers.
    Pause(NodeId),
    /// A paused node resumes, and receives all missed events at once.
    Resume(NodeId),
    /// A partition: blocks the paths from some nodes to others.
    Block {
        /// From.
        from: Vec<NodeId>,
        /// To.
        to: Vec<NodeId>,
        /// Whether the other direction is blocked too.
        both_ways: bool,
    },
    /// Partitions the node that leads the most groups from all other nodes. Clients can still reach it, and for a while it does
    /// not know that it was deposed.
    IsolateLeader,
    /// Blocks all paths between a node and the clients.
    HideFromClients(NodeId),
    /// Makes a path between two nodes slow and lossy, in one direction.
    Degrade {
        /// From.
        from: NodeId,
        /// To.
        to: NodeId,
        /// The maximum delay in microseconds.
        delay_micros: u64,
        /// The packet loss in percent.
        loss_percent: u8,
    },
    /// Heals all paths.
    HealNetwork,
    /// Breaks connections between nodes and of clients.
    CutConnections,
    /// Slows down the commits of a disk.
    SlowDisk {
        /// The node.
        node: NodeId,
        /// The maximum duration of a commit in microseconds.
        sync_micros: u64,
    },
    /// Fills a disk.
    FullDisk(NodeId),
    /// Fills the disk of a leader: of the node that leads the most groups, or of the leader of the control plane.
    FullLeader {
        /// Whether to choose the leader of the control plane.
        control: bool,
    },
    /// Heals a disk.
    HealDisk(NodeId),
    /// Heals all disks.
    HealDisks,
    /// Corrupts a record on a disk.
    CorruptRecord(NodeId),
    /// Skews a wall clock.
    Skew {
        /// The node.
        node: NodeId,
        /// The skew in microseconds, ahead if positive.
        micros: i64,
    },
    /// Makes a monotonic clock run fast or slow.
    Drift {
        /// The node.
        node: NodeId,
        /// How much faster, in percent; slower if negative.
        percent: i8,
    },
    /// Drops, duplicates and delays single messages between nodes.
    MessageFaults {
        /// The probability in percent.
        percent: u8,
        /// The maximum delay in microseconds.
        late_micros: u64,
    },
    /// Heals all faults: stopped nodes start, clocks are correct, paths and disks are healthy.
    HealAll,
}

/// Faults by their time since the start of the nemesis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// In order.
    pub faults: Vec<(Duration, Fault)>,
}

impl Schedule {
    /// The schedule of a seed for these nodes, which lasts `length` and ends with [`Fault::HealAll`].
    pub fn seeded(seed: u64, nodes: &[NodeId], length: Duration) -> Self {
        let mut planner = Planner {
            rng: SimRng::named(seed, "schedule"),
            nodes: nodes.to_vec(),
            corrupted_node: None,
            faults: Vec::new(),
        };
        // Without another copy a record cannot be repaired.
        if nodes.len() > 1 && planner.rng.chance(0.3) {
            planner.corrupted_node = Some(*planner.rng.pick(nodes));
        }
        // The rate of faults varies between runs: some bugs need many faults, others a single one.
        let pause = *planner.rng.pick(&[200, 500, 1_000, 2_500]);
        let mut at = planner.rng.between(Duration::ZERO, Duration::from_millis(500));
        while at < length {
            planner.episode(at, length);
            at += planner
                .rng
                .between(Duration::from_millis(pause / 4), Duration::from_millis(pause * 2));
        }
        // From its own source, so that the rest of a seed's schedule does not change.
        planner.rng = SimRng::named(seed, "full disks");
        if planner.rng.chance(0.4) {
            planner.full_disks(length);
        }
        let mut faults = planner.faults;
        faults.retain(|(at, _)| *at < length);
        faults.sort_by_key(|(at, _)| *at);
        faults.push((length, Fault::HealAll));
        Schedule { faults }
    }
}

struct Planner {
    rng: SimRng,
    nodes: Vec<NodeId>,
    /// The node whose disk is corrupted. At most one: a write whose copies are all corrupt is lost.
    corrupted_node: Option<NodeId>,
    faults: Vec<(Duration, Fault)>,
}

impl Planner {
    /// A fault at `at`, which is healed later.
    fn episode(&mut self, at: Duration, length: Duration) {
        let shortest = Duration::from_millis(20);
        let end = at
            + self.rng.between(
                shortest,
                *self.rng.clone().pick(&[shortest * 5, shortest * 50, length / 4]),
            );
        let node = *self.rng.pick(&self.nodes);
        match self.rng.below(18) {
            0..=3 => self.crash(at, end, node),
            4 => {
                self.faults.push((at, Fault::Blackout));
                for node in self.nodes.clone() {
                    let back = self.rng.between(shortest, shortest * 20);
                    self.faults.push((at + back, Fault::Restart(node)));
                }
            }
            5 | 6 => self.partition(at, end),
            7 => self.degrade(at, end),
            8 => self.faults.push((at, Fault::CutConnections)),
            14 => self
                .faults
                .extend(self.corrupted_node.map(|node| (at, Fault::CorruptRecord(node)))),
            13 => {
                self.faults.push((at, Fault::HideFromClients(node)));
                self.faults.push((end, Fault::HealNetwork));
            }
            9 => {
                self.faults.push((at, Fault::Pause(node)));
                self.faults.push((end, Fault::Resume(node)));
            }
            10 => {
                let sync_micros = *self.rng.pick(&[10_000, 100_000, 1_000_000]);
                self.faults.push((at, Fault::SlowDisk { node, sync_micros }));
                self.faults.push((end, Fault::HealDisk(node)));
            }
            11 => {
                self.faults.push((at, Fault::FullDisk(node)));
                self.faults.push((end, Fault::HealDisk(node)));
            }
            12 => {
                // The largest skew makes the logged time of groups exceed the idle timeout of sessions.
                let span = *self.rng.pick(&[100_000, 1_000_000, 120_000_000]);
                let micros = self.rng.below(2 * span) as i64 - span as i64;
                self.faults.push((at, Fault::Skew { node, micros }));
            }
            15 => {
                let percent = *self.rng.pick(&[-20, -10, -5, 5, 10, 20]);
                self.faults.push((at, Fault::Drift { node, percent }));
                self.faults.push((end, Fault::Drift { node, percent: 0 }));
            }
            16 => {
                self.faults.push((at, Fault::IsolateLeader));
                self.faults.push((end, Fault::HealNetwork));
            }
            _ => {
                let percent = *self.rng.pick(&[1, 5, 20]);
                let late_micros = *self.rng.pick(&[1_000, 50_000, 1_000_000]);
                self.message_faults(at, end, (percent, late_micros));
            }
        }
    }

    /// Fills leaders' disks repeatedly, sometimes with message faults: a rejected write must not take effect, and a write that
    /// was already sent must not be reported as rejected.
    fn full_disks(&mut self, length: Duration) {
        let mut at = self.rng.between(Duration::ZERO, Duration::from_secs(1));
        while at < length {
            let end = at
                + self
                    .rng
                    .between(Duration::from_millis(20), Duration::from_millis(1_500));
            let control = self.rng.chance(0.3);
            self.faults.push((at, Fault::FullLeader { control }));
            self.faults.push((end, Fault::HealDisks));
            if self.rng.chance(0.7) {
                // Delays long enough that a rejection and its request overtake each other.
                let late_micros = *self.rng.pick(&[50_000, 1_000_000]);
                self.message_faults(at, end, (20, late_micros));
            }
            at = end
                + self
                    .rng
                    .between(Duration::from_millis(100), Duration::from_secs(2));
        }
    }

    /// Drops, duplicates and delays single messages.
    fn message_faults(&mut self, at: Duration, end: Duration, (percent, late_micros): (u8, u64)) {
        self.faults
            .push((at, Fault::MessageFaults { percent, late_micros }));
        self.faults.push((
            end,
            Fault::MessageFaults {
                percent: 0,
                late_micros: 0,
            },
        ));
    }

    fn crash(&mut self, at: Duration, end: Duration, node: NodeId) {
        let stop = *self.rng.pick(&[Stop::Killed, Stop::Killed, Stop::PowerCut]);
        self.faults.push((at, Fault::Crash { node, stop }));
        self.faults.push((end, Fault::Restart(node)));
    }

    fn partition(&mut self, at: Duration, end: Duration) {
        let mut nodes = self.nodes.clone();
        self.rng.shuffle(&mut nodes);
        let cut = 1 + self.rng.below(nodes.len().max(2) as u64 - 1) as usize;
        let to = nodes.split_off(cut.min(nodes.len()));
        let both_ways = self.rng.chance(0.7);
        self.faults.push((
            at,
            Fault::Block {
                from: nodes,
                to,
                both_ways,
            },
        ));
        self.faults.push((end, Fault::HealNetwork));
    }

    fn degrade(&mut self, at: Duration, end: Duration) {
        for _ in 0..=self.rng.below(4) {
            let from = *self.rng.pick(&self.nodes);
            let to = *self.rng.pick(&self.nodes);
            let delay_micros = *self.rng.pick(&[5_000, 50_000, 500_000]);
            let loss_percent = *self.rng.pick(&[0, 2, 20]);
            self.faults.push((
                at,
                Fault::Degrade {
                    from,
                    to,
                    delay_micros,
                    loss_percent,
                },
            ));
        }
        self.faults.push((end, Fault::HealNetwork));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Schedule {
        Schedule::seeded(seed, &[NodeId(1), NodeId(2), NodeId(3)], Duration::from_secs(10))
    }

    #[test]
    fn a_seed_determines_the_schedule_which_ends_healed() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        for seed in 0..50 {
            let faults = plan(seed).faults;
            assert!(faults.is_sorted_by_key(|(at, _)| *at));
            assert_eq!(faults.last(), Some(&(Duration::from_secs(10), Fault::HealAll)));
        }
    }

    #[test]
    fn every_kind_of_fault_occurs_within_a_few_seeds() {
        let mut kinds = std::collections::BTreeSet::new();
        for (_, fault) in (0..20).flat_map(|seed| plan(seed).faults) {
            kinds.insert(format!("{fault:?}").split([' ', '(']).next().map(str::to_owned));
        }
        assert_eq!(kinds.len(), 21, "{kinds:?}");
    }
}
