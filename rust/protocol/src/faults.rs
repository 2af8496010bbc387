//! Faults of the network that people make on purpose: a laboratory is for that.
//!
//! A [`LinkFault`] says what is wrong between groups of nodes, and says the same on every node: each takes from it what
//! concerns the messages that it sends itself. So any node can tell a client what is in force, and one that was restarted
//! and has forgotten can be told again by whoever asks the others. Clients add faults and heal them by their ids, so two
//! clients that break the same cluster do not undo what the other does; [`FaultSet`] is what a node keeps of it.
//!
//! Faults add up: a way that one of them blocks is blocked until that one is healed, losses are independent of each
//! other, and delays come one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

/// Faults that a node keeps, at most.
pub const MAX_FAULTS: usize = 1024;
/// The longest delay, and the longest jitter.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);

/// All messages, in parts per million.
const ALL_PPM: u32 = 1_000_000;

/// What is wrong with the way from one node to another. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Effect {
    /// Nothing passes.
    pub block: bool,
    /// How many of a million messages are lost.
    pub loss_ppm: u32,
    /// Everything arrives so many microseconds later.
    pub delay_micros: u64,
    /// And up to so many microseconds later still.
    pub jitter_micros: u64,
}

impl Effect {
    /// Both at once.
    #[must_use]
    pub fn and(self, other: Effect) -> Effect {
        let kept = |effect: Effect| u64::from(ALL_PPM - effect.loss_ppm.min(ALL_PPM));
        let kept = kept(self) * kept(other) / u64::from(ALL_PPM);
        Effect {
            block: self.block || other.block,
            loss_ppm: ALL_PPM - kept as u32,
            delay_micros: self.delay_micros.saturating_add(other.delay_micros),
            jitter_micros: self.jitter_micros.saturating_add(other.jitter_micros),
        }
    }
}

/// `blocked`, `10 % lost`, `50 ms late`, …
impl fmt::Display for Effect {
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

/// Something that is wrong between groups of nodes. Within a group, and with nodes that are in none, all is well.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkFault {
    /// Chosen at random by the client that made it. Adding a fault under an id that there is replaces it.
    pub id: u64,
    /// Two groups or more.
    pub groups: Vec<Vec<NodeId>>,
    /// Only the way from the first of two groups to the second is spoiled.
    pub one_way: bool,
    /// What is wrong between them.
    pub effect: Effect,
}

impl LinkFault {
    /// About how many bytes it takes in memory beside its own size; no fewer than on the wire.
    pub fn size(&self) -> usize {
        let nodes: usize = self.groups.iter().map(Vec::len).sum();
        size_of_val(&self.groups[..]) + nodes * 2 * size_of::<NodeId>()
    }

    /// What it does to the way from one node to another.
    pub fn on(&self, from: NodeId, to: NodeId) -> Effect {
        let group = |node| self.groups.iter().position(|group| group.contains(&node));
        match (group(from), group(to)) {
            (Some(0), Some(1)) => self.effect,
            (Some(from), Some(to)) if from != to && !self.one_way => self.effect,
            _ => Effect::default(),
        }
    }

    /// Whether it makes sense among these members.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming what does not.
    pub fn check(&self, members: &BTreeSet<NodeId>) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::invalid(format!("fault {self}: {what}")));
        if self.groups.len() < 2 || self.groups.iter().any(Vec::is_empty) {
            return wrong("name two groups of nodes or more, none of them empty".to_owned());
        }
        if self.one_way && self.groups.len() != 2 {
            return wrong("one way leads from the first of two groups to the second: name two".to_owned());
        }
        let mut seen = BTreeSet::new();
        for node in self.groups.iter().flatten() {
            if !members.contains(node) {
                return wrong(format!("{node} is not a member of this cluster"));
            }
            if !seen.insert(*node) {
                return wrong(format!("{node} is named twice: put it in one group"));
            }
        }
        let Effect {
            block,
            loss_ppm,
            delay_micros,
            jitter_micros,
        } = self.effect;
        if loss_ppm > ALL_PPM {
            return wrong("no more than all messages can be lost".to_owned());
        }
        if u128::from(delay_micros.max(jitter_micros)) > MAX_DELAY.as_micros() {
            return wrong(format!("delay at most {} s", MAX_DELAY.as_secs()));
        }
        if !block && (loss_ppm, delay_micros, jitter_micros) == (0, 0, 0) {
            return wrong("nothing is wrong: block, lose or delay".to_owned());
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
        let way = if self.one_way { " -> " } else { " <-> " };
        write!(f, "{:08x} {} {}", self.id, groups.join(way), self.effect)
    }
}

/// What a client wants of the faults of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultChange {
    /// These too.
    Add(Vec<LinkFault>),
    /// Without those of these ids; one that there is not is healed already.
    Heal(Vec<u64>),
    /// These and no others.
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

/// The faults in force, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(BTreeMap<u64, LinkFault>);

impl FaultSet {
    /// What is in force, in the order of the ids.
    pub fn faults(&self) -> Vec<LinkFault> {
        self.0.values().cloned().collect()
    }

    /// What is wrong with the way from one node to another, in all.
    pub fn on(&self, from: NodeId, to: NodeId) -> Effect {
        self.0
            .values()
            .fold(Effect::default(), |effect, fault| effect.and(fault.on(from, to)))
    }

