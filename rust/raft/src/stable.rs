//! Pending and completed writes, and the messages that wait for them.
//!
//! A server must not forget its promises in a crash. So a vote, and every message in a new term, waits here
//! until that term and vote are durable; and an append is acknowledged only up to the log's *stable*
//! watermark, which moves when writes complete. A leader sends its entries to the others while its own disk
//! still writes them; it counts itself like them, when they are durable.
//!
//! All changes of the log and the hard state are one sequence of persists of the same priority, which the
//! store performs and completes in order. One rule is added for full disks, where a persist may be refused
//! and a later one accepted: after a truncation no more writes are requested until it is durable (the
//! **fence**), so that new entries can never be on disk after old ones that should have been truncated.

use std::collections::VecDeque;
use std::mem::discriminant;

use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority};
use quorate_core::time::Instant;

use crate::action::Action;
use crate::format;
use crate::log::Log;
use crate::message::Message;
use crate::snapshot::LogStart;
use crate::types::{GroupId, HardState, LogIndex};

/// The number of compacted entries that are trimmed at once.
const TRIM_STEP: u64 = 1024;

/// A pending persist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PendingPersist {
    token: u64,
    /// The hard state that it writes.
    hard: Option<HardState>,
    /// The start of the log that it writes.
    log_start: Option<LogStart>,
    /// The index from which it truncates first.
    cut: Option<LogIndex>,
    /// The log is written up to here by this or an earlier persist.
    through: LogIndex,
    epoch: u64,
}

/// A server's view of its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stable {
    group: GroupId,
    last_token: u64,
    pending: VecDeque<PendingPersist>,
    /// How many of them truncate.
    fences: usize,
    /// The hard state on disk.
    durable: HardState,
    /// The hard state last requested.
    requested: HardState,
    /// The start of the log that has not been requested yet.
    unwritten: Option<LogStart>,
    /// Messages that promise a term or vote that is not durable yet.
    held: Vec<(NodeId, Message)>,
    /// No writes are requested before this: the disk was full.
    pub(super) full_until: Option<Instant>,
    /// Everything up to here is trimmed, or being trimmed.
    trimmed: LogIndex,
    /// Everything up to here should be trimmed.
    trim_to: LogIndex,
    trim: Option<u64>,
}

/// The result of a completed persist.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Messages that can be sent now.
    pub(super) released: Vec<(NodeId, Message)>,
    /// The start of the log that is durable now.
    pub(super) log_start: Option<LogStart>,
}

impl Stable {
    pub(super) fn new(group: GroupId, durable: HardState) -> Self {
        Stable {
            group,
            last_token: 0,
            pending: VecDeque::new(),
            fences: 0,
            durable,
            requested: durable,
            unwritten: None,
            held: Vec::new(),
            full_until: None,
            trimmed: LogIndex(0),
            trim_to: LogIndex(0),
            trim: None,
        }
    }

    /// Whether this term and vote are durable.
    pub(super) fn has(&self, hard: HardState) -> bool {
        self.durable == hard
    }

    /// Whether truncated entries may still be on disk. Nothing is acknowledged until they are gone.
    pub(super) fn is_fenced(&self) -> bool {
        self.fences > 0
    }

    /// Holds a message until the term and vote that it promises are durable. It replaces an earlier one of
    /// its kind: a disk may be full for long.
    pub(super) fn hold(&mut self, to: NodeId, message: Message) {
        let kind = discriminant(&message.body);
        self.held
            .retain(|(peer, other)| *peer != to || discriminant(&other.body) != kind);
        self.held.push((to, message));
    }

    /// The next persist writes this start of the log.
    pub(super) fn set_log_start(&mut self, log_start: LogStart) {
        self.unwritten = Some(log_start);
    }

    /// The log up to here can be trimmed.
    pub(super) fn trim(&mut self, through: LogIndex) {
        self.trim_to = self.trim_to.max(through);
    }

