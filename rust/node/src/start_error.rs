//! Why a node cannot start: each error names the cause and the remedy.

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
    /// The configuration is invalid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Another program listens there.
    #[error(
        "{setting}={address}: the port is in use by another program: stop it, choose another port, or 0 for any"
    )]
    AddressInUse {
        /// Which setting.
        setting: &'static str,
        /// Which address.
        address: SocketAddr,
    },
    /// Binding the address failed.
    #[error("{setting}={address}: cannot listen: {source}")]
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
    /// Stored data are damaged.
    #[error("data directory {path}: {source}: {remedy}", remedy = LOST_DIRECTORY)]
    Read {
        /// The data directory.
        path: PathBuf,
        /// The error.
        source: ReadError,
    },
    /// The data were placed with other settings.
    #[error(
        "data directory {path} was laid out with {theirs} but the node is started with {ours}: \
         start it with the original {setting}",
        theirs = difference.theirs, ours = difference.ours, setting = difference.setting
    )]
    Layout {
        /// The data directory.
        path: PathBuf,
        /// What differs.
        difference: Difference,
    },
    /// The list of members is older than the stored one.
    #[error(
        "data directory {path} is in generation {found} of the members but the node is started with \
         generation={given}: start it with the latest members and generation"
    )]
    OldGeneration {
        /// The data directory.
        path: PathBuf,
        /// The generation it has reached.
        found: u64,
        /// The generation of the configuration.
        given: u64,
    },
    /// A role cannot be created.
    #[error("{0}")]
    Wiring(#[from] Error),
    /// The operating system returned an error.
    #[error("{what}: {source}")]
    System {
        /// The attempted action.
        what: &'static str,
        /// The error.
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
    /// Wraps an error of the operating system during `what`.
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
