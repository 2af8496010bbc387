//! The commands of the control plane's log, and their outcomes.
//!
//! On disk a command is postcard inside a log entry, whose format version covers it: variants are only ever appended, and a
//! node proposes a new one only when the cluster's version shows that every member supports it.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_raft::format;
use quorate_raft::sessions::SessionAnswer;
use quorate_versions::WriteId;
use serde::{Deserialize, Serialize};

use crate::api::Response;
use crate::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings};
use crate::topology::{Member, Topology};

/// A command with its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// The same for a retry as for the first attempt.
    pub id: WriteId,
    /// The command.
    pub command: Command,
}

/// A change of the control plane's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Create a cluster of these members. No effect if there is one.
    Bootstrap(Topology),
    /// Update the addresses of this member.
    Register(Member),
    /// Create a keyspace, or return the existing one with these settings.
    CreateKeyspace(KeyspaceSettings),
    /// Change settings of a keyspace.
    AlterKeyspace {
        /// Which.
        name: String,
        /// The changed settings.
        change: KeyspaceChange,
    },
    /// Drop a keyspace.
    DropKeyspace {
        /// Which.
        name: String,
    },
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It was executed.
    Done,
    /// The keyspace as it is now, or was when it was dropped.
    Keyspace {
        /// With its id.
        keyspace: Keyspace,
        /// Whether the command created it.
        created: bool,
    },
    /// It was rejected and will not be executed.
    Refused(Error),
}

impl Change {
    /// About its size in memory besides the struct, in bytes; no less than on the wire.
    pub fn size(&self) -> usize {
        match &self.command {
            Command::Bootstrap(topology) => topology.size(),
            Command::Register(member) => member.size(),
            Command::CreateKeyspace(settings) => settings.name.len(),
            Command::AlterKeyspace { name, .. } | Command::DropKeyspace { name } => name.len(),
        }
    }
}

impl SessionAnswer for Outcome {
    fn to_bytes(&self) -> Bytes {
        format::encode_inner(self)
    }

    fn from_bytes(bytes: &Bytes) -> Self {
        format::decode_inner("outcome of a change", bytes)
            .unwrap_or_else(|error| panic!("a session's row: {error}"))
    }
}

impl Outcome {
    /// The response to a client.
    ///
    /// # Errors
    /// The reason of a rejection.
    pub fn into_response(self) -> Result<Response, Error> {
        match self {
            Outcome::Keyspace { keyspace, created } => Ok(Response::Keyspace { keyspace, created }),
            Outcome::Refused(error) => Err(error),
            Outcome::Done => Ok(Response::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::{ClusterId, KeyspaceId, NodeId};
    use quorate_core::level::Level;
    use quorate_ring::RingSettings;

    use super::*;
    use crate::keyspace::ReadRepair;

    fn member() -> Member {
        Member {
            id: NodeId(2),
            peer_address: "p:1".to_owned(),
            client_address: "c:2".to_owned(),
            http_address: "h:3".to_owned(),
            rack: "r".to_owned(),
            datacenter: "d".to_owned(),
        }
    }

    fn commands() -> Vec<Command> {
        let topology = Topology::new(ClusterId(7), 1, vec![member()], RingSettings::default()).unwrap();
        vec![
            Command::Bootstrap(topology),
            Command::Register(member()),
            Command::CreateKeyspace(KeyspaceSettings::quorum("logs", 3)),
            Command::AlterKeyspace {
                name: "logs".to_owned(),
                change: KeyspaceChange {
                    read_level: Some(Level::One),
                    write_level: None,
                    read_repair: Some(ReadRepair::Off),
                },
            },
            Command::DropKeyspace {
                name: "logs".to_owned(),
            },
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes on disks. A change of them needs a new format version of entries.
    #[test]
    fn golden_bytes() {
        let id = WriteId {
            client: 1,
            sequence: 300,
        };
        let encoded: Vec<String> = commands()
            .into_iter()
            .map(|command| hex(&format::encode_inner(&Change { id, command })))
            .collect();
        let golden = [
            "01ac0200070101020370 3a310363 3a320368 3a330172016496 0100",
            "01ac020102 03703a31 03633a32 03683a33 0172 0164",
            "01ac0202 046c6f6773 00 03 03 03 01 01 904e",
            "01ac0203 046c6f6773 0100 00 0100",
            "01ac0204 046c6f6773",
        ];
        let golden: Vec<String> = golden.iter().map(|line| line.replace(' ', "")).collect();
        assert_eq!(encoded, golden);
        for command in commands() {
            let change = Change { id, command };
            let bytes = format::encode_inner(&change);
            assert_eq!(format::decode_inner("change", &bytes), Ok(change));
        }
        let outcome = Outcome::Keyspace {
            keyspace: Keyspace {
                id: KeyspaceId(3),
                settings: KeyspaceSettings::quorum("logs", 3),
                groups: Vec::new(),
            },
            created: true,
        };
        assert_eq!(hex(&outcome.to_bytes()), "0103046c6f6773000303030101904e0001");
        assert_eq!(Outcome::from_bytes(&outcome.to_bytes()), outcome);
    }

    #[test]
    fn malformed_commands_are_rejected_with_a_reason() {
        let reason = |bytes: &'static [u8]| {
            let error = format::decode_inner::<Change>("change", bytes).unwrap_err();
            error.to_string()
        };
        assert!(reason(b"").contains("malformed"));
        assert!(reason(b"\x01\x01\x63").contains("malformed"));
    }
}
