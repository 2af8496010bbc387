//! The properties of a request: its target, class, size, names.
//!
//! All code that distinguishes kinds of requests uses these: the client (retries, sizes, spans), admission and routing, the
//! roles, metrics and traces. Each property is one exhaustive `match`, so that a new kind of request does not compile before
//! all of them are defined.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::{Key, MAX_VALUE_BYTES};
use quorate_core::level::Level;
use quorate_raft::types::GroupId;
use quorate_versions::WriteId;

use crate::api::{MAX_MANY_KEYS, PutItem, ReadLevel, Request, Response};
use crate::shard_command::Command;
use crate::telemetry::{Consistency, Operation};

/// The recipient of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The receiving node, about itself; never forwarded.
    Node,
    /// The control plane: any node, which forwards to the leader if necessary.
    ControlPlane,
    /// A keyspace in quorum mode: any node coordinates.
    Keyspace(KeyspaceId),
    /// A Raft group of a keyspace in consensus mode: its leader, or for stale reads any member.
    Group(KeyspaceId, GroupId),
}

/// The kind of effect of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It changes nothing.
    Read,
    /// It changes data, or a session.
    Write,
    /// It changes keyspaces or injected faults.
    Admin,
}

impl Request {
    /// Its recipient.
    pub fn target(&self) -> Target {
        match self {
            Request::Put { keyspace, .. }
            | Request::Get { keyspace, .. }
            | Request::PutMany { keyspace, .. }
            | Request::GetMany { keyspace, .. }
            | Request::Scan { keyspace, .. } => Target::Keyspace(*keyspace),
            Request::Propose { keyspace, group, .. }
            | Request::OpenSession { keyspace, group, .. }
            | Request::CloseSession { keyspace, group, .. }
            | Request::Read { keyspace, group, .. }
            | Request::ReadRange { keyspace, group, .. }
            | Request::ReadLog { keyspace, group, .. } => Target::Group(*keyspace, *group),
            Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership => Target::ControlPlane,
            Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => Target::Node,
        }
    }

