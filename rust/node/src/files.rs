//! The files of rows, wired to the roles.

use std::path::Path;
use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::files::FileTask;
use quorate_protocol::role::Event;
use quorate_storage::files::{FileError, FileThreads};

use crate::fatal::{Fatal, FatalError};
use crate::inbox::Mailbox;
use crate::shell::FilePort;

/// Performs the tasks of roles on the store's files.
pub struct Files {
    threads: FileThreads,
    /// The data directory, named in errors.
    directory: Arc<Path>,
    fatal: Fatal,
}

impl Files {
    /// The files in `directory`. Dropping this ends their threads.
    pub fn new(threads: FileThreads, directory: &Path, fatal: Fatal) -> Self {
        Files {
            threads,
            directory: directory.into(),
            fatal,
        }
    }
}

impl FilePort for Files {
    fn perform(&self, token: u64, task: FileTask, mailbox: Mailbox) {
        let (directory, fatal) = (Arc::clone(&self.directory), self.fatal.clone());
        let on_answer = move |answer: Result<_, FileError>| match answer {
            Ok(done) => mailbox.push([Event::Files {
                token,
                result: Ok(done),
            }]),
            Err(FileError::Failed(why)) => fatal.raise(FatalError::Storage(why)),
            Err(error) => {
                let error = error.to_role_error().map(|error| named(error, &directory));
                mailbox.push(error.map(|error| Event::Files {
                    token,
                    result: Err(error),
                }));
            }
        };
        self.threads.submit(task, Box::new(on_answer));
    }
}

/// Names the data directory in an error: the store does not know it.
fn named(error: Error, directory: &Path) -> Error {
    let name = |text| format!("data directory {}: {text}", directory.display());
    match error {
        Error::NotFound(text) => Error::NotFound(name(text)),
        Error::StorageFull(text) => Error::StorageFull(name(text)),
        Error::CorruptRecord(text) => Error::CorruptRecord(name(text)),
        other => other,
    }
}
