//! A server that takes part: what it keeps, and what becomes of the protocol's outputs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect, Event, RoleId};
use quorate_protocol::shard_command::Outcome;
use quorate_raft::Raft;
use quorate_raft::action::{Action, Notice};
use quorate_raft::event::QueryError;
use quorate_raft::message::Message as RaftMessage;
use quorate_raft::pending::{PendingRequests, Resolved, SWEEP_TIMER};
use quorate_raft::server::Turn as RaftTurn;
use quorate_raft::settings::Setup;
use quorate_raft::types::{GroupId, LogIndex, LogPosition, Term};

use crate::report;
use crate::shard::pipeline::Pipeline;
use crate::shard::reads::Reads;
use crate::shard::recovery::Recovered;
use crate::shard::requests::{Gathered, PendingRequest};
use crate::shard::snapshots::SnapshotManager;
use crate::shard::turn::Turn;

/// The timer of the protocol.
const RAFT_TIMER: u64 = 0;
/// The timer after which rows are loaded again that found no room.
pub(super) const LOAD_TIMER: u64 = 2;
/// A message that has not left by then is not worth sending: the next heartbeat says more.
const MESSAGE_LIFE: std::time::Duration = std::time::Duration::from_secs(1);

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Home {
    pub(super) keyspace: KeyspaceId,
    /// How many members the group began with.
    pub(super) voters: usize,
}

/// A server that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) me: NodeId,
    pub(super) group: GroupId,
    pub(super) home: Home,
    pub(super) raft: Raft,
    pub(super) pipeline: Pipeline,
    pub(super) snapshots: SnapshotManager,
    pub(super) reads: Reads,
    pub(super) waiting: PendingRequests,
    pub(super) pending: BTreeMap<u64, PendingRequest>,
    pub(super) last_ask: u64,
    /// Commands of this turn, on their way into the log.
    pub(super) gathered: Vec<Gathered>,
    /// Why it can take part no longer.
    pub(super) broken: Option<String>,
    /// What the forwarder and the metrics were last told: who leads, in which term.
    led: (Option<NodeId>, Term),
    /// Answers of the disk that have to do with reads are told apart by these.
    pub(super) last_token: u64,
    elections: u64,
}

