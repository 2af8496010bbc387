//! A running server of a shard: its host, and its pending requests and reads.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Event, RoleId};
use quorate_raft::Raft;
use quorate_raft::pending::Resolved;
use quorate_raft::settings::Setup;
use quorate_raft::types::{GroupId, LogIndex, Term};

use crate::host::{Host, HostEvent, RAFT_TIMER, Recovered};
use crate::shard::pending::{PendingRequest, QueuedCommand};
use crate::shard::row_read::Reads;
use crate::shard::store::Store;
use crate::turn::Turn;

/// The identity of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) keyspace: KeyspaceId,
    /// The number of initial members of the group.
    pub(super) voters: usize,
}

/// A running server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) me: NodeId,
    pub(super) group: GroupId,
    pub(super) home: Identity,
    pub(super) host: Host<Store>,
    pub(super) reads: Reads,
    pub(super) pending: BTreeMap<u64, PendingRequest>,
    pub(super) last_request: u64,
    /// Commands of this turn, to be proposed together.
    pub(super) queued: Vec<QueuedCommand>,
    /// The last leader and term reported to the forwarder and the metrics.
    led: (Option<NodeId>, Term),
}

impl Server {
    /// # Errors
    /// The reason why it must not take part.
    pub(super) fn start(
        setup: Setup,
        home: Identity,
        found: Recovered<Store>,
        alive: &BTreeSet<NodeId>,
        turn: &mut Turn<'_>,
    ) -> Result<Self, String> {
        let (me, group) = (setup.me, setup.group);
        let mut server = Server {
            me,
            group,
            home,
            host: Host::start(setup, RoleId::Shard(group), found, alive, turn)?,
            reads: Reads::default(),
            pending: BTreeMap::new(),
            last_request: 0,
            queued: Vec::new(),
            led: (None, Term(0)),
        };
        server.proceed(turn);
        match server.host.take_broken() {
            None => Ok(server),
            Some(why) => Err(why),
        }
    }

    pub(super) fn raft(&self) -> &Raft {
        self.host.raft()
    }

    pub(super) fn in_progress(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn campaign(&mut self, turn: &mut Turn<'_>) {
        self.host.campaign(turn);
        self.proceed(turn);
    }

    /// Handles an event. Returns whether its claim should be reported.
    pub(super) fn handle(&mut self, event: Event, turn: &mut Turn<'_>) -> bool {
        let timer = matches!(event, Event::Timer { id: RAFT_TIMER });
        match self.host.handle(event, turn) {
            Some(Event::Message {
                from,
                header,
                message,
            }) => self.message(from, header, message, turn),
            Some(Event::Request {
                client,
                header,
                request,
            }) => self.request(client, header, request, turn),
            Some(Event::Read { token, result }) => self.read_answered(token, result, turn),
            Some(Event::TurnEnded) => self.propose_queued(turn),
            _ => {}
        }
        self.proceed(turn);
        let leads = (self.raft().leader(), self.raft().term());
        let news = self.led != leads;
        if news {
            self.led = leads;
            self.leader_changed(turn);
        }
        news || timer
    }

    fn message(&mut self, from: Address, header: Header, message: Message, turn: &mut Turn<'_>) {
        if let Message::Forward(request) = message {
            self.forwarded(from, header, request, turn);
        }
    }

    /// Applies what is possible, and answers the reads that depend on it.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.process_host_events(turn);
        self.host.apply(self.reads.pin_rows(), turn);
        self.process_host_events(turn);
        if !self.host.is_broken() {
            self.answer_reads(turn);
        }
    }

    fn process_host_events(&mut self, turn: &mut Turn<'_>) {
        for news in self.host.take_events() {
            match news {
                HostEvent::Resolved(Resolved::Proposed { id, result }) => self.proposed(id, result, turn),
                HostEvent::Resolved(Resolved::NotRead { id, error }) => self.not_read(id, error, turn),
                HostEvent::RowsReplaced => self.restart_reads(),
            }
        }
    }

    /// The last entry applied to its rows.
    pub(super) fn applied(&self) -> LogIndex {
        self.host.applied()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
