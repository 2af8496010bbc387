//! How far a request of a coordinator is.

use quorate_core::error::Error;
use quorate_protocol::api::Response;

/// What handling an event made of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    /// It goes on.
    Waiting,
    /// Answer, and forget it.
    Done(Result<Response, Error>),
    /// Answer, but go on.
    Answered(Result<Response, Error>),
    /// Nothing left to do; it was answered before.
    Over,
}
