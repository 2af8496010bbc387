//! The load generator of `quorate bench`, over the real client protocol.
//!
//! Without a rate it is a **closed loop**: a constant number of workers each do one operation after the other. It measures
//! the throughput at that many operations in flight. With a rate it is an **open loop**: operations start on a schedule,
//! independently of earlier ones, and the latency of each counts from its scheduled start ([`schedule`]). It measures the
//! latency at that load. The workers are then a limit: an operation that cannot start because all of them are busy waits,
//! and its wait counts.
//!
//! The report has the fields, and the keys and values have the shape, of the generator that measures the systems Quorate
//! is compared with, so that lines of both can stand in one table.
//!
//! | file | what it does |
//! |---|---|
//! | `options.rs` | settings |
//! | `schedule.rs` | the start times of operations |
//! | `pace.rs` | starts them on schedule |
//! | `workload.rs` | their requests |
//! | `report.rs` | counts their outcomes |
//! | `run.rs` | runs it all on a separate thread, with progress and stop |

mod options;
mod pace;
mod random;
mod report;
mod run;
mod schedule;
mod workload;

pub use options::{Operation, Options, Reads, Tracing};
pub use report::Report;
pub use run::{Run, run};
pub use schedule::Arrivals;
