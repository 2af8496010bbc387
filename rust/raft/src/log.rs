//! The log: what the group has agreed on, or may yet.
//!
//! ```text
//!            base            released   stable   commit   handed      last
//!   ── gone ──┤ kept entries ────┼─────────┼───────┼────────┼───────────┤
//! ```
//! (Stable may also be before released.) All entries behind the **base** are in memory, bounded by compaction; what is at
//! and before the base is gone and lives in a snapshot, or in the host's own state. Four watermarks move over the entries, each for a reason of its own:
//!
//! * **commit**: a quorum has everything up to here; it will never change. Never moves back.
//! * **released**: given to the state machine. Never moves back, never beyond commit.
//! * **handed**: the disk has been asked to write everything up to here.
//! * **stable**: the disk has written it. Only this may be acknowledged. It may lag behind commit (others
//!   have it durably) and moves back only when a conflicting suffix is cut.
//!
//! # Invariants, asserted on each transition
//! 1. Indexes have no gaps; terms never fall; no entry has term 0.
//! 2. Nothing at or before commit is cut or replaced.
//! 3. base <= released <= commit <= last, and stable <= handed <= last.
//! 4. An answer of the disk counts only if no entry has been cut since it was asked (the **epoch** is the
//!    same): an entry that is cut and comes back later must be written again before it is stable again.

use std::collections::{BTreeMap, VecDeque};

use crate::configuration::Configuration;
use crate::entry::{Entry, EntryKind};
use crate::types::{LogIndex, LogPosition, Term};

/// A server's log. The module says what its parts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    base: LogPosition,
    entries: VecDeque<Entry>,
    /// Of the entries behind `released`.
    pending_bytes: usize,
    commit: LogIndex,
    released: LogIndex,
    handed: LogIndex,
    stable: LogIndex,
    epoch: u64,
    /// The disk must forget everything at and after this place before it writes more.
    cut: Option<LogIndex>,
    /// The configuration at the base, and each one after it, by the place where it begins to count.
    configurations: BTreeMap<LogIndex, Configuration>,
}

/// What the disk has to do to catch up with the log.
pub(super) struct Unwritten<'a> {
    /// Forget everything at and after this place first.
    pub(super) cut: Option<LogIndex>,
    /// Then append these.
    pub(super) entries: std::collections::vec_deque::Iter<'a, Entry>,
}

impl Log {
    /// A log that begins behind `base`, with the members that count there and the entries that the disk has.
    ///
    /// # Panics
    /// If the entries do not continue `base`.
    pub fn recovered(base: LogPosition, members: Configuration, entries: Vec<Entry>) -> Self {
        let mut log = Log {
            base,
            entries: VecDeque::new(),
            pending_bytes: 0,
            commit: base.index,
            released: base.index,
            handed: base.index,
            stable: base.index,
            epoch: 0,
            cut: None,
            configurations: [(base.index, members)].into(),
        };
        for entry in entries {
            log.append(entry);
        }
        log.handed = log.last().index;
        log.stable = log.handed;
        log
    }

    // ---- what there is ----

    /// The last entry that is gone: the position before the first that is there.
    pub fn base(&self) -> LogPosition {
        self.base
    }

