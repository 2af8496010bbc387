//! A leader only appends to its log. (Section 5.3.)

use std::collections::BTreeMap;

use super::{Server, Verdict};

fn changed(node: impl std::fmt::Display, term: u64, index: u64) -> Verdict {
    Err(format!(
        "leader append-only: {node} leads in t{term}, and its entry {index} has changed"
    ))
}

/// Compares a server before and after a step.
///
/// # Errors
/// It led throughout, and its new log is not an extension of the old one.
pub fn leader_append_only<S: Server>(before: &S, after: &S) -> Verdict {
    let still = before.leads() && after.leads() && before.term() == after.term();
    let compared = before.base().max(after.base()) + 1..=before.last();
    let differs = |index: &u64| before.entry(*index) != after.entry(*index);
    match still.then(|| compared.into_iter().find(differs)).flatten() {
        Some(index) => changed(after.node(), after.term(), index),
        None => Ok(()),
    }
}

/// The observed logs of leaders.
#[derive(Clone, Debug, Default)]
pub struct LeaderAppendOnly {
    /// By the leader's term: the terms of its entries.
    led: BTreeMap<u64, BTreeMap<u64, u64>>,
}

impl LeaderAppendOnly {
    /// The last observed entry of a leader is still in its log, or compacted. (Log matching covers the
    /// entries before it.)
    ///
    /// # Errors
    /// It is not.
    pub fn check<S: Server>(&mut self, leader: &S) -> Verdict {
        let led = self.led.entry(leader.term()).or_default();
        let known = led.last_key_value().map(|(index, term)| (*index, *term));
        if let Some((index, term)) = known
            && index >= leader.base()
            && leader.term_at(index) != Some(term)
        {
            return changed(leader.node(), leader.term(), index);
        }
        let first = known.map_or(0, |(index, _)| index).max(leader.base()) + 1;
        let news = (first..=leader.last()).filter_map(|index| Some((index, leader.term_at(index)?)));
        led.extend(news);
        Ok(())
    }

    /// All observed entries of a leader are still in its log.
    ///
    /// # Errors
    /// One is not.
    pub fn check_thoroughly<S: Server>(&self, leader: &S) -> Verdict {
        let Some(led) = self.led.get(&leader.term()) else {
            return Ok(());
        };
        let mut known = led.range(leader.base() + 1..);
        match known.find(|(index, term)| leader.term_at(**index) != Some(**term)) {
            Some((index, _)) => changed(leader.node(), leader.term(), *index),
            None => Ok(()),
        }
    }
}
