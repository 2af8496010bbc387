//! The log: one file per node, written by its own thread so that a slow disk does not delay actors.

use std::fs::OpenOptions;
use std::io;

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use quorate_otlp::Exporter;

use crate::config::{LogConfig, LogFormat};

/// Keeps the log open; dropping it writes what is queued.
#[must_use]
pub struct LogGuard(#[allow(dead_code, reason = "held for its drop")] WorkerGuard);

/// Installs the log for this process; with an exporter, spans of the `tracing` macros are exported. Further calls in one
/// process keep the first log.
///
/// # Errors
/// When the file cannot be opened for appending, or the level is invalid; the error names it.
pub fn install(config: &LogConfig, exporter: Option<&Exporter>) -> io::Result<LogGuard> {
    let (writer, guard) = match &config.file {
        Some(path) => {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(|error| named("create", directory, &error))?;
            }
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| named("open", path, &error))?;
            tracing_appender::non_blocking(file)
        }
        None => tracing_appender::non_blocking(io::stderr()),
    };
    subscribe(config, writer, exporter)?;
    Ok(LogGuard(guard))
}

fn subscribe(config: &LogConfig, writer: NonBlocking, exporter: Option<&Exporter>) -> io::Result<()> {
    // The actor runtime opens a span per actor and logs each of its steps at debug: useful only to its authors.
    let directives = format!("ractor=warn,ractor_cluster=warn,{}", config.level);
    let filter = EnvFilter::builder().parse(directives).map_err(io::Error::other)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    let lines = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // An error means that a log is installed already: several nodes in one process, as in tests, share it.
    let _installed_before = tracing_subscriber::registry()
        .with(filter)
        .with(exporter.map(Exporter::layer))
        .with(lines)
        .try_init();
    Ok(())
}

fn named(action: &str, path: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action} {}: {error}", path.display()))
}
