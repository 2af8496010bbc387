//! Fault injection: network faults that clients add for testing.
//!
//! A [`LinkFault`] defines an impairment between groups of nodes. All nodes get the same faults, and each applies them to
//! its own outgoing messages. So any node can list the active faults, and a client can restore the faults of a restarted
//! node from the others. Clients add and heal faults by id, so that two clients on the same cluster do not undo each
//! other's changes; a [`FaultSet`] is the state of a node.
//!
//! Faults are cumulative: a direction that one of them blocks is blocked until that one is healed, losses are
//! independent, and delays add up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

/// The maximum number of faults of a node.
pub const MAX_FAULTS: usize = 1024;
/// The maximum delay, and the maximum jitter.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);

/// All messages, in parts per million.
const ALL_PPM: u32 = 1_000_000;

/// The impairment of one direction between two nodes. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Impairment {
    /// All messages are lost.
    pub block: bool,
    /// The probability that a message is lost, in parts per million.
    pub loss_ppm: u32,
    /// The additional delay, in microseconds.
    pub delay_micros: u64,
    /// The maximum of a further random delay, in microseconds.
    pub jitter_micros: u64,
}

impl Impairment {
    /// Both combined.
    #[must_use]
    pub fn and(self, other: Impairment) -> Impairment {
        let kept = |impairment: Impairment| u64::from(ALL_PPM - impairment.loss_ppm.min(ALL_PPM));
        let kept = kept(self) * kept(other) / u64::from(ALL_PPM);
        Impairment {
            block: self.block || other.block,
            loss_ppm: ALL_PPM - kept as u32,
            delay_micros: self.delay_micros.saturating_add(other.delay_micros),
            jitter_micros: self.jitter_micros.saturating_add(other.jitter_micros),
        }
    }
}

/// `blocked`, `10 % lost`, `50 ms late`, …
impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |micros: u64| micros as f64 / 1e3;
        let mut parts = Vec::new();
        if self.block {
            parts.push("blocked".to_owned());
        }
        if self.loss_ppm > 0 {
            parts.push(format!("{} % lost", f64::from(self.loss_ppm) / 1e4));
        }
        if self.delay_micros > 0 || self.jitter_micros > 0 {
            parts.push(format!("{} ms late", milliseconds(self.delay_micros)));
        }
        if self.jitter_micros > 0 {
            parts.push(format!("jitter {} ms", milliseconds(self.jitter_micros)));
        }
        f.write_str(&parts.join(", "))
    }
}

/// An impairment between groups of nodes. Messages within a group, and of nodes in no group, are not affected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkFault {
    /// Chosen at random by the client that added it. Adding a fault with an existing id replaces that fault.
    pub id: u64,
    /// At least two groups.
    pub groups: Vec<Vec<NodeId>>,
    /// Only the direction from the first of two groups to the second is impaired.
    pub one_way: bool,
    /// The impairment between them.
    pub impairment: Impairment,
}

impl LinkFault {
    /// About how many bytes it takes in memory beside its own size; no fewer than on the wire.
    pub fn size(&self) -> usize {
        let nodes: usize = self.groups.iter().map(Vec::len).sum();
        size_of_val(&self.groups[..]) + nodes * 2 * size_of::<NodeId>()
    }

    /// Its impairment of the direction from one node to another.
    pub fn on(&self, from: NodeId, to: NodeId) -> Impairment {
        let group = |node| self.groups.iter().position(|group| group.contains(&node));
        match (group(from), group(to)) {
            (Some(0), Some(1)) => self.impairment,
            (Some(from), Some(to)) if from != to && !self.one_way => self.impairment,
            _ => Impairment::default(),
        }
    }

    /// Validates the fault for these members.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming what is invalid.
    pub fn check(&self, members: &BTreeSet<NodeId>) -> Result<(), Error> {
        let invalid = |what: String| Err(Error::invalid(format!("fault {self}: {what}")));
        if self.groups.len() < 2 || self.groups.iter().any(Vec::is_empty) {
            return invalid("name at least two groups of nodes, none of them empty".to_owned());
        }
        if self.one_way && self.groups.len() != 2 {
            return invalid("one way requires exactly two groups: from the first to the second".to_owned());
        }
        let mut seen = BTreeSet::new();
        for node in self.groups.iter().flatten() {
            if !members.contains(node) {
                return invalid(format!("{node} is not a member of this cluster"));
            }
            if !seen.insert(*node) {
                return invalid(format!("{node} is named twice: put it in one group"));
            }
        }
        let Impairment {
            block,
            loss_ppm,
            delay_micros,
            jitter_micros,
        } = self.impairment;
        if loss_ppm > ALL_PPM {
            return invalid("the loss is at most 100 %".to_owned());
        }
        if u128::from(delay_micros.max(jitter_micros)) > MAX_DELAY.as_micros() {
            return invalid(format!("delay and jitter are at most {} s", MAX_DELAY.as_secs()));
        }
        if !block && (loss_ppm, delay_micros, jitter_micros) == (0, 0, 0) {
            return invalid("no impairment: set a block, a loss or a delay".to_owned());
        }
        Ok(())
    }
}

