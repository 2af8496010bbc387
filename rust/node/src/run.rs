//! The node program, from its configuration to its exit status.
//!
//! # Protocol with the parent
//! 1. One JSON line on the standard output reports the bound addresses: `{"ready":false,"bound":{...}}`.
//! 2. With `parent_pipe` and no members in the configuration, one JSON line is read from the standard input: the list
//!    of members, `[{"id":1,"peer":"127.0.0.1:4711","client":...,"http":...,"rack":"","datacenter":""}, ...]`.
//! 3. `{"ready":true,"node":1,"boot":"..."}` reports that the node serves requests.
//! 4. With `forming`, the parent sends one JSON line when the whole cluster is ready, `{"formed":true}`; the node makes that
//!    durable, answers with the same line, and accepts keyspaces.
//!
//! Instead of any of these lines, `{"error":NAME,"message":...}` reports why the node cannot start.
//!
//! # Exit status
//! | status | why |
//! |---|---|
//! | 0 | SIGTERM, SIGINT, or (with `parent_pipe`) the standard input was closed: graceful stop |
//! | 1 | could not start; the reason is on both streams |
//! | 70 | fatal error: a role broke an invariant, or the store failed; the reason is on stderr, and in the log |

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::ids::BootId;
use quorate_core::threads::try_threads;
use quorate_otlp::Exporter;
use quorate_protocol::topology::Topology;
use quorate_storage::error::LOST_DIRECTORY;
use quorate_storage::map_fault::{self, FaultMessage};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::Instrument;

use crate::clock::Clock;
use crate::config::{ConfigError, NodeConfig};
use crate::fatal::{EXIT_FATAL, Fatal};
use crate::listeners::Listeners;
use crate::node::{HttpServer, Node, NodeArguments, Opened, random};
use crate::parent_pipe::{Line, ParentPipe, reports_formed, stderr_line};
use crate::role_actor::panic_text;
use crate::start_error::StartError;
use crate::telemetry::log::{self, LogGuard};

/// The exit status of a node that could not start.
const EXIT_START: i32 = 1;
/// The timeout of a graceful stop.
const STOP: Duration = Duration::from_secs(5);

/// Runs a node until it is stopped; returns the exit status for the process. `config` is JSON or TOML, see
/// [`crate::config`].
pub fn run(config: &str, http: Arc<dyn HttpServer>) -> i32 {
    let clock = Arc::new(Clock::start());
    match start_and_wait(config, http, clock) {
        Ok(()) => 0,
        Err(error) => {
            Line::print_error(&error);
            EXIT_START
        }
    }
}

fn start_and_wait(text: &str, http: Arc<dyn HttpServer>, clock: Arc<Clock>) -> Result<(), StartError> {
    let config = Arc::new(NodeConfig::parse(text)?);
    let instance = config.node.to_string();
    let exporter = Exporter::from_environment("quorate-node", &[("service.instance.id", &instance)])
        .map_err(ConfigError)?;
    // The log writer and the runtime panic if they get no thread; threads started later report errors themselves.
    try_threads(config.worker_threads + 2).map_err(StartError::system("start a thread"))?;
    let log: SharedLog = Arc::new(Mutex::new(Some(
        log::install(&config.log, exporter.as_ref()).map_err(StartError::system("open the log"))?,
    )));
    log_panics();
    set_map_fault_message(&config.data_dir, true)?;
    tracing::info!(node = %config.node, cluster = config.cluster_name, data = %config.data_dir.display(), "starting");
    let runtime = runtime(config.worker_threads)?;
    let ready = Arc::<AtomicBool>::default();
    let fatal = exit_on_fatal(&log, &ready);
    let result = runtime.block_on(run_node(
        Arc::clone(&config),
        http,
        clock,
        fatal,
        exporter,
        &ready,
    ));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "the node cannot start"),
    }
    result
}

/// Logs panics with their location. The code that catches a panic reports its consequence on stderr.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, reason = panic_text(panic.payload()), "panic");
    }));
}

/// Sets the message for a fault of a mapped data file, while the node is `starting` or later.
fn set_map_fault_message(directory: &Path, starting: bool) -> Result<(), StartError> {
    let message = format!(
        "a file of data directory {} is damaged or was cut short: {LOST_DIRECTORY}",
        directory.display()
    );
    let (report, stderr_line) = Line::of_error("Corrupt", &message);
    let stderr = (libc::STDERR_FILENO, stderr_line);
    let message = if starting {
        FaultMessage {
            texts: vec![(libc::STDOUT_FILENO, report), stderr],
            status: EXIT_START,
        }
    } else {
        FaultMessage {
            texts: vec![stderr],
            status: EXIT_FATAL,
        }
    };
    map_fault::install(message).map_err(StartError::system("install a signal handler"))
}

