//! The load generator of `quorate bench`: a closed loop over the real client protocol.
//!
//! A constant number of workers each do one operation after the other, on keys picked at random; every request is one
//! operation. What is counted began and ended within the measured window. The report has the fields, and the keys and
//! values have the shape, of the generator that measures the systems Quorate is compared with, so that lines of both
//! can stand in one table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{ReadLevel, Request, Response};
use quorate_protocol::keyspace::Mode;
use quorate_protocol::telemetry::TraceContext;
use quorate_versions::WriteId;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::core::{CallOptions, Trace};
use crate::shell::{Client, ConnectOptions, Consensus};

/// The longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);
/// A worker whose operation failed waits this long before its next.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(2);

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Puts.
    Write,
    /// Gets.
    Read,
    /// Half of each, at random.
    Mixed,
    /// Puts every key once, in order; the duration is however long that takes.
    Load,
}

/// A run's settings; what is left out of its JSON has a default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Which keyspace; it must exist.
    pub keyspace: KeyspaceId,
    /// What to do.
    pub operation: Operation,
    /// How many workers.
    #[serde(default = "Options::default_concurrency")]
    pub concurrency: usize,
    /// Bytes of each value.
    #[serde(default = "Options::default_value_size")]
    pub value_size: usize,
    /// How many keys there are.
    #[serde(default = "Options::default_keys")]
    pub keys: u64,
    /// `None` takes the keyspace's level.
    #[serde(default, deserialize_with = "level_by_name")]
    pub level: Option<Level>,
    /// What reads of a consensus keyspace must see.
    #[serde(default)]
    pub reads: Reads,
    /// Seconds that are measured.
    #[serde(default = "Options::default_duration")]
    pub duration: f64,
    /// Seconds before that which are not.
    #[serde(default = "Options::default_warmup")]
    pub warmup: f64,
    /// Clients, each with a connection to every node.
    #[serde(default = "Options::default_connections")]
    pub connections: usize,
    /// Seconds that an operation may take.
    #[serde(default = "Options::default_timeout")]
    pub timeout: f64,
    /// The cluster's secret, if it has one.
    #[serde(default)]
    pub secret: String,
    /// What the operations carry of a trace.
    #[serde(default)]
    pub trace: Tracing,
}

/// What reads of a consensus keyspace must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// Everything that was acknowledged before.
    #[default]
    Linearizable,
    /// Whatever a member has.
    Stale,
}

/// What a run's operations carry of a trace: to measure what that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracing {
    /// Nothing.
    #[default]
    Off,
    /// A trace context that says: not sampled.
    Unsampled,
    /// A trace of their own each, recorded everywhere.
    Sampled,
}

impl Tracing {
    fn of(self, random: &mut Xorshift) -> Trace {
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
    fn default_concurrency() -> usize {
        64
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

    fn validate(&self) -> Result<(), Error> {
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
        seconds("duration", self.duration, 0.001)?;
        seconds("warmup", self.warmup, 0.0)?;
        seconds("timeout", self.timeout, 0.001)
    }
}

fn level_by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|name| name.parse().map_err(serde::de::Error::custom))
        .transpose()
}

/// What a run measured; as JSON, a line in the format of the peers' generator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was measured: `quorate` and its version.
    pub peer: String,
    /// What was done.
    pub op: Operation,
    /// At which level, when one was given.
    pub level: Option<String>,
    /// By how many workers.
    pub concurrency: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Operations that succeeded, per second.
    pub ops_per_s: f64,
    /// Median latency in microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Operations that failed, over the whole run.
    pub errors: u64,
    /// What an acknowledgement stands for.
    pub durability: String,
    /// Reads that found nothing.
    pub misses: u64,
    /// Seconds that were measured.
    pub secs: f64,
    /// Clients.
    pub conns: usize,
    /// CPU seconds of this process per second.
    pub client_cores: f64,
    /// The first error, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// What the workers have counted.
struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    misses: u64,
    first_error: Option<Error>,
}

