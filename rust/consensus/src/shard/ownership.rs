//! Ownership: rejects requests for another group's data.
//!
//! A client looks up a keyspace's groups, and may have an outdated view. A record written to the wrong group
//! would never be found again; so each request is checked on arrival, before anything is done.

use quorate_core::error::Error;
use quorate_core::key::Key;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::shard_command::Command;
use quorate_raft::types::GroupId;
use quorate_ring::HashKind;

/// Why this group rejects the request: another group owns a key, or the entries of that source. A range has
/// no keys of its own: it reads only this group's.
pub(super) fn misdirected(
    keyspace: &Keyspace,
    hash: HashKind,
    group: GroupId,
    request: &Request,
) -> Option<Error> {
    if keyspace.groups.len() < 2 {
        return None;
    }
    // Formatted only on failure: every request is checked.
    let elsewhere = |what: &dyn Fn() -> String, shard: usize| {
        let right = keyspace.groups[shard].id;
        (right != group).then(|| {
            let (what, name) = (what(), &keyspace.settings.name);
            Error::invalid(format!(
                "{what} belongs to group {right} (shard {shard}) of keyspace {name:?}, not to group {group}: look the \
                 keyspace up again"
            ))
        })
    };
    let key = |key: &Key| elsewhere(&|| format!("key {key}"), keyspace.shard_of_key(hash, key));
    match request {
        Request::Propose {
            command: Command::Write(writes),
            ..
        } => writes.iter().find_map(|write| key(&write.key)),
        Request::Propose {
            command: Command::Append { source, .. },
            ..
        } => elsewhere(
            &|| format!("source {source:?}"),
            keyspace.shard_of_source(hash, source),
        ),
        Request::Read { keys, .. } => keys.iter().find_map(key),
        Request::OpenSession { .. }
        | Request::CloseSession { .. }
        | Request::ReadRange { .. }
        | Request::ReadLog { .. }
        | Request::Put { .. }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_core::ids::{KeyspaceId, NodeId};
    use quorate_protocol::api::ReadLevel;
    use quorate_protocol::keyspace::{Group, KeyspaceSettings};
    use quorate_protocol::shard_command::{Condition, Write};

    use super::*;

    const HASH: HashKind = HashKind::Murmur3;

    fn keyspace(shards: u16) -> Keyspace {
        let group = |number| Group {
            id: GroupId(number),
            members: vec![NodeId(1)],
        };
        Keyspace {
            id: KeyspaceId(1),
            settings: KeyspaceSettings {
                shards,
                ..KeyspaceSettings::consensus("accounts", 1)
            },
            groups: (7..7 + u32::from(shards)).map(group).collect(),
        }
    }

    fn read(keys: Vec<Key>, group: GroupId) -> Request {
        Request::Read {
            keyspace: KeyspaceId(1),
            group,
            keys,
            level: ReadLevel::Linearizable,
        }
    }

    fn propose(command: Command, group: GroupId) -> Request {
        Request::Propose {
            keyspace: KeyspaceId(1),
            group,
            command,
            session: None,
        }
    }

    #[test]
    fn every_key_is_accepted_by_one_group_and_rejected_by_the_others() {
        let keyspace = keyspace(4);
        for number in 0..100 {
            let key = Key::of(format!("k{number}")).unwrap();
            let right = keyspace.groups[keyspace.shard_of_key(HASH, &key)].id;
            for group in keyspace.groups.iter().map(|group| group.id) {
                let write = Write {
                    key: key.clone(),
                    value: None,
                    condition: Condition::Any,
                };
                for request in [
                    read(vec![key.clone()], group),
                    propose(Command::Write(vec![write]), group),
                ] {
                    let error = misdirected(&keyspace, HASH, group, &request);
                    assert_eq!(error.is_none(), group == right);
                    if let Some(error) = error {
                        let text = error.to_string();
                        for part in [
                            key.to_string(),
                            format!("group {right} "),
                            format!("group {group}:"),
                        ] {
                            assert!(text.contains(&part), "{part:?} is not in {text:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sources_have_groups_too_and_one_misdirected_key_suffices() {
        let keyspace = keyspace(2);
        let right = keyspace.groups[keyspace.shard_of_source(HASH, "web")].id;
        let append = |group| {
            let command = Command::Append {
                source: "web".to_owned(),
                data: Bytes::new(),
            };
            misdirected(&keyspace, HASH, group, &propose(command, group))
        };
        let refused = [GroupId(7), GroupId(8)].map(|group| append(group).is_some());
        assert_eq!(refused, [right != GroupId(7), right != GroupId(8)]);
        let keys: Vec<Key> = (0..9)
            .map(|number| Key::of(format!("k{number}")).unwrap())
            .collect();
        assert!(misdirected(&keyspace, HASH, GroupId(7), &read(keys, GroupId(7))).is_some());
    }

    #[test]
    fn a_single_group_accepts_everything() {
        let keys = vec![Key::of("a").unwrap()];
        assert_eq!(
            misdirected(&keyspace(1), HASH, GroupId(7), &read(keys, GroupId(7))),
            None
        );
    }
}
