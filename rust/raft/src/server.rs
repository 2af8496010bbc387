//! One server of a group: the protocol itself, without a state machine.
//!
//! [`Raft`] is the state machine of Figure 2 and the parts of the thesis that the [essay](super) names. This
//! file has its state and the way in and out; what it does stands in one file per concern:
//! `election`, `follower`, `leader`,
//! `read_index`, `staleness`, `snapshot`.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::contract::Rng;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};

use crate::action::{Action, Notice};
use crate::configuration::Configuration;
use crate::election::Candidate;
use crate::entry::{Entry, EntryKind};
use crate::follower::Follower;
use crate::leader::Leader;
use crate::log::Log;
use crate::message::{Body, Message};
use crate::read_index::Forwarded;
use crate::settings::Setup;
use crate::snapshot::{Incoming, LogStart, SnapshotRef};
use crate::stable::Stable;
use crate::staleness::Staleness;
use crate::status::Activity;
use crate::types::{HardState, LogIndex, LogPosition, Term};

/// What every call into a server is given, and where its outputs go.
pub struct Turn<'a> {
    /// The time. Never runs backwards.
    pub now: Now,
    /// Drawn from for election timeouts.
    pub rng: &'a mut Rng,
    /// Appended to.
    pub outputs: &'a mut Vec<Action>,
}

impl Turn<'_> {
    pub(super) fn notice(&mut self, notice: Notice) {
        self.outputs.push(Action::Notice(notice));
    }
}

/// Which of the three states of Figure 4 a server is in. Everyone starts as a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// What the disk has of a server: what it is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// Term and vote.
    pub hard: HardState,
    /// Where the log begins, if it has ever been compacted.
    pub log_start: Option<LogStart>,
    /// What the host's state machine has applied, durably; 0 if it begins with the snapshot, or empty.
    pub applied: LogIndex,
    /// The entries behind the base of the log, from its first position on, as far as the stream has them.
    /// What is behind a gap was never acknowledged and does not count.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// How far the log reaches, with the snapshot that stands for its beginning.
    pub fn reaches(&self) -> LogIndex {
        let start = self.log_start.as_ref();
        let base = start.map_or(0, |start| start.base.index.0);
        let snapshot = start.and_then(|start| start.snapshot.as_ref());
        let entries = self.entries.iter().zip(base + 1..);
        let contiguous = entries.take_while(|(entry, index)| entry.index.0 == *index);
        let last = LogIndex(base + contiguous.count() as u64);
        last.max(snapshot.map_or(LogIndex(0), |kept| kept.meta.position.index))
    }
}

/// A server of a group.
///
/// # The driving contract
/// * [`Raft::start`] it with what the disk has; then call it with what happens: [`message`](Raft::message),
///   [`timer`](Raft::timer), [`persisted`](Raft::persisted), [`peer`](Raft::peer),
///   [`propose`](Raft::propose), ….
/// * After each call perform the [`Action`]s, in their order; other calls may come before one is done.
/// * A server whose invariant breaks panics and must not be used again.
///
/// # What it keeps
/// At most one vote per term, given only to a candidate whose log is at least as up to date (election safety,
/// leader completeness); a log that only its leader's appends change, and nothing committed (log matching,
/// state machine safety).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(super) setup: Setup,
    pub(super) hard: HardState,
    pub(super) state: State,
    pub(super) log: Log,
    pub(super) stable: Stable,
    /// The snapshot that stands for the beginning of the log.
    pub(super) kept: Option<SnapshotRef>,
    /// The one that is being received.
    pub(super) incoming: Option<Incoming>,
    /// The host is making one.
    pub(super) taking: bool,
    /// Bytes of entries that have been released since the last snapshot.
    pub(super) since_snapshot: usize,
    /// Reads that a leader elsewhere was asked about.
    pub(super) forwarded: Forwarded,
    /// How old what it has applied may be.
    pub(super) staleness: Staleness,
    /// Peers whose link to this server broke and has not come back.
    pub(super) broken: BTreeSet<NodeId>,
    /// What it has done since it started.
    pub(super) activity: Activity,
    /// Since when nobody leads, as far as it knows, and it wants to.
    pub(super) leaderless: Option<Instant>,
    /// When it last reported a message that it rejected.
    pub(super) rejected_at: Option<Instant>,
    /// The timer that the host has.
    armed: Option<Instant>,
}

/// Why a server does not take commands. Nothing of them was or will be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another leads, or nobody.
    NotLeader {
        /// Who, if known.
        leader: Option<NodeId>,
    },
    /// Too much is waiting to be committed.
    Overloaded,
    /// This leader's disk is full.
    StorageFull,
}