/// What every worker has at hand.
struct Plan {
    options: Options,
    /// The keyspace, if it is in consensus mode.
    consensus: Option<Consensus>,
    value: Bytes,
    begin: Instant,
    end: Instant,
    /// The next key of a load.
    next: AtomicU64,
    tally: Mutex<Tally>,
}

/// Measures, in the current runtime.
///
/// # Errors
/// [`Error::InvalidArgument`] for settings that make no sense; otherwise as [`Client::connect`]. Failed operations are
/// counted, not returned.
pub async fn run(endpoints: Vec<String>, options: Options) -> Result<Report, Error> {
    options.validate()?;
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let connect = ConnectOptions {
            timeout: Duration::from_secs(10),
            credentials: Bytes::from(options.secret.clone()),
            ..ConnectOptions::default()
        };
        clients.push(Client::connect_with(endpoints.clone(), connect).await?);
    }
    let consensus = consensus(&clients[0], options.keyspace).await?;
    let loading = options.operation == Operation::Load;
    let warmup = if loading { 0.0 } else { options.warmup };
    let window = if loading { 86_400.0 } else { options.duration };
    let begin = Instant::now() + Duration::from_secs_f64(warmup);
    let plan = Arc::new(Plan {
        consensus,
        value: value(options.value_size),
        begin,
        end: begin + Duration::from_secs_f64(window),
        next: AtomicU64::new(0),
        tally: Mutex::new(Tally {
            latencies: histogram()?,
            errors: 0,
            misses: 0,
            first_error: None,
        }),
        options,
    });
    let mut workers = JoinSet::new();
    for number in 0..plan.options.concurrency {
        let client = clients[number % clients.len()].clone();
        workers.spawn(work(client, Arc::clone(&plan), number as u64));
    }
    tokio::time::sleep_until(begin.into()).await;
    let cpu = cpu_seconds();
    while workers.join_next().await.is_some() {}
    let secs = if loading {
        begin.elapsed().as_secs_f64()
    } else {
        plan.options.duration
    };
    let spent = cpu_seconds() - cpu;
    clients.iter().for_each(Client::close);
    Ok(report(&plan, secs, spent))
}

/// Measures, on a thread and a runtime of its own, as the peers' generator does. Dropping the future does not end it.
///
/// # Errors
/// As [`run`].
pub async fn run_apart(endpoints: Vec<String>, options: Options) -> Result<Report, Error> {
    let (done, report) = oneshot::channel();
    let measure = move || {
        // A receiver that is gone was interrupted.
        let _gone = done.send(run_blocking(endpoints, options));
    };
    std::thread::Builder::new()
        .name("quorate-bench".to_owned())
        .spawn(measure)
        .map_err(|error| Error::Overloaded(format!("no thread for the benchmark: {error}")))?;
    let ended = |_| Error::Closed("the benchmark ended without a report".to_owned());
    report.await.map_err(ended)?
}

fn run_blocking(endpoints: Vec<String>, options: Options) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Overloaded(format!("no runtime for the benchmark: {error}")))?;
    runtime.block_on(run(endpoints, options))
}

/// The keyspace, if it is in consensus mode.
async fn consensus(client: &Client, id: KeyspaceId) -> Result<Option<Consensus>, Error> {
    let all = client.keyspaces().await?;
    let Some(found) = all.into_iter().find(|keyspace| keyspace.id == id) else {
        return Err(Error::NotFound(format!(
            "there is no keyspace {id}: create it first"
        )));
    };
    if found.settings.mode == Mode::Quorum {
        return Ok(None);
    }
    let hash = client.topology().await?.ring.hash;
    client.consensus(found, hash).map(Some)
}

