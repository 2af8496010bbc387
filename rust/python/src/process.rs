//! Values that belong to the process that created them.
//!
//! A forked child has a copy of its parent's memory and none of its threads. Objects with locks (a client, its calls,
//! the executor of an event loop) must not be used there, nor dropped: a thread that the child does not have may hold a
//! lock of theirs.

use std::process::id;

use quorate_core::error::Error;

/// A value that is used and dropped only by the process that created it.
pub(crate) struct OfProcess<T> {
    process: u32,
    /// Present until it is taken or dropped.
    value: Option<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        OfProcess {
            process: id(),
            value: Some(value),
        }
    }

    /// The value, unless this process was forked from the one that created it.
    ///
    /// # Errors
    /// [`Error::Closed`] in a forked child.
    pub(crate) fn here(&self) -> Result<&T, Error> {
        let value = self.value.as_ref().filter(|_| self.process == id());
        value.ok_or_else(|| self.elsewhere())
    }

    /// The same, taken.
    ///
    /// # Errors
    /// Like [`OfProcess::here`].
    pub(crate) fn take(mut self) -> Result<T, Error> {
        self.here()?;
        self.value.take().ok_or_else(|| self.elsewhere())
    }

    fn elsewhere(&self) -> Error {
        Error::Closed(format!(
            "this client belongs to process {}, from which this one was forked: connect again here",
            self.process
        ))
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.process != id() {
            std::mem::forget(self.value.take());
        }
    }
}
