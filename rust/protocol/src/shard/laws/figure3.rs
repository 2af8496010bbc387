//! The five properties of Raft, by their names in Figure 3, of every group.

use std::collections::BTreeMap;

use super::Verdict;
use super::model::Model;
use crate::ids::NodeId;
use crate::raft::Raft;
use crate::raft::log::Log;
use crate::raft::types::{GroupId, LogIndex, Term};
use crate::shard::lab::Lab;

/// What is known about a group so far.
#[derive(Debug, Default)]
pub(super) struct Figure3 {
    /// Who led in each term.
    leaders: BTreeMap<Term, NodeId>,
    /// The entries that the leader of each term has been seen with.
    led: BTreeMap<Term, BTreeMap<LogIndex, Term>>,
    /// The latest term that any server can have committed each entry in, in the order of the entries.
    committed_in: Vec<Term>,
    /// How far each server's commits have been compared.
    compared: BTreeMap<NodeId, LogIndex>,
}

impl Figure3 {
    /// A server has crashed: whatever it has after its restart is looked at anew.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.compared.remove(&node);
    }

    /// Looks at one server; what it is the first to have committed goes to the model.
    pub(super) fn look(&mut self, node: NodeId, raft: &Raft, model: &mut Model) -> Verdict {
        self.committed(node, raft.term(), raft.log(), model)?;
        if raft.is_leader() {
            self.election_safety(raft.term(), node)?;
            self.leader_append_only(raft.term(), raft.log())?;
            self.leader_completeness(raft.term(), raft.log(), model)?;
        }
        Ok(())
    }

    /// At most one leader in each term.
    fn election_safety(&mut self, term: Term, node: NodeId) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!("election safety: {first} and {node} both lead in {term}"))
    }

    /// A leader never overwrites or removes an entry of its own log.
    fn leader_append_only(&mut self, term: Term, log: &Log) -> Verdict {
        let led = self.led.entry(term).or_default();
        let base = log.base().index;
        for (index, before) in led.range(base.next()..) {
            if log.term_at(*index) != Some(*before) {
                return Err(format!(
                    "leader append-only: entry {index} of the leader of {term} has changed"
                ));
            }
        }
        let news = led
            .last_key_value()
            .map_or(base.next(), |(last, _)| last.next().max(base.next()));
        led.extend(log.range(news).map(|entry| (entry.index, entry.term)));
        Ok(())
    }

    /// State machine safety: what is committed is committed everywhere; no other entry ever has its index.
    fn committed(&mut self, node: NodeId, term: Term, log: &Log, model: &mut Model) -> Verdict {
        let from = self.compared.get(&node).copied().unwrap_or_default();
        for entry in log.range(from.max(log.base().index).next()) {
            if entry.index > log.commit() {
                break;
            }
            if entry.index.0 > model.last() {
                model.commit(entry);
                self.committed_in.push(term);
            }
            let known = model.entry(entry.index.0).expect("it was just put there");
            if known != entry {
                let (known, found) = (known.position(), entry.position());
                return Err(format!(
                    "state machine safety: {node} has committed {found}, another {known}"
                ));
            }
            let place = (entry.index.0 - 1) as usize;
            self.committed_in[place] = self.committed_in[place].min(term);
        }
        self.compared.insert(node, log.commit());
        Ok(())
    }

    /// What was committed in a term is in the log of the leader of every later term.
    fn leader_completeness(&self, term: Term, log: &Log, model: &Model) -> Verdict {
        for (entry, committed_in) in model.entries.iter().zip(&self.committed_in) {
            let has = entry.index <= log.base().index || log.matches(entry.position());
            if term > *committed_in && !has {
                let position = entry.position();
                return Err(format!(
                    "leader completeness: the leader of {term} lacks {position}, committed in {committed_in}"
                ));
            }
        }
        Ok(())
    }
}

/// If two logs have an entry of the same index and term, they are the same up to there.
pub(super) fn log_matching(lab: &Lab, group: GroupId) -> Verdict {
    let raft = |node: NodeId| lab.shard(node, group).and_then(|shard| shard.raft());
    let logs: Vec<&Log> = lab
        .nodes()
        .into_iter()
        .filter_map(raft)
        .map(|raft| raft.log())
        .collect();
    for (place, one) in logs.iter().enumerate() {
        for other in &logs[place + 1..] {
            let mut index = one.last().index.min(other.last().index);
            let first = one.base().index.max(other.base().index);
            let mut same = false;
            while index > first {
                same |= one.term_at(index) == other.term_at(index);
                if same && one.entry(index) != other.entry(index) {
                    return Err(format!(
                        "log matching: entry {index} differs before one that is the same"
                    ));
                }
                index = index.previous();
            }
        }
    }
    Ok(())
}
