//! One server of a group: the protocol itself, without a state machine.
//!
//! [`Raft`] is the state machine of Figure 2 and the parts of the thesis that the [essay](super) names. This
//! file has its state, its inputs and its actions; the behaviour is in one file per concern: `election`,
//! `follower`, `leader`, `read_index`, `staleness`, `snapshot`.

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

/// The context of a call into a server.
pub struct Turn<'a> {
    /// The time. Never runs backwards.
    pub now: Now,
    /// The source of election timeouts.
    pub rng: &'a mut Rng,
    /// Receives the actions.
    pub actions: &'a mut Vec<Action>,
}

impl Turn<'_> {
    pub(super) fn notice(&mut self, notice: Notice) {
        self.actions.push(Action::Notice(notice));
    }
}

/// The three states of Figure 4. Every server starts as a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// A server's state on disk, with which it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// Term and vote.
    pub hard: HardState,
    /// The start of the log, if it was ever compacted.
    pub log_start: Option<LogStart>,
    /// The last entry durably applied by the host's state machine; 0 if that starts from the snapshot, or
    /// empty.
    pub applied: LogIndex,
    /// The entries after the base of the log, contiguous from its first position on. Entries after a gap were
    /// never acknowledged and do not count.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// The last index of the log, including the snapshot.
    pub fn last_index(&self) -> LogIndex {
        let start = self.log_start.as_ref();
        let base = start.map_or(0, |start| start.base.index.0);
        let snapshot = start.and_then(|start| start.snapshot.as_ref());
        let entries = self.entries.iter().zip(base + 1..);
        let contiguous = entries.take_while(|(entry, index)| entry.index.0 == *index);
        let last = LogIndex(base + contiguous.count() as u64);
        last.max(snapshot.map_or(LogIndex(0), |snapshot_ref| snapshot_ref.meta.position.index))
    }
}

/// A server of a group.
///
/// # The driving contract
/// * [`Raft::start`] it with its state on disk; then call it for each event: [`message`](Raft::message),
///   [`timer`](Raft::timer), [`persisted`](Raft::persisted), [`peer`](Raft::peer),
///   [`propose`](Raft::propose), ….
/// * After each call perform the [`Action`]s, in their order; other calls may come before one completes.
/// * A server that violates an invariant panics and must not be used again.
///
/// # Invariants
/// At most one vote per term, given only to a candidate whose log is at least as up to date (election safety,
/// leader completeness); a log that only its leader's appends change, and never its committed part (log
/// matching, state machine safety).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(super) setup: Setup,
    pub(super) hard: HardState,
    pub(super) state: State,
    pub(super) log: Log,
    pub(super) stable: Stable,
    /// The snapshot that covers the compacted part of the log.
    pub(super) snapshot_ref: Option<SnapshotRef>,
    /// The snapshot that is being received.
    pub(super) incoming: Option<Incoming>,
    /// Whether the host is taking_snapshot a snapshot.
    pub(super) taking_snapshot: bool,
    /// Bytes of the entries released since the last snapshot.
    pub(super) since_snapshot: usize,
    /// Reads for which the leader was sent a request.
    pub(super) forwarded: Forwarded,
    /// The age of the applied state.
    pub(super) staleness: Staleness,
    /// Peers whose link to this server is down.
    pub(super) links_down: BTreeSet<NodeId>,
    /// Counters since the server started.
    pub(super) activity: Activity,
    /// Since when it has known of no leader and wanted one.
    pub(super) leaderless: Option<Instant>,
    /// When it last reported a rejected message.
    pub(super) rejected_at: Option<Instant>,
    /// The timer that is set.
    armed: Option<Instant>,
}

/// Why a server rejects commands. They were not executed and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Another server leads, or none.
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too many entries are uncommitted.
    Overloaded,
    /// This leader's disk is full.
    StorageFull,
}

impl Raft {
    /// Starts a server from its state on disk.
    ///
    /// # Panics
    /// If the log on the disk is inconsistent.
    pub fn start(setup: Setup, recovered: Recovered, turn: &mut Turn<'_>) -> Self {
        let hard = recovered.hard;
        let LogStart {
            base,
            members,
            snapshot: snapshot_ref,
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
        if let Some(snapshot_ref) = &snapshot_ref
            && snapshot_ref.meta.position.index > log.commit()
        {
            log.restore(
                snapshot_ref.meta.position,
                snapshot_ref.meta.configuration.clone(),
            );
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
            snapshot_ref,
            incoming: None,
            taking_snapshot: false,
            since_snapshot: 0,
            staleness: Staleness::new(forwarded.first_request()),
            forwarded,
            links_down: BTreeSet::new(),
            activity: Activity::default(),
            leaderless: None,
            rejected_at: None,
            armed: None,
        };
        if raft.log.base() != base {
            // The snapshot's record was durable before the entries up to it were: it now covers them all.
            // Written together with the truncation, or the next recovery would look for the log after its old
            // base.
            raft.write_log_start();
        }
        raft.advance(turn);
        raft
    }

    // ---- events ----

    /// A message has arrived.
    pub fn message(&mut self, from: NodeId, message: Message, turn: &mut Turn<'_>) {
        self.receive(from, message, turn);
        self.advance(turn);
    }

    /// The timer fired. Firing early is harmless.
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
        self.advance(turn);
    }

