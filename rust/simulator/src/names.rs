//! The ids that requests carry, which map executed commands to operations of clients.
//!
//! A client identifies its puts and changes of keyspaces by write ids, and its commands by session and sequence number; all
//! attempts of one operation have the same id. The world records the ids of all requests that reach a node, and their
//! operations.

use std::collections::BTreeMap;

use quorate_protocol::api::Request;
use quorate_raft::types::GroupId;
use quorate_versions::WriteId;

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationRef {
    /// An operation of a workload, by its number in the history.
    Work(usize),
    /// The creation of a keyspace, by its number.
    Creation(usize),
    /// Another change of a keyspace, by its number.
    Change(usize),
}

/// The operations by their ids.
#[derive(Clone, Debug, Default)]
pub struct Names {
    writes: BTreeMap<WriteId, OperationRef>,
    commands: BTreeMap<(GroupId, u64, u64), OperationRef>,
}

impl Names {
    /// Records a request that has reached a node. A request for many keys is as many operations, in their order.
    pub fn note(&mut self, request: &Request, asked: &[OperationRef]) {
        if let Request::PutMany { items, write_id, .. } = request {
            assert_eq!(items.len(), asked.len(), "{request:?}");
            let ids = (0..items.len()).map(|place| write_id.nth(place));
            return self.writes.extend(ids.zip(asked.iter().copied()));
        }
        let Some(&asked) = asked.first() else { return };
        match request {
            Request::Put { write_id, .. }
            | Request::AlterKeyspace { write_id, .. }
            | Request::DropKeyspace { write_id, .. } => {
                self.writes.insert(*write_id, asked);
            }
            Request::Propose {
                group,
                session: Some(stamp),
                ..
            } => {
                self.commands
                    .insert((*group, stamp.session, stamp.sequence), asked);
            }
            _ => {}
        }
    }

    /// The operation of this write id.
    pub fn of_write(&self, id: WriteId) -> Option<OperationRef> {
        self.writes.get(&id).copied()
    }

    /// The operation of this sequence number in a session of a group.
    pub fn of_command(&self, group: GroupId, (session, sequence): (u64, u64)) -> Option<OperationRef> {
        self.commands.get(&(group, session, sequence)).copied()
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::KeyspaceId;
    use quorate_protocol::api::{PutItem, Stamp};
    use quorate_protocol::shard_command::Command;

    use super::*;

    #[test]
    fn ids_map_to_operations() {
        let mut names = Names::default();
        let id = |sequence| WriteId { client: 1, sequence };
        let drop_keyspace = Request::DropKeyspace {
            name: "users".to_owned(),
            write_id: id(1),
        };
        let propose = Request::Propose {
            keyspace: KeyspaceId(1),
            group: GroupId(2),
            command: Command::Write(Vec::new()),
            session: Some(Stamp {
                session: 5,
                sequence: 9,
                acknowledged: 8,
            }),
        };
        names.note(&drop_keyspace, &[OperationRef::Change(3)]);
        names.note(&propose, &[OperationRef::Work(4)]);
        names.note(&Request::Status, &[OperationRef::Work(5)]);
        let item = |key: &str| PutItem {
            key: key.try_into().expect("a key"),
            value: None,
            context: None,
        };
        let put_many = Request::PutMany {
            keyspace: KeyspaceId(1),
            items: vec![item("a"), item("b")],
            level: None,
            write_id: id(7),
        };
        names.note(&put_many, &[OperationRef::Work(6), OperationRef::Work(9)]);
        assert_eq!(names.of_write(id(7)), Some(OperationRef::Work(6)));
        assert_eq!(names.of_write(id(8)), Some(OperationRef::Work(9)));
        assert_eq!(names.of_write(id(1)), Some(OperationRef::Change(3)));
        assert_eq!(names.of_write(id(2)), None);
        assert_eq!(names.of_command(GroupId(2), (5, 9)), Some(OperationRef::Work(4)));
        assert_eq!(names.of_command(GroupId(3), (5, 9)), None);
    }
}
