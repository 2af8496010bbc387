//! Responses of replicas and other coordinators: they advance an operation, until the client is answered.

use std::sync::Arc;

use quorate_core::bugs::Bug;
use quorate_core::hlc::Timestamp;
use quorate_core::time::Now;
use quorate_protocol::message::Message;
use quorate_protocol::role::{Address, Effect};
use quorate_versions::{Dot, KeyState};

use super::{Coordinator, MAX_LINGERING_BYTES, REPAIR_TIMEOUT};
use crate::operation::{Kind, PendingRequest, Progress};

impl Coordinator {
    /// A response to a message of an operation.
    pub(super) fn on_message(
        &mut self,
        from: Address,
        id: u64,
        message: Message,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        match (&mut pending.kind, message) {
            (Kind::Write(write), Message::Stored) => write.stored(from.node),
            (Kind::Write(write), Message::Failed(error))
                if from.node == self.surroundings.me() && error.is_definite() && write.state().is_none() =>
            {
                // The own replica has not made it an event: nothing was written anywhere.
                return self.rejected_locally(id, error, now, effects);
            }
            (Kind::Write(write), Message::Failed(error)) => write.rejected(from.node, &error),
            (Kind::Read(read), Message::Fetched { state }) => read.fetched(from.node, state),
            (Kind::Read(read), Message::Stored) => read.healed(from.node),
            (Kind::Read(read), Message::Failed(error)) => read.failed(from.node, Some(error)),
            (Kind::Scan(scan), Message::FetchedRange { rows, more }) => scan.fetched(from.node, rows, more),
            (Kind::Scan(scan), Message::Failed(error)) => scan.failed(from.node, Some(error)),
            (Kind::Forwarded { .. }, Message::Forwarded(result)) => {
                if let Err(error) = &result {
                    pending.details.attempts.failed(error);
                }
                return self.conclude(id, Progress::Done(result), now, effects);
            }
            _ => return,
        }
        self.advance(id, false, now, effects);
    }

    /// The own replica has made a write an event.
    pub(super) fn assigned(
        &mut self,
        id: u64,
        (dot, timestamp, state): (Dot, Timestamp, Arc<KeyState>),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        if let Kind::Write(write) = &mut pending.kind {
            if write.assigned(dot, timestamp, state) {
                self.store(id, effects);
            }
            self.advance(id, false, now, effects);
        }
    }

    /// A write is an event: sends the key's state to the other replicas, while the own disk persists it.
    fn store(&mut self, id: u64, effects: &mut Vec<Effect>) {
        let Some(PendingRequest {
            details,
            kind: Kind::Write(write),
            ..
        }) = self.pending.get(&id).map(|pending| &**pending)
        else {
            return;
        };
        let Some(state) = write.state() else { return };
        let header = self.header(id, details.deadline, details.trace);
        for node in write.targets() {
            let (key, state) = (write.key.clone(), state.clone());
            let to = self.replica(node);
            self.outgoing
                .send(to, header, Message::Store { key, state }, effects);
        }
    }

    /// Evaluates the responses of an operation and acts on the result.
    pub(super) fn advance(
        &mut self,
        id: u64,
        soft_deadline_passed: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let (required, level) = (pending.details.required, pending.details.level);
        let progress = match &mut pending.kind {
            Kind::Write(write) if self.surroundings.bugs.has(Bug::WriteQuorumByLiveness) => {
                write.progress_by_liveness(required, level)
            }
            Kind::Write(write) => write.progress(required, level),
            Kind::Read(read) => {
                let more = match soft_deadline_passed || read.needs_more(required) {
                    true => read.send_more(usize::MAX),
                    false => Vec::new(),
                };
                let heal = read.heal(required);
                let progress = read.progress(required, level);
                let key = read.key.clone();
                if let Some(heal) = heal {
                    let trace = pending.details.trace;
                    self.repair(key.clone(), heal, (id, trace), now, effects);
                }
                for node in more {
                    let message = Message::Fetch { key: key.clone() };
                    self.send(id, self.replica(node), message, effects);
                }
                progress
            }
            Kind::Scan(scan) => scan.progress(&self.preference, (required, level), soft_deadline_passed),
            Kind::Forwarded { .. } => Progress::Pending,
        };
        self.conclude(id, progress, now, effects);
    }

    /// Acts on the progress of an operation.
    pub(super) fn conclude(&mut self, id: u64, progress: Progress, now: Now, effects: &mut Vec<Effect>) {
        let me = self.surroundings.me();
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let name = &self.keyspace.settings.name;
        match progress {
            Progress::Pending => {}
            Progress::Answered(result) => {
                let answer = pending.details.respond(result, me, name, now, effects);
                self.linger(id, now, effects);
                self.finish_key(answer, now, effects);
            }
            Progress::Done(result) => {
                let answer = pending.details.respond(result, me, name, now, effects);
                self.end(id, now, effects);
                self.finish_key(answer, now, effects);
            }
            Progress::Finished => self.end(id, now, effects),
        }
    }

    /// Keeps an answered read until the remaining replicas have responded, to repair them; bounded in time and memory.
    fn linger(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let Kind::Read(read) = &pending.kind else { return };
        let weight = read.weight();
        if self.lingering_bytes + weight > MAX_LINGERING_BYTES {
            return self.end(id, now, effects);
        }
        pending.lingers = weight;
        self.lingering_bytes += weight;
        let until = pending.details.deadline.min(now.instant + REPAIR_TIMEOUT);
        self.wakeups.remove(&(pending.details.deadline, id));
        pending.details.deadline = until;
        self.wakeups.insert((until, id));
    }

    /// Removes an operation, and starts the repairs that it found necessary.
    fn end(&mut self, id: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some(pending) = self.remove(id) else { return };
        match pending.kind {
            Kind::Read(read) => {
                if let Some(repair) = read.repair() {
                    self.repair(read.key, repair, (id, pending.details.trace), now, effects);
                }
            }
            Kind::Scan(scan) => {
                for key in scan.suspects(&self.preference) {
                    self.read_all(key, now, effects);
                }
            }
            Kind::Write(_) | Kind::Forwarded { .. } => {}
        }
    }
}