    /// These persists are durable.
    ///
    /// # Panics
    /// If a token is unknown or out of order.
    pub fn persisted(&mut self, tokens: &[u64], turn: &mut Turn<'_>) {
        for token in tokens {
            let durable = self.stable.persisted(*token, self.hard, &mut self.log);
            let send = |(to, message)| Action::Send { to, message };
            turn.actions.extend(durable.released.into_iter().map(send));
            if let Some(log_start) = durable.log_start {
                self.log_start_durable(log_start, turn);
            }
        }
        self.count_own_vote(turn);
        self.acknowledge_progress(turn);
        self.advance(turn);
    }

    /// The disk had no space for this persist.
    pub fn persist_refused(&mut self, token: u64, turn: &mut Turn<'_>) {
        let retry_at = turn.now.instant + self.setup.settings.full_pause;
        if self.stable.full_until.is_none() {
            turn.notice(Notice::StorageFull);
        }
        self.stable.refused(token, retry_at, &mut self.log);
        self.advance(turn);
    }

    /// The link to a peer came up or went down. A hint: it affects only timing, never correctness.
    pub fn peer(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        if up {
            self.links_down.remove(&node);
        } else {
            self.links_down.insert(node);
        }
        match &mut self.state {
            State::Leader(leader) => leader.link(node, up),
            State::Follower(_) => self.leader_link(node, up, turn),
            State::Candidate(_) => {}
        }
        self.advance(turn);
    }

    /// Appends commands to the log, if this server leads, and returns the position of the first. Whether they
    /// are applied is known when the entries at their indexes are: compare the terms.
    ///
    /// # Errors
    /// [`Rejection`], for all of them.
    pub fn propose(&mut self, commands: Vec<Bytes>, turn: &mut Turn<'_>) -> Result<LogPosition, Rejection> {
        if !matches!(self.state, State::Leader(_)) {
            return Err(Rejection::NotLeader {
                leader: self.leader(),
            });
        }
        if self.stable.full_until.is_some() {
            return Err(Rejection::StorageFull);
        }
        if self.log.pending_bytes() >= self.setup.settings.uncommitted_bytes {
            return Err(Rejection::Overloaded);
        }
        let first = LogPosition {
            term: self.hard.term,
            index: self.log.last().index.next(),
        };
        for command in commands {
            self.append_own(EntryKind::Command(command));
        }
        self.advance(turn);
        Ok(first)
    }

    /// Starts an election now, as if the timeout had passed.
    pub fn campaign_now(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::Leader(_)) {
            self.campaign(turn);
        }
        self.advance(turn);
    }

    // ---- handling ----

    fn receive(&mut self, from: NodeId, message: Message, turn: &mut Turn<'_>) {
        if let Err(reason) = self.validate(&message) {
            return self.reject(from, reason, turn);
        }
        let Message { term, body } = message;
        let is_vote_request = matches!(body, Body::PreVote { .. } | Body::Vote { .. });
        if is_vote_request && self.sticks_to_leader(from, turn.now.instant) {
            return;
        }
        if term < self.hard.term {
            // An answer in an earlier term belongs to a request that is no longer pending.
            if is_vote_request || body.is_leaders() {
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
            Body::ProbeAnswer { probe, index } => self.on_probe_answer(from, probe, index, turn),
            // Only its term matters.
            Body::Outdated => {}
        }
    }

    /// Ends every call: commits and replicates what is possible, and requests pending writes.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        self.stable.flush(self.hard, &mut self.log, turn.actions);
        self.lead(turn);
        self.release(turn);
        self.stable.flush_trim(turn.actions);
        self.arm(turn);
        self.log.check();
    }

    /// Gives committed entries to the state machine.
    fn release(&mut self, turn: &mut Turn<'_>) {
        if self.log.released() < self.log.commit() {
            let entries = self.log.release();
            self.count_commands(&entries);
            self.since_snapshot += entries.iter().map(Entry::size).sum::<usize>();
            turn.actions.push(Action::Apply(entries));
            self.request_snapshot_if_due(turn);
        }
    }

    /// Sets the timer for the next deadline. A timer that fires too early is set again: that is cheaper than
    /// moving it with every message of the leader.
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
            turn.actions.push(Action::SetTimer { at });
        }
    }

    /// Sends a message in the current term, once that term and the vote in it are durable.
    pub(super) fn send(&mut self, to: NodeId, body: Body, turn: &mut Turn<'_>) {
        let message = Message {
            term: self.hard.term,
            body,
        };
        if message.body.promises_nothing()
            || self.stable.has(self.hard)
            || self.setup.bugs.has(Bug::VoteNotDurable)
        {
            turn.actions.push(Action::Send { to, message });
        } else {
            self.stable.hold(to, message);
        }
    }

    // ---- queries ----

    /// This server.
    pub fn me(&self) -> NodeId {
        self.setup.me
    }

    /// The deliberate mistakes of this server and its host.
    pub fn bugs(&self) -> Bugs {
        self.setup.bugs
    }

    /// The latest term seen.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The known leader; itself if it leads.
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

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The members in effect.
    pub fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    /// Microseconds since it heard from the leader; 0 if it leads, `None` without a leader.
    pub fn heard_micros(&self, now: Instant) -> Option<u64> {
        match &self.state {
            State::Follower(follower) => follower
                .last_contact
                .map(|contact| now.0.saturating_sub(contact.0)),
            State::Candidate(_) => None,
            State::Leader(_) => Some(0),
        }
    }
}
