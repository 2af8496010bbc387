//! The progress of an operation. (A file of its own, since `operation` imports reads, scans and writes.)

use quorate_core::error::Error;
use quorate_protocol::api::Response;

/// The effect of an event on an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    /// The operation waits for more responses.
    Pending,
    /// Respond and remove the operation.
    Done(Result<Response, Error>),
    /// Respond, but keep the operation.
    Answered(Result<Response, Error>),
    /// Remove the operation; it was answered before.
    Finished,
}
