//! A server of a group with its state machine, as a role: a host for state machines that fit into memory.
//! Quorate's nodes use another host (`quorate-consensus`), whose state machines are rows of a store.
//!
//! [`RaftGroup`] combines the other modules: it recovers the server from the disk, lets [`Raft`] decide what
//! is committed, applies committed commands to the [`Machine`] inside its [`Sessions`], stores snapshots, and
//! answers requests.
//!
//! # The outcome of a proposal
//! A leader records the log position of each proposal. When *that entry* is committed, the proposer gets the
//! state machine's answer; when *another* entry is committed at that index, the proposal was definitely not
//! executed. Nothing else is proof: an entry truncated from this log may still be in the log of another
//! server, which may become leader. So a deposed leader keeps proposals pending, and mostly learns their
//! outcome from its successor. If the deadline passes, or a snapshot replaces those entries, the outcome is
//! unknown.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, Priority, Rows};
use quorate_core::time::{Instant, Now};

use crate::action::Action;
use crate::entry::{Entry, EntryKind};
use crate::event::{Effect, Event, Proposal, ProposeError, QueryError, ReadAnswer, ReadLevel, ReadRequest};
use crate::format::FormatError;
use crate::machine::Machine;
use crate::pending::{DEADLINE_TIMER, PendingRequests, Resolved};
use crate::recovery::{Done, Recovery};
use crate::server::{Raft, Rejection, Turn};
use crate::sessions::{Sessions, logged};
use crate::settings::Setup;
use crate::snapshot_store::{Purpose, SnapshotStore, checksum};
use crate::status::Status;
use crate::types::LogPosition;

/// The protocol's timer.
const RAFT_TIMER: u64 = 0;

/// A server of a group and its state machine; see the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RaftGroup<M> {
    setup: Setup,
    phase: Phase<M>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<M> {
    /// Reading the disk. Links that went down meanwhile are remembered.
    Recovering(Box<Recovery>, BTreeSet<NodeId>),
    Running(Box<Running<M>>),
    /// The disk lacks what it should have: this server may have forgotten promises, and must not take part.
    Failed(String),
}

/// A recovered server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running<M> {
    raft: Raft,
    state: Sessions<M>,
    snapshot_store: SnapshotStore,
    without_sessions: bool,
    pending: PendingRequests,
    /// Why the server must stop, if so.
    failure: Option<String>,
    /// Snapshots received from the leader, until they are restored or superseded.
    received: BTreeMap<LogPosition, (Sessions<M>, Bytes)>,
}

impl<M: Machine> RaftGroup<M> {
    /// A server that recovers from its disk when it starts.
    pub fn new(setup: Setup) -> Self {
        let recovery = Recovery::new(setup.group);
        RaftGroup {
            setup,
            phase: Phase::Recovering(Box::new(recovery), BTreeSet::new()),
        }
    }

    /// The protocol's state, once recovered.
    pub fn raft(&self) -> Option<&Raft> {
        match &self.phase {
            Phase::Running(running) => Some(&running.raft),
            _ => None,
        }
    }

    /// The replicated state, once recovered.
    pub fn state(&self) -> Option<&Sessions<M>> {
        match &self.phase {
            Phase::Running(running) => Some(&running.state),
            _ => None,
        }
    }

