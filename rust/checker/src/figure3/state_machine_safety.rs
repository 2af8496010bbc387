//! No two servers take different entries for committed at the same index. (Section 5.4.3.)

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use super::{Server, Verdict};

/// That an entry is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its index.
    pub index: u64,
    /// Its own term.
    pub term: u64,
    /// In which term it was committed, or an earlier one: the lowest term of a server that knew of it.
    pub committed_in: u64,
}

/// What was committed in a group.
pub trait Committed<E> {
    /// A server takes this entry for committed. The one that another does at this index, if that is another entry.
    fn note(&mut self, commit: Commit, entry: &E) -> Option<String>;

    /// The commits from an index on.
    fn commits(&self, from: u64) -> impl Iterator<Item = Commit>;
}

/// Compares what a server takes for committed from an index on.
///
/// # Errors
/// Another server takes another entry for committed.
pub fn state_machine_safety<S: Server>(
    server: &S,
    from: u64,
    committed: &mut impl Committed<S::Entry>,
) -> Verdict {
    for index in from.max(server.base() + 1)..=server.commit() {
        let (Some(entry), Some(term)) = (server.entry(index), server.term_at(index)) else {
            break;
        };
        let commit = Commit {
            index,
            term,
            committed_in: server.term(),
        };
        if let Some(known) = committed.note(commit, entry) {
            return Err(format!(
                "state machine safety: {} has committed {index}@t{term}, another {known}",
                server.node()
            ));
        }
    }
    Ok(())
}

/// Everything that was committed.
#[derive(Clone, Debug)]
pub struct Commits<N, E> {
    entries: BTreeMap<u64, (Commit, E)>,
    /// How far each server's word was compared.
    compared: BTreeMap<N, u64>,
}

impl<N, E> Default for Commits<N, E> {
    fn default() -> Self {
        Commits {
            entries: BTreeMap::new(),
            compared: BTreeMap::new(),
        }
    }
}

impl<N: Copy + Ord + Display, E: Clone + PartialEq + Debug> Commits<N, E> {
    /// The last entry that is committed; 0 before there is one.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// A committed entry.
    pub fn entry(&self, index: u64) -> Option<&E> {
        self.entries.get(&index).map(|(_, entry)| entry)
    }

    /// The committed entries, in their order.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.entries.values().map(|(_, entry)| entry)
    }

    /// A server starts: its word is compared anew.
    pub fn restarted(&mut self, node: N) {
        self.compared.remove(&node);
    }

    /// Compares what a server takes for committed since it was last looked at.
    ///
    /// # Errors
    /// Another server takes another entry for committed.
    pub fn look(&mut self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
        let from = self.compared.get(&server.node()).map_or(1, |index| index + 1);
        state_machine_safety(server, from, self)?;
        let compared = server.commit().min(server.last());
        self.compared.insert(server.node(), compared);
        Ok(())
    }

    /// Compares all that a server takes for committed: what it has compared before it may have replaced.
    ///
    /// # Errors
    /// It takes another entry for committed than was committed.
    pub fn look_closely(&self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
        for index in server.base() + 1..=server.commit().min(server.last()) {
            if let (Some(known), Some(entry)) = (self.entry(index), server.entry(index))
                && known != entry
            {
                return Err(format!(
                    "state machine safety: {} has committed {entry:?} at {index}, another {known:?}",
                    server.node()
                ));
            }
        }
        Ok(())
    }
}

impl<N, E: Clone + PartialEq + Debug> Committed<E> for Commits<N, E> {
    fn note(&mut self, commit: Commit, entry: &E) -> Option<String> {
        let known = self.entries.entry(commit.index);
        let (known, first) = known.or_insert_with(|| (commit, entry.clone()));
        known.committed_in = known.committed_in.min(commit.committed_in);
        (first != entry).then(|| format!("{first:?}"))
    }

    fn commits(&self, from: u64) -> impl Iterator<Item = Commit> {
        self.entries.range(from..).map(|(_, (commit, _))| *commit)
    }
}