/// `0000002a n1,n2 <-> n3 blocked`
impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |group: &Vec<NodeId>| {
            let names: Vec<String> = group.iter().map(NodeId::to_string).collect();
            names.join(",")
        };
        let groups: Vec<String> = self.groups.iter().map(group).collect();
        let arrow = if self.one_way { " -> " } else { " <-> " };
        write!(f, "{:08x} {} {}", self.id, groups.join(arrow), self.impairment)
    }
}

/// A change of the faults of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultChange {
    /// Add these.
    Add(Vec<LinkFault>),
    /// Remove the faults with these ids; unknown ids are ignored.
    Heal(Vec<u64>),
    /// Replace all faults by these.
    Replace(Vec<LinkFault>),
}

impl FaultChange {
    /// About how many bytes it takes in memory beside its own size; no fewer than on the wire.
    pub fn size(&self) -> usize {
        match self {
            FaultChange::Add(faults) | FaultChange::Replace(faults) => {
                faults.iter().map(LinkFault::size).sum::<usize>() + size_of_val(&faults[..])
            }
            FaultChange::Heal(ids) => ids.len() * 2 * size_of::<u64>(),
        }
    }
}

/// The active faults, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(BTreeMap<u64, LinkFault>);

impl FaultSet {
    /// The active faults, in the order of their ids.
    pub fn faults(&self) -> Vec<LinkFault> {
        self.0.values().cloned().collect()
    }

    /// The combined impairment of the direction from one node to another.
    pub fn on(&self, from: NodeId, to: NodeId) -> Impairment {
        self.0.values().fold(Impairment::default(), |impairment, fault| {
            impairment.and(fault.on(from, to))
        })
    }

    /// The set after a change, if the whole change is valid for these members.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] or [`Error::LimitExceeded`].
    pub fn changed(&self, change: FaultChange, members: &BTreeSet<NodeId>) -> Result<FaultSet, Error> {
        let (mut after, added) = match change {
            FaultChange::Add(faults) => (self.clone(), faults),
            FaultChange::Replace(faults) => (FaultSet::default(), faults),
            FaultChange::Heal(ids) => {
                let mut after = self.clone();
                after.0.retain(|id, _| !ids.contains(id));
                (after, Vec::new())
            }
        };
        for fault in added {
            fault.check(members)?;
            after.0.insert(fault.id, fault);
        }
        if after.0.len() > MAX_FAULTS {
            return Err(Error::LimitExceeded {
                what: "the number of faults".to_owned(),
                size: after.0.len() as u64,
                limit: MAX_FAULTS as u64,
                remedy: "heal some first".to_owned(),
            });
        }
        Ok(after)
    }

    /// The faults of this set that are missing or different in the other.
    pub fn difference<'a>(&'a self, other: &'a FaultSet) -> impl Iterator<Item = &'a LinkFault> {
        self.0
            .iter()
            .filter(|(id, fault)| other.0.get(id) != Some(fault))
            .map(|(_, fault)| fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKED: Impairment = Impairment {
        block: true,
        loss_ppm: 0,
        delay_micros: 0,
        jitter_micros: 0,
    };

    fn fault(id: u64, groups: &[&[u16]], one_way: bool, impairment: Impairment) -> LinkFault {
        let ids = |group: &&[u16]| group.iter().copied().map(NodeId).collect();
        LinkFault {
            id,
            groups: groups.iter().map(ids).collect(),
            one_way,
            impairment,
        }
    }

    fn members() -> BTreeSet<NodeId> {
        (1..=5).map(NodeId).collect()
    }

    fn blocked(set: &FaultSet) -> Vec<(u16, u16)> {
        let directions = (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to)));
        directions
            .filter(|(from, to)| set.on(NodeId(*from), NodeId(*to)).block)
            .collect()
    }

