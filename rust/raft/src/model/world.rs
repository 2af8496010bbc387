//! A group: its servers, the messages in flight, and the history that must not be contradicted.

use quorate_checker::figure3::{self, Commit, Committed, Server as _, Verdict};
use quorate_core::bugs::Bug;
use quorate_core::ids::NodeId;

use super::server::{Catalog, Input, SERVERS, View};
use crate::entry::Entry;
use crate::testing::show;
use crate::types::{LogPosition, Term};

/// The bounds of an exploration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The highest term for which a server starts an election.
    pub(super) terms: u64,
    /// The number of client commands.
    pub(super) commands: u8,
    /// The number of crashes.
    pub(super) crashes: u8,
    /// The number of heartbeat rounds.
    pub(super) beats: u8,
    /// The number of duplicated messages.
    pub(super) repeats: u8,
    /// The maximum number of messages in flight; more are lost.
    pub(super) wire: usize,
    /// Whether writes take time. If not, each is durable at once.
    pub(super) slow_disks: bool,
}

/// An upper limit of terms, entries and messages in all bounds.
const ROOM: usize = 8;

/// History that no state shows, but that the properties refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// The leader of each term.
    pub(super) leaders: [Option<NodeId>; ROOM],
    /// The committed entry at each index.
    pub(super) committed: CommittedEntries,
}

/// The position of the committed entry at each index, and the earliest term of a server that knew of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CommittedEntries([Option<(LogPosition, Term)>; ROOM]);

impl Committed<Entry> for CommittedEntries {
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

/// A state of the whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    servers: [u32; SERVERS as usize],
    /// Ordered by number: the order of sending makes no difference. A message that is never delivered is
    /// lost.
    wire: [Option<u32>; ROOM],
    history: History,
    commands: u8,
    crashes: u8,
    beats: u8,
    repeats: u8,
}

/// The next action.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    server: u8,
    input: Input,
    /// Whether the message is delivered again later.
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

    /// All possible actions.
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
            // The servers are interchangeable: the first to start an election is n1.
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

    /// The state after an action, or the property that it violates.
    pub(super) fn after(
        &self,
        action: Action,
        catalog: &mut Catalog,
        bounds: &Bounds,
    ) -> Result<World, String> {
        let place = usize::from(action.server);
        let mut next = *self;
        match action.input {
            Input::Message(message) if !action.again => next.retain(|other| other != message),
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

    /// A message that is already in flight is not sent twice. If there is no room, the oldest known one is
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
        self.retain(|_| true);
    }

    fn retain(&mut self, wanted: impl Fn(u32) -> bool) {
        for place in &mut self.wire {
            *place = place.filter(|message| wanted(*message));
        }
        self.wire
            .sort_unstable_by_key(|message| message.unwrap_or(u32::MAX));
    }

    /// A message of an earlier term than its receiver's durable one changes nothing: it counts as lost.
    fn forget(&mut self, catalog: &Catalog) {
        let servers = self.servers;
        self.retain(|message| {
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

    /// Describes an action and its effect, for a trace.
    pub(super) fn describe(&self, action: Action, catalog: &Catalog) -> String {
        let view = catalog.view(self.servers[usize::from(action.server)]);
        let node = view.node;
        match action.input {
            Input::Campaign => {
                let next = view.term.next().unwrap_or(view.term);
                format!("{node} starts an election in {next}")
            }
            Input::Beat => format!("{node} sends heartbeats"),
            Input::Propose(number) => format!("{node} proposes command {}", char::from(b'a' + number)),
            Input::Message(message) => {
                let again = if action.again { " (duplicated)" } else { "" };
                format!("{}{again}", show::envelope(catalog.message(message)))
            }
            Input::Persist => format!("{node}'s disk completes a write"),
            Input::Crash => format!("{node} crashes and recovers"),
            Input::RestartInPlace => format!("{node} is restarted in place"),
        }
    }
}