    /// Why the server has failed, if so.
    pub fn failure(&self) -> Option<&str> {
        match &self.phase {
            Phase::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// The server's status, once recovered.
    pub fn status(&self, now: Instant) -> Option<Status> {
        self.raft().map(|raft| raft.status(now))
    }

    fn read(&mut self, result: Result<Rows, Error>, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        let Phase::Recovering(recovery, links_down) = &mut self.phase else {
            return;
        };
        let rows = result.map_err(|error| error.to_string());
        let done = rows.and_then(|rows| recovery.read(rows).map_err(|error| error.to_string()));
        match done {
            Ok(None) => effects.push(Effect::Read(recovery.query())),
            Ok(Some(done)) => {
                let links_down = std::mem::take(links_down);
                self.phase = match Running::start(&self.setup, done, links_down, now, rng, effects) {
                    Ok(running) => Phase::Running(Box::new(running)),
                    Err(why) => Phase::Failed(why),
                };
            }
            Err(why) => self.phase = Phase::Failed(why),
        }
    }

    /// Rejects a request to a server that does not take part: another server may take it.
    fn reject(event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Propose(proposals) => {
                effects.extend(proposals.into_iter().map(|proposal| Effect::Proposed {
                    id: proposal.id,
                    result: Err(ProposeError::Rejected(Rejection::NotLeader { leader: None })),
                }))
            }
            Event::Query(query) => effects.push(Effect::Queried {
                id: query.id,
                result: Err(QueryError::NotLeader { leader: None }),
            }),
            _ => {}
        }
    }
}

impl<M: Machine> Role for RaftGroup<M> {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match (&mut self.phase, event) {
            (Phase::Running(running), event) => {
                running.handle(now, rng, event, effects);
                if let Some(why) = running.failure.take() {
                    let mut resolved = Vec::new();
                    running.pending.fail_all(&mut resolved);
                    effects.extend(resolved.into_iter().map(Effect::from));
                    self.phase = Phase::Failed(why);
                }
            }
            (_, Event::Read { result }) => self.read(result, now, rng, effects),
            (Phase::Recovering(recovery, _), Event::Start) => effects.push(Effect::Read(recovery.query())),
            (Phase::Recovering(_, links_down), Event::Peer { node, up }) => {
                if up {
                    links_down.remove(&node);
                } else {
                    links_down.insert(node);
                }
            }
            (_, event) => Self::reject(event, effects),
        }
    }
}

impl<M: Machine> Running<M> {
    fn start(
        setup: &Setup,
        done: Done,
        links_down: BTreeSet<NodeId>,
        now: Now,
        rng: &mut Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<Self, String> {
        let mut actions = Vec::new();
        let mut turn = Turn {
            now,
            rng,
            actions: &mut actions,
        };
        let position = done
            .snapshot_ref
            .as_ref()
            .map(|snapshot_ref| snapshot_ref.meta.position);
        let state = match position {
            Some(_) => Sessions::load(&done.snapshot).map_err(|error| error.to_string())?,
            None => Sessions::default(),
        };
        let raft = Raft::start(setup.clone(), done.recovered, &mut turn);
        assert_eq!(
            state.applied(),
            raft.log().released(),
            "the snapshot does not match its record"
        );
        let current = position.map(|position| (position, done.snapshot));
        let mut running = Running {
            raft,
            state,
            snapshot_store: SnapshotStore::new(setup.group, current, done.next_chunk),
            without_sessions: setup.bugs.has(Bug::SessionsLostAtSnapshot),
            pending: PendingRequests::default(),
            failure: None,
            received: BTreeMap::new(),
        };
        for node in links_down {
            running.raft.peer(node, false, &mut turn);
        }
        running.perform(actions, now, rng, effects);
        match running.failure.take() {
            None => Ok(running),
            Some(why) => Err(why),
        }
    }

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        let mut actions = Vec::new();
        let mut turn = Turn {
            now,
            rng,
            actions: &mut actions,
        };
        match event {
            Event::Message { from, message } => self.raft.message(from, message, &mut turn),
            Event::Persisted { tokens } => self.persisted(&tokens, &mut turn),
            Event::PersistRefused { token } if SnapshotStore::owns(token) => self.snapshot_refused(token),
            Event::PersistRefused { token } => self.raft.persist_refused(token, &mut turn),
            Event::Propose(proposals) => self.propose(proposals, &mut turn, effects),
            Event::Query(query) => self.query(query, &mut turn, effects),
            Event::Timer { id: RAFT_TIMER } => self.raft.timer(&mut turn),
            Event::Timer { .. } => {
                self.resolve(effects, |pending, resolved| pending.expire(now.instant, resolved))
            }
            Event::Peer { node, up } => self.raft.peer(node, up, &mut turn),
            Event::Campaign => self.raft.campaign_now(&mut turn),
            Event::Start | Event::Read { .. } => {}
        }
        self.perform(actions, now, rng, effects);
        let armed = self.pending.arm(now.instant);
        effects.extend(armed.map(|at| Effect::SetTimer {
            id: DEADLINE_TIMER,
            at,
        }));
    }

