//! What a role says in one turn, gathered by whom it is for: one envelope for many messages.
//!
//! A message of its own costs its sender, both links and its receiver more than what it says: it is encoded, counted,
//! decoded and delivered by itself. So what is said in crowds ([`PartBody`]) waits for the end of the turn, and goes as one
//! [`Message::Parts`] for each receiver. A turn has no length of its own: on an idle node it ends with the event that began it.
//!
//! A message that is traced goes by itself, since its envelope carries its trace; so does one that is large.

use quorate_protocol::message::{Header, Message, Part, PartBody};
use quorate_protocol::role::{Address, Effect};

/// About how many bytes an envelope of parts has, at most: it must not be bulk
/// ([`BULK_THRESHOLD`](quorate_protocol::message::BULK_THRESHOLD)), and no more is gathered for anybody.
const MAX_BYTES: usize = 48 << 10;
/// What a part has beside what varies in length, on the wire and in memory.
const PART: usize = size_of::<Part>();

/// What is for one receiver. All of it has the same generation.
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

/// What waits for the end of the turn, in the order in which the receivers were first spoken to. They are a handful, so a search
/// beats a map.
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

    /// The turn is over: everything goes.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        for (to, mut batch) in std::mem::take(&mut self.0) {
            batch.send(to, effects);
        }
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
