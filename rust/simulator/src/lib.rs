//! Deterministic simulation of Quorate in one thread and virtual time: seeded faults, invariants, reproducible runs.
//!
//! This follows FoundationDB, TigerBeetle and others: faults are injected instead of awaited. The seed determines what the
//! clients do, the latency of messages and disks, which nodes crash when, and what a crash loses. Each seed is a different
//! run that takes half a second, and a seed that shows a bug shows it every time.
//!
//! The simulator runs Quorate's production code. Its protocols are pure roles, and the simulator is another shell around the
//! same roles: the node role with its coordinators, replicas, forwarders, shards and control role, the links with their lanes,
//! batches and credit, the batching of commits, the codecs of peers and clients, the client with its routing, retries and
//! sessions.
//!
//! # Where to look
//! * [`simulation`]: one run from setup to result. Start here.
//! * [`world`]: nodes, clients and network; [`event_queue`] is virtual time, [`rng`] the source of randomness.
//! * [`network`] and [`disk`]: their faults. [`schedule`]: the nemesis, which injects them. [`workload`]: the clients.
//! * [`invariants`]: the properties of every run, one file each. They check the [`history`] of the clients, the
//!   [`write_model`], which records what every write of a quorum keyspace had seen, the [`log_model`], which records what
//!   every shard of a consensus keyspace has committed, and the contents of the disks.
//! * [`event_log`]: the hash of a run, and its events as text. [`record`]: recorded inputs of roles, for replays.
//! * [`seeds`]: many runs on all processors, and the report of the first that fails.
//!
//! # Running it
//! ```text
//! cargo run -p quorate-simulator --example simulate -- --seeds 0..1000 --nodes 5
//! ```
//! A failure report ends with the command that replays it. `--bug NAME` enables a deliberate bug in the roles, to verify that
//! the invariants detect it. The tests run about a hundred seeds; `QUORATE_SEEDS=5000 cargo test -p quorate-simulator` runs
//! thousands. `.ci/long` runs thousands of others, for clusters of several sizes, for a given time. Failing seeds are added
//! to `tests/regressions.txt`, and are replayed with the tests.
//!
//! # What a simulation cannot show
//! Bugs of the shells (sockets, threads, LMDB) and of the operating system, which have their own tests. Computing time in a
//! role, which is zero here. And violations that no invariant checks.

pub mod control_log_model;
pub mod disk;
pub mod event_log;
pub mod event_queue;
pub mod history;
pub mod invariants;
pub mod log_model;
pub mod names;
pub mod network;
pub mod observation;
pub mod record;
pub mod rng;
pub mod schedule;
pub mod seeds;
mod servers;
pub mod simulation;
pub mod workload;
pub mod world;
pub mod write_model;
