//! The host of a Raft server, for the control plane and for shards.
//!
//! [`Raft`] decides what is committed, and requests everything else by [`Action`]s. A [`Host`] performs them:
//! it makes the log durable, sends messages, applies committed commands to a [`Machine`] within its clients'
//! sessions, writes the resulting rows, takes, sends and loads snapshots of them, and tracks pending
//! requests. Leases, leadership transfer and joint consensus belong here, and in `quorate-raft`.
//!
//! # Log and rows
//! The log makes commands durable, so rows are not journalled again: they are derived from it
//! ([`Effect::ApplyRows`]), and the store reports when they are [durable](Event::Flushed). Only then is the
//! log before them compacted. A marker among the rows records their log position; a server that starts
//! resumes the log from there ([`recovery`]). An entry's rows are written only when the entry is durable
//! *here*: rows must never be ahead of the log ([`pipeline`]). A state in memory need not wait for that, and
//! follows the log even while the disk is full.
//!
//! The rows *are* the state at the marker. Only a member that lacks compacted entries needs a copy of them,
//! as a file ([`snapshots`]).
//!
//! # The owner
//! The owner is a role. It passes events to the host ([`Host::handle`]), and proposals and reads, then lets
//! it apply what is possible ([`Host::apply`]) and takes the [`HostEvent`].
//!
//! Timers below [`OWN_TIMERS`], and tokens below [`OWN_TOKENS`], are the host's; the owner uses others,
//! except for reads, whose tokens it takes from [`Host::token`].

mod apply;
mod machine;
mod pipeline;
mod recovery;
mod snapshot_tasks;
mod snapshots;

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::store::Rows;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect, Event, RoleId};
use quorate_raft::Raft;
use quorate_raft::action::{Action, Notice};
use quorate_raft::event::{Proposal, QueryError, ReadRequest};
use quorate_raft::message::Message as RaftMessage;
use quorate_raft::pending::{DEADLINE_TIMER, PendingRequests, Resolved};
use quorate_raft::server::{Rejection, Turn as RaftTurn};
use quorate_raft::sessions::logged;
use quorate_raft::settings::Setup;
use quorate_raft::types::{GroupId, LogIndex, LogPosition, Term};

use crate::report;
use crate::turn::Turn;
pub(crate) use machine::Machine;
use pipeline::Pipeline;
pub(crate) use recovery::GroupRecovery;
pub(crate) use recovery::Recovered;
use snapshots::SnapshotManager;

/// The protocol's timer.
pub(crate) const RAFT_TIMER: u64 = 0;
/// The timer that retries loading rows for which there was no room.
const LOAD_TIMER: u64 = 2;
/// The first timer that an owner may use.
pub(crate) const OWN_TIMERS: u64 = 3;
/// The first token of persists and file tasks that an owner may use.
pub(crate) const OWN_TOKENS: u64 = 1 << 62;
/// The lifetime of an unsent message: the next heartbeat supersedes it.
const MESSAGE_LIFE: Duration = Duration::from_secs(1);

/// What the host reports to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HostEvent<A> {
    /// The result of a proposal or a read.
    Resolved(Resolved<A>),
    /// The rows are being replaced: reads in progress must start over.
    RowsReplaced,
}

/// A running server and its state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host<M: Machine> {
    group: GroupId,
    /// The role of the group's servers.
    role: RoleId,
    /// The topology generation of its node, for messages.
    pub(crate) generation: u64,
    raft: Raft,
    pipeline: Pipeline<M>,
    snapshots: SnapshotManager<M>,
    pending: PendingRequests,
    events: Vec<HostEvent<M::Outcome>>,
    /// Why the server must stop, if so.
    broken: Option<String>,
    last_token: u64,
    elections: u64,
    campaigning: bool,
}

