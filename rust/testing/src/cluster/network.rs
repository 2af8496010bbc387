//! Messages between nodes, and the links of nodes.

use crate::cluster::Cluster;
use crate::cluster::time::Due;
use crate::protocol::{EnvelopeOf, Input, Protocol};
use crate::trace::{Loss, TraceEvent};

impl<P: Protocol> Cluster<P> {
    /// Sends a message.
    pub(super) fn send(&mut self, envelope: EnvelopeOf<P>) {
        let process = self.nodes[&envelope.from.node].process.as_ref();
        let linked = process.is_some_and(|process| process.alive.contains(&envelope.to.node));
        if P::LINKS && !linked {
            self.trace.push(TraceEvent::Lost(envelope, Loss::NoLink));
            return;
        }
        let Some(latency) = self.profile.latency else {
            self.wire.push(envelope);
            return;
        };
        if self.chance(self.profile.lost) {
            self.trace.push(TraceEvent::Lost(envelope, Loss::Network));
            return;
        }
        let repeated = self.chance(self.profile.repeated);
        let again = repeated.then(|| self.draw(latency));
        let to = envelope.to.node;
        // A duplicate may arrive in a later boot of the receiver, unless it is lost with its connection.
        let (again, boot) = match P::has_connection(&envelope.message) {
            true => (again.or(self.repeat), Some(self.nodes[&to].boots)),
            false => (again, None),
        };
        let after = self.draw(latency);
        self.plan(after, to, None, Due::Arrive(envelope.clone()));
        if let Some(again) = again {
            self.plan(after + again, to, boot, Due::Arrive(envelope));
        }
    }

    /// A message arrives.
    pub(super) fn arrive(&mut self, envelope: EnvelopeOf<P>) {
        let to = envelope.to;
        let found = &self.nodes[&to.node];
        let loss = if self.cut.contains(&envelope.pair()) {
            Some(Loss::Network)
        } else if !found.is_up() {
            Some(Loss::Down)
        } else if found.instance(to.role).is_none() {
            Some(Loss::NoRole)
        } else {
            None
        };
        if let Some(loss) = loss {
            self.trace.push(TraceEvent::Lost(envelope, loss));
            return;
        }
        self.trace.push(TraceEvent::Delivered(envelope.clone()));
        let (from, message) = (envelope.from, envelope.message);
        self.input(to.node, to.role, P::event(Input::Message { from, message }));
    }

    // ---- manual delivery ----

    /// Delivers the message at this index of the wire.
    pub fn deliver(&mut self, place: usize) {
        let envelope = self.wire.remove(place);
        self.arrive(envelope);
    }

    /// The indexes on the wire of the messages between two nodes, or between all.
    pub fn places(&self, between: Option<(P::NodeId, P::NodeId)>) -> Vec<usize> {
        let wanted = |envelope: &EnvelopeOf<P>| between.is_none_or(|pair| pair == envelope.pair());
        (0..self.wire.len())
            .filter(|place| wanted(&self.wire[*place]))
            .collect()
    }

    /// Delivers unblocked messages now on the wire, up to a number; returns how many.
    pub fn deliver_round(&mut self, between: Option<(P::NodeId, P::NodeId)>, at_most: usize) -> usize {
        let mut places = self.places(between);
        places.retain(|place| !self.blocked.contains(&self.wire[*place].pair()));
        places.truncate(at_most);
        // New messages are appended, so the indexes of the others only decrease by the delivered ones.
        for (taken, place) in places.iter().enumerate() {
            self.deliver(place - taken);
        }
        places.len()
    }

    /// Delivers messages until no unblocked ones are left.
    pub fn run(&mut self) {
        while self.deliver_round(None, usize::MAX) > 0 {}
    }

    // ---- links ----

    /// Sets the link from one node to another up or down, as seen by the first.
    pub fn link(&mut self, from: P::NodeId, to: P::NodeId, up: bool) {
        let Some(process) = &mut self.node(from).process else {
            return;
        };
        let news = match up {
            true => process.alive.insert(to),
            false => process.alive.remove(&to),
        };
        if P::LINKS && !news {
            return;
        }
        let roles: Vec<P::Role> = process.roles().collect();
        for role in roles {
            self.post(from, role, P::event(Input::Peer { node: to, up }), true);
        }
        self.settle(from);
    }

    /// Partitions two nodes or heals their partition. They are notified, or must detect it.
    pub fn part(&mut self, one: P::NodeId, other: P::NodeId, apart: bool, noticed: bool) {
        for pair in [(one, other), (other, one)] {
            match apart {
                true => self.cut.insert(pair),
                false => self.cut.remove(&pair),
            };
        }
        if P::LINKS && noticed {
            self.link(one, other, !apart && self.is_up(other));
            self.link(other, one, !apart && self.is_up(one));
        }
    }
}
