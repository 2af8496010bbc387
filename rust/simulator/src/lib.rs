//! Quorate in one thread and virtual time: seeded faults, invariants, and the same run again whenever you like.
//!
//! A distributed system is tested here the way FoundationDB, TigerBeetle and others have shown: not by waiting for bad
//! luck, but by making it. One seed decides what the clients do, how long messages and disks take, who crashes when,
//! and what a crash takes with it. Thousands of seeds are thousands of different days, bad ones mostly, and each takes
//! half a second. A seed that shows a bug shows it every time.
//!
//! Nothing of Quorate is rewritten for this. Its protocols are pure roles, and the simulator is another shell around the
//! same roles: the node role with its coordinators, replicas, forwarders, shards and control role, the links with their lanes,
//! batches and credit, the batching of commits, the codecs of peers and clients, the client with its routing, retries and
//! sessions.
//!
//! # Where to look
//! * [`simulation`]: one run from setup to verdict. Begin here.
//! * [`world`]: nodes, clients and what is between them; [`event_queue`] is its time, [`rng`] its luck.
//! * [`network`] and [`disk`]: how they misbehave. [`schedule`]: when. [`workload`]: who suffers.
//! * [`invariants`]: what has to hold all the same, one file per property. They judge by the [`history`] that the clients
//!   saw, by the [`write_model`], which knows what every write of a quorum keyspace had seen, by the [`log_model`], which knows what
//!   every shard of a consensus keyspace has committed, and by what is on the disks.
//! * [`event_log`]: the hash of a run, and its events as text. [`record`]: inputs of roles, to be replayed.
//! * [`seeds`]: many runs on all processors, and the explanation of the first that fails.
//!
//! # Running it
//! ```text
//! cargo run -p quorate-simulator --example simulate -- --seeds 0..1000 --nodes 5
//! ```
//! A failure ends with the one command that replays it. `--bug NAME` has the roles make a mistake, to see the
//! invariants bite. The tests run a few hundred seeds; `QUORATE_SEEDS=5000 cargo test -p quorate-simulator` runs thousands.
//! `.ci/long` runs thousands of others, for clusters of several sizes, as long as it is given time. What it finds goes to
//! `tests/regressions.txt`, and is replayed with the tests.
//!
//! # What a simulation cannot show
//! Bugs of the shells (sockets, threads, LMDB) and of the operating system: they have tests of their own. Time
//! inside a role, which takes none here. And whatever no invariant asks for.

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
