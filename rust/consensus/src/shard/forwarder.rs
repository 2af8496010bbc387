//! The forwarder to a consensus keyspace: finds the leaders of its groups.
//!
//! Every node has one for every consensus keyspace, member of its groups or not; so any node takes any request. A request
//! comes here when this node's server does not lead the group, or when it has none. The forwarder asks the member that it takes
//! for the leader. That one answers, or says who leads as far as it knows; if nobody does, the forwarder asks around until
//! somebody does or the time is up.
//!
//! # What may be asked twice
//! Reads, and commands in a session, which are executed once however often they come. Another command is asked for once:
//! when its answer is lost, its outcome is unknown. A member that says it does not lead has not done anything and will not.
//!
//! What the attempts at a command prove, [`Attempts`] knows; every answer leaves through `Forwarder::finish`.

mod pending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::attempts::{self, Attempts};
use quorate_core::bugs::{Bug, Bugs};
use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::time::{Instant, Now};
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, ClientRef, Effect, Event, RoleId, Surroundings};
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;
use rand_core::Rng as _;

use crate::shard::kind::measure;
use crate::shard::no_such_group;
use crate::shard::ownership::misdirected;
use crate::turn::Turn;
use pending::{Attempt, PendingRequest};

/// The timer of the forwarder.
const TIMER: u64 = 0;
/// The least time between two questions about one request that led nowhere.
const PAUSE: Duration = Duration::from_millis(10);
/// An answer is given so long before its deadline, or an eighth of the time if that is less.
const MARGIN: Duration = Duration::from_millis(50);
/// With fewer members in reach than a majority, a request that changes something waits so long for more.
const PATIENCE: Duration = Duration::from_millis(500);
/// A member that says nothing for so long may be stopped, or cut off in a way that breaks no connection.
const SILENCE: Duration = Duration::from_secs(1);

/// The forwarder to one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forwarder {
    me: NodeId,
    alive: BTreeSet<NodeId>,
    keyspace: Keyspace,
    /// How the cluster's ring makes tokens of keys.
    hash: HashKind,
    leaders: BTreeMap<GroupId, NodeId>,
    pending: BTreeMap<u64, PendingRequest>,
    /// When each request is looked at next.
    agenda: BTreeSet<(Instant, u64)>,
    last_ask: u64,
    timer: Option<Instant>,
    /// The keyspace was dropped.
    dropped: bool,
    bugs: Bugs,
}

impl Forwarder {
    /// A forwarder that knows no leader yet.
    pub fn new(keyspace: &Keyspace, surroundings: &Surroundings) -> Self {
        Forwarder {
            me: surroundings.me(),
            alive: surroundings.alive.clone(),
            keyspace: keyspace.clone(),
            hash: surroundings.placement.topology().ring.hash,
            leaders: BTreeMap::new(),
            pending: BTreeMap::new(),
            agenda: BTreeSet::new(),
            last_ask: 0,
            timer: None,
            dropped: false,
            bugs: surroundings.bugs,
        }
    }

    /// How many requests are in progress.
    pub fn in_progress(&self) -> usize {
        self.pending.len()
    }

    fn members(&self, group: GroupId) -> &[NodeId] {
        self.keyspace
            .group(group)
            .map_or(&[], |(_, group)| &group.members)
    }

    fn alive_members(&self, group: GroupId) -> usize {
        let members = self.members(group).iter();
        members.filter(|member| self.alive.contains(member)).count()
    }

    fn majority(&self, group: GroupId) -> usize {
        self.members(group).len() / 2 + 1
    }

