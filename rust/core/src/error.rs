//! Errors: definite or unknown, never a lie.
//!
//! A *definite* error promises that nothing was written and nothing will be. An *unknown* one says that it may have
//! been, or may yet be. Every message names the thing and the remedy. The variants are part of the client protocol:
//! they are only ever appended.

use serde::{Deserialize, Serialize};

/// What an operation can answer instead of a result. Python sees one exception class per variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// Fewer replicas, or members of a Raft group, are alive than are required. Nothing was written.
    #[error("{}", reason.clone().unwrap_or_else(|| format!(
        "{required} replica(s) required but only {alive} alive: lower the consistency level or restart a replica"
    )))]
    Unavailable {
        /// How many the level asks for, or a majority of the group is.
        required: u8,
        /// How many of the key's replicas, or of the group's members, can be reached.
        alive: u8,
        /// What lacks them and what to do; `None` where it is a level's replicas.
        reason: Option<String>,
    },
    /// The node has more work than it admits. Nothing was written.
    #[error("{0}")]
    Overloaded(String),
    /// The deadline passed with fewer acknowledgements than required, or it is known before that there will not be
    /// enough. The write may or may not take effect.
    #[error(
        "{} with {acked} of {required} acknowledgement(s): the write may still take effect; read before retrying",
        reason.as_ref().map_or_else(|| "timed out".to_owned(), |reason| format!("{reason},"))
    )]
    OutcomeUnknown {
        /// How many replicas have it durably, for certain.
        acked: u8,
        /// How many the level asks for.
        required: u8,
        /// Why there will not be enough; `None` when the time was up.
        reason: Option<String>,
    },
    /// The deadline passed before enough replicas answered a read.
    #[error("read timed out with {answered} of {required} answer(s): retry, or lower the consistency level")]
    ReadTimeout {
        /// How many replicas answered.
        answered: u8,
        /// How many the level asks for.
        required: u8,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// A key, value or number of siblings is beyond the limit.
    #[error("{what} is {size} but the limit is {limit}: {remedy}")]
    LimitExceeded {
        /// Of what.
        what: String,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
        /// What to do.
        remedy: String,
    },
    /// There is no such keyspace or node.
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
    /// No connection to any node, or it broke before the request was sent. Nothing was written.
    #[error("{0}")]
    ConnectionLost(String),
    /// The peer speaks another protocol version or belongs to another cluster.
    #[error("{0}")]
    Refused(String),
    /// The client or the node is shutting down. Nothing was written.
    #[error("{0}")]
    Closed(String),
    /// A conditional write found another version than it asked for. Nothing of its batch was written.
    #[error(
        "the condition on key {key} does not hold: {}: read it and decide again",
        current.map_or_else(|| "it is absent".to_owned(), |version| format!("its version is {version}"))
    )]
    ConditionFailed {
        /// Which key, readable.
        key: String,
        /// Its version now; `None` if it is absent.
        current: Option<u64>,
    },
    /// The session that a command belongs to is no more, or does not keep its answer any longer. The command was not executed
    /// by this attempt and will not be; whether an earlier one was executed cannot be known from here.
    #[error("{0}")]
    SessionExpired(String),
    /// The node's configuration does not allow it. Nothing was done.
    #[error("{0}")]
    PermissionDenied(String),
    /// Nobody listens at a node's address: its program does not run. Nothing was written.
    #[error("{0}")]
    ConnectionRefused(String),
}

impl Error {
    /// Bytes of its words.
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

    /// An [`Error::Unavailable`]: fewer replicas can be reached than the level asks for.
    pub fn unavailable(required: u8, alive: u8) -> Self {
        Error::Unavailable {
            required,
            alive,
            reason: None,
        }
    }

    /// An [`Error::Unavailable`]: no leader of a Raft group with so many voters was found, mostly for want of a majority.
    pub fn no_leader(group: &str, voters: usize, required: u8, alive: u8) -> Self {
        let reason = if alive < required {
            format!(
                "{group} needs {required} of its {voters} voter(s) but only {alive} can be reached: restart a node or \
                 mend the network"
            )
        } else {
            format!(
                "{group} has no leader that was found in time, although {alive} of its {voters} voter(s) can be reached: \
                 try again later, or with a longer timeout"
            )
        };
        Error::Unavailable {
            required,
            alive,
            reason: Some(reason),
        }
    }

    /// Whether it is certain that the operation has had and will have no effect.
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
