//! Client sessions: a retried command is executed once (thesis, 6.3).
//!
//! A client whose request times out does not know whether its command was executed. So it opens a **session**
//! and numbers its commands; each server's state machine stores, per session, the answers to the commands
//! that the client has not yet acknowledged. A retried command gets the answer of the first attempt,
//! whichever server leads by then.
//!
//! Sessions are part of the replicated state: entries of the log open, use and expire them, and snapshots
//! include them. Time is the logged time (each entry carries its leader's wall clock; the latest one so far
//! counts), so all servers expire a session at the same entry. A command in an expired session is rejected
//! and never executed: the client must read to learn the outcome of its last commands.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::format::{self, FormatError};
use crate::machine::{Machine, StateMachine};
use crate::types::{LogIndex, LogPosition};

/// The maximum number of answers stored for a session. A client keeps fewer commands in flight.
pub const MAX_ANSWERS: usize = 1024;
/// The maximum idle time of a session, so that an abandoned one does not hold its place for ever.
pub const MAX_IDLE_MS: u64 = 60 * 60 * 1000;
/// The maximum number of sessions. Opening more closes the one that would expire first.
pub const MAX_SESSIONS: usize = 65_536;

/// A session: the index of the entry that opened it, and so never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A request to the replicated state machine. The variants are part of the log's format, where a command is
/// bytes; elsewhere it may be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request<C = Bytes> {
    /// Execute this command. A retry may execute it twice.
    Plain(C),
    /// Open a session that expires after this many milliseconds without a command.
    Open {
        /// At least 1.
        idle_ms: u64,
    },
    /// Close a session.
    Close(SessionId),
    /// Execute this command once.
    InSession {
        /// The session.
        session: SessionId,
        /// The client's number for the command: 1, 2, …; the same for a retry.
        sequence: u64,
        /// The client has received the answers to all commands up to this number.
        acknowledged: u64,
        /// The command.
        command: C,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer<A = Bytes> {
    /// The state machine's answer; for a retry, that of the first attempt.
    Done(A),
    /// The session is open.
    Opened(SessionId),
    /// The session is closed.
    Closed,
}

/// Why a request was not executed. An earlier attempt may have been; this one was not and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum SessionError {
    /// The session does not exist (any more).
    #[error("the session has expired: open a new one, and read before repeating commands without an answer")]
    Expired,
    /// The answer is no longer stored: the client acknowledged it, or had too many commands in flight.
    #[error(
        "the session no longer stores the answer to this command, so its outcome is unknown: read before repeating it, and \
         keep fewer than {MAX_ANSWERS} commands in flight"
    )]
    Forgotten,
}

impl<C> Request<C> {
    /// The command, if any.
    pub fn command(&self) -> Option<&C> {
        match self {
            Request::Plain(command) | Request::InSession { command, .. } => Some(command),
            Request::Open { .. } | Request::Close(_) => None,
        }
    }

    /// The same request with a decoded command.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<D, E>(self, read: impl FnOnce(C) -> Result<D, E>) -> Result<Request<D>, E> {
        Ok(match self {
            Request::Plain(command) => Request::Plain(read(command)?),
            Request::Open { idle_ms } => Request::Open { idle_ms },
            Request::Close(session) => Request::Close(session),
            Request::InSession {
                session,
                sequence,
                acknowledged,
                command,
            } => Request::InSession {
                session,
                sequence,
                acknowledged,
                command: read(command)?,
            },
        })
    }
}

/// A request as a log entry stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Logged<C = Bytes> {
    /// The wall clock of the leader that proposed it.
    pub time: WallTime,
    /// The request.
    pub request: Request<C>,
}

impl<'a, C: Deserialize<'a>> Logged<C> {
    /// Decodes the command of a log entry.
    ///
    /// # Errors
    /// [`FormatError`] if [`logged`] did not encode it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        format::decode_inner("logged request", bytes)
    }
}

/// Encodes a request as the command of a log entry, with the time.
pub fn logged<C: Serialize>(time: WallTime, request: Request<C>) -> Bytes {
    format::encode_inner(&Logged { time, request })
}