impl<M: Machine> Host<M> {
    /// Starts with the recovered state. Members that are not `alive` are unreachable now.
    ///
    /// # Errors
    /// The reason why it must not take part.
    pub(crate) fn start(
        setup: Setup,
        role: RoleId,
        recovered: Recovered<M>,
        alive: &BTreeSet<NodeId>,
        turn: &mut Turn<'_>,
    ) -> Result<Self, String> {
        let group = setup.group;
        let members = setup.initial.clone();
        let (state, marker) = recovered.initial_rows.state(group)?;
        let snapshot_ref = recovered.log.snapshot_ref.clone();
        let base = recovered
            .log
            .recovered
            .log_start
            .as_ref()
            .map_or(LogIndex(0), |start| start.base.index);
        let behind = snapshot_ref
            .as_ref()
            .filter(|snapshot_ref| snapshot_ref.meta.position.index > marker.applied.index);
        if base > marker.applied.index && behind.is_none() {
            return Err(format!(
                "the rows are at {} but the log begins after {base}: entries in between are lost",
                marker.applied
            ));
        }
        let last_index = recovered.log.recovered.last_index();
        if marker.applied.index > last_index {
            return Err(format!(
                "the rows are at {} but the log ends at {last_index}: acknowledged entries may be lost",
                marker.applied
            ));
        }
        let restore = behind.map(|snapshot_ref| (snapshot_ref.meta.position, snapshot_ref.handle));
        let mut recovered = recovered.log.recovered;
        recovered.applied = marker.applied.index;
        let mut actions = Vec::new();
        let mut raft_turn = RaftTurn {
            now: turn.now,
            rng: turn.rng,
            actions: &mut actions,
        };
        let mut raft = Raft::start(setup, recovered, &mut raft_turn);
        for node in members.members().filter(|node| !alive.contains(node)) {
            raft.peer(node, false, &mut raft_turn);
        }
        let mut host = Host {
            group,
            role,
            generation: 0,
            raft,
            pipeline: Pipeline::new(group, state, marker),
            snapshots: SnapshotManager::new(group, snapshot_ref.map(|snapshot_ref| snapshot_ref.handle)),
            pending: PendingRequests::default(),
            events: Vec::new(),
            broken: None,
            last_token: 0,
            elections: 0,
            campaigning: false,
        };
        host.snapshots.begin(turn);
        if let Some((position, handle)) = restore {
            host.restore(position, handle, turn);
        }
        host.perform(actions, turn);
        Ok(host)
    }