    /// The set after a change, if all of the change makes sense among these members.
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

    /// The faults that are in this set and not, or not like that, in the other.
    pub fn beyond<'a>(&'a self, other: &'a FaultSet) -> impl Iterator<Item = &'a LinkFault> {
        self.0
            .iter()
            .filter(|(id, fault)| other.0.get(id) != Some(fault))
            .map(|(_, fault)| fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKED: Effect = Effect {
        block: true,
        loss_ppm: 0,
        delay_micros: 0,
        jitter_micros: 0,
    };

    fn fault(id: u64, groups: &[&[u16]], one_way: bool, effect: Effect) -> LinkFault {
        let ids = |group: &&[u16]| group.iter().copied().map(NodeId).collect();
        LinkFault {
            id,
            groups: groups.iter().map(ids).collect(),
            one_way,
            effect,
        }
    }

    fn members() -> BTreeSet<NodeId> {
        (1..=5).map(NodeId).collect()
    }

    fn blocked(set: &FaultSet) -> Vec<(u16, u16)> {
        let ways = (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to)));
        ways.filter(|(from, to)| set.on(NodeId(*from), NodeId(*to)).block)
            .collect()
    }

    fn set(faults: Vec<LinkFault>) -> FaultSet {
        FaultSet::default()
            .changed(FaultChange::Add(faults), &members())
            .unwrap()
    }

    #[test]
    fn only_the_ways_between_groups_are_concerned() {
        let both = set(vec![fault(1, &[&[1, 2], &[3]], false, BLOCKED)]);
        assert_eq!(blocked(&both), [(1, 3), (2, 3), (3, 1), (3, 2)]);
        let one_way = set(vec![fault(1, &[&[1, 2], &[3]], true, BLOCKED)]);
        assert_eq!(blocked(&one_way), [(1, 3), (2, 3)]);
        let three = set(vec![fault(1, &[&[1], &[2], &[3]], false, BLOCKED)]);
        assert_eq!(blocked(&three), [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]);
    }

    #[test]
    fn faults_add_up_and_are_healed_one_by_one() {
        let spoiled = |loss_ppm, delay_micros| Effect {
            loss_ppm,
            delay_micros,
            ..Effect::default()
        };
        let all = set(vec![
            fault(1, &[&[1], &[2]], false, BLOCKED),
            fault(2, &[&[1], &[2, 3]], false, BLOCKED),
            fault(3, &[&[1], &[2]], false, spoiled(500_000, 100)),
            fault(4, &[&[1], &[2]], false, spoiled(500_000, 50)),
        ]);
        let effect = all.on(NodeId(1), NodeId(2));
        assert_eq!(
            (effect.block, effect.loss_ppm, effect.delay_micros),
            (true, 750_000, 150)
        );
        let fewer = all.changed(FaultChange::Heal(vec![1, 99]), &members()).unwrap();
        assert!(
            fewer.on(NodeId(1), NodeId(2)).block,
            "the other one blocks it still"
        );
        assert_eq!(all.beyond(&fewer).map(|fault| fault.id).collect::<Vec<_>>(), [1]);
        let none = fewer
            .changed(FaultChange::Replace(Vec::new()), &members())
            .unwrap();
        assert_eq!(none, FaultSet::default());
        let again = all.changed(FaultChange::Add(all.faults()), &members()).unwrap();
        assert_eq!(again, all, "a change that is sent twice is made once");
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (fault, word) in [
            (fault(1, &[&[1]], false, BLOCKED), "two groups"),
            (fault(1, &[&[1], &[]], false, BLOCKED), "none of them empty"),
            (fault(1, &[&[1], &[2], &[3]], true, BLOCKED), "one way"),
            (fault(1, &[&[1], &[9]], false, BLOCKED), "n9 is not a member"),
            (fault(1, &[&[1], &[2, 1]], false, BLOCKED), "n1 is named twice"),
            (
                fault(1, &[&[1], &[2]], false, Effect::default()),
                "nothing is wrong",
            ),
            (
                fault(
                    1,
                    &[&[1], &[2]],
                    false,
                    Effect {
                        loss_ppm: ALL_PPM + 1,
                        ..BLOCKED
                    },
                ),
                "no more than all",
            ),
            (
                fault(
                    1,
                    &[&[1], &[2]],
                    false,
                    Effect {
                        jitter_micros: u64::MAX,
                        ..BLOCKED
                    },
                ),
                "delay at most 3600 s",
            ),
        ] {
            let refused = FaultSet::default().changed(FaultChange::Add(vec![fault]), &members());
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        let many = (0..=MAX_FAULTS as u64).map(|id| fault(id, &[&[1], &[2]], false, BLOCKED));
        let refused = FaultSet::default().changed(FaultChange::Replace(many.collect()), &members());
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
    }

    #[test]
    fn a_fault_describes_itself() {
        let effect = Effect {
            block: false,
            loss_ppm: 25_000,
            delay_micros: 50_000,
            jitter_micros: 500,
        };
        let slow = fault(42, &[&[1, 2], &[3]], true, effect);
        assert_eq!(
            slow.to_string(),
            "0000002a n1,n2 -> n3 2.5 % lost, 50 ms late, jitter 0.5 ms"
        );
        let cut = fault(42, &[&[1], &[3]], false, BLOCKED);
        assert_eq!(cut.to_string(), "0000002a n1 <-> n3 blocked");
    }
}
