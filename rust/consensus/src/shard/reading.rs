//! The reads of rows that are under way.

use std::collections::BTreeMap;

use quorate_core::error::Error;
use quorate_core::store::Rows;
use quorate_core::time::Instant;
use quorate_protocol::api::View;
use quorate_raft::event::ReadRequest;

/// A request whose rows are being read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) question: ReadRequest,
    pub(super) view: View,
    /// Everything that was acknowledged before this is in it, if anything is known.
    pub(super) since: Option<Instant>,
    /// By place among the request's keys.
    pub(super) found: Vec<Option<Result<Rows, Error>>>,
    pub(super) left: usize,
}

/// The reads that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    /// By request.
    pub(super) readings: BTreeMap<u64, Reading>,
    /// Whose row, and which of its keys.
    pub(super) tokens: BTreeMap<u64, (u64, usize)>,
    /// How many requests read several keys.
    pub(super) several: usize,
}

impl Reads {
    /// Whether rows must stay as they are for now.
    pub(super) fn must_not_be_disturbed(&self) -> bool {
        self.several > 0
    }
}
