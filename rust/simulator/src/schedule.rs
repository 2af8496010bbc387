//! What goes wrong, and when: a seeded programme of faults that ends with everything healed.

use std::time::Duration;

use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::rng::SimRng;

/// How a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The program dies (SIGKILL, a panic); its host goes on and tells its peers.
    Killed,
    /// The host loses its power; nobody is told.
    PowerCut,
}

/// One thing that goes wrong, or right again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A node stops. What its disk had not finished may be lost.
    Crash {
        /// Which.
        node: NodeId,
        /// How.
        stop: Stop,
    },
    /// All nodes lose their power in the same instant.
    Blackout,
    /// A stopped node starts again.
    Restart(NodeId),
    /// A node stands still (SIGSTOP, a long page fault, a busy hypervisor): it keeps its memory and misses its timers.
    Pause(NodeId),
    /// It goes on, and all that was meant for it comes at once.
    Resume(NodeId),
    /// Nothing gets from any of these nodes to any of those.
    Block {
        /// From.
        from: Vec<NodeId>,
        /// To.
        to: Vec<NodeId>,
        /// In the other direction neither.
        both_ways: bool,
    },
    /// Nothing gets through between the node that leads the most groups at this moment and any other node. Clients reach it as
    /// before, and for a while it does not know that it leads nobody any more.
    IsolateLeader,
    /// Nothing gets through between a node and any client.
    HideFromClients(NodeId),
    /// A path between two nodes, in one direction, is slow and loses packets.
    Degrade {
        /// From.
        from: NodeId,
        /// To.
        to: NodeId,
        /// The longest delay in microseconds.
        delay_micros: u64,
        /// How often a packet has to be sent again, in percent.
        loss_percent: u8,
    },
    /// All paths are as they should be.
    HealNetwork,
    /// Connections break: those between nodes and those of clients.
    CutConnections,
    /// A disk takes this long for a commit.
    SlowDisk {
        /// Whose.
        node: NodeId,
        /// The longest commit in microseconds.
        sync_micros: u64,
    },
    /// A disk has no space left.
    FullDisk(NodeId),
    /// The disk of a leader has no space left: of the node that leads the most groups at this moment, or the control plane.
    FullLeader {
        /// Which of the two.
        control: bool,
    },
    /// A disk is as it should be.
    HealDisk(NodeId),
    /// All disks are.
    HealDisks,
    /// A record on a disk rots and cannot be read any more.
    Rot(NodeId),
    /// A wall clock is wrong by so much.
    Skew {
        /// Whose.
        node: NodeId,
        /// In microseconds, ahead if positive.
        micros: i64,
    },
    /// A monotonic clock goes faster or slower than time does.
    Drift {
        /// Whose.
        node: NodeId,
        /// How much faster, in percent; slower if negative.
        percent: i8,
    },
    /// Single messages between nodes get lost, come twice, or late.
    MessageFaults {
        /// How often, in percent.
        percent: u8,
        /// The latest, in microseconds.
        late_micros: u64,
    },
    /// Everything above is over: stopped nodes start, clocks are right, paths and disks are as they should be.
    HealAll,
}

/// Faults by the time at which they come, counted from the beginning of the trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// In order.
    pub faults: Vec<(Duration, Fault)>,
}

impl Schedule {
    /// A programme for these nodes that lasts `length` and ends with [`Fault::HealAll`].
    pub fn seeded(seed: u64, nodes: &[NodeId], length: Duration) -> Self {
        let mut planner = Planner {
            rng: SimRng::named(seed, "schedule"),
            nodes: nodes.to_vec(),
            rotting: None,
            faults: Vec::new(),
        };
        // Without another copy there is nothing to heal a record with.
        if nodes.len() > 1 && planner.rng.chance(0.3) {
            planner.rotting = Some(*planner.rng.pick(nodes));
        }
        // Some runs are calmer than others: bugs hide both in storms and in the calm after a single gust.
        let pause = *planner.rng.pick(&[200, 500, 1_000, 2_500]);
        let mut at = planner.rng.between(Duration::ZERO, Duration::from_millis(500));
        while at < length {
            planner.episode(at, length);
            at += planner
                .rng
                .between(Duration::from_millis(pause / 4), Duration::from_millis(pause * 2));
        }
        // From a source of its own, so that the rest of a seed's programme stays what it was.
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
    /// The node whose disk rots. One at most: what rots on as many disks as a write has copies is gone.
    rotting: Option<NodeId>,
    faults: Vec<(Duration, Fault)>,
}

impl Planner {
    /// Something goes wrong at `at`, and right again some time later.
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
                .extend(self.rotting.map(|node| (at, Fault::Rot(node)))),
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
                // The widest has the logs of groups jump over the time after which sessions expire.
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

    /// Leaders' disks fill up again and again, sometimes while messages go astray: what was refused must stay refused, and what
    /// has left already may not be called refused.
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
                // So late that a refusal and what it refuses meet again on the other side of either end.
                let late_micros = *self.rng.pick(&[50_000, 1_000_000]);
                self.message_faults(at, end, (20, late_micros));
            }
            at = end
                + self
                    .rng
                    .between(Duration::from_millis(100), Duration::from_secs(2));
        }
    }

    /// Single messages get lost, come twice, or late.
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
    fn the_seed_decides_and_everything_heals_at_last() {
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        for seed in 0..50 {
            let faults = plan(seed).faults;
            assert!(faults.is_sorted_by_key(|(at, _)| *at));
            assert_eq!(faults.last(), Some(&(Duration::from_secs(10), Fault::HealAll)));
        }
    }

    #[test]
    fn every_kind_of_fault_comes_up_within_a_few_seeds() {
        let mut kinds = std::collections::BTreeSet::new();
        for (_, fault) in (0..20).flat_map(|seed| plan(seed).faults) {
            kinds.insert(format!("{fault:?}").split([' ', '(']).next().map(str::to_owned));
        }
        assert_eq!(kinds.len(), 21, "{kinds:?}");
    }
}