    /// Performs the protocol's actions, in their order.
    fn perform(&mut self, actions: Vec<Action>, now: Now, rng: &mut Rng, effects: &mut Vec<Effect>) {
        let mut actions = actions;
        while !actions.is_empty() {
            let mut more = Vec::new();
            let mut turn = Turn {
                now,
                rng,
                actions: &mut more,
            };
            for action in actions {
                self.perform_one(action, &mut turn, effects);
            }
            actions = more;
        }
    }

    fn perform_one(&mut self, action: Action, turn: &mut Turn<'_>, effects: &mut Vec<Effect>) {
        match action {
            Action::Send { to, message } => effects.push(Effect::Send { to, message }),
            Action::Persist { token, priority, ops } => {
                effects.push(Effect::Persist { token, priority, ops })
            }
            Action::SetTimer { at } => effects.push(Effect::SetTimer { id: RAFT_TIMER, at }),
            Action::Notice(notice) => effects.push(Effect::Notice(notice)),
            Action::Apply(entries) => self.apply(entries, turn.now.instant, effects),
            Action::ReadReady { ids, index } => {
                self.pending.reads_ready(ids, index);
                self.answer_ready(turn.now.instant, effects);
            }
            Action::ReadFailed { ids, leader } => {
                let error = QueryError::NotLeader { leader };
                self.resolve(effects, |pending, resolved| {
                    pending.fail_reads(ids, error, resolved)
                });
            }
            Action::TakeSnapshot { position } => {
                let bytes = self.state.save(self.without_sessions);
                let write = self.snapshot_store.write(Purpose::Taken(position), bytes);
                effects.push(persist(write));
            }
            Action::ReadChunk {
                to,
                position,
                offset,
                length,
            } => {
                let bytes = self.snapshot_store.chunk(position, offset, length);
                self.raft.chunk_read(to, position, offset, bytes, turn);
            }
            Action::StoreChunk { offset, bytes, .. } => self.snapshot_store.store(offset, &bytes),
            Action::InstallSnapshot(meta) => match self.snapshot_store.complete(&meta) {
                Some(bytes) => {
                    effects.push(persist(self.snapshot_store.write(Purpose::Received(meta), bytes)))
                }
                None => self.raft.snapshot_received(&meta, None, turn),
            },
            Action::Restore { position } => self.restore(position, turn.now.instant, effects),
            Action::SnapshotDurable { handle } => {
                effects.extend(self.snapshot_store.forget_before(handle).map(persist))
            }
        }
    }

    // ---- the disk ----

    fn persisted(&mut self, tokens: &[u64], turn: &mut Turn<'_>) {
        let (snapshot_store, raft): (Vec<u64>, Vec<u64>) =
            tokens.iter().partition(|token| SnapshotStore::owns(**token));
        if !raft.is_empty() {
            self.raft.persisted(&raft, turn);
        }
        for token in snapshot_store {
            self.snapshot_written(token, turn);
        }
    }

    fn snapshot_written(&mut self, token: u64, turn: &mut Turn<'_>) {
        let Some(writing) = self.snapshot_store.answered(token) else {
            return;
        };
        let (bytes, handle) = (writing.bytes, writing.handle);
        match writing.purpose {
            Purpose::Taken(position) => {
                let (size, sum) = (bytes.len() as u64, checksum(&bytes));
                if self.raft.snapshot_taken(position, size, sum, handle, turn) {
                    self.snapshot_store.set_current(position, bytes);
                }
            }
            Purpose::Received(meta) => {
                let state = Sessions::load(&bytes).ok();
                let handle = state.as_ref().map(|_| handle);
                if let Some(state) = state
                    && meta.position.index > self.raft.log().commit()
                {
                    self.received.insert(meta.position, (state, bytes));
                }
                self.raft.snapshot_received(&meta, handle, turn);
            }
        }
    }

    fn restore(&mut self, position: LogPosition, now: Instant, effects: &mut Vec<Effect>) {
        let (state, bytes) = self
            .received
            .remove(&position)
            .expect("a restored snapshot was received");
        self.received.retain(|other, _| other.index > position.index);
        self.state = state;
        self.snapshot_store.set_current(position, bytes);
        self.resolve(effects, |pending, resolved| {
            pending.snapshot_installed(position.index, resolved)
        });
        self.answer_ready(now, effects);
    }

