//! What the disk was asked for, what it has done, and what waits for it.
//!
//! A server's promises are worth nothing if a crash can make it forget them. So a vote, and every message in
//! a new term, waits here until the disk has that term and vote; and an append is acknowledged only up to the
//! log's *stable* watermark, which moves when the disk answers. A leader sends its entries to the others
//! while its own disk still works on them; it counts itself like them, when they are durable.
//!
//! Everything that changes the log or the hard state is one sequence of persists of the same priority, which
//! the store performs and answers in their order. One rule is added for disks that fill up: a persist may be
//! refused and a later one accepted. After a cut nothing more is asked for until the cut is durable (the
//! **fence**), so that new entries can never stand on the disk behind old ones that should have gone.

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

/// How many entries of a compacted prefix are forgotten at once.
const TRIM_STEP: u64 = 1024;

/// One persist that the disk has not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    token: u64,
    /// The hard state in it.
    hard: Option<HardState>,
    /// The record of the log's beginning in it.
    log_start: Option<LogStart>,
    /// What it cuts off first.
    cut: Option<LogIndex>,
    /// The log up to here is in it, or was asked for before.
    through: LogIndex,
    epoch: u64,
}

/// The disk, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stable {
    group: GroupId,
    last_token: u64,
    flights: VecDeque<Flight>,
    /// How many of them cut something off.
    fences: usize,
    /// What the disk has.
    durable: HardState,
    /// What it was last asked for.
    asked: HardState,
    /// A new record of the log's beginning that it was not asked for yet.
    unwritten: Option<LogStart>,
    /// Messages that promise a term or vote which is not durable yet.
    held: Vec<(NodeId, Message)>,
    /// Nothing is asked for before this: the disk was full.
    pub(super) full_until: Option<Instant>,
    /// Everything up to here is forgotten, or being forgotten.
    trimmed: LogIndex,
    /// Everything up to here should be.
    trim_to: LogIndex,
    trim: Option<u64>,
}

/// What became durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Messages that may leave now.
    pub(super) released: Vec<(NodeId, Message)>,
    /// The log begins here now.
    pub(super) log_start: Option<LogStart>,
}

impl Stable {
    pub(super) fn new(group: GroupId, durable: HardState) -> Self {
        Stable {
            group,
            last_token: 0,
            flights: VecDeque::new(),
            fences: 0,
            durable,
            asked: durable,
            unwritten: None,
            held: Vec::new(),
            full_until: None,
            trimmed: LogIndex(0),
            trim_to: LogIndex(0),
            trim: None,
        }
    }

    /// Whether the disk has this term and vote.
    pub(super) fn has(&self, hard: HardState) -> bool {
        self.durable == hard
    }

    /// Whether entries that had to go may still be on the disk. Nothing is acknowledged until they are gone.
    pub(super) fn is_fenced(&self) -> bool {
        self.fences > 0
    }

    /// Keeps a message until the term and vote that it promises are durable. It takes the place of an earlier
    /// one of its kind: a disk may be full for long.
    pub(super) fn hold(&mut self, to: NodeId, message: Message) {
        let kind = discriminant(&message.body);
        self.held
            .retain(|(peer, other)| *peer != to || discriminant(&other.body) != kind);
        self.held.push((to, message));
    }

    /// A new record of the log's beginning goes to the disk with whatever goes next.
    pub(super) fn begin(&mut self, log_start: LogStart) {
        self.unwritten = Some(log_start);
    }

    /// The log up to here is not needed any longer.
    pub(super) fn trim(&mut self, through: LogIndex) {
        self.trim_to = self.trim_to.max(through);
    }

    /// Asks the disk for everything that it has not been asked for.
    pub(super) fn flush(&mut self, hard: HardState, log: &mut Log, outputs: &mut Vec<Action>) {
        if self.full_until.is_some() || self.is_fenced() {
            return;
        }
        let mut ops = Vec::new();
        let changed = (hard != self.asked).then_some(hard);
        if changed.is_some() {
            self.asked = hard;
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
        let unwritten = log.hand_over();
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
        self.flights.push_back(Flight {
            token,
            hard: changed,
            log_start,
            cut,
            through: log.last().index,
            epoch: log.epoch(),
        });
        outputs.push(Action::Persist {
            token,
            priority: Priority::Urgent,
            ops,
        });
    }

    /// Asks the disk to forget the next part of what compaction has left behind.
    pub(super) fn flush_trim(&mut self, outputs: &mut Vec<Action>) {
        if self.trim.is_some() || self.trimmed >= self.trim_to || self.full_until.is_some() {
            return;
        }
        self.trimmed = LogIndex((self.trimmed.0 + TRIM_STEP).min(self.trim_to.0));
        let token = self.token();
        self.trim = Some(token);
        outputs.push(Action::Persist {
            token,
            priority: Priority::Bulk,
            ops: vec![JournalOp::Trim {
                stream: self.group.log_stream(),
                through: self.trimmed.0,
            }],
        });
    }

    /// The log was cut off as a whole: there is nothing to forget up to here.
    pub(super) fn has_nothing_before(&mut self, base: LogIndex) {
        self.trimmed = self.trimmed.max(base);
    }

    /// Where trimming goes on after a restart: everything before the first entry may still be there.
    pub(super) fn resume_trim(&mut self, base: LogIndex) {
        self.trimmed = base.previous();
        self.trim_to = base;
    }

    /// The disk has done what it was asked for under this token.
    pub(super) fn persisted(&mut self, token: u64, hard: HardState, log: &mut Log) -> Durable {
        let mut durable = Durable::default();
        if self.trim == Some(token) {
            self.trim = None;
            return durable;
        }
        let flight = self
            .flights
            .pop_front()
            .expect("the disk answers what it was asked");
        assert_eq!(
            flight.token, token,
            "the disk answers in the order in which it was asked"
        );
        self.fences -= usize::from(flight.cut.is_some());
        log.stabilize(flight.through, flight.epoch);
        self.durable = flight.hard.unwrap_or(self.durable);
        if self.durable == hard {
            durable.released = std::mem::take(&mut self.held);
            // Who has moved on to a later term promises nothing in an earlier one.
            durable.released.retain(|(_, message)| message.term == hard.term);
        }
        durable.log_start = flight.log_start;
        durable
    }

    /// The disk had no space for what it was asked for under this token, and has done nothing of it.
    pub(super) fn refused(&mut self, token: u64, retry_at: Instant, log: &mut Log) {
        self.full_until = Some(retry_at);
        if self.trim == Some(token) {
            self.trim = None;
            self.trimmed = self.trimmed.previous();
            return;
        }
        let place = self.flights.iter().position(|flight| flight.token == token);
        let place = place.expect("the disk answers what it was asked");
        let flight = self.flights.remove(place).expect("it was just found");
        self.fences -= usize::from(flight.cut.is_some());
        log.rewrite(flight.cut);
        self.asked = self.durable;
        self.unwritten = self.unwritten.take().or(flight.log_start);
    }

    /// Tokens are even: the odd ones belong to the host of the server.
    fn token(&mut self) -> u64 {
        self.last_token += 2;
        self.last_token
    }
}
