//! The log: the entries that the group has agreed on, or may yet.
//!
//! ```text
//!            base            released   stable   commit   requested   last
//!   ── gone ──┤ retained entries ┼─────────┼───────┼────────┼───────────┤
//! ```
//! (Stable may also be before released.) All entries after the **base** are in memory, bounded by compaction;
//! entries up to the base are compacted: a snapshot, or the host's own state, covers them. Four watermarks move
//! over the entries:
//!
//! * **commit**: a quorum has everything up to here; it will never change. Never moves back.
//! * **released**: given to the state machine. Never moves back, never beyond commit.
//! * **requested**: a write of everything up to here has been requested.
//! * **stable**: everything up to here is on disk. Only this may be acknowledged. It may lag behind commit
//!   (others have it durably) and moves back only when a conflicting suffix is truncated.
//!
//! # Invariants, asserted on each transition
//! 1. Indexes have no gaps; terms never decrease; no entry has term 0.
//! 2. Nothing at or before commit is cut or replaced.
//! 3. base <= released <= commit <= last, and stable <= requested <= last.
//! 4. A completed write counts only if no entry has been truncated since it was requested (the **epoch** is
//!    the same): an entry that is truncated and received again must be written again before it is stable.

use std::collections::{BTreeMap, VecDeque};

use crate::configuration::Configuration;
use crate::entry::{Entry, EntryKind};
use crate::types::{LogIndex, LogPosition, Term};

/// A server's log; see the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    base: LogPosition,
    entries: VecDeque<Entry>,
    /// The size of the entries after `released`.
    pending_bytes: usize,
    commit: LogIndex,
    released: LogIndex,
    requested: LogIndex,
    stable: LogIndex,
    epoch: u64,
    /// Before the next write, the disk must truncate the log from here on.
    cut: Option<LogIndex>,
    /// The configuration at the base and each later one, by the index from which it is in effect.
    configurations: BTreeMap<LogIndex, Configuration>,
}

/// The writes that the log needs.
pub(super) struct Unwritten<'a> {
    /// Truncate from here on first.
    pub(super) cut: Option<LogIndex>,
    /// Then append these.
    pub(super) entries: std::collections::vec_deque::Iter<'a, Entry>,
}

impl Log {
    /// A log that begins after `base`, with the members in effect there and the recovered entries.
    ///
    /// # Panics
    /// If the entries do not follow `base`.
    pub fn recovered(base: LogPosition, members: Configuration, entries: Vec<Entry>) -> Self {
        let mut log = Log {
            base,
            entries: VecDeque::new(),
            pending_bytes: 0,
            commit: base.index,
            released: base.index,
            requested: base.index,
            stable: base.index,
            epoch: 0,
            cut: None,
            configurations: [(base.index, members)].into(),
        };
        for entry in entries {
            log.append(entry);
        }
        log.requested = log.last().index;
        log.stable = log.requested;
        log
    }

    // ---- queries ----

    /// The last compacted entry: the position before the first entry in memory.
    pub fn base(&self) -> LogPosition {
        self.base
    }

    /// The last entry, or the base when there is none.
    pub fn last(&self) -> LogPosition {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// The commit index.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The index up to which entries have been given to the state machine.
    pub fn released(&self) -> LogIndex {
        self.released
    }

    /// The index up to which entries are on this server's disk.
    pub fn stable(&self) -> LogIndex {
        self.stable
    }

    /// The approximate size of the entries that have not been given to the state machine.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// The members in effect: the last configuration in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        let (_, last) = self
            .configurations
            .last_key_value()
            .expect("a configuration exists at the base");
        last
    }

    /// The members in effect at this index.
    pub fn configuration_at(&self, index: LogIndex) -> &Configuration {
        let (_, last) = self
            .configurations
            .range(..=index)
            .next_back()
            .expect("the index is not before the base");
        last
    }

    /// The entry at an index, if it is in memory.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The term of the entry at an index, also for the base. `None` before the base and after the last entry.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether this log has the entry at this position, and so everything before it.
    pub fn matches(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The entries from an index on.
    pub fn range(&self, from: LogIndex) -> std::collections::vec_deque::Iter<'_, Entry> {
        let offset = from.0.saturating_sub(self.base.index.0 + 1);
        let offset = usize::try_from(offset).expect("an offset within the log");
        self.entries.range(offset.min(self.entries.len())..)
    }

