//! A shard's server that takes part: its host, and the requests and reads that are in progress.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Event, RoleId};
use quorate_raft::Raft;
use quorate_raft::pending::Resolved;
use quorate_raft::settings::Setup;
use quorate_raft::types::{GroupId, LogIndex, Term};

use crate::host::{Host, News, RAFT_TIMER, Recovered};
use crate::shard::pending::{Gathered, PendingRequest};
use crate::shard::reading::Reads;
use crate::shard::store::Store;
use crate::turn::Turn;

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
    pub(super) host: Host<Store>,
    pub(super) reads: Reads,
    pub(super) pending: BTreeMap<u64, PendingRequest>,
    pub(super) last_ask: u64,
    /// Commands of this turn, on their way into the log.
    pub(super) gathered: Vec<Gathered>,
    /// What the forwarder and the metrics were last told: who leads, in which term.
    led: (Option<NodeId>, Term),
}

impl Server {
    /// # Errors
    /// Says in words why it must not take part.
    pub(super) fn start(
        setup: Setup,
        home: Home,
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
            last_ask: 0,
            gathered: Vec::new(),
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

    /// Handles an event. Says whether its claim is worth telling again.
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
            Some(Event::TurnEnded) => self.propose_gathered(turn),
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

    /// Applies what can be applied, and answers who waits for that.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.hear_news(turn);
        self.host.apply(self.reads.must_not_be_disturbed(), turn);
        self.hear_news(turn);
        if !self.host.is_broken() {
            self.answer_reads(turn);
        }
    }

    fn hear_news(&mut self, turn: &mut Turn<'_>) {
        for news in self.host.take_news() {
            match news {
                News::Resolved(Resolved::Proposed { id, result }) => self.proposed(id, result, turn),
                News::Resolved(Resolved::NotRead { id, error }) => self.not_read(id, error, turn),
                News::RowsReplaced => self.read_again(),
            }
        }
    }

    /// The last entry that is in its rows.
    pub(super) fn applied(&self) -> LogIndex {
        self.host.applied()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
