//! Proposals, questions and their errors, which all hosts use; and what can happen to a [`RaftGroup`](super::RaftGroup).
//!
//! Its events and effects are those of the role contract ([`quorate_core::contract`]). Proposals come in
//! batches: those that a shell finds waiting go into the log, onto the disk and to the followers together.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority, Query, Rows};
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::action::Notice;
use crate::message::Message;
use crate::server::Refusal;
use crate::sessions::{Answer, Request, SessionError};
use crate::types::{LogIndex, LogPosition};

/// What can happen to a group's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It exists now. The first event, once.
    Start,
    /// A message from another server of the group.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Someone wants commands executed.
    Propose(Vec<Proposal>),
    /// Someone wants to know something.
    Query(Question),
    /// An operator wants an election here, now.
    Campaign,
    /// A timer went off.
    Timer {
        /// The one that was set.
        id: u64,
    },
    /// These persists are durable.
    Persisted {
        /// Their tokens, in the order in which they were asked for.
        tokens: Vec<u64>,
    },
    /// This persist was refused before anything was written; the disk is full.
    PersistRefused {
        /// Its token.
        token: u64,
    },
    /// A read of the journal answered.
    Read {
        /// What was there, or why it cannot be read.
        result: Result<Rows, Error>,
    },
    /// The link to a peer came up or went down.
    Peer {
        /// Which peer.
        node: NodeId,
        /// Whether it can be reached now.
        up: bool,
    },
}

/// A command that someone wants executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal<C = Bytes> {
    /// Handed back with the answer; unique among those in progress.
    pub id: u64,
    /// Nobody waits for the answer any longer after this.
    pub deadline: Instant,
    /// What to execute.
    pub request: Request<C>,
}

/// How much a read has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Everything that was acknowledged before the read began.
    Linearizable,
    /// Whatever this server has applied, at once.
    Stale,
}

/// A question to the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Handed back with the answer; unique among proposals and queries in progress.
    pub id: u64,
    /// Nobody waits for the answer any longer after this.
    pub deadline: Instant,
    /// How much it has to see.
    pub level: ReadLevel,
    /// The question.
    pub query: Bytes,
}

/// What a group's server can ask its shell for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Deliver a message, at most once and in no promised order.
    Send {
        /// To which server of the group.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Make durable, then say so.
    Persist {
        /// Returned in the answer.
        token: u64,
        /// Against the other requests that wait. Requests of one priority are performed in order.
        priority: Priority,
        /// All of them or none (of a bulk request: in slices).
        ops: Vec<JournalOp>,
    },
    /// Read the journal, then say what is there. One at a time, and only before it takes part.
    Read(Query),
    /// Wake this server with [`Event::Timer`]; replaces a timer with the same id.
    SetTimer {
        /// Its name.
        id: u64,
        /// When.
        at: Instant,
    },
    /// A proposal's outcome.
    Proposed {
        /// Which.
        id: u64,
        /// Where it stands in the log, and the answer.
        result: Result<(LogPosition, Answer), ProposeError>,
    },
    /// A query's answer.
    Queried {
        /// Which.
        id: u64,
        /// The answer.
        result: Result<ReadAnswer, QueryError>,
    },
    /// Something for the timeline.
    Notice(Notice),
}

/// What a query saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadAnswer {
    /// The state machine's answer.
    pub answer: Bytes,
    /// The last entry that it had applied.
    pub applied: LogIndex,
    /// Everything that was acknowledged so many microseconds ago, or earlier, is in a stale answer. `None` if nothing is known
    /// about its age.
    pub age_micros: Option<u64>,
}

/// Why a proposal has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposeError {
    /// Refused at once: nothing was done and nothing will be.
    Refused(Refusal),
    /// Another entry was committed in its place: it was not executed and will not be.
    NotCommitted,
    /// It may have been executed, or may yet be.
    OutcomeUnknown,
    /// It is in the log, but its session did not let it be executed.
    Session(SessionError),
}

/// Why a query has no answer. It has had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryError {
    /// This server does not lead and cannot ask who does.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The deadline passed.
    TimedOut,
}
