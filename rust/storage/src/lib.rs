//! Quorate's durable storage.
//!
//! A store makes [operations](quorate_core::store::JournalOp) durable, a batch at a time, and serves reads from durable
//! state. The contract is in [`store`]; there are two implementations, and one conformance suite for both:
//!
//! * [`LmdbStore`], on disk: a journal and a state, see [`lmdb`];
//! * [`MemoryStore`], for the simulator: in memory, with injected disk faults.
//!
//! Around them: [`queue`] decides which requests share a sync (pure, so the simulator runs it too); [`thread`] drives
//! queue and store on dedicated threads in a node; [`datadir`] records which node owns a directory and locks it; [`files`]
//! copies a group's rows to a file, and loads them elsewhere; [`map_fault`] reports faults of mapped data files; [`frame`]
//! is the checksummed frame around every stored value; [`scrub`] looks for corrupt frames.

pub mod bulk;
pub mod datadir;
pub mod error;
pub mod files;
pub mod frame;
pub mod limits;
pub mod lmdb;
pub mod map_fault;
pub mod memory;
mod memtable;
pub mod query;
pub mod queue;
pub mod scrub;
pub mod store;
mod sys;
pub mod thread;
pub mod unflushed;

pub use datadir::{Claim, DataDir, Formation, Identity};
pub use error::{CommitError, OpenError, ReadError};
pub use files::{FileError, FileThreads, LmdbFiles, MemoryFiles};
pub use lmdb::{LmdbStore, Options};
pub use memory::MemoryStore;
pub use queue::{CommitQueue, Completion, Limits, Outcome, Request};
pub use quorate_core::store::{JournalOp, Priority, StateWrite, StreamId, Table};
pub use scrub::Scrubber;
pub use store::{Bounds, DerivedRows, NODE_STREAM, Page, Reader, Store};
pub use thread::{Observer, StorageHandle, StorageThread};
pub use unflushed::Flushed;
