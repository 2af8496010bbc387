//! No two servers consider different entries committed at the same index. (Section 5.4.3.)

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use super::{Server, Verdict};

/// A committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The term in which it was committed, or an earlier one: the lowest term of a server that knew of it.
    pub committed_in: u64,
}

/// The committed entries of a group.
pub trait Committed<E> {
    /// A server considers this entry committed. Returns another server's entry at this index, if it differs.
    fn note(&mut self, commit: Commit, entry: &E) -> Option<String>;

    /// The commits from an index on.
    fn commits(&self, from: u64) -> impl Iterator<Item = Commit>;
}

/// Compares what a server considers committed from an index on.
///
/// # Errors
/// Another server considers another entry committed.
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

/// All committed entries.
#[derive(Clone, Debug)]
pub struct Commits<N, E> {
    entries: BTreeMap<u64, (Commit, E)>,
    /// The index up to which each server was compared.
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
    /// The last committed entry; 0 before the first.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// A committed entry.
    pub fn entry(&self, index: u64) -> Option<&E> {
        self.entries.get(&index).map(|(_, entry)| entry)
    }

    /// The committed entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &E> {
        self.entries.values().map(|(_, entry)| entry)
    }

    /// A server starts: its commits are compared again.
    pub fn restarted(&mut self, node: N) {
        self.compared.remove(&node);
    }

    /// Compares what a server considers committed since the last check.
    ///
    /// # Errors
    /// Another server considers another entry committed.
    pub fn check(&mut self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
        let from = self.compared.get(&server.node()).map_or(1, |index| index + 1);
        state_machine_safety(server, from, self)?;
        let compared = server.commit().min(server.last());
        self.compared.insert(server.node(), compared);
        Ok(())
    }

    /// Compares everything that a server considers committed: it may have replaced compared entries.
    ///
    /// # Errors
    /// An entry differs from the committed one.
    pub fn check_thoroughly(&self, server: &impl Server<Node = N, Entry = E>) -> Verdict {
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
