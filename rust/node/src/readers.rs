//! Reads of the store: rows by key inline, ranges on reader threads.
//!
//! A read by key is nearly always answered by the memtable or by pages in memory, in a microsecond or two; passing it to
//! a thread would cost more. A range may fault in pages for a long time, and must not delay a heartbeat.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows};
use quorate_protocol::role::Event;
use quorate_storage::error::{LOST_DIRECTORY, ReadError};
use quorate_storage::query;
use quorate_storage::store::Reader;

use crate::fatal::{Fatal, FatalError};
use crate::inbox::Mailbox;

/// The most concurrent range reads.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce(&ReadPort) + Send>;

/// Reads for roles.
#[derive(Clone)]
pub struct ReadPort {
    reader: Arc<dyn Reader>,
    /// The data directory, named in errors.
    directory: Arc<Path>,
    fatal: Fatal,
    jobs: Sender<Job>,
}

impl ReadPort {
    /// Starts the reader threads of the store in `directory`. They end when the last clone of the port is dropped.
    pub fn start(reader: Arc<dyn Reader>, directory: &Path, fatal: Fatal) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        // The threads hold a port without a sender to their own queue, so that the queue closes with the last other port.
        let (no_jobs, _) = channel();
        let threads_port = ReadPort {
            reader,
            directory: directory.into(),
            fatal,
            jobs: no_jobs,
        };
        for number in 0..THREADS {
            let (queue, port) = (Arc::clone(&queue), threads_port.clone());
            thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || work(&queue, &port))
                .expect("a thread can be started");
        }
        ReadPort { jobs, ..threads_port }
    }

    /// Answers a query inline. For quick queries only: [`Query::Get`] and [`Query::Hard`].
    ///
    /// # Errors
    /// [`Error::CorruptRecord`].
    pub fn now(&self, query: &Query) -> Result<Rows, Error> {
        query::answer(&*self.reader, query).map_err(|error| self.failed(&error))
    }

    /// Answers a query on a reader thread; the result is delivered to `mailbox` under `token`.
    pub fn later(&self, token: u64, query: Query, mailbox: Mailbox) {
        let job: Job = Box::new(move |port| {
            let result = port.now(&query);
            mailbox.push([Event::Read { token, result }]);
        });
        // The threads live as long as this port.
        self.jobs.send(job).expect("reader threads");
    }

    /// The reader of the store.
    pub fn store(&self) -> &Arc<dyn Reader> {
        &self.reader
    }

    fn failed(&self, error: &ReadError) -> Error {
        let record = error.to_string();
        if matches!(error, ReadError::Failed(_)) {
            self.fatal.raise(FatalError::Storage(record.clone()));
        }
        Error::CorruptRecord(format!(
            "data directory {}: {record}: {LOST_DIRECTORY}",
            self.directory.display()
        ))
    }
}

fn work(queue: &Mutex<Receiver<Job>>, port: &ReadPort) {
    loop {
        let job = queue.lock().expect("reader queue").recv();
        match job {
            Ok(job) => job(port),
            Err(_) => return,
        }
    }
}
