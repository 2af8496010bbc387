//! The forwarder of a consensus keyspace: finds the leaders of its groups, forwards requests to them, and
//! retries.
//!
//! Every node has one for every consensus keyspace, whether or not it is a member of its groups; so any node
//! accepts any request. A request arrives here when this node's server does not lead the group, or when the
//! node has none. The forwarder sends it to the supposed leader, which answers, or redirects to the leader
//! that it knows; if no leader is known, the forwarder tries the members in turn until one answers or the
//! deadline passes.
//!
//! # Retries
//! Reads, and commands in a session, which are executed once however often they are sent, can be retried.
//! Another command is sent once: when its answer is lost, its outcome is unknown. A member that redirects has
//! not executed the command and will not.
//!
//! [`Attempts`] tracks what the attempts at a command prove; every answer leaves through `Forwarder::finish`.

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

/// The forwarder's timer.
const TIMER: u64 = 0;
/// The minimum time between two attempts that failed at once.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// The answer is sent this long before its deadline, or an eighth of the time if that is less.
const DEADLINE_MARGIN: Duration = Duration::from_millis(50);
/// How long a write waits for a majority of reachable members.
const QUORUM_TIMEOUT: Duration = Duration::from_millis(500);
/// The timeout of an attempt at a member, which may be stopped, or partitioned without a broken connection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The forwarder of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forwarder {
    me: NodeId,
    alive: BTreeSet<NodeId>,
    keyspace: Keyspace,
    /// The hash of the cluster's ring.
    hash: HashKind,
    leaders: BTreeMap<GroupId, NodeId>,
    pending: BTreeMap<u64, PendingRequest>,
    /// The next deadline of each request.
    deadlines: BTreeSet<(Instant, u64)>,
    last_request: u64,
    timer: Option<Instant>,
    /// Whether the keyspace was dropped.
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
            deadlines: BTreeSet::new(),
            last_request: 0,
            timer: None,
            dropped: false,
            bugs: surroundings.bugs,
        }
    }

    /// The number of pending requests.
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
            return turn.push(reply(self.keyspace.dropped_error()));
        }
        let Some(group) = request.group() else {
            let name = &self.keyspace.settings.name;
            let error = Error::invalid(format!(
                "keyspace {name:?} is in consensus mode: it does not support requests of quorum mode"
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
        self.last_request += 1;
        let pending = PendingRequest {
            client,
            header,
            request,
            group,
            since: now,
            answer_by: header.deadline - DEADLINE_MARGIN.min(left / 8),
            attempt: Attempt::Waiting { retry_at: now },
            next: 0,
            redirects: 0,
            attempts: Attempts::default(),
        };
        self.deadlines.insert((pending.wake(), self.last_request));
        self.pending.insert(self.last_request, pending);
    }

    fn set(&mut self, id: u64, attempt: Attempt) {
        if let Some(pending) = self.pending.get_mut(&id) {
            self.deadlines.remove(&(pending.wake(), id));
            pending.attempt = attempt;
            self.deadlines.insert((pending.wake(), id));
        }
    }

    /// Answers with an error of this forwarder (a member's errors are measured there).
    fn fail(&mut self, id: u64, error: Error, turn: &mut Turn<'_>) {
        let result = Err(error);
        if let Some(pending) = self.pending.get(&id) {
            turn.effects.extend(measure(
                &pending.request,
                pending.since,
                turn.now.instant,
                &result,
            ));
        }
        self.finish(id, result, turn);
    }

    /// The next member to try: the leader if known, else the next reachable one.
    fn choose(&self, pending: &PendingRequest) -> Option<NodeId> {
        let leader = self
            .leaders
            .get(&pending.group)
            .filter(|leader| self.alive.contains(leader));
        if let Some(leader) = leader
            && !pending.request.is_stale_read()
        {
            return Some(*leader);
        }
        let members = self.members(pending.group);
        let turns = (0..members.len()).map(|step| members[(pending.next + step) % members.len()]);
        let mut turns = turns.filter(|member| self.alive.contains(member));
        turns.next()
    }

    fn advance(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let now = turn.now.instant;
        if pending.attempts.are_exhausted() {
            return self.expire(id, turn);
        }
        let short = self.alive_members(pending.group) < self.majority(pending.group);
        if short && !pending.request.is_stale_read() && now.since(pending.since) >= QUORUM_TIMEOUT {
            return self.expire(id, turn);
        }
        let Some(to) = self.choose(pending) else {
            return self.pause(id, now);
        };
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let repeatable = pending.request.is_repeatable();
        let effect = Effect::Send {
            to: Address {
                node: to,
                role: RoleId::Shard(pending.group),
            },
            header: Header {
                request: attempts::name(id, pending.attempts.begin()),
                deadline: pending.answer_by,
                ..pending.header
            },
            message: Message::Forward(pending.request.clone()),
        };
        let until = match repeatable {
            true => now + ATTEMPT_TIMEOUT,
            false => Instant::NEVER,
        };
        self.set(id, Attempt::Sent { to, until });
        turn.push(effect);
    }

    fn pause(&mut self, id: u64, now: Instant) {
        self.retry_next(id, now + RETRY_PAUSE);
    }

    /// Tries the next member at `retry_at`.
    fn retry_next(&mut self, id: u64, retry_at: Instant) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.next += 1;
        }
        self.set(id, Attempt::Waiting { retry_at });
    }

    /// The leader has changed: retries at the new one what can be retried. The old one may stay silent for
    /// long.
    fn follow(&mut self, group: GroupId, leader: NodeId, now: Instant) {
        let elsewhere = self.pending.iter().filter(|(_, pending)| {
            let sent = matches!(pending.attempt, Attempt::Sent { to, .. } if to != leader);
            sent && pending.group == group
                && pending.request.is_repeatable()
                && !pending.request.is_stale_read()
        });
        for id in elsewhere.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.give_up(id);
            self.retry_next(id, now);
        }
    }

    /// Retries waiting requests now, of this group or all.
    fn retry_waiting(&mut self, group: Option<GroupId>, now: Instant) {
        let waiting = self.pending.iter().filter(|(_, pending)| {
            let concerned = group.is_none_or(|group| pending.group == group);
            concerned && matches!(pending.attempt, Attempt::Waiting { .. })
        });
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.set(id, Attempt::Waiting { retry_at: now });
        }
    }

    // ---- answers ----

    fn answered(&mut self, name: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let (id, number) = attempts::parse(name);
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        // The member that has answered is tried first from now on.
        if let Some(leader) = result.as_ref().ok().and_then(Response::leader) {
            self.leaders.insert(pending.group, leader);
        }
        let error = match result {
            Err(error) if !matches!(error, Error::ConditionFailed { .. }) => error,
            // The command was executed, in one of its attempts.
            executed => {
                pending.attempts.resolved();
                return self.finish(id, executed, turn);
            }
        };
        // The other attempts were given up: their errors do not affect the outcome.
        if !pending.attempts.is_open(number) {
            return;
        }
        match error {
            Error::SessionExpired(_) => pending.attempts.rejected(),
            _ => pending.attempts.failed(&error),
        }
        let repeatable = pending.request.is_repeatable();
        if pending.request.is_read() || !pending.attempts.in_doubt() || !repeatable {
            return self.finish(id, Err(error), turn);
        }
        match error {
            // The next leader knows the outcome, or executes it; a member that rejects it now may accept it
            // later.
            Error::OutcomeUnknown { .. } | Error::Overloaded(_) | Error::StorageFull(_) => {
                self.pause(id, turn.now.instant);
            }
            // This attempt only: an earlier one may have been executed.
            Error::SessionExpired(_) => {
                let reason = "its session has expired, and an earlier attempt was not answered";
                let error = self.unknown(id, Some(reason.to_owned()));
                self.finish(id, Err(error), turn);
            }
            error => self.finish(id, Err(error), turn),
        }
    }

    /// A member does not lead and has not executed the request. `name` 0: this node's server reports the
    /// leader.
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
                self.retry_waiting(Some(group), now);
                self.follow(group, leader, now);
            }
            return;
        }
        let (id, number) = attempts::parse(name);
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        if !pending.attempts.is_open(number) {
            return;
        }
        pending.attempts.rejected();
        pending.redirects += 1;
        // Avoids a busy loop between two members that each take the other for the leader.
        let pause = match leader {
            Some(leader) if leader != from.node && pending.redirects % 3 != 0 => Duration::ZERO,
            _ => RETRY_PAUSE,
        };
        self.retry_next(id, now + pause);
    }

    /// An attempt has timed out: tries another member.
    fn attempt_timed_out(&mut self, id: u64, to: NodeId, now: Instant) {
        self.give_up(id);
        if let Some(pending) = self.pending.get(&id)
            && self.leaders.get(&pending.group) == Some(&to)
        {
            self.leaders.remove(&pending.group);
        }
        self.retry_next(id, now);
    }

    /// The pending attempt's outcome stays unknown.
    fn give_up(&mut self, id: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            match self.bugs.has(Bug::DoubtForgotten) {
                true => pending.attempts.rejected(),
                false => pending.attempts.give_up(),
            }
        }
    }

    fn peer(&mut self, node: NodeId, up: bool, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        if up {
            self.alive.insert(node);
            return self.retry_waiting(None, now);
        }
        self.alive.remove(&node);
        self.leaders.retain(|_, leader| *leader != node);
        let lost = self.pending.iter().filter(|(_, pending)| pending.is_with(node));
        let lost: Vec<u64> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            let Some(pending) = self.pending.get(&id) else {
                continue;
            };
            let repeatable = pending.request.is_repeatable();
            self.give_up(id);
            self.retry_next(id, now);
            if !repeatable {
                let reason = Some(format!("the connection to {node} broke"));
                let error = self.unknown(id, reason);
                self.fail(id, error, turn);
            }
        }
    }

    // ---- completion ----

    fn unknown(&self, id: u64, reason: Option<String>) -> Error {
        let group = self.pending.get(&id).map(|pending| pending.group);
        Error::OutcomeUnknown {
            acked: 0,
            required: group.map_or(1, |group| self.majority(group)) as u8,
            reason,
        }
    }

    fn expire(&mut self, id: u64, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let sent = matches!(pending.attempt, Attempt::Sent { .. });
        let (required, alive) = (
            self.majority(pending.group) as u8,
            self.alive_members(pending.group) as u8,
        );
        let error = match pending.request.is_read() {
            true if sent => Error::ReadTimeout {
                answered: 0,
                required,
            },
            false if pending.attempts.in_doubt() => self.unknown(id, None),
            _ => {
                let name = &self.keyspace.settings.name;
                let group = format!("group {} of keyspace {name:?}", pending.group);
                Error::no_leader(&group, self.members(pending.group).len(), required, alive)
            }
        };
        self.fail(id, error, turn);
    }

    /// The keyspace was dropped: fails all pending requests.
    fn drop_all(&mut self, turn: &mut Turn<'_>) {
        self.dropped = true;
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let Some(pending) = self.pending.get(&id) else {
                continue;
            };
            let error = match !pending.request.is_read() && pending.attempts.in_doubt() {
                true => self.unknown(id, Some(self.keyspace.dropped_reason())),
                false => self.keyspace.dropped_error(),
            };
            self.fail(id, error, turn);
        }
    }

    /// Every answer leaves here.
    fn finish(&mut self, id: u64, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        self.deadlines.remove(&(pending.wake(), id));
        let response = match pending.request.is_read() {
            true => result,
            false => result.map_err(|error| {
                pending
                    .attempts
                    .final_error(error, self.majority(pending.group) as u8)
            }),
        };
        turn.push(Effect::Reply {
            client: pending.client,
            response,
        });
    }

    fn advance_all(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            match self.pending.get(&id) {
                Some(pending) if pending.answer_by > now => match pending.attempt {
                    Attempt::Waiting { .. } => self.advance(id, turn),
                    Attempt::Sent { to, .. } => self.attempt_timed_out(id, to, now),
                },
                _ => self.expire(id, turn),
            }
        }
        if let Some((at, _)) = self.deadlines.first().copied()
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
            Event::Start => self.last_request = attempts::first_operation(turn.rng.next_u64()),
            Event::Peer { node, up } => self.peer(node, up, &mut turn),
            Event::Timer { id: TIMER } => self.timer = None,
            Event::Dropped => self.drop_all(&mut turn),
            _ => {}
        }
        self.advance_all(&mut turn);
    }
}

#[cfg(test)]
mod tests;