    /// Copies of the entries from an index on, about `bytes` bytes of them, but at least one.
    pub fn slice(&self, from: LogIndex, bytes: usize) -> Vec<Entry> {
        assert!(
            from > self.base.index,
            "entry {from} is compacted: the log begins after {}",
            self.base
        );
        let mut taken = 0;
        let fits = |entry: &&Entry| {
            let first = taken == 0;
            taken += entry.size();
            first || taken <= bytes
        };
        self.range(from).take_while(fits).cloned().collect()
    }

    /// The answer to a leader whose `previous` is not in this log: where it should look next.
    pub fn conflict(&self, previous: LogIndex) -> LogPosition {
        match self.term_at(previous) {
            None => LogPosition {
                term: Term(0),
                index: self.last().index.next().min(previous),
            },
            Some(term) => {
                let before = |index: &LogIndex| self.term_at(index.previous()) == Some(term);
                let mut first = previous;
                while first > self.base.index.next() && before(&first) {
                    first = first.previous();
                }
                LogPosition { term, index: first }
            }
        }
    }

    /// The last index whose term is not later than `term`: a follower with that conflict may agree up to
    /// there.
    pub fn last_not_after(&self, term: Term) -> LogIndex {
        let count = self.entries.partition_point(|entry| entry.term <= term);
        LogIndex(self.base.index.0 + count as u64)
    }

    // ---- transitions ----

    /// Appends an entry.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index.next(), "the log has no gaps");
        assert!(
            entry.term >= last.term && entry.term > Term(0),
            "terms never decrease: {} after {last}",
            entry.position()
        );
        if let EntryKind::Configuration(members) = &entry.kind {
            self.configurations.insert(entry.index, members.clone());
        }
        self.pending_bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Appends a leader's entries after `previous`, which this log has. Entries already present stay; from
    /// the first conflict on, the rest of this log is truncated. Returns the index of that conflict.
    pub fn accept(&mut self, previous: LogPosition, entries: Vec<Entry>) -> Option<LogIndex> {
        assert!(
            self.matches(previous),
            "cannot append after {previous}: this log lacks it"
        );
        let mut cut = None;
        for entry in entries {
            match self.term_at(entry.index) {
                Some(term) if term == entry.term => continue,
                Some(_) => {
                    cut = Some(entry.index);
                    self.truncate(entry.index);
                }
                None => {}
            }
            self.append(entry);
        }
        cut
    }