    // ---- queries ----

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The state after the last applied entry.
    pub(crate) fn machine(&self) -> &M {
        self.pipeline.machine()
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> LogIndex {
        self.pipeline.applied()
    }

    /// Whether the rows are being replaced.
    pub(crate) fn is_restoring(&self) -> bool {
        self.pipeline.is_restoring()
    }

    /// The number of elections that it has started.
    pub(crate) fn elections(&self) -> u64 {
        self.elections
    }

    /// Whether it has started an election and knows of no leader since.
    pub(crate) fn is_campaigning(&self) -> bool {
        self.campaigning
    }

    /// Whether the group has never had a leader, as far as this server knows.
    pub(crate) fn is_new(&self) -> bool {
        let new = self.raft.term() == Term(0) && self.raft.log().last().index == LogIndex(0);
        new && self.raft.leader().is_none()
    }

    /// Whether the server must stop.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Takes the reason why the server must stop, if so.
    pub(crate) fn take_broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    /// Takes what has not been reported to the owner yet.
    pub(crate) fn take_events(&mut self) -> Vec<HostEvent<M::Outcome>> {
        std::mem::take(&mut self.events)
    }

    /// A token for a read.
    pub(crate) fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    // ---- requests ----

    /// Starts an election now.
    pub(crate) fn campaign(&mut self, turn: &mut Turn<'_>) {
        self.drive(turn, |raft, turn| raft.campaign_now(turn));
    }

    /// Proposes commands; they go into the log, to the disk and to the followers together.
    ///
    /// # Errors
    /// Nothing was proposed, and nothing will be.
    pub(crate) fn propose(
        &mut self,
        proposals: Vec<Proposal<M::Command>>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let time = turn.now.wall;
        let (pending, commands): (Vec<_>, Vec<_>) = proposals
            .into_iter()
            .map(|proposal| ((proposal.id, proposal.deadline), logged(time, proposal.request)))
            .unzip();
        let first = self.drive(turn, |raft, turn| raft.propose(commands, turn))?;
        self.pending.add_proposals(first, pending);
        Ok(())
    }

    /// Starts a linearizable read; [`Host::take_ready`] returns it when its read index is applied.
    pub(crate) fn read(&mut self, read: ReadRequest, turn: &mut Turn<'_>) {
        let id = read.id;
        self.pending.add_read(read);
        self.drive(turn, |raft, turn| raft.read(vec![id], turn));
    }

    /// Starts a stale read: ready as soon as there are rows.
    pub(crate) fn read_stale(&mut self, read: ReadRequest) {
        let id = read.id;
        self.pending.add_read(read);
        self.pending.reads_ready(vec![id], LogIndex(0));
    }

    /// Takes the reads that can be answered from the applied state.
    pub(crate) fn take_ready(&mut self) -> Vec<ReadRequest> {
        self.pending.take_ready(self.pipeline.applied())
    }

    /// Handles an event of the host; returns an event of its owner.
    pub(crate) fn handle(&mut self, event: Event, turn: &mut Turn<'_>) -> Option<Event> {
        match event {
            Event::Message {
                from,
                message: Message::Raft { group, message },
                ..
            } if group == self.group => self.drive(turn, |raft, turn| raft.message(from.node, message, turn)),
            Event::Persisted { tokens } => {
                let (own, others): (Vec<u64>, Vec<u64>) =
                    tokens.into_iter().partition(|token| *token < OWN_TOKENS);
                if !own.is_empty() {
                    self.drive(turn, |raft, turn| raft.persisted(&own, turn));
                }
                return (!others.is_empty()).then_some(Event::Persisted { tokens: others });
            }
            Event::PersistRefused { token } if token < OWN_TOKENS => {
                self.drive(turn, |raft, turn| raft.persist_refused(token, turn));
            }
            Event::Flushed { tokens } => {
                let through = tokens.into_iter().max().unwrap_or(0);
                self.snapshots.flushed = self.snapshots.flushed.max(LogIndex(through));
                self.compact(turn);
            }
            Event::Timer { id: RAFT_TIMER } => self.drive(turn, |raft, turn| raft.timer(turn)),
            Event::Timer { id: DEADLINE_TIMER } => self.expire(turn),
            Event::Timer { id: LOAD_TIMER } => self.snapshots.load_if_possible(turn),
            Event::Peer { node, up } => self.drive(turn, |raft, turn| raft.peer(node, up, turn)),
            Event::Read { token, result } => {
                let result = self.read_answered(token, result, turn)?;
                return Some(Event::Read { token, result });
            }
            Event::Files { token, result } if token < OWN_TOKENS => self.file_task_ended(token, result, turn),
            event => return Some(event),
        }
        None
    }

    /// Applies what is possible, unless the rows must not change now (`hold`). Called after every event.
    pub(crate) fn apply(&mut self, hold: bool, turn: &mut Turn<'_>) {
        self.apply_entries(hold, turn);
        self.raft.applied(self.pipeline.applied());
        if let Some(at) = self.pending.arm(turn.now.instant) {
            turn.push(Effect::SetTimer {
                id: DEADLINE_TIMER,
                at,
            });
        }
    }

    /// The server stops: fails its pending requests.
    pub(crate) fn shut_down(&mut self) {
        let mut resolved = Vec::new();
        self.pending.fail_all(&mut resolved);
        self.resolve(resolved);
    }

    fn read_answered(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        turn: &mut Turn<'_>,
    ) -> Option<Result<Rows, Error>> {
        let result = self.looked_up(token, result)?;
        self.snapshot_rows(token, result, turn)
    }

    /// Checks deadlines.
    fn expire(&mut self, turn: &Turn<'_>) {
        let mut resolved = Vec::new();
        self.pending.expire(turn.now.instant, &mut resolved);
        self.resolve(resolved);
    }

    fn resolve(&mut self, resolved: Vec<Resolved<M::Outcome>>) {
        self.events.extend(resolved.into_iter().map(HostEvent::Resolved));
    }

    // ---- actions ----

    /// Calls the protocol and performs its actions, in their order.
    fn drive<T>(&mut self, turn: &mut Turn<'_>, call: impl FnOnce(&mut Raft, &mut RaftTurn<'_>) -> T) -> T {
        let mut actions = Vec::new();
        let mut raft_turn = RaftTurn {
            now: turn.now,
            rng: turn.rng,
            actions: &mut actions,
        };
        let result = call(&mut self.raft, &mut raft_turn);
        self.perform(actions, turn);
        result
    }

