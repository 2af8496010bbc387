//! The control role's server of its group: its host, and what comes of having it do something.

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
use crate::host::{GroupRecovery, Host, News};
use crate::turn::Turn;

/// How far the server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// It reads what its disk has.
    Recovering(Box<GroupRecovery<Replicated>>),
    /// It takes part.
    Running(Box<Host<Replicated>>),
    /// The disk does not have what it should have: this server may have promised what it does not know any more, and so must
    /// not take part.
    Broken(String),
}

impl Control {
    /// Has the server do something, and goes on with what comes of it.
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
            host.end();
        }
        let news = host.take_news();
        if let Some(why) = host.take_broken() {
            self.phase = Phase::Broken(why);
        }
        self.hear(news, turn);
    }

    fn hear(&mut self, news: Vec<News<Outcome>>, turn: &mut Turn<'_>) {
        for news in news {
            match news {
                News::Resolved(Resolved::Proposed { id, result }) => self.proposed(id, result, turn),
                News::Resolved(Resolved::NotRead { id, .. }) => self.queried(id, false, turn),
                // Nothing of them is read; the state comes with them.
                News::RowsReplaced => {}
            }
        }
        let ready = match &mut self.phase {
            Phase::Running(host) => host.take_ready(),
            _ => Vec::new(),
        };
        for question in ready {
            self.queried(question.id, true, turn);
        }
    }

    /// A change is to stand in the log.
    pub(super) fn put_into_log(&mut self, id: u64, deadline: Instant, change: Change, turn: &mut Turn<'_>) {
        let mut refusal = Some(Rejection::NotLeader { leader: None });
        self.drive(turn, |host, turn| {
            let proposal = Proposal {
                id,
                deadline,
                request: LogRequest::Plain(change),
            };
            refusal = host.propose(vec![proposal], turn).err();
        });
        if let Some(refusal) = refusal {
            self.proposed(id, Err(ProposeError::Rejected(refusal)), turn);
        }
    }

    /// What the leader has committed is to be known here.
    pub(super) fn ask_leader(&mut self, question: ReadRequest, turn: &mut Turn<'_>) {
        match &self.phase {
            Phase::Running(_) => self.drive(turn, |host, turn| host.ask(question, turn)),
            _ => self.queried(question.id, false, turn),
        }
    }

    /// The disk has answered a read of what the server begins with.
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
