//! One large request of each kind, for tests of its weight.

use bytes::Bytes;
use quorate_core::ids::{KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_raft::types::GroupId;
use quorate_versions::{Context, Dot, WriteId};
use serde::Serialize;

use crate::api::{MAX_MANY_KEYS, PutItem, ReadLevel, Request};
use crate::faults::{FaultChange, Impairment, LinkFault};
use crate::keyspace::{KeyspaceChange, KeyspaceSettings};
use crate::shard_command::{Command, Condition, Write};

/// This many arbitrary bytes.
pub(crate) fn large(size: usize) -> Bytes {
    Bytes::from(vec![7; size])
}

/// Its size on the wire, in bytes.
pub(crate) fn encoded_len(message: &impl Serialize) -> usize {
    postcard::to_stdvec(message)
        .expect("plain data can be encoded")
        .len()
}

/// Each kind once; a new one does not compile before it has a sample.
pub(crate) fn every_kind() -> Vec<Request> {
    let keyspace = KeyspaceId(1);
    let group = GroupId(2);
    let level = ReadLevel::Linearizable;
    let key = || Key::of(large(1_000)).expect("a key");
    let name = "n".repeat(64);
    let write_id = WriteId {
        client: u64::MAX,
        sequence: 1,
    };
    let seen = (1..500).map(|number| Dot {
        replica: ReplicaId::new(NodeId(number), u64::from(number) << 30),
        counter: 1 << 40,
    });
    let propose = |command| Request::Propose {
        keyspace,
        group,
        command,
        session: None,
    };
    let write = |number: u16| Write {
        key: Key::of(Bytes::copy_from_slice(&number.to_be_bytes())).expect("a key"),
        value: Some(large(10)),
        condition: Condition::Any,
    };
    let item = |number: u16| PutItem {
        key: Key::of(Bytes::copy_from_slice(&number.to_be_bytes())).expect("a key"),
        value: Some(large(10)),
        context: number
            .is_multiple_of(100)
            .then(|| Context::new(keyspace, &key(), seen.clone().collect())),
    };
    let fault = LinkFault {
        id: u64::MAX,
        groups: vec![(1..50).map(NodeId).collect(), (50..99).map(NodeId).collect()],
        one_way: false,
        impairment: Impairment {
            block: true,
            ..Impairment::default()
        },
    };
    let mut kinds = vec![
        Request::Put {
            keyspace,
            key: key(),
            value: Some(large(1 << 20)),
            context: Some(Context::new(keyspace, &key(), seen.clone().collect())),
            level: None,
            write_id,
        },
        Request::Get {
            keyspace,
            key: key(),
            level: None,
        },
        Request::PutMany {
            keyspace,
            items: (0..1_000).map(item).collect(),
            level: None,
            write_id,
        },
        Request::GetMany {
            keyspace,
            keys: vec![key(); MAX_MANY_KEYS],
            level: None,
        },
        Request::Scan {
            keyspace,
            start: Some(key()),
            end: Some(key()),
            after_start: false,
            limit: 1,
            level: None,
        },
        propose(Command::Append {
            source: name.clone(),
            data: large(1 << 20),
        }),
        propose(Command::Write((0..1_000).map(write).collect())),
        Request::OpenSession {
            keyspace,
            group,
            idle_ms: u64::MAX,
        },
        Request::CloseSession {
            keyspace,
            group,
            session: u64::MAX,
        },
        Request::Read {
            keyspace,
            group,
            keys: vec![key(); 1_000],
            level,
        },
        Request::ReadRange {
            keyspace,
            group,
            start: Some(key()),
            end: Some(key()),
            after_start: false,
            limit: 1,
            level,
        },
        Request::ReadLog {
            keyspace,
            group,
            after: u64::MAX,
            limit: 1,
            level,
        },
        Request::CreateKeyspace(KeyspaceSettings::quorum(&name, 3)),
        Request::AlterKeyspace {
            name: name.clone(),
            change: KeyspaceChange {
                read_level: None,
                write_level: None,
                read_repair: None,
            },
            write_id,
        },
        Request::DropKeyspace { name, write_id },
        Request::ListKeyspaces,
        Request::Topology,
        Request::Membership,
        Request::Status,
        Request::Events { after: u64::MAX },
        Request::Spans { trace_id: u128::MAX },
        Request::Metrics,
        Request::Groups,
        Request::Faults,
        Request::ChangeFaults(FaultChange::Add(vec![fault.clone(); 100])),
        Request::ChangeFaults(FaultChange::Replace(vec![fault; 100])),
        Request::ChangeFaults(FaultChange::Heal(vec![u64::MAX; 1_000])),
    ];
    for kind in &mut kinds {
        match kind {
            Request::Put { .. }
            | Request::Get { .. }
            | Request::PutMany { .. }
            | Request::GetMany { .. }
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
            | Request::ChangeFaults(_) => {}
        }
    }
    kinds
}