    fn request(&mut self, client: ClientRef, header: Header, request: Request, turn: &mut Turn<'_>) {
        let reply = |error| Effect::Reply {
            client,
            response: Err(error),
        };
        if self.dropped {
            return turn.push(reply(self.keyspace.no_longer_there()));
        }
        let Some(group) = request.group() else {
            let name = &self.keyspace.settings.name;
            let error = Error::invalid(format!(
                "keyspace {name:?} is in consensus mode: it takes no requests of quorum mode"
            ));
            return turn.push(reply(error));
        };
        if self.keyspace.group(group).is_none() {
            return turn.push(reply(no_such_group(&self.keyspace, group)));
        }
        if let Some(error) = misdirected(&self.keyspace, self.hash, group, &request) {
            return turn.push(reply(error));
        }
        let now = turn.now.instant;
        let left = header.deadline.since(now);
        self.last_ask += 1;
        let ask = PendingRequest {
            client,
            header,
            request,
            group,
            since: now,
            give_up: header.deadline - MARGIN.min(left / 8),
            attempt: Attempt::Waiting { retry_at: now },
            next: 0,
            detours: 0,
            attempts: Attempts::default(),
        };
        self.agenda.insert((ask.wake(), self.last_ask));
        self.pending.insert(self.last_ask, ask);
    }

    fn set(&mut self, id: u64, attempt: Attempt) {
        if let Some(ask) = self.pending.get_mut(&id) {
            self.agenda.remove(&(ask.wake(), id));
            ask.attempt = attempt;
            self.agenda.insert((ask.wake(), id));
        }
    }

    /// Answers with an error that no member has given (the others are measured there).
    fn fail(&mut self, id: u64, error: Error, turn: &mut Turn<'_>) {
        let result = Err(error);
        if let Some(ask) = self.pending.get(&id) {
            turn.effects
                .extend(measure(&ask.request, ask.since, turn.now.instant, &result));
        }
        self.finish(id, result, turn);
    }

    /// Whom to ask: who leads, or whoever is next.
    fn choose(&self, ask: &PendingRequest) -> Option<NodeId> {
        let leader = self
            .leaders
            .get(&ask.group)
            .filter(|leader| self.alive.contains(leader));
        if let Some(leader) = leader
            && !ask.request.is_stale_read()
        {
            return Some(*leader);
        }
        let members = self.members(ask.group);
        let turns = (0..members.len()).map(|step| members[(ask.next + step) % members.len()]);
        let mut turns = turns.filter(|member| self.alive.contains(member));
        turns.next()
    }

    fn advance(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(ask) = self.pending.get(&id) else { return };
        let now = turn.now.instant;
        if ask.attempts.are_used_up() {
            return self.expire(id, turn);
        }
        let short = self.alive_members(ask.group) < self.majority(ask.group);
        if short && !ask.request.is_stale_read() && now.since(ask.since) >= PATIENCE {
            return self.expire(id, turn);
        }
        let Some(to) = self.choose(ask) else {
            return self.pause(id, now);
        };
        let Some(ask) = self.pending.get_mut(&id) else {
            return;
        };
        let repeatable = ask.request.is_repeatable();
        let effect = Effect::Send {
            to: Address {
                node: to,
                role: RoleId::Shard(ask.group),
            },
            header: Header {
                request: attempts::name(id, ask.attempts.begin()),
                deadline: ask.give_up,
                ..ask.header
            },
            message: Message::Forward(ask.request.clone()),
        };
        let until = match repeatable {
            true => now + SILENCE,
            false => Instant::NEVER,
        };
        self.set(id, Attempt::Sent { to, until });
        turn.push(effect);
    }

    fn pause(&mut self, id: u64, now: Instant) {
        self.again(id, now + PAUSE);
    }

    /// Asks somebody else, then.
    fn again(&mut self, id: u64, retry_at: Instant) {
        if let Some(ask) = self.pending.get_mut(&id) {
            ask.next += 1;
        }
        self.set(id, Attempt::Waiting { retry_at });
    }

