//! Client sessions: a retried command is executed once (thesis, 6.3).
//!
//! A client that gets no answer cannot know whether its command was executed. So it opens a **session** and
//! numbers its commands; each server's state machine remembers, per session, the answers to the commands that
//! the client has not yet acknowledged. A command that comes again gets the answer that it got, whoever leads
//! by then.
//!
//! Sessions are part of the replicated state: opened, used and expired by entries of the log, and in the
//! snapshots. Time is the logged time (each entry carries its leader's wall clock; the latest seen so far
//! counts), so all servers expire a session at the same entry. A command in an expired session is refused and
//! never executed: the client must find out by reading what became of its last commands.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::format::{self, FormatError};
use crate::machine::{Machine, StateMachine};
use crate::types::{LogIndex, LogPosition};

/// So many answers are kept for a session. A client keeps fewer commands under way than that.
pub const MAX_ANSWERS: usize = 1024;
/// A session lasts so long without a command at most: one that nobody uses any more must not take another's place for ever.
pub const MAX_IDLE_MS: u64 = 60 * 60 * 1000;
/// So many sessions are kept. When more are opened, the one that would expire first goes.
pub const MAX_SESSIONS: usize = 65_536;

/// A session: the index of the entry that opened it, so never one that was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// What a client can ask of the replicated state machine. The variants are part of the log's format. There a command is
/// bytes; a host that has read them already has it as what they say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request<C = Bytes> {
    /// Execute this. If it is retried, it may be executed twice.
    Plain(C),
    /// Open a session that expires after so many milliseconds without a command.
    Open {
        /// At least 1.
        idle_ms: u64,
    },
    /// End a session.
    Close(SessionId),
    /// Execute this once.
    InSession {
        /// In which session.
        session: SessionId,
        /// The client's number for it: 1, 2, …; the same when it is retried.
        sequence: u64,
        /// The client has the answers to all commands up to this number.
        acknowledged: u64,
        /// What to execute.
        command: C,
    },
}

/// What a request is answered: by the state machine, in bytes or as whatever it answers, or by the sessions themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer<A = Bytes> {
    /// The state machine's answer; for a retry, the one that the first attempt got.
    Done(A),
    /// The session exists now.
    Opened(SessionId),
    /// The session is gone.
    Closed,
}

/// Why a request was not executed. An earlier attempt may have been, and this one was not and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum SessionError {
    /// There is no such session (any more).
    #[error("the session has expired: open a new one, and read before repeating commands without an answer")]
    Expired,
    /// The answer is not kept any longer: the client has said that it has it, or has had too many under way.
    #[error(
        "the session does not keep the answer to this command any longer, so nobody can tell whether it was executed: read \
         before repeating it, and keep fewer than {MAX_ANSWERS} commands under way"
    )]
    Forgotten,
}

impl<C> Request<C> {
    /// The command in it, if there is one.
    pub fn command(&self) -> Option<&C> {
        match self {
            Request::Plain(command) | Request::InSession { command, .. } => Some(command),
            Request::Open { .. } | Request::Close(_) => None,
        }
    }

    /// The same with its command read.
    ///
    /// # Errors
    /// That of `read`.
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

/// A request as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Logged<C = Bytes> {
    /// When its leader took it, by that one's wall clock.
    pub time: WallTime,
    /// What is asked for.
    pub request: Request<C>,
}

impl<'a, C: Deserialize<'a>> Logged<C> {
    /// What the command of a log entry says.
    ///
    /// # Errors
    /// [`FormatError`] if it is none that [`logged`] made.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        format::decode_inner("logged request", bytes)
    }
}

/// A request as the command of a log entry, stamped with the time.
pub fn logged<C: Serialize>(time: WallTime, request: Request<C>) -> Bytes {
    format::encode_inner(&Logged { time, request })
}

/// What a state machine answers, as a session keeps it for retries.
pub trait SessionAnswer: Clone {
    /// Its bytes.
    fn keep(&self) -> Bytes;

    /// The answer that was kept.
    ///
    /// # Panics
    /// If the bytes are not what `keep` gave: they stand in a row that has been read as a whole.
    fn recall(bytes: &Bytes) -> Self;
}

impl SessionAnswer for Bytes {
    fn keep(&self) -> Bytes {
        self.clone()
    }

    fn recall(bytes: &Bytes) -> Self {
        bytes.clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Session {
    idle_ms: u64,
    expires: WallTime,
    /// No command up to here is executed (again).
    floor: u64,
    /// By number.
    answers: BTreeMap<u64, Bytes>,
}

/// A state machine with sessions around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions<M> {
    machine: M,
    /// The last entry that was applied.
    applied: LogIndex,
    /// The latest time in the log so far.
    clock: WallTime,
    sessions: BTreeMap<SessionId, Session>,
    /// All sessions, by when they expire.
    expiry: BTreeSet<(WallTime, SessionId)>,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    applied: LogIndex,
    clock: WallTime,
    sessions: BTreeMap<SessionId, Session>,
    machine: Bytes,
}

impl<M> Sessions<M> {
    /// What a host has kept elsewhere: the state machine after `applied`, the clock, and the sessions as
    /// [`session_row`](Self::session_row) gave them.
    ///
    /// # Errors
    /// [`FormatError`] for a row that is none.
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

    /// The state machine within.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state machine within, for its host.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The latest time in the log so far.
    pub fn clock(&self) -> WallTime {
        self.clock
    }

    /// A session, for a host that keeps each in a row of its own; `None` if it is no more.
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

    /// An entry without a command was committed.
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
    /// Applies a committed command. What it is answered may be [`SessionError`]: then it was not executed.
    ///
    /// # Errors
    /// [`FormatError`] if the command is none that [`logged`] made, or none that the state machine knows. Nothing has
    /// changed then, and no server can go on.
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
    /// As [`apply`](Self::apply), of a command that the host has read and executes itself; notes which sessions have changed
    /// or gone.
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
            return Ok(Answer::Done(A::recall(answer)));
        }
        if sequence <= session.floor {
            return Err(SessionError::Forgotten);
        }
        let answer = execute(&mut self.machine);
        session.answers.insert(sequence, answer.keep());
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
    /// Everything, for a snapshot. `without_sessions` is a deliberate mistake.
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

    /// What a snapshot holds.
    ///
    /// # Errors
    /// [`FormatError`] if `bytes` are none.
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
