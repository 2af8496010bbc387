//! Definitions on this node: read at the start, written when the first node says so, served by the node role.

use bytes::Bytes;

use super::{Catalog, LOAD, UNASKED, exists};
use crate::error::Error;
use crate::ids::NodeId;
use crate::keyspace::Keyspace;
use crate::message::{Header, Message};
use crate::role::{Address, Effect, Query, RoleId, Rows};
use crate::store::{JournalOp, Priority, StateWrite, Table};
use crate::telemetry::TimelineEvent;
use crate::time::Instant;

const PREFIX: &[u8] = b"keyspace/";
const PREFIX_END: &[u8] = b"keyspace0";
const FORMAT: u8 = 1;

/// A definition on its way: first to the disk, then to the node role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) keyspace: Keyspace,
    durable: bool,
    /// Who goes on when it is served.
    waiting: Vec<Waiter>,
}

/// Who wants a definition to be served on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiter {
    /// This is the first node, and this exchange creates it.
    Creation(u64),
    /// The first node asked.
    First(Address, Header),
}

impl Catalog {
    // ---- recovery ----

    pub(super) fn load(&self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Read {
            token: LOAD,
            query: Query::Range {
                table: Table::Meta,
                start: Bytes::from_static(PREFIX),
                end: Bytes::from_static(PREFIX_END),
                limit_rows: u32::MAX,
                limit_bytes: u32::MAX,
            },
        });
    }

    /// # Panics
    /// If a definition cannot be read: the node must not go on without a keyspace that it holds data of.
    pub(super) fn recover(&mut self, result: Result<Rows, Error>, effects: &mut Vec<Effect>) {
        let rows = result.unwrap_or_else(|error| panic!("the keyspace definitions cannot be read: {error}"));
        for (key, value) in rows.rows {
            let keyspace = decode(&value).unwrap_or_else(|reason| {
                panic!(
                    "the keyspace definition {} is unreadable: {reason}",
                    String::from_utf8_lossy(&key)
                )
            });
            self.known(keyspace, Vec::new(), effects);
        }
        self.loaded = true;
        for node in self.others().collect::<Vec<_>>() {
            if self.surroundings.alive.contains(&node) {
                self.tell(node, effects);
            }
        }
    }

    /// The first node tells a member what it may have missed.
    pub(super) fn tell(&self, node: NodeId, effects: &mut Vec<Effect>) {
        if self.first() != self.me() || node == self.me() {
            return;
        }
        for keyspace in self.keyspaces.values() {
            let message = Message::Define(keyspace.clone());
            let unasked = (UNASKED, Instant::NEVER);
            self.send((node, RoleId::Catalog), unasked, message, effects);
        }
    }

    // ---- to the disk and to the node role ----

    /// Writes a definition, and has it served when it is durable.
    pub(super) fn write(&mut self, keyspace: Keyspace, waiter: Waiter, effects: &mut Vec<Effect>) {
        let same = |pending: &&mut Pending| !pending.durable && pending.keyspace == keyspace;
        if let Some(pending) = self.pending.values_mut().find(same) {
            return pending.waiting.push(waiter);
        }
        let write = StateWrite {
            table: Table::Meta,
            key: row_key(&keyspace.settings.name),
            value: Some(encode(&keyspace)),
        };
        let token = self.token();
        let pending = Pending {
            keyspace,
            durable: false,
            waiting: vec![waiter],
        };
        self.pending.insert(token, pending);
        effects.push(Effect::Persist {
            token,
            priority: Priority::Urgent,
            ops: vec![JournalOp::Write(vec![write])],
        });
    }

    pub(super) fn persisted(&mut self, token: u64, effects: &mut Vec<Effect>) {
        let pending = self.pending.remove(&token).expect("a persist is answered once");
        effects.push(Effect::Emit(TimelineEvent::KeyspaceCreated {
            keyspace: pending.keyspace.settings.name.clone(),
        }));
        self.known(pending.keyspace, pending.waiting, effects);
    }

    pub(super) fn refused(&mut self, token: u64, effects: &mut Vec<Effect>) {
        let pending = self.pending.remove(&token).expect("a persist is answered once");
        let error = Error::StorageFull(format!(
            "the disk of {} is full, keyspace {:?} was not created there: raise map_size_bytes in its configuration or \
             free space, then retry",
            self.me(),
            pending.keyspace.settings.name
        ));
        for waiter in pending.waiting {
            match waiter {
                Waiter::Creation(exchange) => self.finish(exchange, Err(error.clone()), effects),
                Waiter::First(to, header) => effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Failed(error.clone()),
                }),
            }
        }
    }

    /// A definition is durable: have the node role serve it, and go on when it does.
    pub(super) fn known(&mut self, keyspace: Keyspace, waiting: Vec<Waiter>, effects: &mut Vec<Effect>) {
        let clash = self
            .keyspaces
            .values()
            .find(|other| (other.id == keyspace.id) != (other.settings.name == keyspace.settings.name));
        assert!(
            clash.is_none(),
            "two keyspaces share an id or a name: {keyspace:?} and {clash:?}"
        );
        self.keyspaces.insert(keyspace.id, keyspace.clone());
        let token = self.token();
        let pending = Pending {
            keyspace: keyspace.clone(),
            durable: true,
            waiting,
        };
        self.pending.insert(token, pending);
        let own = (self.me(), RoleId::Node);
        let message = Message::KeyspaceKnown(keyspace);
        self.send(own, (token, Instant::NEVER), message, effects);
    }

    /// The node role serves it now.
    pub(super) fn served(&mut self, token: u64, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.remove(&token) else {
            return;
        };
        for waiter in pending.waiting {
            match waiter {
                Waiter::Creation(exchange) => self.propagate(exchange, &pending.keyspace, effects),
                Waiter::First(to, header) => effects.push(Effect::Send {
                    to,
                    header,
                    message: Message::Defined,
                }),
            }
        }
    }

    // ---- the first node asks ----

    pub(super) fn define(
        &mut self,
        from: Address,
        header: Header,
        keyspace: Keyspace,
        effects: &mut Vec<Effect>,
    ) {
        let waiter = Waiter::First(from, header);
        let pending = self.pending.values().map(|pending| &pending.keyspace);
        let mut known = self.keyspaces.values().chain(pending);
        let clash = known
            .find(|known| known.id == keyspace.id || known.settings.name == keyspace.settings.name)
            .filter(|known| **known != keyspace);
        if let Some(clash) = clash {
            let message = Message::Failed(exists(clash));
            effects.push(Effect::Send {
                to: from,
                header,
                message,
            });
        } else if self.keyspaces.contains_key(&keyspace.id) {
            self.known(keyspace, vec![waiter], effects);
        } else {
            self.write(keyspace, waiter, effects);
        }
    }
}

