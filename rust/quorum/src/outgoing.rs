//! Batches the outgoing messages of one turn by receiver: one envelope for many messages.
//!
//! The overhead of an envelope exceeds the cost of a small message: each is encoded, counted, decoded and delivered
//! separately. So frequent messages ([`PartBody`]) wait for the end of the turn, and are sent as one [`Message::Parts`]
//! to each receiver. A turn has no minimum length: on an idle node it ends with the event that began it.
//!
//! A traced message is sent separately, since its envelope carries its trace; so is a large one.

use quorate_protocol::message::{Header, Message, Part, PartBody};
use quorate_protocol::role::{Address, Effect};

/// About the maximum size of a batch in bytes: its envelope must not be bulk
/// ([`BULK_THRESHOLD`](quorate_protocol::message::BULK_THRESHOLD)).
const MAX_BYTES: usize = 48 << 10;
/// The fixed size of a part, on the wire and in memory.
const PART: usize = size_of::<Part>();

/// The pending messages for one receiver, all of the same generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Batch {
    messages: Vec<(Header, PartBody)>,
    bytes: usize,
}

impl Batch {
    fn send(&mut self, to: Address, effects: &mut Vec<Effect>) {
        let mut messages = std::mem::take(&mut self.messages);
        self.bytes = 0;
        let sent = match messages.len() {
            1 => messages.pop().map(|(header, body)| (header, body.into())),
            _ => Part::pack(messages),
        };
        effects.extend(sent.map(|(header, message)| Effect::Send { to, header, message }));
    }
}

/// The batches that wait for the end of the turn, in the order of the first message to each receiver. Receivers are
/// few, so a linear search beats a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outgoing(Vec<(Address, Batch)>);

impl Outgoing {
    /// Sends a message, now or at the end of the turn.
    pub(super) fn send(&mut self, to: Address, header: Header, message: Message, effects: &mut Vec<Effect>) {
        let traced = header.trace.is_some_and(|trace| trace.sampled);
        let mut send_now = |message| effects.push(Effect::Send { to, header, message });
        let Some(body) = PartBody::of(message, &mut send_now) else {
            return;
        };
        if traced || body.bytes() + PART > MAX_BYTES {
            return send_now(body.into());
        }
        let place = match self.0.iter().position(|(receiver, _)| *receiver == to) {
            Some(place) => place,
            None => {
                self.0.push((to, Batch::default()));
                self.0.len() - 1
            }
        };
        let batch = &mut self.0[place].1;
        let first = batch.messages.first();
        let fits = batch.bytes + body.bytes() + PART <= MAX_BYTES;
        if first.is_some_and(|(first, _)| first.generation != header.generation) || !fits {
            batch.send(to, effects);
        }
        batch.bytes += body.bytes() + PART;
        batch.messages.push((header, body));
    }

    /// Sends all batches, at the end of the turn.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        for (to, mut batch) in std::mem::take(&mut self.0) {
            batch.send(to, effects);
        }
    }

    /// Whether no message is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
