//! Errors: definite or unknown, never false.
//!
//! A *definite* error promises that nothing was written and nothing will be. An *unknown* one means that it
//! may have been, or may yet be. Every message names its subject and the remedy. The variants are part of the
//! client protocol: they are only ever appended.

use serde::{Deserialize, Serialize};

/// The error of an operation. Python has one exception class per variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// Fewer replicas, or members of a Raft group, are alive than are required. Nothing was written.
    #[error("{}", reason.clone().unwrap_or_else(|| format!(
        "{required} replica(s) required but only {alive} alive: lower the consistency level or restart a replica"
    )))]
    Unavailable {
        /// The number that the level requires, or a majority of the group.
        required: u8,
        /// The number of the key's replicas, or of the group's members, that are reachable.
        alive: u8,
        /// What lacks them and the remedy; `None` for a level's replicas.
        reason: Option<String>,
    },
    /// The node has more pending work than it admits. Nothing was written.
    #[error("{0}")]
    Overloaded(String),
    /// The deadline passed with fewer acknowledgements than required, or there can no longer be enough. The
    /// write may or may not take effect.
    #[error(
        "{} with {acked} of {required} acknowledgement(s): the write may still take effect; read before retrying",
        reason.as_ref().map_or_else(|| "timed out".to_owned(), |reason| format!("{reason},"))
    )]
    OutcomeUnknown {
        /// The number of replicas known to have it durably.
        acked: u8,
        /// The number that the level requires.
        required: u8,
        /// Why there cannot be enough; `None` after a timeout.
        reason: Option<String>,
    },
    /// The deadline passed before enough replicas answered a read.
    #[error("read timed out with {answered} of {required} answer(s): retry, or lower the consistency level")]
    ReadTimeout {
        /// The number of replicas that answered.
        answered: u8,
        /// The number that the level requires.
        required: u8,
    },
    /// An argument is invalid.
    #[error("{0}")]
    InvalidArgument(String),
    /// A key, value or number of siblings exceeds a limit.
    #[error("{what} is {size} but the limit is {limit}: {remedy}")]
    LimitExceeded {
        /// What is too large.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
        /// The remedy.
        remedy: String,
    },
    /// The keyspace or node does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The keyspace exists with other settings.
    #[error("{0}")]
    KeyspaceExists(String),
    /// The node's disk is full. This replica wrote nothing.
    #[error("{0}")]
    StorageFull(String),
    /// A stored record fails its checksum.
    #[error("{0}")]
    CorruptRecord(String),
    /// No connection to any node, or the connection broke before the request was sent. Nothing was written.
    #[error("{0}")]
    ConnectionLost(String),
    /// The peer speaks another protocol version or belongs to another cluster.
    #[error("{0}")]
    Refused(String),
    /// The client or the node is shutting down. Nothing was written.
    #[error("{0}")]
    Closed(String),
    /// A conditional write found another version than required. Nothing of its batch was written.
    #[error(
        "the condition on key {key} does not hold: {}: read it and decide again",
        current.map_or_else(|| "it is absent".to_owned(), |version| format!("its version is {version}"))
    )]
    ConditionFailed {
        /// The key, in text form.
        key: String,
        /// Its current version; `None` if it is absent.
        current: Option<u64>,
    },
    /// The session of a command has expired, or no longer stores its answer. The command was not executed by
    /// this attempt and will not be; whether an earlier one was executed is unknown.
    #[error("{0}")]
    SessionExpired(String),
    /// The node's configuration does not permit it. Nothing was done.
    #[error("{0}")]
    PermissionDenied(String),
    /// No process listens at a node's address. Nothing was written.
    #[error("{0}")]
    ConnectionRefused(String),
}

impl Error {
    /// The size of its text.
    pub fn size(&self) -> usize {
        match self {
            Error::Unavailable { reason, .. } | Error::OutcomeUnknown { reason, .. } => {
                reason.as_ref().map_or(0, String::len)
            }
            Error::ReadTimeout { .. } => 0,
            Error::LimitExceeded { what, remedy, .. } => what.len() + remedy.len(),
            Error::ConditionFailed { key, .. } => key.len(),
            Error::Overloaded(text)
            | Error::InvalidArgument(text)
            | Error::NotFound(text)
            | Error::KeyspaceExists(text)
            | Error::StorageFull(text)
            | Error::CorruptRecord(text)
            | Error::ConnectionLost(text)
            | Error::Refused(text)
            | Error::Closed(text)
            | Error::SessionExpired(text)
            | Error::PermissionDenied(text)
            | Error::ConnectionRefused(text) => text.len(),
        }
    }

    /// An [`Error::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::InvalidArgument(message.into())
    }

    /// An [`Error::Unavailable`]: fewer replicas are reachable than the level requires.
    pub fn unavailable(required: u8, alive: u8) -> Self {
        Error::Unavailable {
            required,
            alive,
            reason: None,
        }
    }

    /// An [`Error::Unavailable`]: no leader was found of a Raft group with this many voters, usually for lack
    /// of a majority.
    pub fn no_leader(group: &str, voters: usize, required: u8, alive: u8) -> Self {
        let reason = if alive < required {
            format!(
                "{group} needs {required} of its {voters} voter(s) but only {alive} are reachable: restart a node or \
                 restore connectivity"
            )
        } else {
            format!(
                "{group} has no leader that was found in time, although {alive} of its {voters} voter(s) are reachable: \
                 try again later, or with a longer timeout"
            )
        };
        Error::Unavailable {
            required,
            alive,
            reason: Some(reason),
        }
    }

    /// Whether it is certain that the operation had no effect and will have none.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Error::OutcomeUnknown { .. } | Error::SessionExpired(_))
    }

    /// The variant's name: the name of the Python exception and of the metric's `outcome` label.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Unavailable { .. } => "Unavailable",
            Error::Overloaded(_) => "Overloaded",
            Error::OutcomeUnknown { .. } => "OutcomeUnknown",
            Error::ReadTimeout { .. } => "ReadTimeout",
            Error::InvalidArgument(_) => "InvalidArgument",
            Error::LimitExceeded { .. } => "LimitExceeded",
            Error::NotFound(_) => "NotFound",
            Error::KeyspaceExists(_) => "KeyspaceExists",
            Error::StorageFull(_) => "StorageFull",
            Error::CorruptRecord(_) => "CorruptRecord",
            Error::ConnectionLost(_) => "ConnectionLost",
            Error::Refused(_) => "Refused",
            Error::Closed(_) => "Closed",
            Error::ConditionFailed { .. } => "ConditionFailed",
            Error::SessionExpired(_) => "SessionExpired",
            Error::PermissionDenied(_) => "PermissionDenied",
            Error::ConnectionRefused(_) => "ConnectionRefused",
        }
    }
}
