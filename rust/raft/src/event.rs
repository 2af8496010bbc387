//! Proposals, read requests and their errors, which all hosts use; and the events and effects of a
//! [`RaftGroup`](super::RaftGroup).
//!
//! Events and effects follow the role contract ([`quorate_core::contract`]). Proposals come in batches: those
//! that are pending together go into the log, onto the disk and to the followers together.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority, Query, Rows};
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::action::Notice;
use crate::message::Message;
use crate::server::Rejection;
use crate::sessions::{Answer, Request, SessionError};
use crate::types::{LogIndex, LogPosition};

/// The events of a group's server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The server starts. The first event, once.
    Start,
    /// A message from another server of the group.
    Message {
        /// The sender.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// Commands to execute.
    Propose(Vec<Proposal>),
    /// A read request.
    Query(ReadRequest),
    /// An operator requests an election here, now.
    Campaign,
    /// A timer fired.
    Timer {
        /// Its id.
        id: u64,
    },
    /// These persists are durable.
    Persisted {
        /// Their tokens, in the order in which they were requested.
        tokens: Vec<u64>,
    },
    /// This persist was refused before anything was written: the disk is full.
    PersistRefused {
        /// Its token.
        token: u64,
    },
    /// The result of a journal read.
    Read {
        /// The rows, or the reason of the failure.
        result: Result<Rows, Error>,
    },
    /// The link to a peer came up or went down.
    Peer {
        /// The peer.
        node: NodeId,
        /// Whether it is reachable now.
        up: bool,
    },
}

/// A command to execute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal<C = Bytes> {
    /// Returned with the result; unique among pending requests.
    pub id: u64,
    /// After this the result is no longer awaited.
    pub deadline: Instant,
    /// The request.
    pub request: Request<C>,
}

/// The consistency level of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Sees everything that was acknowledged before the read began.
    Linearizable,
    /// Sees what this server has applied, without delay.
    Stale,
}

/// A read of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadRequest {
    /// Returned with the answer; unique among pending proposals and reads.
    pub id: u64,
    /// After this the answer is no longer awaited.
    pub deadline: Instant,
    /// The consistency level.
    pub level: ReadLevel,
    /// The query.
    pub query: Bytes,
}

/// The effects that a group's server requests from its shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Deliver a message, at most once and in no promised order.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Make durable, then report it.
    Persist {
        /// Returned with the result.
        token: u64,
        /// The priority relative to other pending requests. Requests of one priority are performed in order.
        priority: Priority,
        /// All are written, or none (bulk requests: in slices).
        ops: Vec<JournalOp>,
    },
    /// Read the journal, then report the result. One at a time, and only during recovery.
    Read(Query),
    /// Deliver [`Event::Timer`] at this time; replaces a timer with the same id.
    SetTimer {
        /// Its id.
        id: u64,
        /// When it fires.
        at: Instant,
    },
    /// The result of a proposal.
    Proposed {
        /// The proposal.
        id: u64,
        /// Its position in the log and the answer, or the error.
        result: Result<(LogPosition, Answer), ProposeError>,
    },
    /// The result of a read.
    Queried {
        /// The read.
        id: u64,
        /// The answer, or the error.
        result: Result<ReadAnswer, QueryError>,
    },
    /// An event for the timeline.
    Notice(Notice),
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadAnswer {
    /// The state machine's answer.
    pub answer: Bytes,
    /// The last entry that was applied.
    pub applied: LogIndex,
    /// The answer includes everything that was acknowledged this many microseconds ago, or earlier. `None` if
    /// nothing is known about its age.
    pub age_micros: Option<u64>,
}

/// Why a proposal failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposeError {
    /// Rejected at once: it was not executed and will not be.
    Rejected(Rejection),
    /// Another entry was committed at its index: it was not executed and will not be.
    NotCommitted,
    /// It may have been executed, or may yet be.
    OutcomeUnknown,
    /// It was committed, but its session rejected it.
    Session(SessionError),
}

/// Why a read failed. It has had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryError {
    /// This server does not lead and cannot reach the leader.
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// The deadline passed.
    TimedOut,
}
