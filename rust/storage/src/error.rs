//! Errors of the store, by what the caller must do next.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_core::store::{StreamId, Table};
use thiserror::Error;

use crate::frame::RecordError;

/// The remedy for a data directory that can no longer be used. An old copy must not be used for the same node: it lacks
/// what the node has acknowledged since, on which the peers rely.
pub const LOST_DIRECTORY: &str = "start the node under a new id with an empty directory, the other replicas have its \
     data; or put a copy of the whole directory in its place, if the node has not run since the copy was made";

/// Why a data directory or its store cannot be opened. Each error names the path and the remedy.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process (or this one) has the directory open.
    #[error(
        "data directory {path} is in use by another process: stop that node, or give this one its own directory"
    )]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to a node of another cluster.
    #[error(
        "data directory {path} belongs to cluster {found}, not to {expected}: \
         name the right cluster, or give this node an empty directory"
    )]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster that owns it.
        found: ClusterId,
        /// The cluster of the node.
        expected: ClusterId,
    },
    /// The directory belongs to another node of the cluster.
    #[error(
        "data directory {path} belongs to node {found}, not to {expected}: \
         start {found} with it, or give {expected} its own directory"
    )]
    ForeignNode {
        /// The directory.
        path: PathBuf,
        /// The node that owns it.
        found: NodeId,
        /// The node that tried to open it.
        expected: NodeId,
    },
    /// A file is shorter than what was written durably.
    #[error(
        "{path} is truncated: {found} bytes, at least {expected} were written: {remedy}",
        remedy = LOST_DIRECTORY
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A file is malformed.
    #[error("{path} is corrupt ({detail}): {remedy}", remedy = LOST_DIRECTORY)]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The details.
        detail: String,
    },
    /// The directory has an identity, but its data are missing.
    #[error("data directory {path} has lost its data: {remedy}", remedy = LOST_DIRECTORY)]
    DataMissing {
        /// What is missing.
        path: PathBuf,
    },
    /// The directory is to be reset, but it is part of a formed cluster.
    #[error(
        "data directory {path} holds data of cluster {name:?}, which is formed: start that cluster, or give this node \
         an empty directory"
    )]
    AlreadyFormed {
        /// The directory.
        path: PathBuf,
        /// The cluster's name.
        name: String,
    },
    /// The directory was written by an earlier version of the program.
    #[error(
        "{path} has format version {found}, this program reads {supported}: start the version that wrote it, or use \
         another directory"
    )]
    FormatTooOld {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this program reads.
        supported: u32,
    },
    /// The directory was written by a later version of the program.
    #[error("{path} has format version {found}, this program knows {supported}: start a newer version")]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// The operating system returned an error.
    #[error("{action} {path}: {source}")]
    Io {
        /// The attempted action, such as "create".
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// LMDB returned an error.
    #[error("{path} cannot be opened ({detail}): if it is damaged, {remedy}", remedy = LOST_DIRECTORY)]
    Lmdb {
        /// The environment.
        path: PathBuf,
        /// LMDB's message.
        detail: String,
    },
}

/// Why a batch did not become durable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// No space, detected before the commit: nothing was written, and the store stays usable.
    #[error("no space left for the data: free disk space, or raise map_size_bytes")]
    Full,
    /// The commit or its sync failed: what is on disk is unknown. The node must stop; nothing is retried or answered.
    #[error("the store failed and must not be used any longer: {0}")]
    Fatal(String),
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// A stored row is corrupt.
    #[error("corrupt record in table {table:?} under key {key:?}: {why}")]
    Corrupt {
        /// The table.
        table: Table,
        /// Its key.
        key: Bytes,
        /// The details.
        why: RecordError,
    },
    /// A stored log entry is corrupt.
    #[error("corrupt entry {position} of stream {stream:?}: {why}")]
    CorruptEntry {
        /// The stream of the log.
        stream: StreamId,
        /// The position of the entry.
        position: u64,
        /// The details.
        why: RecordError,
    },
    /// A stored hard state is corrupt.
    #[error("corrupt hard state {key:?}: {why}")]
    CorruptHard {
        /// Its name.
        key: Bytes,
        /// The details.
        why: RecordError,
    },
    /// The store could not be read.
    #[error("the store cannot be read: {0}")]
    Failed(String),
}