impl Raft {
    /// A server with what its disk has.
    ///
    /// # Panics
    /// If the log on the disk contradicts itself.
    pub fn start(setup: Setup, recovered: Recovered, turn: &mut Turn<'_>) -> Self {
        let hard = recovered.hard;
        let LogStart {
            base,
            members,
            snapshot: kept,
        } = recovered.log_start.unwrap_or_else(|| LogStart {
            base: LogPosition::default(),
            members: setup.initial.clone(),
            snapshot: None,
        });
        let (applied, entries) = (recovered.applied, recovered.entries);
        let found = entries.len();
        let contiguous = entries
            .into_iter()
            .zip(base.index.0 + 1..)
            .take_while(|(entry, index)| entry.index.0 == *index)
            .map(|(entry, _)| entry);
        let contiguous: Vec<Entry> = contiguous.collect();
        let gap = contiguous.len() < found;
        let mut log = Log::recovered(base, members, contiguous);
        let reached = applied.max(base.index);
        log.resume(reached.min(log.last().index));
        if let Some(kept) = &kept
            && kept.meta.position.index > log.commit()
        {
            log.restore(kept.meta.position, kept.meta.configuration.clone());
        }
        assert!(
            reached <= log.commit(),
            "entry {reached} was applied, but the log ends at {}",
            log.last()
        );
        if gap {
            log.rewrite(None);
        }
        let mut stable = Stable::new(setup.group, hard);
        stable.resume_trim(log.base().index);
        let hard = HardState {
            vote: hard.vote.filter(|_| hard.term >= log.last().term),
            term: hard.term.max(log.last().term),
        };
        let follower = Follower::new(None, setup.settings.timing, turn);
        let forwarded = Forwarded::new(turn.rng);
        let mut raft = Raft {
            setup,
            hard,
            state: State::Follower(follower),
            log,
            stable,
            kept,
            incoming: None,
            taking: false,
            since_snapshot: 0,
            staleness: Staleness::new(forwarded.log_start()),
            forwarded,
            broken: BTreeSet::new(),
            activity: Activity::default(),
            leaderless: None,
            rejected_at: None,
            armed: None,
        };
        if raft.log.base() != base {
            // The snapshot's record was durable before the entries up to it were: it stands for all of them now. Together with
            // the cut of what the disk has, for else the log would be looked for behind its old beginning.
            raft.write_beginning();
        }
        raft.settle(turn);
        raft
    }

    // ---- what happens to it ----

    /// A message came.
    pub fn message(&mut self, from: NodeId, message: Message, turn: &mut Turn<'_>) {
        self.receive(from, message, turn);
        self.settle(turn);
    }

    /// The timer went off. Too early does no harm.
    pub fn timer(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        self.armed = None;
        if self.stable.full_until.is_some_and(|until| until <= now) {
            self.stable.full_until = None;
        }
        match &self.state {
            State::Leader(leader) if leader.heartbeat_at <= now => self.beat(turn),
            State::Follower(Follower { deadline, .. }) | State::Candidate(Candidate { deadline, .. })
                if *deadline <= now =>
            {
                self.campaign(turn);
            }
            _ => {}
        }
        self.settle(turn);
    }

    /// The disk has done what it was asked for under these tokens.
    ///
    /// # Panics
    /// If a token is unknown or out of order.
    pub fn persisted(&mut self, tokens: &[u64], turn: &mut Turn<'_>) {
        for token in tokens {
            let durable = self.stable.persisted(*token, self.hard, &mut self.log);
            let send = |(to, message)| Action::Send { to, message };
            turn.outputs.extend(durable.released.into_iter().map(send));
            if let Some(log_start) = durable.log_start {
                self.begins_durably(log_start, turn);
            }
        }
        self.count_own_vote(turn);
        self.acknowledge_news(turn);
        self.settle(turn);
    }

    /// The disk had no space for what it was asked for under this token.
    pub fn persist_refused(&mut self, token: u64, turn: &mut Turn<'_>) {
        let retry_at = turn.now.instant + self.setup.settings.full_pause;
        if self.stable.full_until.is_none() {
            turn.notice(Notice::StorageFull);
        }
        self.stable.refused(token, retry_at, &mut self.log);
        self.settle(turn);
    }

    /// The link to a peer came up or broke. Only a hint: nothing depends on it but how soon things happen.
    pub fn peer(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        if up {
            self.broken.remove(&node);
        } else {
            self.broken.insert(node);
        }
        match &mut self.state {
            State::Leader(leader) => leader.link(node, up),
            State::Follower(_) => self.leader_link(node, up, turn),
            State::Candidate(_) => {}
        }
        self.settle(turn);
    }

    /// Takes commands into the log, if it leads, and gives the position of the first. Whether they are ever
    /// applied is seen when the entries at their indexes are: the terms tell.
    ///
    /// # Errors
    /// [`Refusal`], of all of them.
    pub fn propose(&mut self, commands: Vec<Bytes>, turn: &mut Turn<'_>) -> Result<LogPosition, Refusal> {
        if !matches!(self.state, State::Leader(_)) {
            return Err(Refusal::NotLeader {
                leader: self.leader(),
            });
        }
        if self.stable.full_until.is_some() {
            return Err(Refusal::StorageFull);
        }
        if self.log.pending_bytes() >= self.setup.settings.uncommitted_bytes {
            return Err(Refusal::Overloaded);
        }
        let first = LogPosition {
            term: self.hard.term,
            index: self.log.last().index.next(),
        };
        for command in commands {
            self.append_own(EntryKind::Command(command));
        }
        self.settle(turn);
        Ok(first)
    }

