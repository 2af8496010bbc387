//! The properties of a response: its size, and the leader that it implies.

use quorate_core::error::Error;
use quorate_core::ids::NodeId;

use crate::api::{Entry, GroupClaim, LogEntry, PeerStatus, Record, Response, Status, View, Written};
use crate::faults::LinkFault;
use crate::telemetry::{Occurrence, Span};

/// The size of a list: the variable part of each item, and the items themselves.
fn list<T>(items: &[T], bytes: impl Fn(&T) -> usize) -> usize {
    items.iter().map(bytes).sum::<usize>() + size_of_val(items)
}

fn entry(entry: &Entry) -> usize {
    let versions = list(&entry.versions, |version| version.value.len());
    versions + entry.context.size() + size_of_val(&entry.answered[..])
}

fn written(written: &Written) -> usize {
    written.context.size() + size_of_val(&written.acked[..])
}

fn either<T>(result: &Result<T, Error>, bytes: impl Fn(&T) -> usize) -> usize {
    result.as_ref().map_or_else(Error::size, bytes)
}

fn record(record: &Record) -> usize {
    record.value.len()
}

fn log_entry(entry: &LogEntry) -> usize {
    entry.source.len() + entry.data.len()
}

fn claim(claim: &GroupClaim) -> usize {
    let nodes = claim.voters.len() + claim.learners.len();
    claim.name.len()
        + claim.problem.as_ref().map_or(0, String::len)
        + nodes * size_of::<NodeId>()
        + size_of_val(&claim.lag[..])
}

fn status(status: &Status) -> usize {
    let Status {
        version,
        peers,
        keyspaces,
        data_directory,
        storage,
        ..
    } = status;
    version.len()
        + data_directory.len()
        + peers.len() * size_of::<PeerStatus>()
        + list(keyspaces, String::len)
        + storage.full.as_ref().map_or(0, String::len)
        + list(&storage.environments, |environment| environment.name.len())
}

/// Names and reasons are short; the other variable parts of an event are bounded.
const TEXTS: usize = 256;

fn span(span: &Span) -> usize {
    let attributes = list(&span.attributes, |(name, value)| name.len() + value.len());
    span.name.len() + span.error.as_ref().map_or(0, String::len) + attributes
}

impl Response {
    /// About its size in memory besides the struct, in bytes; no less than the encoded size of its variable-length parts.
    pub fn bytes(&self) -> usize {
        match self {
            Response::Written(done) => written(done),
            Response::WrittenMany(all) => list(all, |result| either(result, written)),
            Response::Entries(all) => list(all, |result| either(result, entry)),
            Response::Entry(found) => entry(found),
            Response::Page(page) => {
                let next = page.next.as_ref().map_or(0, quorate_core::key::Key::size);
                list(&page.entries, |(key, found)| key.size() + entry(found)) + next
            }
            Response::Keyspace { keyspace, .. } => keyspace.size(),
            Response::Keyspaces(keyspaces) => list(keyspaces, crate::keyspace::Keyspace::size),
            Response::Topology(known) => known.size(),
            Response::Membership(membership) => {
                let nodes = membership.voters.len() + membership.learners.len();
                membership.topology.size() + nodes * size_of::<NodeId>()
            }
            Response::Status(report) => status(report),
            Response::Events(events) => events.len() * (size_of::<Occurrence>() + TEXTS),
            Response::Spans(spans) => list(spans, span),
            Response::Metrics(text) => text.len(),
            Response::Groups(claims) => list(claims, claim),
            Response::Records { records, .. } => list(records, |found| found.as_ref().map_or(0, record)),
            Response::RecordPage { entries, next, .. } => {
                let next = next.as_ref().map_or(0, quorate_core::key::Key::size);
                list(entries, |(key, found)| key.size() + record(found)) + next
            }
            Response::LogPage { entries, .. } => list(entries, log_entry),
            Response::Faults(faults) => list(faults, LinkFault::size),
            Response::Committed(_) | Response::SessionOpened { .. } | Response::Done => 0,
        }
    }

    /// The state that a read of a Raft group has seen; `None` for other responses.
    pub fn view(&self) -> Option<View> {
        match self {
            Response::Records { view, .. }
            | Response::RecordPage { view, .. }
            | Response::LogPage { view, .. } => Some(*view),
            Response::Written(_)
            | Response::Entry(_)
            | Response::WrittenMany(_)
            | Response::Entries(_)
            | Response::Page(_)
            | Response::Keyspace { .. }
            | Response::Keyspaces(_)
            | Response::Topology(_)
            | Response::Membership(_)
            | Response::Status(_)
            | Response::Events(_)
            | Response::Spans(_)
            | Response::Metrics(_)
            | Response::Groups(_)
            | Response::Committed(_)
            | Response::SessionOpened { .. }
            | Response::Faults(_)
            | Response::Done => None,
        }
    }

    /// The leader of the Raft group that responded, if the response proves that it led when it was sent.
    pub fn leader(&self) -> Option<NodeId> {
        match self {
            Response::Committed(committed) => Some(committed.leader),
            Response::SessionOpened { leader, .. } => Some(*leader),
            other => {
                let view = other.view()?;
                view.leader.filter(|_| view.staleness_micros == Some(0))
            }
        }
    }
}
