//! A run's settings, and their validation.

use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::level::Level;
use quorate_protocol::telemetry::TraceContext;
use serde::{Deserialize, Deserializer, Serialize};

use super::random::Xorshift;
use super::schedule::Arrivals;
use crate::core::Trace;

/// Maximum rate, in operations per second.
const MAX_RATE: f64 = 1e6;

/// The kind of operation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Puts.
    Write,
    /// Gets.
    Read,
    /// Gets and puts at random, `read_percent` of a hundred being gets.
    Mixed,
    /// Entries appended to the log of a consensus keyspace, from many sources.
    Append,
    /// Puts every key once, in order; the duration is however long that takes.
    Load,
}

/// A run's settings; fields that are left out have defaults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The keyspace, which must exist.
    pub keyspace: KeyspaceId,
    /// The kind of operation.
    pub operation: Operation,
    /// Percentage of reads among mixed operations.
    #[serde(default = "Options::default_read_percent")]
    pub read_percent: u8,
    /// The number of operations in flight: always in a closed loop, at most in an open one.
    #[serde(default = "Options::default_concurrency")]
    pub concurrency: usize,
    /// Keys, or entries, per operation. A load writes one at a time.
    #[serde(default = "Options::default_batch")]
    pub batch: usize,
    /// Operations per second to start, in an open loop; `None` is a closed loop.
    #[serde(default)]
    pub rate: Option<f64>,
    /// The spacing of their starts.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Bytes of each value.
    #[serde(default = "Options::default_value_size")]
    pub value_size: usize,
    /// The number of keys.
    #[serde(default = "Options::default_keys")]
    pub keys: u64,
    /// `None` uses the keyspace's level.
    #[serde(default, deserialize_with = "level_by_name")]
    pub level: Option<Level>,
    /// The consistency of reads in a consensus keyspace.
    #[serde(default)]
    pub reads: Reads,
    /// Seconds that are measured.
    #[serde(default = "Options::default_duration")]
    pub duration: f64,
    /// Seconds of warm-up, which are not measured.
    #[serde(default = "Options::default_warmup")]
    pub warmup: f64,
    /// Clients, each with a connection to every node.
    #[serde(default = "Options::default_connections")]
    pub connections: usize,
    /// The timeout of an operation, in seconds.
    #[serde(default = "Options::default_timeout")]
    pub timeout: f64,
    /// The cluster's secret, if it has one.
    #[serde(default)]
    pub secret: String,
    /// The trace context of the operations.
    #[serde(default)]
    pub trace: Tracing,
}

/// The consistency of reads in a consensus keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// Sees every write that was acknowledged before.
    #[default]
    Linearizable,
    /// Sees the state of one member.
    Stale,
}

/// The trace context of a run's operations, to measure the cost of tracing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracing {
    /// None.
    #[default]
    Off,
    /// A trace context that is not sampled.
    Unsampled,
    /// A trace of its own for each, recorded everywhere.
    Sampled,
}

impl Tracing {
    pub(super) fn of(self, random: &mut Xorshift) -> Trace {
        match self {
            Tracing::Off => Trace::Off,
            Tracing::Unsampled => Trace::Child(TraceContext {
                trace_id: u128::from(random.next().max(1)),
                span_id: random.next().max(1),
                sampled: false,
            }),
            Tracing::Sampled => Trace::New,
        }
    }
}

impl Options {
    /// All defaults.
    pub fn new(keyspace: KeyspaceId, operation: Operation) -> Self {
        Options {
            keyspace,
            operation,
            read_percent: Self::default_read_percent(),
            concurrency: Self::default_concurrency(),
            batch: Self::default_batch(),
            rate: None,
            arrivals: Arrivals::default(),
            value_size: Self::default_value_size(),
            keys: Self::default_keys(),
            level: None,
            reads: Reads::default(),
            duration: Self::default_duration(),
            warmup: Self::default_warmup(),
            connections: Self::default_connections(),
            timeout: Self::default_timeout(),
            secret: String::new(),
            trace: Tracing::default(),
        }
    }

    fn default_read_percent() -> u8 {
        50
    }

    fn default_concurrency() -> usize {
        64
    }

    fn default_batch() -> usize {
        1
    }

    fn default_value_size() -> usize {
        100
    }

    fn default_keys() -> u64 {
        100_000
    }

    fn default_duration() -> f64 {
        5.0
    }

    fn default_warmup() -> f64 {
        1.0
    }

    fn default_connections() -> usize {
        1
    }

    fn default_timeout() -> f64 {
        5.0
    }

    /// The operations of one batch; a load has none.
    pub(super) fn batch(&self) -> usize {
        match self.operation {
            Operation::Load => 1,
            _ => self.batch,
        }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let positive = |name: &str, value: u64| match value {
            0 => Err(Error::invalid(format!("{name}=0: give at least 1"))),
            _ => Ok(()),
        };
        let seconds = |name: &str, value: f64, least: f64| match value {
            _ if value.is_finite() && value >= least && value <= 86_400.0 => Ok(()),
            _ => Err(Error::invalid(format!(
                "{name}={value}: give seconds, {least} to 86400"
            ))),
        };
        positive("concurrency", self.concurrency as u64)?;
        positive("keys", self.keys)?;
        positive("connections", self.connections as u64)?;
        positive("batch", self.batch as u64)?;
        seconds("duration", self.duration, 0.001)?;
        seconds("warmup", self.warmup, 0.0)?;
        seconds("timeout", self.timeout, 0.001)?;
        if self.read_percent > 100 {
            let given = self.read_percent;
            return Err(Error::invalid(format!("read_percent={given}: give 0 to 100")));
        }
        if self.batch() as u64 > self.keys {
            let (batch, keys) = (self.batch, self.keys);
            return Err(Error::invalid(format!(
                "batch={batch}: there are only keys={keys}"
            )));
        }
        match self.rate {
            Some(_) if self.operation == Operation::Load => Err(Error::invalid(
                "rate: a load is as fast as it can be, leave it out",
            )),
            Some(rate) if !(rate > 0.0 && rate <= MAX_RATE) => Err(Error::invalid(format!(
                "rate={rate}: give operations per second, above 0 and up to {MAX_RATE}"
            ))),
            _ => Ok(()),
        }
    }
}

fn level_by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|name| name.parse().map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: Operation, change: impl Fn(&mut Options)) -> String {
        let mut options = Options::new(KeyspaceId(1), operation);
        options.validate().unwrap();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let mixed = |change: fn(&mut Options)| refused(Operation::Mixed, change);
        for (said, expected) in [
            (mixed(|options| options.read_percent = 101), "read_percent=101"),
            (mixed(|options| options.batch = 0), "batch=0"),
            (
                mixed(|options| options.batch = 100_001),
                "batch=100001: there are only keys=100000",
            ),
            (mixed(|options| options.rate = Some(0.0)), "rate=0"),
            (mixed(|options| options.rate = Some(f64::NAN)), "rate=NaN"),
            (mixed(|options| options.rate = Some(2e6)), "rate=2000000"),
            (mixed(|options| options.warmup = -1.0), "warmup=-1"),
            (
                refused(Operation::Load, |options| options.rate = Some(5.0)),
                "rate: a load",
            ),
        ] {
            assert!(said.contains(expected), "{said}");
        }
    }
}