    /// The last entry, or the base when there is none.
    pub fn last(&self) -> LogPosition {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// Everything up to here is committed.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Everything up to here has been given to the state machine.
    pub fn released(&self) -> LogIndex {
        self.released
    }

    /// Everything up to here is on this server's disk.
    pub fn stable(&self) -> LogIndex {
        self.stable
    }

    /// About how many bytes the entries take that have not been given to the state machine.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// The members that count now: those of the last configuration in the log, committed or not.
    pub fn configuration(&self) -> &Configuration {
        let (_, last) = self
            .configurations
            .last_key_value()
            .expect("there is one at the base");
        last
    }

    /// The members that counted at this place.
    pub fn configuration_at(&self, index: LogIndex) -> &Configuration {
        let (_, last) = self
            .configurations
            .range(..=index)
            .next_back()
            .expect("nobody asks about a place before the base");
        last
    }

    /// The entry at a place, if it is there.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The term of the entry at a place; known for the base, too. `None` before the base and behind the last
    /// entry.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether this log has the entry of that name, and with it everything before.
    pub fn matches(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The entries from a place on.
    pub fn range(&self, from: LogIndex) -> std::collections::vec_deque::Iter<'_, Entry> {
        let offset = from.0.saturating_sub(self.base.index.0 + 1);
        let offset = usize::try_from(offset).expect("an offset into memory");
        self.entries.range(offset.min(self.entries.len())..)
    }

    /// Copies of the entries from a place on, about `bytes` bytes of them, at least one if there is one.
    pub fn slice(&self, from: LogIndex, bytes: usize) -> Vec<Entry> {
        assert!(
            from > self.base.index,
            "entry {from} is gone, the log begins behind {}",
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

    /// The last place whose term is not later than `term`: from there on back, a follower with that conflict
    /// may agree.
    pub fn last_not_after(&self, term: Term) -> LogIndex {
        let count = self.entries.partition_point(|entry| entry.term <= term);
        LogIndex(self.base.index.0 + count as u64)
    }

    // ---- what happens to it ----

    /// Puts an entry behind the last one.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index.next(), "the log has no gaps");
        assert!(
            entry.term >= last.term && entry.term > Term(0),
            "terms never fall: {} behind {last}",
            entry.position()
        );
        if let EntryKind::Configuration(members) = &entry.kind {
            self.configurations.insert(entry.index, members.clone());
        }
        self.pending_bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Takes a leader's entries behind `previous`, which this log has. Those that are there already stay; at
    /// the first that conflicts, the rest of this log gives way. Gives the place of that conflict.
    pub fn accept(&mut self, previous: LogPosition, entries: Vec<Entry>) -> Option<LogIndex> {
        assert!(
            self.matches(previous),
            "accepted behind {previous}, which is not there"
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

    /// Forgets everything at and after a place.
    fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.commit,
            "entry {from} is committed (up to {}) and never goes",
            self.commit
        );
        while self.last().index >= from {
            let entry = self.entries.pop_back().expect("it is behind the base");
            self.pending_bytes -= entry.size();
        }
        self.configurations.split_off(&from);
        self.rewrite_from(from);
    }

    /// What the disk has, or was asked to write, at and after a place does not count.
    fn rewrite_from(&mut self, from: LogIndex) {
        if self.handed >= from {
            self.cut = Some(self.cut.map_or(from, |earlier| earlier.min(from)));
            self.handed = from.previous();
            self.stable = self.stable.min(self.handed);
            self.epoch += 1;
        }
    }

    /// Everything up to here is committed, as far as it is in this log. Says whether that is news.
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

    /// The committed entries that have not been given to the state machine; now they have.
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

    /// Forgets the entries up to and including a place, for which a snapshot stands, or the host's own state.
    pub fn compact(&mut self, through: LogIndex) {
        let through = through.min(self.stable);
        if through <= self.base.index {
            return;
        }
        assert!(
            through <= self.released,
            "entry {through} is needed: only {} is applied",
            self.released
        );
        let members = self.configuration_at(through).clone();
        let gone = self.entries.drain(..(through.0 - self.base.index.0) as usize);
        self.base = gone.last().expect("it is behind the base").position();
        self.configurations = self.configurations.split_off(&through.next());
        self.configurations.insert(through, members);
    }

    /// A snapshot takes the place of everything up to its position. Where this log has that very entry, what
    /// follows stays; else it all goes.
    pub fn restore(&mut self, position: LogPosition, members: Configuration) {
        assert!(
            position.index > self.commit,
            "a snapshot of {position} is no news: {} is committed",
            self.commit
        );
        if !self.matches(position) {
            self.entries.clear();
            self.base = position;
            self.configurations = [(position.index, members)].into();
            // Of whatever the disk has nothing may be taken for a part of this log.
            self.cut = Some(LogIndex(0));
            self.handed = position.index;
            self.stable = position.index;
            self.epoch += 1;
        }
        self.commit = position.index;
        self.released = position.index;
        self.pending_bytes = self.range(position.index.next()).map(Entry::size).sum();
    }

    /// How far a snapshot at `index` lets the log be compacted: so many entries and bytes before it stay.
    pub fn compaction_point(&self, index: LogIndex, kept_entries: u64, kept_bytes: usize) -> LogIndex {
        let mut through = index;
        let mut bytes = 0;
        while through > self.base.index && index.0 - through.0 < kept_entries {
            bytes += self.entry(through).map_or(0, Entry::size);
            if bytes > kept_bytes {
                break;
            }
            through = through.previous();
        }
        through
    }

    // ---- what the disk has of it ----

    /// What the disk has not been asked for yet; now it has.
    pub(super) fn hand_over(&mut self) -> Unwritten<'_> {
        let cut = self.cut.take();
        let first = self.handed.next();
        self.handed = self.last().index;
        Unwritten {
            cut,
            entries: self.range(first),
        }
    }

    /// Changes whenever an answer that the disk still owes has lost its meaning.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the disk has to forget something and has not been told yet.
    pub(super) fn has_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// The disk has everything that it was asked for up to here, in this epoch.
    pub(super) fn stabilize(&mut self, through: LogIndex, epoch: u64) {
        if epoch == self.epoch {
            assert!(
                through <= self.handed,
                "the disk has {through}, but was asked up to {} only",
                self.handed
            );
            self.stable = self.stable.max(through);
        }
    }

    /// The disk refused something that it was asked for, and to forget everything at and after `cut` first:
    /// what is not stable must be written again, all of it.
    pub(super) fn rewrite(&mut self, cut: Option<LogIndex>) {
        let cuts = [cut, self.cut, Some(self.stable.next())];
        self.cut = cuts.into_iter().flatten().min();
        self.handed = self.stable;
        self.epoch += 1;
    }

    /// Asserts the third invariant; the others are asserted where they could break.
    pub(super) fn check(&self) {
        let in_order = self.base.index <= self.released
            && self.released <= self.commit
            && self.commit <= self.last().index
            && self.stable <= self.handed
            && self.handed <= self.last().index;
        assert!(
            in_order,
            "watermarks out of order: base {} released {} commit {} stable {} handed {} last {}",
            self.base,
            self.released,
            self.commit,
            self.stable,
            self.handed,
            self.last()
        );
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