async fn work(client: Client, plan: Arc<Plan>, number: u64) {
    let mut random = Xorshift::of_worker(number);
    let options = CallOptions::timeout(Duration::from_secs_f64(plan.options.timeout));
    loop {
        let began = Instant::now();
        if began >= plan.end {
            return;
        }
        let Some(request) = plan.request(&mut random) else {
            return;
        };
        let options = CallOptions {
            trace: plan.options.trace.of(&mut random),
            ..options
        };
        let result = client.call(request, options).await.result;
        let ended = Instant::now();
        let failed = result.is_err();
        plan.count(began, ended, result);
        if failed {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

impl Plan {
    /// The next operation; `None` when a load is complete.
    fn request(&self, random: &mut Xorshift) -> Option<Request> {
        let keys = self.options.keys;
        let (number, writes) = match self.options.operation {
            Operation::Write => (random.next() % keys, true),
            Operation::Read => (random.next() % keys, false),
            Operation::Mixed => (random.next() % keys, random.next() & 1 == 1),
            Operation::Load => (self.next.fetch_add(1, Ordering::Relaxed), true),
        };
        if number >= keys {
            return None;
        }
        let (keyspace, level) = (self.options.keyspace, self.options.level);
        let key = Key::of(format!("k{number:08}")).expect("a short key is a key");
        if let Some(consensus) = &self.consensus {
            let level = match self.options.reads {
                Reads::Linearizable => ReadLevel::Linearizable,
                Reads::Stale => ReadLevel::Stale,
            };
            return Some(match writes {
                true => consensus.put_request(key, self.value.clone()),
                false => consensus.get_request(key, level),
            });
        }
        Some(match writes {
            true => Request::Put {
                keyspace,
                key,
                value: Some(self.value.clone()),
                context: None,
                level,
                write_id: WriteId {
                    client: 0,
                    sequence: 0,
                },
            },
            false => Request::Get { keyspace, key, level },
        })
    }

    fn count(&self, began: Instant, ended: Instant, result: Result<Response, Error>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(response) if began >= self.begin && ended <= self.end => {
                let micros = (ended - began).as_micros().max(1);
                tally
                    .latencies
                    .saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
                let missed = match response {
                    Response::Entry(entry) => entry.versions.is_empty(),
                    Response::Records { records, .. } => records.iter().any(Option::is_none),
                    _ => false,
                };
                tally.misses += u64::from(missed);
            }
            Ok(_) => {}
            Err(error) => {
                tally.errors += 1;
                tally.first_error.get_or_insert(error);
            }
        }
    }
}

fn report(plan: &Plan, secs: f64, cpu: f64) -> Report {
    let options = &plan.options;
    let tally = plan.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let cents = |number: f64| (number * 100.0).round() / 100.0;
    Report {
        peer: format!("quorate-{}", env!("CARGO_PKG_VERSION")),
        op: options.operation,
        level: match (&plan.consensus, options.reads) {
            (None, _) => options.level.map(|level| level.to_string()),
            (Some(_), Reads::Linearizable) => Some("linearizable".to_owned()),
            (Some(_), Reads::Stale) => Some("stale".to_owned()),
        },
        concurrency: options.concurrency,
        value_bytes: options.value_size,
        ops_per_s: (tally.latencies.len() as f64 / secs).round(),
        p50_us: tally.latencies.value_at_quantile(0.5),
        p99_us: tally.latencies.value_at_quantile(0.99),
        p999_us: tally.latencies.value_at_quantile(0.999),
        errors: tally.errors,
        durability: "journal-fdatasync".to_owned(),
        misses: tally.misses,
        secs,
        conns: options.connections,
        client_cores: cents(cpu / secs),
        first_error: tally.first_error.as_ref().map(Error::to_string),
    }
}

fn histogram() -> Result<Histogram<u64>, Error> {
    let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).map_err(|error| Error::invalid(error.to_string()))
}

/// Printable bytes that do not compress to nothing; the same for every run.
fn value(size: usize) -> Bytes {
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    (0..size).map(|_| b'!' + (random.next() % 90) as u8).collect()
}

/// CPU seconds that this process's threads have used; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let nanoseconds = |thread: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let total: u64 = threads.flatten().filter_map(nanoseconds).sum();
    total as f64 / 1e9
}

/// xorshift64*: picks keys without a lock or a system call.
struct Xorshift(u64);

impl Xorshift {
    fn of_worker(number: u64) -> Self {
        let chance = getrandom::u64().unwrap_or(0);
        Xorshift((0xD1B5_4A32_D192_ED03 ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ chance).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