/// An answer of a state machine, which a session stores for retries.
pub trait SessionAnswer: Clone {
    /// Encodes the answer.
    fn to_bytes(&self) -> Bytes;

    /// Decodes a stored answer.
    ///
    /// # Panics
    /// If `to_bytes` did not encode it: the row that contains it has been decoded before.
    fn from_bytes(bytes: &Bytes) -> Self;
}

impl SessionAnswer for Bytes {
    fn to_bytes(&self) -> Bytes {
        self.clone()
    }

    fn from_bytes(bytes: &Bytes) -> Self {
        bytes.clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Session {
    idle_ms: u64,
    expires: WallTime,
    /// No command up to here is executed (again).
    floor: u64,
    /// By sequence number.
    answers: BTreeMap<u64, Bytes>,
}

/// A state machine with its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions<M> {
    machine: M,
    /// The last entry that was applied.
    applied: LogIndex,
    /// The latest time in the log so far.
    clock: WallTime,
    sessions: BTreeMap<SessionId, Session>,
    /// All sessions by expiry.
    expiry: BTreeSet<(WallTime, SessionId)>,
}

/// The content of a snapshot.
#[derive(Serialize, Deserialize)]
struct Saved {
    applied: LogIndex,
    clock: WallTime,
    sessions: BTreeMap<SessionId, Session>,
    machine: Bytes,
}

impl<M> Sessions<M> {
    /// Restores what a host has stored elsewhere: the state machine after `applied`, the clock, and the
    /// sessions as [`session_row`](Self::session_row) encoded them.
    ///
    /// # Errors
    /// [`FormatError`] if a row cannot be decoded.
    pub fn resume(
        machine: M,
        applied: LogIndex,
        clock: WallTime,
        rows: impl IntoIterator<Item = (SessionId, Bytes)>,
    ) -> Result<Self, FormatError> {
        let mut sessions = BTreeMap::new();
        for (id, row) in rows {
            let session: Session = format::decode("session", &row)?;
            sessions.insert(id, session);
        }
        let expiry = sessions.iter().map(|(id, session)| (session.expires, *id));
        Ok(Sessions {
            expiry: expiry.collect(),
            machine,
            applied,
            clock,
            sessions,
        })
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state machine, for its host.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The latest time in the log so far.
    pub fn clock(&self) -> WallTime {
        self.clock
    }

    /// A session's row, for a host that stores each session as a row; `None` if it is closed.
    pub fn session_row(&self, id: SessionId) -> Option<Bytes> {
        self.sessions.get(&id).map(format::encode)
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// How many sessions are open.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// Skips a committed entry without a command.
    pub fn skip(&mut self, position: LogPosition) {
        assert_eq!(
            position.index,
            self.applied.next(),
            "entries are applied in order, each once"
        );
        self.applied = position.index;
    }
}

impl<M: StateMachine> Sessions<M> {
    /// Applies a committed command. A [`SessionError`] as its answer means that it was not executed.
    ///
    /// # Errors
    /// [`FormatError`] if the command cannot be decoded. Nothing has changed then; the server must stop.
    pub fn apply(
        &mut self,
        position: LogPosition,
        command: &Bytes,
    ) -> Result<Result<Answer, SessionError>, FormatError> {
        let Logged { time, request } = Logged::<Bytes>::decode(command)?;
        let request = request.read(|command| M::decode(&command))?;
        let execute = |machine: &mut M, time, command| machine.apply(position, time, command);
        Ok(self.apply_read(position, Logged { time, request }, &mut BTreeSet::new(), execute))
    }
}

impl<M> Sessions<M> {
    /// As [`apply`](Self::apply), for a command that the host has decoded and executes itself; records which
    /// sessions have changed or been closed.
    ///
    /// # Errors
    /// [`SessionError`] if it was not executed.
    pub fn apply_read<C, A: SessionAnswer>(
        &mut self,
        position: LogPosition,
        logged: Logged<C>,
        touched: &mut BTreeSet<SessionId>,
        execute: impl FnOnce(&mut M, WallTime, C) -> A,
    ) -> Result<Answer<A>, SessionError> {
        self.skip(position);
        let Logged { time, request } = logged;
        self.clock = self.clock.max(time);
        self.expire(touched);
        let clock = self.clock;
        match request {
            Request::Plain(command) => Ok(Answer::Done(execute(&mut self.machine, clock, command))),
            Request::Open { idle_ms } => Ok(Answer::Opened(self.open_session(position, idle_ms, touched))),
            Request::Close(id) => {
                self.close(id, touched);
                Ok(Answer::Closed)
            }
            Request::InSession {
                session,
                sequence,
                acknowledged,
                command,
            } => {
                touched.insert(session);
                let execute = |machine: &mut M| execute(machine, clock, command);
                self.execute_once(session, (sequence, acknowledged), execute)
            }
        }
    }

    fn execute_once<A: SessionAnswer>(
        &mut self,
        id: SessionId,
        (sequence, acknowledged): (u64, u64),
        execute: impl FnOnce(&mut M) -> A,
    ) -> Result<Answer<A>, SessionError> {
        let session = self.sessions.get_mut(&id).ok_or(SessionError::Expired)?;
        self.expiry.remove(&(session.expires, id));
        session.expires = WallTime(self.clock.0.saturating_add(session.idle_ms.saturating_mul(1000)));
        self.expiry.insert((session.expires, id));
        if acknowledged > session.floor {
            session.floor = acknowledged;
            session.answers = match acknowledged.checked_add(1) {
                Some(first) => session.answers.split_off(&first),
                None => BTreeMap::new(),
            };
        }
        if let Some(answer) = session.answers.get(&sequence) {
            return Ok(Answer::Done(A::from_bytes(answer)));
        }
        if sequence <= session.floor {
            return Err(SessionError::Forgotten);
        }
        let answer = execute(&mut self.machine);
        session.answers.insert(sequence, answer.to_bytes());
        if session.answers.len() > MAX_ANSWERS
            && let Some((oldest, _)) = session.answers.pop_first()
        {
            session.floor = oldest;
        }
        Ok(Answer::Done(answer))
    }

    fn open_session(
        &mut self,
        position: LogPosition,
        idle_ms: u64,
        touched: &mut BTreeSet<SessionId>,
    ) -> SessionId {
        if self.sessions.len() >= MAX_SESSIONS
            && let Some((_, first)) = self.expiry.first().copied()
        {
            self.close(first, touched);
        }
        let id = SessionId(position.index.0);
        touched.insert(id);
        let expires = WallTime(self.clock.0.saturating_add(idle_ms.saturating_mul(1000)));
        let session = Session {
            idle_ms,
            expires,
            floor: 0,
            answers: BTreeMap::new(),
        };
        self.sessions.insert(id, session);
        self.expiry.insert((expires, id));
        id
    }

    fn close(&mut self, id: SessionId, touched: &mut BTreeSet<SessionId>) {
        if let Some(session) = self.sessions.remove(&id) {
            self.expiry.remove(&(session.expires, id));
            touched.insert(id);
        }
    }

    fn expire(&mut self, touched: &mut BTreeSet<SessionId>) {
        while let Some((expires, id)) = self.expiry.first().copied()
            && expires < self.clock
        {
            self.close(id, touched);
        }
    }
}

impl<M: Machine> Sessions<M> {
    /// Encodes everything, for a snapshot. `without_sessions` is a deliberate mistake.
    pub fn save(&self, without_sessions: bool) -> Bytes {
        format::encode(&Saved {
            applied: self.applied,
            clock: self.clock,
            sessions: if without_sessions {
                BTreeMap::new()
            } else {
                self.sessions.clone()
            },
            machine: self.machine.save(),
        })
    }

    /// Decodes a snapshot.
    ///
    /// # Errors
    /// [`FormatError`] if `bytes` are not a snapshot.
    pub fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        let saved: Saved = format::decode("snapshot", bytes)?;
        let expiry = saved.sessions.iter().map(|(id, session)| (session.expires, *id));
        Ok(Sessions {
            machine: M::load(&saved.machine)?,
            applied: saved.applied,
            clock: saved.clock,
            expiry: expiry.collect(),
            sessions: saved.sessions,
        })
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