    /// The keyspace of a data request.
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        match self.target() {
            Target::Keyspace(keyspace) | Target::Group(keyspace, _) => Some(keyspace),
            Target::Node | Target::ControlPlane => None,
        }
    }

    /// The Raft group, for a keyspace in consensus mode.
    pub fn group(&self) -> Option<GroupId> {
        match self.target() {
            Target::Group(_, group) => Some(group),
            Target::Keyspace(_) | Target::Node | Target::ControlPlane => None,
        }
    }

    /// Its key, or the first of many, and its keyspace in quorum mode: the replicas of that key coordinate it best. A client
    /// groups the keys of a request for many by their preferred node.
    pub fn key(&self) -> Option<(KeyspaceId, &Key)> {
        match self {
            Request::Put { keyspace, key, .. } | Request::Get { keyspace, key, .. } => Some((*keyspace, key)),
            Request::PutMany { keyspace, items, .. } => items.first().map(|item| (*keyspace, &item.key)),
            Request::GetMany { keyspace, keys, .. } => keys.first().map(|key| (*keyspace, key)),
            // Any node coordinates it equally well, or the group executes it.
            Request::Scan { .. }
            | Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// Its kind of effect.
    pub fn class(&self) -> Class {
        match self {
            Request::Put { .. }
            | Request::PutMany { .. }
            | Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. } => Class::Write,
            Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ChangeFaults(_) => Class::Admin,
            Request::Get { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults => Class::Read,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        self.class() == Class::Read
    }

    /// Whether it is idempotent: it may be retried although it may have been executed.
    ///
    /// A command is idempotent in a session, which knows its number. A change of keyspaces is identified by its id
    /// ([`Request::write_id`]). A second session is harmless: the first one expires. Replicas recognize a retried put for some
    /// time, but not for as long as a client may wait.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Request::Propose { session, .. } => session.is_some(),
            Request::Put { .. } | Request::PutMany { .. } => false,
            Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ChangeFaults(_)
            | Request::Get { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults => true,
        }
    }

    /// Its level, for a keyspace in quorum mode; `None` uses the keyspace's default.
    pub fn level(&self) -> Option<Level> {
        match self {
            Request::Put { level, .. }
            | Request::Get { level, .. }
            | Request::PutMany { level, .. }
            | Request::GetMany { level, .. }
            | Request::Scan { level, .. } => *level,
            Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// The consistency of a read of a Raft group; `None` for all other requests.
    pub fn read_level(&self) -> Option<ReadLevel> {
        match self {
            Request::Read { level, .. }
            | Request::ReadRange { level, .. }
            | Request::ReadLog { level, .. } => Some(*level),
            Request::Put { .. }
            | Request::Get { .. }
            | Request::PutMany { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// Whether any member of its group may answer it from its own state.
    pub fn is_stale_read(&self) -> bool {
        self.read_level() == Some(ReadLevel::Stale)
    }

    /// The number of single-key requests that it represents, as which admission counts it.
    pub fn count(&self) -> usize {
        match self {
            Request::PutMany { items, .. } => items.len().max(1),
            Request::GetMany { keys, .. } => keys.len().max(1),
            Request::Put { .. }
            | Request::Get { .. }
            | Request::Scan { .. }
            | Request::Propose { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => 1,
        }
    }

    /// The id by which a retry is recognized, of requests that have one. The client assigns it, together with the following
    /// ids, one for each [counted](Request::count) request.
    pub fn write_id(&mut self) -> Option<&mut WriteId> {
        match self {
            Request::Put { write_id, .. }
            | Request::PutMany { write_id, .. }
            | Request::AlterKeyspace { write_id, .. }
            | Request::DropKeyspace { write_id, .. } => Some(write_id),
            // A command is identified by its number in a session; a creation by the keyspace's name.
            Request::Propose { .. }
            | Request::CreateKeyspace(_)
            | Request::Get { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// About its size in memory besides the struct, in bytes: keys, values, contexts, and the items of lists. No less than
    /// the encoded size of its variable-length parts.
    pub fn bytes(&self) -> usize {
        let of_key = |key: &Option<Key>| key.as_ref().map_or(0, Key::size);
        match self {
            Request::Put {
                key, value, context, ..
            } => {
                let context = context.as_ref().map_or(0, |context| context.size());
                key.size() + value.as_ref().map_or(0, Bytes::len) + context
            }
            Request::Get { key, .. } => key.size(),
            Request::PutMany { items, .. } => {
                items.iter().map(PutItem::size).sum::<usize>() + size_of_val(&items[..])
            }
            Request::GetMany { keys, .. } => {
                keys.iter().map(Key::size).sum::<usize>() + size_of_val(&keys[..])
            }
            Request::Scan { start, end, .. } | Request::ReadRange { start, end, .. } => {
                of_key(start) + of_key(end)
            }
            Request::Propose { command, .. } => {
                let items = match command {
                    Command::Write(writes) => writes.len(),
                    Command::Append { .. } => 0,
                };
                command.size() + items * size_of::<crate::shard_command::Write>()
            }
            Request::Read { keys, .. } => {
                keys.iter().map(Key::size).sum::<usize>() + keys.len() * size_of::<Key>()
            }
            Request::CreateKeyspace(settings) => settings.name.len(),
            Request::AlterKeyspace { name, .. } | Request::DropKeyspace { name, .. } => name.len(),
            Request::ChangeFaults(change) => change.size(),
            Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::ReadLog { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults => 0,
        }
    }

    /// Rejects a request that every node would reject, before it is sent or admitted.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] and [`Error::InvalidArgument`].
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Request::Put { value, .. } => check_size(value.as_ref()),
            Request::PutMany { items, .. } => {
                check_count(items.len())?;
                items.iter().try_for_each(PutItem::validate)
            }
            Request::GetMany { keys, .. } => check_count(keys.len()),
            Request::Propose { command, .. } => command.validate(),
            Request::Get { .. }
            | Request::Scan { .. }
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::Read { .. }
            | Request::ReadRange { .. }
            | Request::ReadLog { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => Ok(()),
        }
    }

    /// Whether a response has the type that this request expects; another type violates the protocol.
    pub fn is_answered_by(&self, response: &Response) -> bool {
        match self {
            Request::Put { .. } => matches!(response, Response::Written(_)),
            Request::Get { .. } => matches!(response, Response::Entry(_)),
            Request::PutMany { items, .. } => {
                matches!(response, Response::WrittenMany(all) if all.len() == items.len())
            }
            Request::GetMany { keys, .. } => {
                matches!(response, Response::Entries(all) if all.len() == keys.len())
            }
            Request::Scan { .. } => matches!(response, Response::Page(_)),
            Request::CreateKeyspace(_) | Request::AlterKeyspace { .. } | Request::DropKeyspace { .. } => {
                matches!(response, Response::Keyspace { .. })
            }
            Request::ListKeyspaces => matches!(response, Response::Keyspaces(_)),
            Request::Topology => matches!(response, Response::Topology(_)),
            Request::Membership => matches!(response, Response::Membership(_)),
            Request::Status => matches!(response, Response::Status(_)),
            Request::Events { .. } => matches!(response, Response::Events(_)),
            Request::Spans { .. } => matches!(response, Response::Spans(_)),
            Request::Metrics => matches!(response, Response::Metrics(_)),
            Request::Groups => matches!(response, Response::Groups(_)),
            Request::Propose { .. } => matches!(response, Response::Committed(_)),
            Request::OpenSession { .. } => matches!(response, Response::SessionOpened { .. }),
            Request::CloseSession { .. } => matches!(response, Response::Done),
            Request::Read { .. } => matches!(response, Response::Records { .. }),
            Request::ReadRange { .. } => matches!(response, Response::RecordPage { .. }),
            Request::ReadLog { .. } => matches!(response, Response::LogPage { .. }),
            Request::Faults | Request::ChangeFaults(_) => matches!(response, Response::Faults(_)),
        }
    }

    // ---- names ----

    /// Its `db.operation.name` in traces.
    pub fn operation_name(&self) -> &'static str {
        match self {
            Request::Put { value: Some(_), .. } => "put",
            Request::Put { value: None, .. } => "delete",
            Request::Get { .. } => "get",
            Request::PutMany { .. } => "put_many",
            Request::GetMany { .. } => "get_many",
            Request::Scan { .. } | Request::ReadRange { .. } => "scan",
            Request::Propose {
                command: Command::Append { .. },
                ..
            } => "append",
            Request::Propose { .. } => "write",
            Request::OpenSession { .. } => "open_session",
            Request::CloseSession { .. } => "close_session",
            Request::Read { .. } => "read",
            Request::ReadLog { .. } => "entries",
            Request::CreateKeyspace(_) => "create_keyspace",
            Request::AlterKeyspace { .. } => "alter_keyspace",
            Request::DropKeyspace { .. } => "drop_keyspace",
            Request::ListKeyspaces => "list_keyspaces",
            Request::Topology | Request::Membership => "topology",
            Request::Status => "status",
            Request::Events { .. } => "events",
            Request::Spans { .. } => "spans",
            Request::Metrics => "metrics",
            Request::Groups => "groups",
            Request::Faults => "faults",
            Request::ChangeFaults(_) => "change_faults",
        }
    }

    /// The name of the span of a Raft group's server; `None` for requests to other targets.
    pub fn raft_span(&self) -> Option<&'static str> {
        match self {
            Request::Propose { .. } => Some("raft.write"),
            Request::OpenSession { .. } => Some("raft.open_session"),
            Request::CloseSession { .. } => Some("raft.close_session"),
            Request::Read { .. } => Some("raft.read"),
            Request::ReadRange { .. } => Some("raft.scan"),
            Request::ReadLog { .. } => Some("raft.read_log"),
            Request::Put { .. }
            | Request::Get { .. }
            | Request::PutMany { .. }
            | Request::GetMany { .. }
            | Request::Scan { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// Its operation in the metrics; `None` if they do not count it.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Request::Put { value: Some(_), .. } => Some(Operation::Put),
            Request::Put { value: None, .. } => Some(Operation::Delete),
            Request::Get { .. } | Request::Read { .. } => Some(Operation::Get),
            Request::PutMany { .. } => Some(Operation::PutMany),
            Request::GetMany { .. } => Some(Operation::GetMany),
            Request::Scan { .. } | Request::ReadRange { .. } | Request::ReadLog { .. } => {
                Some(Operation::Scan)
            }
            Request::Propose {
                command: Command::Append { .. },
                ..
            } => Some(Operation::Append),
            Request::Propose {
                command: Command::Write(writes),
                ..
            } => Some(match writes.as_slice() {
                [write] if write.value.is_none() => Operation::Delete,
                _ => Operation::Put,
            }),
            Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::CreateKeyspace(_)
            | Request::AlterKeyspace { .. }
            | Request::DropKeyspace { .. }
            | Request::ListKeyspaces
            | Request::Topology
            | Request::Membership
            | Request::Status
            | Request::Events { .. }
            | Request::Spans { .. }
            | Request::Metrics
            | Request::Groups
            | Request::Faults
            | Request::ChangeFaults(_) => None,
        }
    }

    /// Its consistency in a Raft group.
    pub fn group_consistency(&self) -> Consistency {
        match self.is_stale_read() {
            true => Consistency::Stale,
            false => Consistency::Linearizable,
        }
    }
}

impl PutItem {
    /// About its size in memory besides the struct, in bytes.
    pub fn size(&self) -> usize {
        let context = self.context.as_ref().map_or(0, |context| context.size());
        self.key.size() + self.value.as_ref().map_or(0, Bytes::len) + context
    }

    /// Rejects a write that every node would reject.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`].
    pub fn validate(&self) -> Result<(), Error> {
        check_size(self.value.as_ref())
    }
}

/// Rejects a value that is too large.
fn check_size(value: Option<&Bytes>) -> Result<(), Error> {
    match value.map_or(0, Bytes::len) {
        size if size > MAX_VALUE_BYTES => Err(Error::LimitExceeded {
            what: "the value's length in bytes".to_owned(),
            size: size as u64,
            limit: MAX_VALUE_BYTES as u64,
            remedy: "split it over several keys".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Rejects a request for too many keys.
fn check_count(keys: usize) -> Result<(), Error> {
    match keys {
        keys if keys > MAX_MANY_KEYS => Err(Error::LimitExceeded {
            what: "the number of keys of a request".to_owned(),
            size: keys as u64,
            limit: MAX_MANY_KEYS as u64,
            remedy: "split them over several requests".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