    /// Asks for an election now, as if the timeout had passed.
    pub fn campaign_now(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::Leader(_)) {
            self.campaign(turn);
        }
        self.settle(turn);
    }

    // ---- how it deals with that ----

    fn receive(&mut self, from: NodeId, message: Message, turn: &mut Turn<'_>) {
        if let Err(reason) = self.validate(&message) {
            return self.reject(from, reason, turn);
        }
        let Message { term, body } = message;
        let asks_for_vote = matches!(body, Body::PreVote { .. } | Body::Vote { .. });
        if asks_for_vote && self.sticks_to_leader(from, turn.now.instant) {
            return;
        }
        if term < self.hard.term {
            // An answer in an earlier term answers a question that nobody asks any more.
            if asks_for_vote || body.is_leaders() {
                self.send(from, Body::Outdated, turn);
            }
            return;
        }
        if body.is_leaders() {
            if self.is_too_late(from, term) {
                return;
            }
            self.follow(term, from, turn);
        } else if term > self.hard.term {
            self.become_follower(term, None, turn);
        }
        match body {
            Body::PreVote { last } => self.on_pre_vote(from, last, turn),
            Body::PreVoteAnswer { granted } => self.on_ballot(from, true, granted, turn),
            Body::Vote { last } => self.on_vote(from, last, turn),
            Body::VoteAnswer { granted } => self.on_ballot(from, false, granted, turn),
            Body::Append {
                previous,
                commit,
                entries,
            } => self.on_append(from, previous, commit, entries, turn),
            Body::Heartbeat { commit, round } => self.on_heartbeat(from, commit, round, turn),
            Body::Snapshot { meta, offset, bytes } => self.on_chunk(from, *meta, offset, bytes, turn),
            Body::ReadIndexAnswer { request, index } => self.on_read_index_answer(request, index, turn),
            Body::ReadIndex { request } => self.on_read_index(from, request),
            Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::HeartbeatAck { .. }
            | Body::SnapshotReceived { .. } => self.on_progress(from, &body, turn),
            Body::Probe { probe } => self.on_probe(from, probe),
            Body::Fresh { probe, index } => self.on_fresh(from, probe, index, turn),
            // The term has said everything.
            Body::Outdated => {}
        }
    }

    /// Ends every call: asks the disk for what is new, and lets everything move on that can.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.stable.flush(self.hard, &mut self.log, turn.outputs);
        self.lead(turn);
        self.release(turn);
        self.stable.flush_trim(turn.outputs);
        self.arm(turn);
        self.log.check();
    }

    /// Gives what is committed to the state machine.
    fn release(&mut self, turn: &mut Turn<'_>) {
        if self.log.released() < self.log.commit() {
            let entries = self.log.release();
            self.count_commands(&entries);
            self.since_snapshot += entries.iter().map(Entry::size).sum::<usize>();
            turn.outputs.push(Action::Apply(entries));
            self.ask_if_due(turn);
        }
    }

    /// Sets the timer for whatever is due first. One that is set too early goes off for nothing and is set
    /// again: that is cheaper than moving it with every message of the leader.
    fn arm(&mut self, turn: &mut Turn<'_>) {
        let own = match &self.state {
            State::Leader(leader) => leader.heartbeat_at,
            State::Follower(Follower { deadline, .. }) | State::Candidate(Candidate { deadline, .. }) => {
                *deadline
            }
        };
        let at = self.stable.full_until.map_or(own, |until| until.min(own));
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            turn.outputs.push(Action::SetTimer { at });
        }
    }

    /// Sends a message in the current term, once that term and the vote in it are durable.
    pub(super) fn send(&mut self, to: NodeId, body: Body, turn: &mut Turn<'_>) {
        let message = Message {
            term: self.hard.term,
            body,
        };
        if message.body.is_free() || self.stable.has(self.hard) || self.setup.bugs.has(Bug::VoteNotDurable) {
            turn.outputs.push(Action::Send { to, message });
        } else {
            self.stable.hold(to, message);
        }
    }

    // ---- what it knows ----

    /// This server.
    pub fn me(&self) -> NodeId {
        self.setup.me
    }

    /// The deliberate mistakes that it makes, and its host with it.
    pub fn bugs(&self) -> Bugs {
        self.setup.bugs
    }

    /// The latest term that it has seen.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Whom it follows, or itself if it leads.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Follower(follower) => follower.leader,
            State::Candidate(_) => None,
            State::Leader(_) => Some(self.setup.me),
        }
    }

    /// Whether it believes that it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The members that count now.
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// Microseconds since it heard from the leader; 0 if it leads, `None` if it knows none.
    pub fn heard_micros(&self, now: Instant) -> Option<u64> {
        match &self.state {
            State::Follower(follower) => follower.heard.map(|heard| now.0.saturating_sub(heard.0)),
            State::Candidate(_) => None,
            State::Leader(_) => Some(0),
        }
    }
}