    fn perform(&mut self, actions: Vec<Action>, turn: &mut Turn<'_>) {
        for action in actions {
            self.perform_one(action, turn);
        }
    }

    /// Never calls the protocol again: its actions must be performed in their order.
    fn perform_one(&mut self, action: Action, turn: &mut Turn<'_>) {
        match action {
            Action::Send { to, message } => self.send(to, message, turn),
            Action::Persist { token, priority, ops } => {
                assert!(token < OWN_TOKENS, "a server counts its persists from 1");
                turn.push(Effect::Persist { token, priority, ops });
            }
            Action::SetTimer { at } => turn.push(Effect::SetTimer { id: RAFT_TIMER, at }),
            Action::Notice(notice) => self.notice(&notice, turn),
            Action::Apply(entries) => {
                if let Err(why) = self.pipeline.queue(&entries) {
                    self.broken.get_or_insert(why);
                }
            }
            Action::ReadReady { ids, index } => self.pending.reads_ready(ids, index),
            Action::ReadFailed { ids, leader } => {
                let mut resolved = Vec::new();
                self.pending
                    .fail_reads(ids, QueryError::NotLeader { leader }, &mut resolved);
                self.resolve(resolved);
            }
            Action::TakeSnapshot { .. } => self.snapshots.take(turn),
            Action::ReadChunk {
                to,
                position,
                offset,
                length,
            } => {
                let snapshot_ref = self
                    .raft
                    .snapshot_ref()
                    .filter(|snapshot_ref| snapshot_ref.meta.position == position);
                // File 0 does not exist; reading it reports that.
                let handle = snapshot_ref.map_or(0, |snapshot_ref| snapshot_ref.handle);
                self.snapshots
                    .read_chunk(to, handle, (position, offset, length), turn);
            }
            Action::StoreChunk { meta, offset, bytes } => {
                self.snapshots.store_chunk(meta.position, offset, bytes, turn);
            }
            Action::InstallSnapshot(meta) => self.snapshots.seal(meta, turn),
            Action::Restore { position } => {
                let handle = self.snapshots.received(position);
                self.restore(position, handle, turn);
            }
            Action::SnapshotDurable { handle } => {
                self.snapshots.set_current(handle, turn);
                self.delete_unneeded(turn);
            }
        }
    }

    fn send(&self, to: NodeId, message: RaftMessage, turn: &mut Turn<'_>) {
        turn.push(Effect::Send {
            to: Address {
                node: to,
                role: self.role,
            },
            header: Header {
                generation: self.generation,
                request: 0,
                deadline: turn.now.instant + MESSAGE_LIFE,
                trace: None,
            },
            message: Message::Raft {
                group: self.group,
                message,
            },
        });
    }

    fn notice(&mut self, notice: &Notice, turn: &mut Turn<'_>) {
        match notice {
            Notice::Campaigning { pre, .. } => {
                self.campaigning = true;
                self.elections += u64::from(!pre);
            }
            Notice::Leading { .. } | Notice::Following { .. } => self.campaigning = false,
            _ => {}
        }
        turn.effects
            .extend(report::timeline(self.group, notice).map(Effect::Emit));
    }

    /// Replaces the rows with those of a snapshot.
    fn restore(&mut self, position: LogPosition, handle: u64, turn: &mut Turn<'_>) {
        self.pipeline.restore(position);
        self.events.push(HostEvent::RowsReplaced);
        let mut resolved = Vec::new();
        self.pending.snapshot_installed(position.index, &mut resolved);
        self.resolve(resolved);
        self.snapshots.load(position, handle, turn);
    }
}