    /// Another leads: what its predecessor was asked, and may be asked twice, is asked there. It may be silent for long.
    fn follow(&mut self, group: GroupId, leader: NodeId, now: Instant) {
        let elsewhere = self.pending.iter().filter(|(_, ask)| {
            let sent = matches!(ask.attempt, Attempt::Sent { to, .. } if to != leader);
            sent && ask.group == group && ask.request.is_repeatable() && !ask.request.is_stale_read()
        });
        for id in elsewhere.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(id);
            self.again(id, now);
        }
    }

    /// Whoever waits, maybe for this group only, is looked at now.
    fn wake_up(&mut self, group: Option<GroupId>, now: Instant) {
        let waiting = self.pending.iter().filter(|(_, ask)| {
            let concerned = group.is_none_or(|group| ask.group == group);
            concerned && matches!(ask.attempt, Attempt::Waiting { .. })
        });
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.set(id, Attempt::Waiting { retry_at: now });
        }
    }

    // ---- answers ----

    fn answered(&mut self, name: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let (id, number) = attempts::parse(name);
        let Some(ask) = self.pending.get_mut(&id) else {
            return;
        };
        // Whoever was found by asking around is asked first from now on.
        if let Some(leader) = result.as_ref().ok().and_then(Response::leader) {
            self.leaders.insert(ask.group, leader);
        }
        let error = match result {
            Err(error) if !matches!(error, Error::ConditionFailed { .. }) => error,
            // The command was executed, in whichever attempt.
            executed => {
                ask.attempts.settled();
                return self.finish(id, executed, turn);
            }
        };
        // The other attempts were given up: their errors do not change what is known of them.
        if !ask.attempts.is_open(number) {
            return;
        }
        match error {
            Error::SessionExpired(_) => ask.attempts.declined(),
            _ => ask.attempts.failed(&error),
        }
        let repeatable = ask.request.is_repeatable();
        if ask.request.is_read() || !ask.attempts.in_doubt() || !repeatable {
            return self.finish(id, Err(error), turn);
        }
        match error {
            // Whoever leads next knows what has become of it, or executes it; whoever refuses it now may take it later.
            Error::OutcomeUnknown { .. } | Error::Overloaded(_) | Error::StorageFull(_) => {
                self.pause(id, turn.now.instant);
            }
            // Of this attempt only: the client must not take it for never executed.
            Error::SessionExpired(_) => {
                let reason = "its session has expired, and an earlier attempt was not answered";
                let error = self.unknown(id, Some(reason.to_owned()));
                self.finish(id, Err(error), turn);
            }
            error => self.finish(id, Err(error), turn),
        }
    }

    /// A member does not lead and has not done anything. `name` 0: this node's server tells what it has found out.
    fn redirected(&mut self, from: Address, name: u64, leader: Option<NodeId>, now: Instant) {
        let RoleId::Shard(group) = from.role else { return };
        match leader {
            Some(leader) => drop(self.leaders.insert(group, leader)),
            None if name == 0 || self.leaders.get(&group) == Some(&from.node) => {
                self.leaders.remove(&group);
            }
            None => {}
        }
        if name == 0 {
            if let Some(leader) = leader {
                self.wake_up(Some(group), now);
                self.follow(group, leader, now);
            }
            return;
        }
        let (id, number) = attempts::parse(name);
        let Some(ask) = self.pending.get_mut(&id) else {
            return;
        };
        if !ask.attempts.is_open(number) {
            return;
        }
        ask.attempts.declined();
        ask.detours += 1;
        // Two members that each take the other for the leader must not make this a busy loop.
        let pause = match leader {
            Some(leader) if leader != from.node && ask.detours % 3 != 0 => Duration::ZERO,
            _ => PAUSE,
        };
        self.again(id, now + pause);
    }

    /// A member that was asked says nothing: another is asked the same.
    fn unanswered(&mut self, id: u64, to: NodeId, now: Instant) {
        self.give_up(id);
        if let Some(ask) = self.pending.get(&id)
            && self.leaders.get(&ask.group) == Some(&to)
        {
            self.leaders.remove(&ask.group);
        }
        self.again(id, now);
    }

    /// Nothing certain will be known about the attempt that is under way.
    fn give_up(&mut self, id: u64) {
        if let Some(ask) = self.pending.get_mut(&id) {
            match self.bugs.has(Bug::DoubtForgotten) {
                true => ask.attempts.declined(),
                false => ask.attempts.give_up(),
            }
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        if up {
            self.alive.insert(node);
            return self.wake_up(None, now);
        }
        self.alive.remove(&node);
        self.leaders.retain(|_, leader| *leader != node);
        let lost = self.pending.iter().filter(|(_, ask)| ask.is_with(node));
        let lost: Vec<u64> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            let Some(ask) = self.pending.get(&id) else {
                continue;
            };
            let repeatable = ask.request.is_repeatable();
            self.give_up(id);
            self.again(id, now);
            if !repeatable {
                let reason = Some(format!("the connection to {node} broke"));
                let error = self.unknown(id, reason);
                self.fail(id, error, turn);
            }
        }
    }

    // ---- the end ----

    fn unknown(&self, id: u64, reason: Option<String>) -> Error {
        let group = self.pending.get(&id).map(|ask| ask.group);
        Error::OutcomeUnknown {
            acked: 0,
            required: group.map_or(1, |group| self.majority(group)) as u8,
            reason,
        }
    }

    fn expire(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(ask) = self.pending.get(&id) else { return };
        let sent = matches!(ask.attempt, Attempt::Sent { .. });
        let (required, alive) = (
            self.majority(ask.group) as u8,
            self.alive_members(ask.group) as u8,
        );
        let error = match ask.request.is_read() {
            true if sent => Error::ReadTimeout {
                answered: 0,
                required,
            },
            false if ask.attempts.in_doubt() => self.unknown(id, None),
            _ => {
                let name = &self.keyspace.settings.name;
                let group = format!("group {} of keyspace {name:?}", ask.group);
                Error::no_leader(&group, self.members(ask.group).len(), required, alive)
            }
        };
        self.fail(id, error, turn);
    }

    /// The keyspace was dropped: nobody will answer any more.
    fn drop_all(&mut self, turn: &mut Turn<'_>) {
        self.dropped = true;
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let Some(ask) = self.pending.get(&id) else {
                continue;
            };
            let error = match !ask.request.is_read() && ask.attempts.in_doubt() {
                true => self.unknown(id, Some(self.keyspace.was_dropped())),
                false => self.keyspace.no_longer_there(),
            };
            self.fail(id, error, turn);
        }
    }

    /// The only way out.
    fn finish(&mut self, id: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(ask) = self.pending.remove(&id) else {
            return;
        };
        self.agenda.remove(&(ask.wake(), id));
        let response = match ask.request.is_read() {
            true => result,
            false => result.map_err(|error| ask.attempts.last_word(error, self.majority(ask.group) as u8)),
        };
        turn.push(Effect::Reply {
            client: ask.client,
            response,
        });
    }

    fn work(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        while let Some((at, id)) = self.agenda.first().copied()
            && at <= now
        {
            match self.pending.get(&id) {
                Some(ask) if ask.give_up > now => match ask.attempt {
                    Attempt::Waiting { .. } => self.advance(id, turn),
                    Attempt::Sent { to, .. } => self.unanswered(id, to, now),
                },
                _ => self.expire(id, turn),
            }
        }
        if let Some((at, _)) = self.agenda.first().copied()
            && self.timer.is_none_or(|timer| at < timer)
        {
            self.timer = Some(at);
            turn.push(Effect::SetTimer { id: TIMER, at });
        }
    }
}

impl Role for Forwarder {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        let mut turn = Turn { now, rng, effects };
        match event {
            Event::Request {
                client,
                header,
                request,
            } => self.request(client, header, request, &mut turn),
            Event::Message {
                header,
                message: Message::Forwarded(result),
                ..
            } => self.answered(header.request, result, &mut turn),
            Event::Message {
                from,
                header,
                message: Message::Redirect { leader },
            } => self.redirected(from, header.request, leader, now.instant),
            Event::Start => self.last_ask = attempts::first_operation(turn.rng.next_u64()),
            Event::Peer { node, up } => self.peer(node, up, &mut turn),
            Event::Timer { id: TIMER } => self.timer = None,
            Event::Dropped => self.drop_all(&mut turn),
            _ => {}
        }
        self.work(&mut turn);
    }
}

#[cfg(test)]
mod tests;
