//! Every read of a shard shows a state that was committed, and not an older one than it claims.
//!
//! Whatever a read returns, stale or linearizable, several keys, a range or a page of the log of entries: there is one moment
//! at which the shard was like that, at or after the entry that the answer names, and everything up to that entry is
//! committed. Nothing that may yet be taken back is ever shown. A linearizable read also sees all that any client knew before
//! it was asked; that is checked here at once, and in full by [`super::linearizability`] at the end. A stale read may miss
//! that. It says how old it may be: everything is in it that was acknowledged longer before the answer left than that. This
//! holds whatever the network does, whoever was deposed and whoever slept, since it is counted from the sending of a question
//! that a quorum has confirmed (`rust/raft/src/staleness.rs`); so every claim is held against it, in trouble too. Only its clock may
//! go wrong, as a drifting one does, by a quarter at most.

use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::{LogEntry, ReadLevel, Record, Request, Response, View};
use quorate_raft::types::GroupId;

use crate::log_model::LogModel;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// So many microseconds may have passed, and a few more, while the server's clock shows this many.
fn most_micros(shown: u64) -> u64 {
    shown.saturating_add(shown / 4).saturating_add(CLOCK_GRAIN)
}

/// What the rounding of drifting clocks comes to.
const CLOCK_GRAIN: u64 = 10;

/// See the module's text.
pub(super) struct CommittedReads;

/// Whether these are the records of these keys after this entry.
fn are_records(log_model: &LogModel, index: u64, keys: &[Key], records: &[Option<Record>]) -> bool {
    let same = |(key, record): (&Key, &Option<Record>)| log_model.record_at(key, index) == record.as_ref();
    keys.len() == records.len() && keys.iter().zip(records).all(same)
}

/// Whether this is the first page of such a range after this entry.
fn is_page(
    log_model: &LogModel,
    index: u64,
    request: &Request,
    entries: &[(Key, Record)],
    more: bool,
) -> bool {
    let Request::ReadRange {
        start,
        end,
        after_start,
        limit,
        ..
    } = request
    else {
        return false;
    };
    let within = |key: &Key| {
        let begun = start
            .as_ref()
            .is_none_or(|start| key > start || !after_start && key == start);
        begun && end.as_ref().is_none_or(|end| key < end)
    };
    let mut all = log_model.records_at(index);
    all.retain(|key, _| within(key));
    let page = all
        .iter()
        .take(*limit as usize)
        .map(|(key, record)| (*key, *record));
    page.eq(entries.iter().map(|(key, record)| (key, record))) && more == (all.len() > *limit as usize)
}

/// Whether these are the first entries behind `after`, at the moment after this entry.
fn is_log(
    log_model: &LogModel,
    index: u64,
    after: u64,
    limit: u32,
    entries: &[LogEntry],
    more: bool,
) -> bool {
    let later = log_model.appended().iter().skip_while(|(id, _)| **id <= after);
    let all: Vec<&LogEntry> = later
        .take_while(|(id, _)| **id <= index)
        .map(|(_, entry)| entry)
        .collect();
    let limit = limit as usize;
    all.iter().take(limit).copied().eq(entries) && more == (all.len() > limit)
}

/// Whether a shard answers like this after this entry.
fn is_answer(log_model: &LogModel, index: u64, request: &Request, answer: &Response) -> bool {
    match (request, answer) {
        (Request::Read { keys, .. }, Response::Records { records, .. }) => {
            are_records(log_model, index, keys, records)
        }
        (Request::ReadRange { .. }, Response::RecordPage { entries, next, .. }) => {
            is_page(log_model, index, request, entries, next.is_some())
        }
        (Request::ReadLog { after, limit, .. }, Response::LogPage { entries, next, .. }) => {
            is_log(log_model, index, *after, *limit, entries, next.is_some())
        }
        _ => false,
    }
}

fn check(world: &World, group: GroupId, number: usize, view: View, level: ReadLevel) -> Result<(), String> {
    let operation = &world.history().operations()[number];
    let (Some((_, request)), Some(answer)) = (operation.shard_request(), operation.response()) else {
        return Ok(());
    };
    let nothing = LogModel::default();
    let log_model = world.log_models().get(group).unwrap_or(&nothing);
    if view.applied > log_model.last() {
        return Err(format!(
            "only {} entries are committed: {operation:?}",
            log_model.last()
        ));
    }
    if !(view.applied..=log_model.last()).any(|index| is_answer(log_model, index, request, answer)) {
        return Err(format!(
            "{group} was never like that from {} to {}: {operation:?}",
            view.applied,
            log_model.last()
        ));
    }
    // Up to when it claims to have seen everything.
    let since = match (level, view.staleness_micros) {
        (ReadLevel::Linearizable, Some(0)) => Some(operation.invoked),
        (ReadLevel::Linearizable, other) => {
            return Err(format!("a linearizable read is {other:?} us old: {operation:?}"));
        }
        // When the answer left nobody but the server knows: not before it was asked.
        (ReadLevel::Stale, Some(micros)) => {
            let since = operation.invoked.0.saturating_sub(most_micros(micros));
            Some(Instant(since))
        }
        (ReadLevel::Stale, None) => None,
    };
    let known = since.map_or(0, |since| world.history().known_before(group, since));
    if view.applied < known {
        return Err(format!(
            "entry {known} was known by then, and it has seen {}: {operation:?}",
            view.applied
        ));
    }
    Ok(())
}

impl Invariant<World> for CommittedReads {
    fn name(&self) -> &'static str {
        "reads of committed states"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Completed { operation } = observation else {
            return Ok(());
        };
        let number = operation;
        let operation = &world.history().operations()[number];
        let (Some((group, request)), Some(answer)) = (operation.shard_request(), operation.response()) else {
            return Ok(());
        };
        match (request.read_level(), answer.view()) {
            (Some(level), Some(view)) => check(world, group, number, view, level),
            (None, None) => Ok(()),
            _ => Err(format!("that is no answer to it: {operation:?}")),
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
