//! One run: its workers and its thread.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_protocol::api::Response;
use quorate_protocol::keyspace::{Keyspace, Mode};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::options::{Operation, Options};
use super::pace::{Pace, Pacer};
use super::random::Xorshift;
use super::report::{Report, Tally, cpu_seconds};
use super::schedule::Schedule;
use super::workload::Workload;
use crate::core::CallOptions;
use crate::shell::{Call, Client, ConnectOptions, Consensus};

/// A worker of a closed loop whose operation failed waits this long before its next. In an open loop the schedule keeps
/// failures from following each other at once.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(2);
/// Maximum duration of a load, in seconds.
const DAY: f64 = 86_400.0;

/// The context of a worker.
struct Plan {
    options: Options,
    workload: Workload,
    pace: Pace,
    begun: Instant,
    end: Instant,
    tally: Mutex<Tally>,
}

/// Runs the measurement in the current runtime.
///
/// # Errors
/// [`Error::InvalidArgument`] for invalid settings; otherwise like [`Client::connect`]. Failed operations are counted,
/// not returned.
pub async fn run(endpoints: Vec<String>, options: Options) -> Result<Report, Error> {
    watched(endpoints, options, &OnceLock::new()).await
}

async fn watched(
    endpoints: Vec<String>,
    options: Options,
    watch: &OnceLock<Arc<Plan>>,
) -> Result<Report, Error> {
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
    let consensus = consensus(&clients[0], &options).await?;
    let in_consensus = consensus.is_some();
    if options.operation == Operation::Append && !in_consensus {
        return Err(Error::invalid(
            "operation \"append\": only keyspaces in consensus mode have a log of entries",
        ));
    }
    let loading = options.operation == Operation::Load;
    let warmup = if loading { 0.0 } else { options.warmup };
    let window = if loading { DAY } else { options.duration };
    let begun = Instant::now();
    let begin = begun + Duration::from_secs_f64(warmup);
    let end = begin + Duration::from_secs_f64(window);
    let pacer = options.rate.map(|rate| {
        let seed = getrandom::u64().unwrap_or(0);
        Pacer::start(Schedule::new(rate, options.arrivals, seed), begun, end)
    });
    let pacer = pacer.transpose()?;
    let plan = Arc::new(Plan {
        workload: Workload::new(&options, consensus),
        pace: pacer
            .as_ref()
            .map_or(Pace::Closed, |pacer| Pace::Open(pacer.open())),
        begun,
        end,
        tally: Mutex::new(Tally::new(begin, end, options.rate.is_some())?),
        options,
    });
    // It is set once for each run.
    let _set = watch.set(Arc::clone(&plan));
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
    let mut tally = plan.tally();
    if let Some(pacer) = pacer {
        let left = pacer.open().left();
        left.into_iter().for_each(|place| tally.count_unstarted(place));
    }
    Ok(tally.report(&plan.options, in_consensus, secs, spent))
}

/// The keyspace, if it is in consensus mode.
async fn consensus(client: &Client, options: &Options) -> Result<Option<Consensus>, Error> {
    let found = definition(client, options.keyspace, Duration::from_secs_f64(options.timeout)).await?;
    if found.settings.mode == Mode::Quorum {
        return Ok(None);
    }
    let hash = client.topology().await?.ring.hash;
    client.consensus(found, hash).map(Some)
}

/// The keyspace with this id. A node may learn of a new one later than the node that created it.
async fn definition(client: &Client, id: KeyspaceId, patience: Duration) -> Result<Keyspace, Error> {
    let begun = Instant::now();
    loop {
        let all = client.keyspaces().await?;
        if let Some(found) = all.into_iter().find(|keyspace| keyspace.id == id) {
            return Ok(found);
        }
        if begun.elapsed() >= patience {
            return Err(Error::NotFound(format!(
                "there is no keyspace {id}: create it first"
            )));
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

async fn work(client: Client, plan: Arc<Plan>, number: u64) {
    let mut random = Xorshift::of_worker(number);
    let options = CallOptions::timeout(Duration::from_secs_f64(plan.options.timeout));
    while let Some(start) = plan.pace.next(plan.end).await {
        let Some(requests) = plan.workload.next(&mut random) else {
            return;
        };
        let options = CallOptions {
            trace: plan.options.trace.of(&mut random),
            ..options
        };
        let calls = requests.into_iter().map(|request| client.call(request, options));
        let found = all_found(calls.collect()).await;
        let ended = Instant::now();
        let failed = found.is_err();
        plan.tally().count(start, ended, found);
        if failed && matches!(plan.pace, Pace::Closed) {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

/// Waits for the responses to all requests of an operation, and returns whether its reads found values.
async fn all_found(calls: Vec<Call>) -> Result<bool, Error> {
    let mut found = Ok(true);
    for call in calls {
        let answer = call.await.result.map(|response| has_found(&response));
        found = match (found, answer) {
            (Ok(before), Ok(now)) => Ok(before && now),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        };
    }
    found
}

fn has_found(response: &Response) -> bool {
    match response {
        Response::Entry(entry) => !entry.versions.is_empty(),
        Response::Records { records, .. } => records.iter().all(Option::is_some),
        _ => true,
    }
}

impl Plan {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> f64 {
        if self.options.operation == Operation::Load {
            return self.workload.loaded();
        }
        let whole = (self.end - self.begun).as_secs_f64();
        (self.begun.elapsed().as_secs_f64() / whole).min(1.0)
    }
}

/// A run on a separate thread and runtime, like the generator for other systems. It ends when this is dropped.
pub struct Run {
    report: Option<oneshot::Receiver<Result<Report, Error>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    plan: Arc<OnceLock<Arc<Plan>>>,
}

impl Run {
    /// Starts to measure.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if no thread can be started.
    pub fn start(endpoints: Vec<String>, options: Options) -> Result<Run, Error> {
        let (done, report) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let plan = Arc::new(OnceLock::new());
        let watch = Arc::clone(&plan);
        let measure = move || {
            // A receiver that is gone was dropped or interrupted.
            let _gone = done.send(run_blocking(endpoints, options, &watch, stopped));
        };
        let thread = std::thread::Builder::new()
            .name("quorate-bench".to_owned())
            .spawn(measure)
            .map_err(|error| Error::Overloaded(format!("no thread for the benchmark: {error}")))?;
        Ok(Run {
            report: Some(report),
            stop: Some(stop),
            thread: Some(thread),
            plan,
        })
    }

    /// Waits for the report. Cancel-safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// Like [`run`]; [`Error::Closed`] after [`Run::stop`], and if the report was already returned.
    pub async fn report(&mut self) -> Result<Report, Error> {
        let closed = || Error::Closed("the benchmark has ended without a report".to_owned());
        let report = self.report.as_mut().ok_or_else(closed)?.await;
        self.report = None;
        report.map_err(|_| closed())?
    }

    /// The progress of the run, from 0 to 1.
    pub fn progress(&self) -> f64 {
        self.plan.get().map_or(0.0, |plan| plan.progress())
    }

    /// Stops the run. When this returns its connections are closed, and nothing more is sent.
    pub fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported, and has left no report.
            let _ended = thread.join();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run_blocking(
    endpoints: Vec<String>,
    options: Options,
    watch: &OnceLock<Arc<Plan>>,
    stopped: oneshot::Receiver<()>,
) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Overloaded(format!("no runtime for the benchmark: {error}")))?;
    runtime.block_on(async {
        tokio::select! {
            report = watched(endpoints, options, watch) => report,
            _ = stopped => Err(Error::Closed("the benchmark was stopped".to_owned())),
        }
    })
}
