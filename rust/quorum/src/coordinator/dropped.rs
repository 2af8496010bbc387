//! A dropped keyspace: pending operations fail, and later requests are rejected.

use quorate_core::error::Error;
use quorate_core::time::Now;
use quorate_protocol::message::Message;
use quorate_protocol::role::{Effect, Event};

use super::Coordinator;
use crate::operation::{Kind, Origin, reply};

impl Coordinator {
    /// Fails all operations in progress. The outcome of a put is unknown: the own replica, or the node to which it was
    /// forwarded, may have made it an event.
    pub(super) fn drop_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.dropped = true;
        let me = self.me();
        let name = self.keyspace.settings.name.clone();
        for id in self.pending.keys().copied().collect::<Vec<_>>() {
            let Some(mut pending) = self.remove(id) else {
                continue;
            };
            let required = pending.details.required;
            let acked = match &pending.kind {
                Kind::Read(_) | Kind::Scan(_) => None,
                Kind::Write(write) => Some(write.acked()),
                Kind::Forwarded { .. } => Some(0),
            };
            let error = acked.map_or_else(
                || self.keyspace.dropped_error(),
                |acked| Error::OutcomeUnknown {
                    acked,
                    required,
                    reason: Some(self.keyspace.dropped_reason()),
                },
            );
            let answer = pending.details.respond(Err(error), me, &name, now, effects);
            self.finish_key(answer, now, effects);
        }
    }

    /// Rejects the requests that arrive after that.
    pub(super) fn reject_after_drop(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        let origin = match event {
            Event::Request { client, .. } => Origin::Client(client),
            Event::Message {
                from,
                header,
                message: Message::Forward(_),
            } if !self.is_duplicate(from, header, now) => Origin::Peer(from, header),
            _ => return,
        };
        let none = reply(origin, Err(self.keyspace.dropped_error()), effects);
        assert!(none.is_none(), "requests from outside are not parts of others");
    }
}
