//! Every read of a shard shows a committed state, which is not older than it claims.
//!
//! For the result of any read, stale or linearizable, of several keys, a range or a page of the log of entries, there is one
//! state of the shard that it shows, at or after the entry that the response names, and all entries up to that entry are
//! committed. A linearizable read also sees everything that any client had observed before it was invoked; that is checked
//! here immediately, and completely by [`super::linearizability`] at the end. A stale read may miss that, but states its
//! staleness: it includes everything acknowledged earlier than that before the response was sent. This holds under all
//! partitions, depositions and pauses, since staleness is measured from the sending of a heartbeat that a quorum has
//! confirmed (`rust/raft/src/staleness.rs`); so every claim is checked, also during the nemesis. Only a drifting clock may
//! distort it, by a quarter at most.

use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::{LogEntry, ReadLevel, Record, Request, Response, View};
use quorate_raft::types::GroupId;

use crate::log_model::LogModel;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// The most microseconds that may have passed while the server's clock shows this many.
fn most_micros(shown: u64) -> u64 {
    shown.saturating_add(shown / 4).saturating_add(CLOCK_GRAIN)
}

/// The rounding error of drifting clocks.
const CLOCK_GRAIN: u64 = 10;

/// See the module documentation.
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

/// Whether these are the first entries after `after`, in the state after this entry.
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

/// Whether this is the response of a shard after this entry.
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
            "{group} never had that state from {} to {}: {operation:?}",
            view.applied,
            log_model.last()
        ));
    }
    // The time up to which it claims to include everything.
    let since = match (level, view.staleness_micros) {
        (ReadLevel::Linearizable, Some(0)) => Some(operation.invoked),
        (ReadLevel::Linearizable, other) => {
            return Err(format!(
                "a linearizable read claims a staleness of {other:?} us: {operation:?}"
            ));
        }
        // Only the server knows when the response was sent: not before the invocation.
        (ReadLevel::Stale, Some(micros)) => {
            let since = operation.invoked.0.saturating_sub(most_micros(micros));
            Some(Instant(since))
        }
        (ReadLevel::Stale, None) => None,
    };
    let known = since.map_or(0, |since| world.history().known_before(group, since));
    if view.applied < known {
        return Err(format!(
            "entry {known} had been observed by then, but the read includes only {}: {operation:?}",
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
            _ => Err(format!("unexpected response type: {operation:?}")),
        }
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