impl Server {
    pub(super) fn start(
        setup: Setup,
        home: Home,
        found: Recovered,
        alive: &BTreeSet<NodeId>,
        turn: &mut Turn<'_>,
    ) -> Result<Self, String> {
        let (me, group) = (setup.me, setup.group);
        let members = setup.initial.clone();
        let (state, marker) = found.beginning.state(group)?;
        let kept = found.log.kept.clone();
        let base = found
            .log
            .recovered
            .log_start
            .as_ref()
            .map_or(LogIndex(0), |begin| begin.base.index);
        let behind = kept
            .as_ref()
            .filter(|kept| kept.meta.position.index > marker.applied.index);
        if base > marker.applied.index && behind.is_none() {
            return Err(format!(
                "the rows have {} and the log begins behind {base}: entries between are lost",
                marker.applied
            ));
        }
        let restore = behind.map(|kept| (kept.meta.position, kept.handle));
        let mut recovered = found.log.recovered;
        recovered.applied = marker.applied.index;
        let mut outputs = Vec::new();
        let mut raft_turn = RaftTurn {
            now: turn.now,
            rng: turn.rng,
            outputs: &mut outputs,
        };
        let mut raft = Raft::start(setup, recovered, &mut raft_turn);
        for node in members.all_voters().filter(|node| !alive.contains(node)) {
            raft.peer(node, false, &mut raft_turn);
        }
        let mut server = Server {
            me,
            group,
            home,
            raft,
            pipeline: Pipeline::new(group, state, marker),
            snapshots: SnapshotManager::new(group, kept.map(|kept| kept.handle)),
            reads: Reads::default(),
            waiting: PendingRequests::default(),
            pending: BTreeMap::new(),
            last_ask: 0,
            gathered: Vec::new(),
            broken: None,
            led: (None, Term(0)),
            last_token: 0,
            elections: 0,
        };
        server.snapshots.begin(turn);
        if let Some((position, handle)) = restore {
            server.restore(position, handle, turn);
        }
        server.perform(outputs, turn);
        server.proceed(turn);
        match server.broken.take() {
            None => Ok(server),
            Some(why) => Err(why),
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn in_progress(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn elections(&self) -> u64 {
        self.elections
    }

    /// Whether the group has never had a leader, as far as this server knows.
    pub(super) fn is_new(&self) -> bool {
        let new = self.raft.term() == Term(0) && self.raft.log().last().index == LogIndex(0);
        new && self.raft.leader().is_none()
    }

    pub(super) fn campaign(&mut self, turn: &mut Turn<'_>) {
        self.drive(turn, |raft, turn| raft.campaign_now(turn));
        self.proceed(turn);
    }

    /// A token for a read of the disk.
    pub(super) fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Handles an event. Says whether its claim is worth telling again.
    pub(super) fn handle(&mut self, event: Event, turn: &mut Turn<'_>) -> bool {
        let timer = matches!(event, Event::Timer { id: RAFT_TIMER });
        match event {
            Event::Message {
                from,
                header,
                message,
            } => self.message(from, header, message, turn),
            Event::Request {
                client,
                header,
                request,
            } => self.request(client, header, request, turn),
            Event::Persisted { tokens } => self.drive(turn, |raft, turn| raft.persisted(&tokens, turn)),
            Event::PersistRefused { token } => {
                self.drive(turn, |raft, turn| raft.persist_refused(token, turn));
            }
            Event::Flushed { tokens } => {
                let through = tokens.into_iter().max().unwrap_or(0);
                self.snapshots.flushed = self.snapshots.flushed.max(LogIndex(through));
                self.compact(turn);
            }
            Event::Timer { id: RAFT_TIMER } => self.drive(turn, |raft, turn| raft.timer(turn)),
            Event::Timer { id: SWEEP_TIMER } => self.sweep(turn),
            Event::Timer { id: LOAD_TIMER } => self.snapshots.load_if_possible(turn),
            Event::Peer { node, up } => self.drive(turn, |raft, turn| raft.peer(node, up, turn)),
            Event::Read { token, result } => self.read_answered(token, result, turn),
            Event::Files { token, result } => self.file_task_ended(token, result, turn),
            Event::TurnEnded => self.propose_gathered(turn),
            Event::Start | Event::Local { .. } | Event::Timer { .. } | Event::Dropped => {}
        }
        self.proceed(turn);
        let leads = (self.raft.leader(), self.raft.term());
        let news = self.led != leads;
        if news {
            self.led = leads;
            self.leader_changed(turn);
        }
        news || timer
    }

    fn message(&mut self, from: Address, header: Header, message: Message, turn: &mut Turn<'_>) {
        match message {
            Message::Raft { group, message } if group == self.group => {
                self.drive(turn, |raft, turn| raft.message(from.node, message, turn));
            }
            Message::Forward(request) => self.forwarded(from, header, request, turn),
            _ => {}
        }
    }

    /// Whatever can go on now, does.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.apply(turn);
        self.raft.applied(self.pipeline.applied());
        if let Some(at) = self.waiting.arm(turn.now.instant) {
            turn.push(Effect::SetTimer { id: SWEEP_TIMER, at });
        }
    }

    /// Calls the protocol and does what it asks for, in its order.
    pub(super) fn drive<T>(
        &mut self,
        turn: &mut Turn<'_>,
        call: impl FnOnce(&mut Raft, &mut RaftTurn<'_>) -> T,
    ) -> T {
        let mut outputs = Vec::new();
        let mut raft_turn = RaftTurn {
            now: turn.now,
            rng: turn.rng,
            outputs: &mut outputs,
        };
        let result = call(&mut self.raft, &mut raft_turn);
        self.perform(outputs, turn);
        result
    }

    fn perform(&mut self, outputs: Vec<Action>, turn: &mut Turn<'_>) {
        for output in outputs {
            self.perform_one(output, turn);
        }
    }

    /// Nothing here calls the protocol again: its outputs must be performed in their order.
    fn perform_one(&mut self, output: Action, turn: &mut Turn<'_>) {
        match output {
            Action::Send { to, message } => self.send(to, message, turn),
            Action::Persist { token, priority, ops } => turn.push(Effect::Persist { token, priority, ops }),
            Action::SetTimer { at } => turn.push(Effect::SetTimer { id: RAFT_TIMER, at }),
            Action::Notice(notice) => self.notice(&notice, turn),
            Action::Apply(entries) => {
                if let Err(why) = self.pipeline.queue(&entries) {
                    self.broken.get_or_insert(why);
                }
            }
            Action::ReadReady { ids, index } => self.waiting.ready(ids, index),
            Action::ReadFailed { ids, leader } => {
                let mut resolved = Vec::new();
                self.waiting
                    .fail(ids, QueryError::NotLeader { leader }, &mut resolved);
                self.resolved(resolved, turn);
            }
            Action::TakeSnapshot { .. } => self.snapshots.take(turn),
            Action::ReadChunk {
                to,
                position,
                offset,
                length,
            } => {
                let kept = self.raft.kept().filter(|kept| kept.meta.position == position);
                // There is no file 0, and to hear so is the answer.
                let handle = kept.map_or(0, |kept| kept.handle);
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
            Action::SnapshotKept { handle } => {
                self.snapshots.keep(handle, turn);
                self.tidy(turn);
            }
        }
    }

    fn send(&self, to: NodeId, message: RaftMessage, turn: &mut Turn<'_>) {
        turn.push(Effect::Send {
            to: Address {
                node: to,
                role: RoleId::Shard(self.group),
            },
            header: Header {
                generation: 0,
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
        if matches!(notice, Notice::Campaigning { pre: false, .. }) {
            self.elections += 1;
        }
        turn.effects
            .extend(report::timeline(self.group, notice).map(Effect::Emit));
    }

    /// The rows are to be those of a snapshot.
    fn restore(&mut self, position: LogPosition, handle: u64, turn: &mut Turn<'_>) {
        let mut resolved = Vec::new();
        self.pipeline.restore(position);
        self.read_again();
        self.waiting.forget(position.index, &mut resolved);
        self.resolved(resolved, turn);
        self.snapshots.load(position, handle, turn);
    }

    /// Those who have waited hear what became of it.
    pub(super) fn resolved(&mut self, resolved: Vec<Resolved<Outcome>>, turn: &mut Turn<'_>) {
        for resolved in resolved {
            match resolved {
                Resolved::Proposed { id, result } => self.proposed(id, result, turn),
                Resolved::NotRead { id, error } => self.not_read(id, error, turn),
            }
        }
    }
}