    fn snapshot_refused(&mut self, token: u64) {
        match self.snapshot_store.answered(token).map(|writing| writing.purpose) {
            Some(Purpose::Taken(_)) => self.raft.snapshot_failed(),
            Some(Purpose::Received(_)) => self.raft.snapshot_refused(),
            None => {}
        }
    }

    /// Reports the results of pending requests.
    fn resolve(
        &mut self,
        effects: &mut Vec<Effect>,
        resolve: impl FnOnce(&mut PendingRequests, &mut Vec<Resolved<Bytes>>),
    ) {
        let mut resolved = Vec::new();
        resolve(&mut self.pending, &mut resolved);
        effects.extend(resolved.into_iter().map(Effect::from));
    }

    // ---- proposals ----

    fn propose(&mut self, proposals: Vec<Proposal>, turn: &mut Turn<'_>, effects: &mut Vec<Effect>) {
        let time = turn.now.wall;
        let (pending, commands): (Vec<_>, Vec<_>) = proposals
            .into_iter()
            .map(|proposal| ((proposal.id, proposal.deadline), logged(time, proposal.request)))
            .unzip();
        match self.raft.propose(commands, turn) {
            Ok(first) => self.pending.add_proposals(first, pending),
            Err(rejection) => effects.extend(pending.into_iter().map(|(id, _)| Effect::Proposed {
                id,
                result: Err(ProposeError::Rejected(rejection)),
            })),
        }
    }

    /// Applies committed entries, up to the first that cannot be decoded: this server would diverge without
    /// it.
    fn apply(&mut self, entries: Vec<Entry>, now: Instant, effects: &mut Vec<Effect>) {
        for entry in entries {
            if self.failure.is_some() {
                return;
            }
            let position = entry.position();
            let answer = match &entry.kind {
                EntryKind::Command(command) => match self.state.apply(position, command) {
                    Ok(answer) => Some(answer),
                    Err(error) => {
                        self.failure = Some(unreadable(position, &error));
                        return;
                    }
                },
                EntryKind::Empty | EntryKind::Configuration(_) => {
                    self.state.skip(position);
                    None
                }
            };
            self.resolve(effects, |pending, resolved| {
                pending.committed(position, answer.as_ref(), resolved);
            });
        }
        self.raft.applied(self.state.applied());
        self.answer_ready(now, effects);
    }

    // ---- queries ----

    fn query(&mut self, query: ReadRequest, turn: &mut Turn<'_>, effects: &mut Vec<Effect>) {
        let id = query.id;
        match query.level {
            ReadLevel::Stale => self.answer_query(&query, turn.now.instant, effects),
            ReadLevel::Linearizable => {
                self.pending.add_read(query);
                self.raft.read(vec![id], turn);
            }
        }
    }

    /// Answers the reads whose read index has been applied.
    fn answer_ready(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for query in self.pending.take_ready(self.state.applied()) {
            self.answer_query(&query, now, effects);
        }
    }

    fn answer_query(&self, query: &ReadRequest, now: Instant, effects: &mut Vec<Effect>) {
        effects.push(Effect::Queried {
            id: query.id,
            result: Ok(ReadAnswer {
                answer: self.state.machine().query(&query.query),
                applied: self.state.applied(),
                age_micros: match query.level {
                    ReadLevel::Linearizable => Some(0),
                    ReadLevel::Stale => self.raft.age_micros(self.state.applied(), now),
                },
            }),
        });
    }
}

impl From<Resolved<Bytes>> for Effect {
    fn from(resolved: Resolved<Bytes>) -> Self {
        match resolved {
            Resolved::Proposed { id, result } => Effect::Proposed { id, result },
            Resolved::NotRead { id, error } => Effect::Queried {
                id,
                result: Err(error),
            },
        }
    }
}

/// Why a server stops whose committed entry cannot be decoded.
pub fn unreadable(position: LogPosition, error: &FormatError) -> String {
    format!(
        "entry {position} is committed but cannot be read ({error}): start this node with the program that its group's \
         leader runs"
    )
}

fn persist((token, priority, ops): (u64, Priority, Vec<JournalOp>)) -> Effect {
    Effect::Persist { token, priority, ops }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
