//! A group: its servers, the messages on their way, and what has happened that must not be contradicted.

use quorate_checker::figure3::{self, Commit, Committed, Server as _, Verdict};
use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;

use super::server::{Catalog, Input, SERVERS, View};
use crate::entry::Entry;
use crate::testing::show;
use crate::types::{LogPosition, Term};

/// How far an exploration goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Nobody asks for an election in a later term than this.
    pub(super) terms: u64,
    /// So many commands come from clients.
    pub(super) commands: u8,
    /// So many times a server crashes.
    pub(super) crashes: u8,
    /// So many times a leader sends heartbeats.
    pub(super) beats: u8,
    /// So many messages arrive once more.
    pub(super) repeats: u8,
    /// So many messages are on their way at most; more are lost.
    pub(super) wire: usize,
    /// Writes take their time. If not, each is durable at once.
    pub(super) slow_disks: bool,
}

/// More terms, entries and messages than any bounds ask for.
const ROOM: usize = 8;

/// What no state shows, but the properties speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// Who has led in each term.
    pub(super) leaders: [Option<NodeId>; ROOM],
    /// What has been committed at each place.
    pub(super) committed: Few,
}

/// The position of the entry that has been committed at each place, and the earliest term of a server that knew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Few([Option<(LogPosition, Term)>; ROOM]);

impl Committed<Entry> for Few {
    fn note(&mut self, commit: Commit, entry: &Entry) -> Option<String> {
        let found = entry.position();
        let place = (commit.index - 1) as usize;
        let (known, first) = self.0[place].get_or_insert((found, Term(commit.committed_in)));
        *first = Term(commit.committed_in).min(*first);
        (*known != found).then(|| known.to_string())
    }

    fn commits(&self, from: u64) -> impl Iterator<Item = Commit> {
        let known = self.0.iter().skip((from - 1) as usize).map_while(|known| *known);
        known.map(|(position, first)| Commit {
            index: position.index.0,
            term: position.term.0,
            committed_in: first.0,
        })
    }
}

/// A state of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    servers: [u32; SERVERS as usize],
    /// In the order of their numbers: which came first makes no difference. One that is never delivered is lost.
    wire: [Option<u32>; ROOM],
    history: History,
    commands: u8,
    crashes: u8,
    beats: u8,
    repeats: u8,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    server: u8,
    input: Input,
    /// The message that it takes will come again.
    again: bool,
}

