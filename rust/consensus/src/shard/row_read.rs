//! The row reads in progress.

use std::collections::BTreeMap;

use quorate_core::error::Error;
use quorate_core::store::Rows;
use quorate_core::time::Instant;
use quorate_protocol::api::View;
use quorate_raft::event::ReadRequest;

/// A request whose rows are being read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowRead {
    pub(super) read: ReadRequest,
    pub(super) view: View,
    /// Everything acknowledged before this is in the answer, if anything is known.
    pub(super) since: Option<Instant>,
    /// By the index of the key in the request.
    pub(super) found: Vec<Option<Result<Rows, Error>>>,
    pub(super) left: usize,
}

/// The row reads in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// By request.
    pub(super) in_progress: BTreeMap<u64, RowRead>,
    /// The request and the index of its key.
    pub(super) tokens: BTreeMap<u64, (u64, usize)>,
    /// The number of requests that read several keys.
    pub(super) several: usize,
}

impl Reads {
    /// Whether rows must not change now.
    pub(super) fn pin_rows(&self) -> bool {
        self.several > 0
    }
}
