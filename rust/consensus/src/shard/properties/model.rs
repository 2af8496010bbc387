//! The model of a shard: without rows, with its whole history.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::key::Key;
use quorate_protocol::shard_command::{Command, Condition, Outcome, Write};
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::sessions::{Logged, Request, SessionId, logged};

/// The effect of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntryEffect {
    Nothing,
    Command(Outcome),
    Opened,
    Closed,
    /// The session had expired.
    Expired,
}

/// A key's version and value; `None` if it is absent.
pub(super) type State = Option<(u64, Bytes)>;

#[derive(Debug)]
struct Session {
    idle_micros: u64,
    expires: u64,
}

/// A group's committed entries and their effects.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) requests: Vec<Option<Request<Command>>>,
    pub(super) did: Vec<EntryEffect>,
    /// The history of each key: its state from an entry on.
    history: BTreeMap<Key, Vec<(u64, State)>>,
    /// Appended, by id.
    pub(super) appended: BTreeMap<u64, (String, Bytes)>,
    clock: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// The answer to each command of a session.
    pub(super) executed: BTreeMap<(u64, u64), Outcome>,
    /// Commands in expired sessions.
    pub(super) expired: Vec<(u64, u64)>,
}

impl Model {
    /// The number of committed entries.
    pub(super) fn last(&self) -> u64 {
        self.did.len() as u64
    }

    pub(super) fn did(&self, index: u64) -> Option<&EntryEffect> {
        self.did.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    pub(super) fn request(&self, index: u64) -> Option<&Request<Command>> {
        self.requests
            .get(usize::try_from(index).ok()?.checked_sub(1)?)?
            .as_ref()
    }

    /// Applies the next entry.
    pub(super) fn commit(&mut self, entry: &Entry) {
        assert_eq!(entry.index.0, self.last() + 1, "entries are committed in order");
        let found = match &entry.kind {
            EntryKind::Command(bytes) => Some(bytes),
            _ => None,
        };
        let found = found.map(|bytes| {
            let read = Logged::<Command>::decode(bytes).expect("a logged request");
            assert_eq!(&logged(read.time, read.request.clone()), bytes);
            read
        });
        let did = match &found {
            Some(Logged { time, request }) => {
                self.clock = self.clock.max(time.0);
                let clock = self.clock;
                self.sessions.retain(|_, session| session.expires >= clock);
                self.request_of(entry, request)
            }
            _ => EntryEffect::Nothing,
        };
        self.requests.push(found.map(|logged| logged.request));
        self.did.push(did);
    }

    fn request_of(&mut self, entry: &Entry, request: &Request<Command>) -> EntryEffect {
        match request {
            Request::Plain(command) => EntryEffect::Command(self.execute(entry, command)),
            Request::Open { idle_ms } => {
                let idle_micros = idle_ms * 1000;
                let expires = self.clock + idle_micros;
                let session = Session { idle_micros, expires };
                self.sessions.insert(SessionId(entry.index.0), session);
                EntryEffect::Opened
            }
            Request::Close(session) => {
                self.sessions.remove(session);
                EntryEffect::Closed
            }
            Request::InSession {
                session,
                sequence,
                command,
                ..
            } => {
                let call = (session.0, *sequence);
                let Some(known) = self.sessions.get_mut(session) else {
                    self.expired.push(call);
                    return EntryEffect::Expired;
                };
                known.expires = self.clock + known.idle_micros;
                if let Some(outcome) = self.executed.get(&call) {
                    return EntryEffect::Command(outcome.clone());
                }
                let outcome = self.execute(entry, command);
                self.executed.insert(call, outcome.clone());
                EntryEffect::Command(outcome)
            }
        }
    }

    fn execute(&mut self, entry: &Entry, command: &Command) -> Outcome {
        let index = entry.index.0;
        match command.clone() {
            Command::Append { source, data } => {
                self.appended.insert(index, (source, data));
            }
            Command::Write(writes) => {
                let fails = |(_, write): &(u32, &Write)| {
                    let version = self.at(&write.key, u64::MAX).map(|(version, _)| version);
                    match write.condition {
                        Condition::Any => false,
                        Condition::Absent => version.is_some(),
                        Condition::Version(wanted) => version != Some(wanted),
                    }
                };
                if let Some((write, failed)) = (0..).zip(&writes).find(fails) {
                    let current = self.at(&failed.key, u64::MAX).map(|(version, _)| version);
                    return Outcome::ConditionFailed { write, current };
                }
                for write in writes {
                    let state = write.value.map(|value| (index, value));
                    self.history.entry(write.key).or_default().push((index, state));
                }
            }
        }
        Outcome::Done {
            index,
            term: entry.term.0,
        }
    }

    /// The state of a key after this entry.
    pub(super) fn at(&self, key: &Key, index: u64) -> State {
        let states = self.history.get(key)?;
        let count = states.partition_point(|(from, _)| *from <= index);
        states[..count].last().and_then(|(_, state)| state.clone())
    }

    /// All present keys after this entry.
    pub(super) fn all_at(&self, index: u64) -> BTreeMap<Key, (u64, Bytes)> {
        let there = |key: &Key| Some((key.clone(), self.at(key, index)?));
        self.history.keys().filter_map(there).collect()
    }
}