    /// Requests all writes that have not been requested.
    pub(super) fn flush(&mut self, hard: HardState, log: &mut Log, actions: &mut Vec<Action>) {
        if self.full_until.is_some() || self.is_fenced() {
            return;
        }
        let mut ops = Vec::new();
        let changed = (hard != self.requested).then_some(hard);
        if changed.is_some() {
            self.requested = hard;
            ops.push(JournalOp::PutHard {
                key: self.group.hard_state_key(),
                value: format::encode(&hard),
            });
        }
        let log_start = self.unwritten.take();
        if let Some(log_start) = &log_start {
            ops.push(JournalOp::PutHard {
                key: self.group.log_start_key(),
                value: format::encode(log_start),
            });
        }
        let stream = self.group.log_stream();
        let unwritten = log.take_unwritten();
        let cut = unwritten.cut;
        ops.extend(cut.map(|from| JournalOp::Truncate { stream, from: from.0 }));
        ops.extend(unwritten.entries.map(|entry| JournalOp::Append {
            stream,
            position: entry.index.0,
            bytes: format::encode(entry),
        }));
        if ops.is_empty() {
            return;
        }
        let token = self.token();
        self.fences += usize::from(cut.is_some());
        self.pending.push_back(PendingPersist {
            token,
            hard: changed,
            log_start,
            cut,
            through: log.last().index,
            epoch: log.epoch(),
        });
        actions.push(Action::Persist {
            token,
            priority: Priority::Urgent,
            ops,
        });
    }

    /// Requests the next step of trimming compacted entries.
    pub(super) fn flush_trim(&mut self, actions: &mut Vec<Action>) {
        if self.trim.is_some() || self.trimmed >= self.trim_to || self.full_until.is_some() {
            return;
        }
        self.trimmed = LogIndex((self.trimmed.0 + TRIM_STEP).min(self.trim_to.0));
        let token = self.token();
        self.trim = Some(token);
        actions.push(Action::Persist {
            token,
            priority: Priority::Bulk,
            ops: vec![JournalOp::Trim {
                stream: self.group.log_stream(),
                through: self.trimmed.0,
            }],
        });
    }

    /// The whole log was truncated: there is nothing to trim up to here.
    pub(super) fn has_nothing_before(&mut self, base: LogIndex) {
        self.trimmed = self.trimmed.max(base);
    }

    /// Resumes trimming after a restart: everything before the first entry may still be there.
    pub(super) fn resume_trim(&mut self, base: LogIndex) {
        self.trimmed = base.previous();
        self.trim_to = base;
    }

    /// The persist with this token is durable.
    pub(super) fn persisted(&mut self, token: u64, hard: HardState, log: &mut Log) -> Durable {
        let mut durable = Durable::default();
        if self.trim == Some(token) {
            self.trim = None;
            return durable;
        }
        let persist = self.pending.pop_front().expect("a persist is pending");
        assert_eq!(persist.token, token, "persists complete in order");
        self.fences -= usize::from(persist.cut.is_some());
        log.stabilize(persist.through, persist.epoch);
        self.durable = persist.hard.unwrap_or(self.durable);
        if self.durable == hard {
            durable.released = std::mem::take(&mut self.held);
            // A server in a later term promises nothing in an earlier one.
            durable.released.retain(|(_, message)| message.term == hard.term);
        }
        durable.log_start = persist.log_start;
        durable
    }

    /// The disk had no space for the persist with this token: nothing of it was written.
    pub(super) fn refused(&mut self, token: u64, retry_at: Instant, log: &mut Log) {
        self.full_until = Some(retry_at);
        if self.trim == Some(token) {
            self.trim = None;
            self.trimmed = self.trimmed.previous();
            return;
        }
        let place = self.pending.iter().position(|persist| persist.token == token);
        let place = place.expect("the persist is pending");
        let persist = self.pending.remove(place).expect("it was just found");
        self.fences -= usize::from(persist.cut.is_some());
        log.rewrite(persist.cut);
        self.requested = self.durable;
        self.unwritten = self.unwritten.take().or(persist.log_start);
    }

    /// Tokens are even: the odd ones belong to the server's host.
    fn token(&mut self) -> u64 {
        self.last_token += 2;
        self.last_token
    }
}
