//! The names that requests carry: by them it is known from above which operation of a client it was that was executed.
//!
//! A client names its puts and changes of keyspaces by write ids, and its commands by session and number; all attempts at one
//! operation have the same name. The world writes down the names of whatever reaches a node, and whose operation it is.

use std::collections::BTreeMap;

use quorate_protocol::api::Request;
use quorate_raft::types::GroupId;
use quorate_versions::WriteId;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// An operation of a workload: its number in the history.
    Work(usize),
    /// The creation of a keyspace: its number among them.
    Creation(usize),
    /// Another change of a keyspace: its number among them.
    Change(usize),
}

/// Who has asked for what goes by these names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    writes: BTreeMap<WriteId, Asked>,
    commands: BTreeMap<(GroupId, u64, u64), Asked>,
}

impl Names {
    /// A request has reached a node. A request for many keys is as many operations, which are `asked` for in their order.
    pub fn note(&mut self, request: &Request, asked: &[Asked]) {
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

    /// Whose write has this id.
    pub fn of_write(&self, id: WriteId) -> Option<Asked> {
        self.writes.get(&id).copied()
    }

    /// Whose command has this number in a session of a group.
    pub fn of_command(&self, group: GroupId, (session, sequence): (u64, u64)) -> Option<Asked> {
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
    fn a_name_tells_whose_operation_it_is() {
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
        names.note(&drop_keyspace, &[Asked::Change(3)]);
        names.note(&propose, &[Asked::Work(4)]);
        names.note(&Request::Status, &[Asked::Work(5)]);
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
        names.note(&put_many, &[Asked::Work(6), Asked::Work(9)]);
        assert_eq!(names.of_write(id(7)), Some(Asked::Work(6)));
        assert_eq!(names.of_write(id(8)), Some(Asked::Work(9)));
        assert_eq!(names.of_write(id(1)), Some(Asked::Change(3)));
        assert_eq!(names.of_write(id(2)), None);
        assert_eq!(names.of_command(GroupId(2), (5, 9)), Some(Asked::Work(4)));
        assert_eq!(names.of_command(GroupId(3), (5, 9)), None);
    }
}
