//! What a leader does (Figure 2, "Rules for Servers: Leaders"; thesis 6.2 for check-quorum): heartbeats, and
//! the handling of followers' answers. What it sends them is in `replication`; when an entry is committed, in
//! `commit`.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::NodeId;
use quorate_core::time::Instant;

use crate::action::{Action, Notice};
use crate::entry::{Entry, EntryKind};
use crate::message::{Body, Message};
use crate::progress::{Progress, ProgressState};
use crate::read_index::Reads;
use crate::server::{Raft, State, Turn};
use crate::settings::Settings;
use crate::types::LogIndex;

/// A leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// The progress of every other member.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// When the next heartbeats are due.
    pub(super) heartbeat_at: Instant,
    /// The first entry of its term.
    pub(super) first: LogIndex,
    /// Reads that wait for a round of heartbeats.
    pub(super) reads: Reads,
}

impl Leader {
    pub(super) fn new(
        others: impl Iterator<Item = NodeId>,
        last: LogIndex,
        settings: &Settings,
        links_down: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Self {
        let progress = |node| (node, Progress::new(last, links_down.contains(&node), now));
        Leader {
            progress: others.map(progress).collect(),
            heartbeat_at: now + settings.timing.heartbeat,
            first: last.next(),
            reads: Reads::default(),
        }
    }

    /// The link to a member went down or came up: messages in flight may be lost.
    pub(super) fn link(&mut self, node: NodeId, up: bool) {
        if let Some(progress) = self.progress.get_mut(&node) {
            progress.link_down = !up;
            match &mut progress.state {
                ProgressState::Snapshot(transfer) => transfer.rewind(),
                _ => progress.probe(),
            }
        }
    }

    /// The durable index of each other member.
    pub(super) fn matched(&self) -> impl Iterator<Item = (NodeId, LogIndex)> + '_ {
        self.progress
            .iter()
            .map(|(node, progress)| (*node, progress.matched))
    }
}

impl Raft {
    /// Appends an entry of this term to the local log.
    pub(super) fn append_own(&mut self, kind: EntryKind) {
        self.log.append(Entry {
            term: self.hard.term,
            index: self.log.last().index.next(),
            kind,
        });
    }

    /// Heartbeats are due. A leader without contact to a quorum steps down, instead of leaving requests
    /// unanswered.
    pub(super) fn beat(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let now = turn.now.instant;
        let timing = self.setup.settings.timing;
        let me = self.setup.me;
        let contact = |node: NodeId| match leader.progress.get(&node) {
            Some(progress) => progress.last_contact,
            None if node == me => now,
            None => Instant(0),
        };
        let quorum_contact = self.log.configuration().agreed(contact).unwrap_or(Instant(0));
        if now.since(quorum_contact) > timing.election_max {
            let term = self.hard.term;
            turn.notice(Notice::QuorumLost { term });
            return self.become_follower(term, None, turn);
        }
        leader.heartbeat_at = now + timing.heartbeat;
        for progress in leader.progress.values_mut() {
            if let ProgressState::Snapshot(transfer) = &mut progress.state {
                transfer.rewind_if_stuck(now, timing.election_min);
            }
        }
        self.start_due_round(turn);
    }

    /// Sends a heartbeat to every member.
    pub(super) fn send_heartbeats(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let message = Message {
            term: self.hard.term,
            body: Body::Heartbeat {
                commit: self.log.commit(),
                round: leader.reads.round(),
            },
        };
        self.activity.heartbeats_sent += leader.progress.len() as u64;
        turn.actions.extend(leader.progress.keys().map(|to| Action::Send {
            to: *to,
            message: message.clone(),
        }));
    }

    /// A member has answered.
    pub(super) fn on_progress(&mut self, from: NodeId, answer: &Body, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&from) else {
            return;
        };
        let now = turn.now.instant;
        progress.last_contact = now;
        progress.link_down = false;
        let base = self.log.base().index;
        match answer {
            Body::Accepted { through } => progress.accepted(*through, base, now),
            Body::Rejected { previous, conflict } => progress.rejected(*previous, *conflict, &self.log),
            Body::HeartbeatAck {
                round,
                received,
                durable,
            } => {
                if *durable > progress.matched {
                    progress.accepted(*durable, base, now);
                }
                self.activity.heartbeats_answered += 1;
                let overdue = now - 2 * self.setup.settings.timing.heartbeat;
                progress.beat(*received, now, overdue);
                progress.round = progress.round.max(*round);
                self.confirm_reads(turn);
            }
            Body::SnapshotReceived { position, offset } => {
                if let ProgressState::Snapshot(transfer) = &mut progress.state {
                    transfer.received(*position, *offset, now);
                }
            }
            _ => unreachable!("no answer to a leader"),
        }
    }

    /// Advances everything that can: commits what a quorum has, starts reads, replicates new entries.
    pub(super) fn lead(&mut self, turn: &mut Turn<'_>) {
        if self.is_leader() {
            self.maybe_commit();
            self.start_reads(turn);
            self.replicate(turn);
        }
    }

    /// Counts committed commands of this leader's own term; each is counted by one server.
    pub(super) fn count_commands(&mut self, entries: &[Entry]) {
        if self.is_leader() {
            let own =
                |entry: &&Entry| entry.term == self.hard.term && matches!(entry.kind, EntryKind::Command(_));
            self.activity.commands += entries.iter().filter(own).count() as u64;
        }
    }
}