    fn set(faults: Vec<LinkFault>) -> FaultSet {
        FaultSet::default()
            .changed(FaultChange::Add(faults), &members())
            .unwrap()
    }

    #[test]
    fn only_directions_between_groups_are_impaired() {
        let both = set(vec![fault(1, &[&[1, 2], &[3]], false, BLOCKED)]);
        assert_eq!(blocked(&both), [(1, 3), (2, 3), (3, 1), (3, 2)]);
        let one_way = set(vec![fault(1, &[&[1, 2], &[3]], true, BLOCKED)]);
        assert_eq!(blocked(&one_way), [(1, 3), (2, 3)]);
        let three = set(vec![fault(1, &[&[1], &[2], &[3]], false, BLOCKED)]);
        assert_eq!(blocked(&three), [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]);
    }

    #[test]
    fn faults_are_cumulative_and_healed_one_by_one() {
        let impaired = |loss_ppm, delay_micros| Impairment {
            loss_ppm,
            delay_micros,
            ..Impairment::default()
        };
        let all = set(vec![
            fault(1, &[&[1], &[2]], false, BLOCKED),
            fault(2, &[&[1], &[2, 3]], false, BLOCKED),
            fault(3, &[&[1], &[2]], false, impaired(500_000, 100)),
            fault(4, &[&[1], &[2]], false, impaired(500_000, 50)),
        ]);
        let impairment = all.on(NodeId(1), NodeId(2));
        assert_eq!(
            (impairment.block, impairment.loss_ppm, impairment.delay_micros),
            (true, 750_000, 150)
        );
        let fewer = all.changed(FaultChange::Heal(vec![1, 99]), &members()).unwrap();
        assert!(
            fewer.on(NodeId(1), NodeId(2)).block,
            "the other one still blocks it"
        );
        assert_eq!(
            all.difference(&fewer).map(|fault| fault.id).collect::<Vec<_>>(),
            [1]
        );
        let none = fewer
            .changed(FaultChange::Replace(Vec::new()), &members())
            .unwrap();
        assert_eq!(none, FaultSet::default());
        let again = all.changed(FaultChange::Add(all.faults()), &members()).unwrap();
        assert_eq!(again, all, "a change is idempotent");
    }

    #[test]
    fn an_invalid_fault_is_rejected_with_a_reason() {
        for (fault, word) in [
            (fault(1, &[&[1]], false, BLOCKED), "two groups"),
            (fault(1, &[&[1], &[]], false, BLOCKED), "none of them empty"),
            (fault(1, &[&[1], &[2], &[3]], true, BLOCKED), "one way"),
            (fault(1, &[&[1], &[9]], false, BLOCKED), "n9 is not a member"),
            (fault(1, &[&[1], &[2, 1]], false, BLOCKED), "n1 is named twice"),
            (
                fault(1, &[&[1], &[2]], false, Impairment::default()),
                "no impairment",
            ),
            (
                fault(
                    1,
                    &[&[1], &[2]],
                    false,
                    Impairment {
                        loss_ppm: ALL_PPM + 1,
                        ..BLOCKED
                    },
                ),
                "at most 100 %",
            ),
            (
                fault(
                    1,
                    &[&[1], &[2]],
                    false,
                    Impairment {
                        jitter_micros: u64::MAX,
                        ..BLOCKED
                    },
                ),
                "at most 3600 s",
            ),
        ] {
            let rejected = FaultSet::default().changed(FaultChange::Add(vec![fault]), &members());
            let text = rejected.unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        let many = (0..=MAX_FAULTS as u64).map(|id| fault(id, &[&[1], &[2]], false, BLOCKED));
        let rejected = FaultSet::default().changed(FaultChange::Replace(many.collect()), &members());
        assert!(matches!(rejected, Err(Error::LimitExceeded { .. })));
    }

    #[test]
    fn faults_are_displayed() {
        let impairment = Impairment {
            block: false,
            loss_ppm: 25_000,
            delay_micros: 50_000,
            jitter_micros: 500,
        };
        let slow = fault(42, &[&[1, 2], &[3]], true, impairment);
        assert_eq!(
            slow.to_string(),
            "0000002a n1,n2 -> n3 2.5 % lost, 50 ms late, jitter 0.5 ms"
        );
        let cut = fault(42, &[&[1], &[3]], false, BLOCKED);
        assert_eq!(cut.to_string(), "0000002a n1 <-> n3 blocked");
    }
}
