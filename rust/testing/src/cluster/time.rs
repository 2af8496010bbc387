//! Time: scheduled events.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::disk::Store;
use crate::protocol::{EnvelopeOf, Input, Protocol};
use crate::trace::{Loss, TraceEvent};

/// The interval at which messages on the wire are delivered while time advances.
const ROUND: Duration = Duration::from_micros(500);

/// A scheduled event on a node.
pub(super) enum Due<P: Protocol> {
    Arrive(EnvelopeOf<P>),
    Sync,
    Flush,
    Read {
        role: P::Role,
        token: u64,
        query: <P::Store as Store>::Query,
        early: Option<<P::Store as Store>::Answer>,
    },
    File(u64),
    Link(P::NodeId, bool),
}

impl<P: Protocol> Cluster<P> {
    /// Advances time, and performs due events in order.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by.as_micros() as u64;
        while self.step(until) {}
        self.now = until;
    }

    /// Advances time, and delivers messages on the wire every half millisecond.
    pub fn live(&mut self, by: Duration) {
        if self.profile.latency.is_some() {
            return self.advance(by);
        }
        let until = self.now + by.as_micros() as u64;
        while self.now < until {
            self.advance(ROUND);
            self.deliver_round(None, usize::MAX);
        }
    }

    /// Performs the next event that is due by then; `false` if there is none.
    pub fn step(&mut self, until: u64) -> bool {
        let next = self.queue.keys().next().copied();
        let timer = self.next_timer();
        match (next, timer) {
            (Some(key), timer) if key.0 <= until && timer.is_none_or(|(due, ..)| key.0 <= due) => {
                self.now = self.now.max(key.0);
                let (node, boot, due) = self.queue.remove(&key).expect("it was just found");
                let found = &self.nodes[&node];
                if boot.is_none_or(|boot| found.is_up() && found.boots == boot) {
                    self.happen(node, due);
                }
                true
            }
            (_, Some((at, node, role, id))) if at <= until => {
                self.now = self.now.max(at);
                let process = self.node(node).process.as_mut().expect("it has a timer");
                process.timers.remove(&(role, id));
                self.input(node, role, P::event(Input::Timer { id }));
                true
            }
            _ => false,
        }
    }

    fn next_timer(&self) -> Option<(u64, P::NodeId, P::Role, u64)> {
        let nodes = self.nodes.iter();
        let running = nodes.filter_map(|(node, found)| Some((node, found.process.as_ref()?)));
        let timers = running.flat_map(|(node, process)| {
            let timers = process.timers.iter();
            timers.map(|((role, id), at)| (*at, *node, *role, *id))
        });
        timers.min()
    }

    pub(super) fn plan(&mut self, after: Duration, node: P::NodeId, boot: Option<u64>, due: Due<P>) {
        self.planned += 1;
        let at = self.now + after.as_micros() as u64;
        self.queue.insert((at, self.planned), (node, boot, due));
    }

    fn happen(&mut self, node: P::NodeId, due: Due<P>) {
        match due {
            Due::Arrive(envelope) if P::is_expired(&envelope.message, self.now) => {
                self.trace.push(TraceEvent::Lost(envelope, Loss::Expired));
            }
            Due::Arrive(envelope) => self.arrive(envelope),
            Due::Sync if self.nodes[&node].disk.held => {}
            Due::Sync => {
                self.persist(node, 1);
            }
            Due::Read {
                role,
                token,
                query,
                early,
            } => {
                let answer = early.unwrap_or_else(|| self.nodes[&node].disk.store.read(&query));
                self.input(node, role, P::event(Input::Read { token, answer }));
            }
            Due::Flush => {
                let count = self.draw((1, 4)).as_micros() as usize;
                self.flush_rows(node, count);
                self.settle(node);
            }
            Due::File(owner) => {
                self.node(node).filing.remove(&owner);
                self.file_step(node, owner);
                if self.nodes[&node].disk.file_owners().contains(&owner) {
                    self.plan_file(node, owner);
                }
            }
            Due::Link(other, up) => {
                if up == self.is_up(other) {
                    self.link(node, other, up);
                }
            }
        }
    }
}