fn row_key(name: &str) -> Bytes {
    [PREFIX, name.as_bytes()].concat().into()
}

fn encode(keyspace: &Keyspace) -> Bytes {
    postcard::to_extend(keyspace, vec![FORMAT])
        .expect("a definition is always encodable")
        .into()
}

fn decode(bytes: &[u8]) -> Result<Keyspace, String> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| error.to_string()),
        Some((format, _)) => Err(format!(
            "format {format} is not known to this program: upgrade it"
        )),
        None => Err("empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KeyspaceId;
    use crate::keyspace::KeyspaceSettings;

    /// The bytes on disks. A change of them needs a new format number and a decoder of the old one.
    #[test]
    fn golden_bytes() {
        let keyspace = Keyspace {
            id: KeyspaceId(3),
            settings: KeyspaceSettings::quorum("logs", 3),
        };
        let golden = b"\x01\x03\x04logs\x00\x03\x03\x03\x01";
        assert_eq!(encode(&keyspace).as_ref(), golden);
        assert_eq!(decode(golden), Ok(keyspace));
        assert_eq!(row_key("logs").as_ref(), b"keyspace/logs");
    }

    #[test]
    fn rows_that_are_no_definition_say_why() {
        assert!(decode(b"").unwrap_err().contains("empty"));
        assert!(decode(b"\x02abc").unwrap_err().contains("format 2"));
        assert!(decode(b"\x01\x03").is_err());
    }

    #[test]
    fn every_row_lies_within_the_range_that_recovery_reads() {
        for name in ["a", "Z", "-", "zzzz"] {
            let key = row_key(name);
            assert!(key.as_ref() >= PREFIX && key.as_ref() < PREFIX_END);
        }
    }
}