impl World {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        World {
            servers: catalog.start(),
            wire: [None; ROOM],
            history: History::default(),
            commands: 0,
            crashes: 0,
            beats: 0,
            repeats: 0,
        }
    }

    /// Everything that can happen.
    pub(super) fn actions(&self, catalog: &Catalog, bounds: &Bounds) -> Vec<Action> {
        let mut actions = Vec::new();
        for (place, number) in self.servers.iter().enumerate() {
            let server = catalog.view(*number);
            let mut add = |input| {
                actions.push(Action {
                    server: place as u8,
                    input,
                    again: false,
                });
            };
            // The servers are alike: whoever is the first to ask for an election is called n1.
            let begun = place == 0
                || self
                    .servers
                    .iter()
                    .any(|number| catalog.view(*number).term > Term(0));
            if !server.leads && server.term.0 < bounds.terms && begun {
                add(Input::Campaign);
            }
            if server.leads && self.beats < bounds.beats {
                add(Input::Beat);
            }
            if server.leads && self.commands < bounds.commands {
                add(Input::Propose(self.commands));
            }
            if server.in_flight {
                add(Input::Persist);
            }
            if self.crashes < bounds.crashes {
                add(Input::Crash);
                if server.in_flight && catalog.bugs().has(Bug::RestartedInPlace) {
                    add(Input::RestartInPlace);
                }
            }
        }
        for message in self.wire.into_iter().flatten() {
            let server = (catalog.message(message).to.node.0 - 1) as u8;
            let action = |again| Action {
                server,
                input: Input::Message(message),
                again,
            };
            actions.push(action(false));
            if self.repeats < bounds.repeats {
                actions.push(action(true));
            }
        }
        actions
    }

    /// What an action leads to, or which property it breaks.
    pub(super) fn after(
        &self,
        action: Action,
        catalog: &mut Catalog,
        bounds: &Bounds,
    ) -> Result<World, String> {
        let place = usize::from(action.server);
        let mut next = *self;
        match action.input {
            Input::Message(message) if !action.again => next.keep(|other| other != message),
            Input::Message(_) => next.repeats += 1,
            Input::Propose(_) => next.commands += 1,
            Input::Beat => next.beats += 1,
            Input::Crash | Input::RestartInPlace => next.crashes += 1,
            Input::Campaign | Input::Persist => {}
        }
        let mut input = action.input;
        loop {
            let step = catalog.step(next.servers[place], input)?;
            next.servers[place] = step.server;
            for message in step.sent {
                next.send(message, bounds);
            }
            if bounds.slow_disks || !catalog.view(step.server).in_flight {
                break;
            }
            input = Input::Persist;
        }
        next.check(catalog.view(self.servers[place]), place, catalog)?;
        next.forget(catalog);
        Ok(next)
    }

    /// A message that is on its way already is not sent twice. Where there is no more room, the one that was first known is
    /// lost.
    fn send(&mut self, message: u32, bounds: &Bounds) {
        if self.wire.contains(&Some(message)) {
            return;
        }
        if self.wire[bounds.wire - 1].is_some() {
            self.wire[0] = None;
        }
        let place = self.wire.iter().position(Option::is_none).expect("there is room");
        self.wire[place] = Some(message);
        self.keep(|_| true);
    }

    fn keep(&mut self, wanted: impl Fn(u32) -> bool) {
        for place in &mut self.wire {
            *place = place.filter(|message| wanted(*message));
        }
        self.wire
            .sort_unstable_by_key(|message| message.unwrap_or(u32::MAX));
    }

    /// A message of an earlier term than its receiver has durably changes nothing: it may as well be lost.
    fn forget(&mut self, catalog: &Catalog) {
        let servers = self.servers;
        self.keep(|message| {
            let envelope = catalog.message(message);
            envelope.message.term >= catalog.view(servers[usize::from(envelope.to.node.0 - 1)]).durable
        });
    }

    fn check(&mut self, before: &View, place: usize, catalog: &Catalog) -> Verdict {
        let servers = self.servers.map(|number| catalog.view(number));
        let leaders = || servers.iter().filter(|server| server.leads());
        figure3::leader_append_only(&before, &servers[place])?;
        for leader in leaders() {
            figure3::election_safety(leader, &mut self.history.leaders)?;
        }
        figure3::log_matching(&servers)?;
        for server in &servers {
            figure3::state_machine_safety(server, 1, &mut self.history.committed)?;
        }
        for leader in leaders() {
            figure3::leader_completeness(leader, &self.history.committed)?;
        }
        Ok(())
    }

    /// The state after an action, as far as a reader of a trace wants to know.
    pub(super) fn tell(&self, action: Action, catalog: &Catalog) -> String {
        let view = catalog.view(self.servers[usize::from(action.server)]);
        let node = view.node;
        match action.input {
            Input::Campaign => {
                let next = view.term.next().unwrap_or(view.term);
                format!("{node} asks for an election in {next}")
            }
            Input::Beat => format!("{node} sends heartbeats"),
            Input::Propose(number) => format!("{node} is given command {}", char::from(b'a' + number)),
            Input::Message(message) => {
                let again = if action.again { " (and will again)" } else { "" };
                format!("{}{again}", show::envelope(catalog.message(message)))
            }
            Input::Persist => format!("{node}'s disk finishes a write"),
            Input::Crash => format!("{node} crashes and starts again"),
            Input::RestartInPlace => format!("{node} is restarted in place"),
        }
    }
}