type SharedLog = Arc<Mutex<Option<LogGuard>>>;

/// With one worker, the main thread runs all tasks.
fn runtime(workers: usize) -> Result<Runtime, StartError> {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(StartError::system("start the runtime"))
}

/// Ends the process immediately; the log is flushed first. Before the node is ready, the error is a failure to start.
fn exit_on_fatal(log: &SharedLog, ready: &Arc<AtomicBool>) -> Fatal {
    let (log, ready) = (Arc::clone(log), Arc::clone(ready));
    Fatal::new(move |error| {
        let status = if ready.load(Ordering::Acquire) {
            eprint!("{}", stderr_line(&error.to_string()));
            EXIT_FATAL
        } else {
            Line::print_error(&StartError::Fatal(error.to_string()));
            EXIT_START
        };
        // Dropping the guard flushes the log, unless another thread is doing so.
        drop(log.lock().map(|mut log| log.take()));
        std::process::exit(status);
    })
}

async fn run_node(
    config: Arc<NodeConfig>,
    http: Arc<dyn HttpServer>,
    clock: Arc<Clock>,
    fatal: Fatal,
    exporter: Option<Exporter>,
    ready: &AtomicBool,
) -> Result<(), StartError> {
    let mut signals = Signals::install()?;
    let listeners = Listeners::open(&config.listen)?;
    let bound = listeners.bound()?;
    let mut parent = config.parent_pipe.then(ParentPipe::open).transpose()?;
    Line::Bound { ready: false, bound }.print();
    phase(&clock, "bound");
    // Concurrently, the parent collects the ports of all nodes.
    let (stopping, done) = (AtomicBool::new(false), Notify::new());
    let opening = async {
        let wanted = || !stopping.load(Ordering::Relaxed);
        let opened = Opened::open_with_retries(&config, &clock, wanted).await;
        done.notify_one();
        opened
    };
    let members = async {
        let both = async {
            let topology = topology(&config, parent.as_mut()).await?;
            done.notified().await;
            Ok::<_, StartError>(topology)
        };
        tokio::select! {
            topology = both => topology.map(Some),
            () = signals.stop() => {
                stopping.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    };
    let (opened, topology) = tokio::try_join!(opening, members)?;
    phase(&clock, "store opened, members known");
    let (Some(opened), Some(topology)) = (opened, topology) else {
        return Ok(());
    };
    let boot = BootId(random()?);
    let arguments = NodeArguments {
        config: Arc::clone(&config),
        topology,
        opened,
        listeners,
        clock: Arc::clone(&clock),
        boot,
        http,
        fatal,
        exporter,
    };
    let node = Node::start(arguments)
        .instrument(tracing::info_span!("node.start"))
        .await?;
    ready.store(true, Ordering::Release);
    set_map_fault_message(&config.data_dir, false)?;
    phase(&clock, "ready");
    Line::Ready {
        ready: true,
        node: config.node.0,
        boot: &format!("{:016x}", boot.0),
    }
    .print();
    let result = serve(&node, &mut signals, parent.as_mut()).await;
    if tokio::time::timeout(STOP, node.stop()).await.is_err() {
        tracing::warn!("the graceful stop timed out");
    }
    result
}

/// Handles lines from the parent until the node is stopped.
async fn serve(
    node: &Node,
    signals: &mut Signals,
    mut parent: Option<&mut ParentPipe>,
) -> Result<(), StartError> {
    loop {
        let line = tokio::select! {
            () = signals.stop() => {
                tracing::info!("received a signal to stop");
                return Ok(());
            }
            line = next_line(parent.as_deref_mut()) => line,
        };
        match line {
            None => {
                tracing::info!("the parent closed the pipe");
                return Ok(());
            }
            Some(line) if reports_formed(&line) => {
                node.form().await?;
                Line::Formed { formed: true }.print();
            }
            Some(line) => tracing::warn!(line, "unknown line from the parent"),
        }
    }
}

async fn topology(config: &NodeConfig, parent: Option<&mut ParentPipe>) -> Result<Topology, StartError> {
    let members = match (&config.members, parent) {
        (Some(members), _) => members.clone(),
        (None, Some(parent)) => NodeConfig::parse_members(&parent.members().await?)?,
        (None, None) => return Err(ConfigError("members is missing: list the members".to_owned()).into()),
    };
    Ok(config.topology(members)?)
}

async fn next_line(parent: Option<&mut ParentPipe>) -> Option<String> {
    match parent {
        Some(parent) => parent.line().await,
        None => std::future::pending().await,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, StartError> {
        let install = |kind| signal(kind).map_err(StartError::system("install a signal handler"));
        Ok(Signals {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn phase(clock: &Clock, name: &str) {
    tracing::debug!(
        milliseconds = clock.instant().0 as f64 / 1_000.0,
        "start-up: {name}"
    );
}
