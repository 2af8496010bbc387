//! Why a node cannot start: each error names the thing and the remedy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use quorate_core::error::Error;
use quorate_protocol::wire::Difference;
use quorate_storage::error::{LOST_DIRECTORY, OpenError, ReadError};

use crate::config::ConfigError;

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Somebody else listens there.
    #[error(
        "{setting}={address}: the port is taken by another program: stop it, choose another port, or 0 for any"
    )]
    AddressInUse {
        /// Which setting.
        setting: &'static str,
        /// Which address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("{setting}={address} cannot be listened on: {source}")]
    Listen {
        /// Which setting.
        setting: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// What the store holds is not what was written.
    #[error("data directory {path}: {source}: {remedy}", remedy = LOST_DIRECTORY)]
    Read {
        /// The data directory.
        path: PathBuf,
        /// What cannot be read.
        source: ReadError,
    },
    /// The data were placed by other settings than these.
    #[error(
        "data directory {path} was laid out with {theirs} but the node is started with {ours}:          start it with the {setting} that it had",
        theirs = difference.theirs, ours = difference.ours, setting = difference.setting
    )]
    Layout {
        /// The data directory.
        path: PathBuf,
        /// What differs.
        difference: Difference,
    },
    /// The list of members is older than the one that the node had.
    #[error(
        "data directory {path} is in generation {found} of the members but the node is started with          generation={given}: start it with the members and the generation that it had"
    )]
    OldGeneration {
        /// The data directory.
        path: PathBuf,
        /// The generation it has reached.
        found: u64,
        /// The generation of the configuration.
        given: u64,
    },
    /// What the node's roles need is not there.
    #[error("{0}")]
    Wiring(#[from] Error),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
    /// The standard input ended before the parent had sent the members.
    #[error("the parent closed the standard input before it sent the members")]
    NoMembers,
    /// The node ended while it was starting.
    #[error("{0}")]
    Fatal(String),
}

impl StartError {
    /// An error of the operating system while doing `what`.
    pub fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::System { what, source }
    }

    /// The error's name on the start-up line.
    pub fn name(&self) -> &'static str {
        match self {
            StartError::Config(_) => "InvalidConfig",
            StartError::AddressInUse { .. } => "AddressInUse",
            StartError::Listen { .. } => "ListenFailed",
            StartError::Open(error) => match error {
                OpenError::DirectoryInUse { .. } => "DirectoryInUse",
                OpenError::ForeignCluster { .. } => "ForeignCluster",
                OpenError::ForeignNode { .. } => "ForeignNode",
                OpenError::Truncated { .. } => "Truncated",
                OpenError::Corrupt { .. } => "Corrupt",
                OpenError::DataMissing { .. } => "DataMissing",
                OpenError::AlreadyFormed { .. } => "AlreadyFormed",
                OpenError::FormatTooOld { .. } => "FormatTooOld",
                OpenError::FormatTooNew { .. } => "FormatTooNew",
                _ => "StorageFailed",
            },
            StartError::Layout { .. } => "ForeignLayout",
            StartError::OldGeneration { .. } => "OldGeneration",
            StartError::Read { .. } => "Corrupt",
            StartError::Wiring(error) => error.name(),
            StartError::System { .. } => "SystemError",
            StartError::NoMembers => "ParentGone",
            StartError::Fatal(_) => "StartFailed",
        }
    }
}
