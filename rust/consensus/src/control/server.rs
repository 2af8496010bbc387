//! The control role's server of its group: its host, and the handling of its results.

use quorate_core::error::Error;
use quorate_core::store::Rows;
use quorate_core::time::Instant;
use quorate_protocol::control_command::{Change, Outcome};
use quorate_protocol::role::RoleId;
use quorate_raft::event::{Proposal, ProposeError, ReadRequest};
use quorate_raft::pending::Resolved;
use quorate_raft::server::Rejection;
use quorate_raft::sessions::Request as LogRequest;

use crate::control::Control;
use crate::control::state::Replicated;
use crate::host::{GroupRecovery, Host, HostEvent};
use crate::turn::Turn;

/// The state of the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Reading its disk.
    Recovering(Box<GroupRecovery<Replicated>>),
    /// Running.
    Running(Box<Host<Replicated>>),
    /// The disk lacks what it should have: this server may have forgotten promises, and must not take part.
    Broken(String),
}

impl Control {
    /// Calls the server and handles the results.
    pub(super) fn drive(
        &mut self,
        turn: &mut Turn<'_>,
        call: impl FnOnce(&mut Host<Replicated>, &mut Turn<'_>),
    ) {
        let generation = self.known.generation();
        let Phase::Running(host) = &mut self.phase else {
            return;
        };
        host.generation = generation;
        call(host, turn);
        host.apply(false, turn);
        if host.is_broken() {
            host.shut_down();
        }
        let events = host.take_events();
        if let Some(why) = host.take_broken() {
            self.phase = Phase::Broken(why);
        }
        self.process_host_events(events, turn);
    }

    fn process_host_events(&mut self, events: Vec<HostEvent<Outcome>>, turn: &mut Turn<'_>) {
        for events in events {
            match events {
                HostEvent::Resolved(Resolved::Proposed { id, result }) => self.proposed(id, result, turn),
                HostEvent::Resolved(Resolved::NotRead { id, .. }) => self.queried(id, false, turn),
                // No read is in progress; the state changes with the rows.
                HostEvent::RowsReplaced => {}
            }
        }
        let ready = match &mut self.phase {
            Phase::Running(host) => host.take_ready(),
            _ => Vec::new(),
        };
        for read in ready {
            self.queried(read.id, true, turn);
        }
    }

    /// Proposes a change.
    pub(super) fn propose_to_host(
        &mut self,
        id: u64,
        deadline: Instant,
        change: Change,
        turn: &mut Turn<'_>,
    ) {
        let mut rejection = Some(Rejection::NotLeader { leader: None });
        self.drive(turn, |host, turn| {
            let proposal = Proposal {
                id,
                deadline,
                request: LogRequest::Plain(change),
            };
            rejection = host.propose(vec![proposal], turn).err();
        });
        if let Some(rejection) = rejection {
            self.proposed(id, Err(ProposeError::Rejected(rejection)), turn);
        }
    }

    /// Catches up with the leader's commit index.
    pub(super) fn start_read(&mut self, read: ReadRequest, turn: &mut Turn<'_>) {
        match &self.phase {
            Phase::Running(_) => self.drive(turn, |host, turn| host.read(read, turn)),
            _ => self.queried(read.id, false, turn),
        }
    }

    /// The result of a recovery read.
    pub(super) fn recover(&mut self, token: u64, result: Result<Rows, Error>, turn: &mut Turn<'_>) {
        let Phase::Recovering(recovery) = &mut self.phase else {
            return;
        };
        let started = match recovery.read(token, result, turn) {
            Ok(None) => return,
            Ok(Some(found)) => {
                let alive = &self.surroundings.alive;
                Host::start(self.setup.clone(), RoleId::Control, found, alive, turn)
            }
            Err(why) => Err(why),
        };
        self.phase = match started {
            Ok(host) => Phase::Running(Box::new(host)),
            Err(why) => Phase::Broken(why),
        };
        self.drive(turn, |_, _| {});
    }
}