    /// Removes all entries from an index on.
    fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.commit,
            "entry {from} is committed (up to {}) and cannot be truncated",
            self.commit
        );
        while self.last().index >= from {
            let entry = self.entries.pop_back().expect("it is after the base");
            self.pending_bytes -= entry.size();
        }
        self.configurations.split_off(&from);
        self.rewrite_from(from);
    }

    /// Invalidates what is on disk, or requested, from an index on.
    fn rewrite_from(&mut self, from: LogIndex) {
        if self.requested >= from {
            self.cut = Some(self.cut.map_or(from, |earlier| earlier.min(from)));
            self.requested = from.previous();
            self.stable = self.stable.min(self.requested);
            self.epoch += 1;
        }
    }

    /// Advances the commit index, within this log. Returns whether it moved.
    pub fn commit_to(&mut self, index: LogIndex) -> bool {
        assert!(
            index <= self.last().index,
            "entry {index} is committed but the log ends at {}",
            self.last()
        );
        let news = index > self.commit;
        self.commit = self.commit.max(index);
        news
    }

    /// Takes the committed entries that have not yet been given to the state machine.
    pub fn release(&mut self) -> Vec<Entry> {
        let count = (self.commit.0 - self.released.0) as usize;
        let entries: Vec<Entry> = self.range(self.released.next()).take(count).cloned().collect();
        self.pending_bytes -= entries.iter().map(Entry::size).sum::<usize>();
        self.released = self.commit;
        entries
    }

    /// Everything up to here was applied before a restart, and the state machine still has it.
    pub(super) fn resume(&mut self, applied: LogIndex) {
        assert!(
            self.commit <= applied && applied <= self.last().index,
            "entry {applied} was applied, but the log has {} to {}",
            self.base,
            self.last()
        );
        self.commit = applied;
        self.released = applied;
        self.pending_bytes = self.range(applied.next()).map(Entry::size).sum();
    }

    /// Drops the entries up to and including an index; a snapshot, or the host's own state, covers them.
    pub fn compact(&mut self, through: LogIndex) {
        let through = through.min(self.stable);
        if through <= self.base.index {
            return;
        }
        assert!(
            through <= self.released,
            "entry {through} cannot be compacted: only {} is applied",
            self.released
        );
        let members = self.configuration_at(through).clone();
        let compacted = self.entries.drain(..(through.0 - self.base.index.0) as usize);
        self.base = compacted.last().expect("it is after the base").position();
        self.configurations = self.configurations.split_off(&through.next());
        self.configurations.insert(through, members);
    }

    /// Replaces everything up to the snapshot's position. If this log has that very entry, the entries after
    /// it stay; else all are dropped.
    pub fn restore(&mut self, position: LogPosition, members: Configuration) {
        assert!(
            position.index > self.commit,
            "a snapshot of {position} is stale: {} is committed",
            self.commit
        );
        if !self.matches(position) {
            self.entries.clear();
            self.base = position;
            self.configurations = [(position.index, members)].into();
            // Nothing that is on disk may be taken for a part of this log.
            self.cut = Some(LogIndex(0));
            self.requested = position.index;
            self.stable = position.index;
            self.epoch += 1;
        }
        self.commit = position.index;
        self.released = position.index;
        self.pending_bytes = self.range(position.index.next()).map(Entry::size).sum();
    }

    /// How far a snapshot at `index` lets the log be compacted: up to `retained_entries` and `retained_bytes` before
    /// it are retained.
    pub fn compaction_point(
        &self,
        index: LogIndex,
        retained_entries: u64,
        retained_bytes: usize,
    ) -> LogIndex {
        let mut through = index;
        let mut bytes = 0;
        while through > self.base.index && index.0 - through.0 < retained_entries {
            bytes += self.entry(through).map_or(0, Entry::size);
            if bytes > retained_bytes {
                break;
            }
            through = through.previous();
        }
        through
    }

    // ---- writes ----

    /// Takes the writes that have not been requested yet.
    pub(super) fn take_unwritten(&mut self) -> Unwritten<'_> {
        let cut = self.cut.take();
        let first = self.requested.next();
        self.requested = self.last().index;
        Unwritten {
            cut,
            entries: self.range(first),
        }
    }

    /// Changes whenever pending writes lose their meaning.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a truncation has not been requested yet.
    pub(super) fn has_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// The write of everything up to here, requested in this epoch, is complete.
    pub(super) fn stabilize(&mut self, through: LogIndex, epoch: u64) {
        if epoch == self.epoch {
            assert!(
                through <= self.requested,
                "{through} is on disk, but writes were requested up to {} only",
                self.requested
            );
            self.stable = self.stable.max(through);
        }
    }

    /// A write was refused, with its truncation from `cut` on: everything that is not stable must be written
    /// again.
    pub(super) fn rewrite(&mut self, cut: Option<LogIndex>) {
        let cuts = [cut, self.cut, Some(self.stable.next())];
        self.cut = cuts.into_iter().flatten().min();
        self.requested = self.stable;
        self.epoch += 1;
    }

    /// Asserts the third invariant; the others are asserted where they could be violated.
    pub(super) fn check(&self) {
        let in_order = self.base.index <= self.released
            && self.released <= self.commit
            && self.commit <= self.last().index
            && self.stable <= self.requested
            && self.requested <= self.last().index;
        assert!(
            in_order,
            "watermarks out of order: base {} released {} commit {} stable {} requested {} last {}",
            self.base,
            self.released,
            self.commit,
            self.stable,
            self.requested,
            self.last()
        );
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
