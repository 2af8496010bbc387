//! The text of events in transcripts.

use std::ops::Range;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::store::Table;
use quorate_core::store::contents::Contents;
use quorate_core::time::Instant;
use quorate_protocol::api::{Record, Response, View};
use quorate_protocol::message::Message;
use quorate_raft::format;
use quorate_raft::types::GroupId;
use quorate_role_testing::{Envelope, Output};

use super::{Cluster, Consensus as _, TraceEvent};
use crate::rows::{self, InitialKey, Marker};

/// Each member of a group.
pub(in crate::shard) fn state(cluster: &Cluster, group: GroupId) -> String {
    let line = |node| {
        let files = cluster.nodes[&node].disk.store.files();
        let Some(shard) = cluster.shard(node, group) else {
            let (_, known) = cluster.keyspace().group(group)?;
            return known.members.contains(&node).then(|| format!("{node} down"));
        };
        let claim = shard.claim(Instant(cluster.now));
        let leader = claim
            .leader
            .map_or("unknown".to_owned(), |leader| leader.to_string());
        let mut line = format!(
            "{node} {} in t{}, leader {leader}, commit {} applied {} last {}",
            claim.state.name(),
            claim.term,
            claim.commit,
            claim.applied,
            claim.last
        );
        if let Some(raft) = shard.raft()
            && raft.log().base().index.0 > 0
        {
            line += &format!(", log from {}", raft.log().base().index.next());
        }
        if !files.is_empty() {
            line += &format!(", files {files:?}");
        }
        if let Some(problem) = claim.problem {
            line += &format!(": {problem}");
        }
        Some(line)
    };
    cluster
        .names()
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A group's rows on a disk.
pub(in crate::shard) fn rows(contents: &Contents, group: GroupId) -> String {
    let mut lines = Vec::new();
    lines.push(match contents.value(Table::Groups, &rows::marker_key(group)) {
        Some(bytes) => {
            let marker: Marker = format::decode("marker", bytes).expect("a marker");
            format!("applied {}", marker.applied)
        }
        None => "no marker".to_owned(),
    });
    let initial_rows = rows::initial_rows(group);
    for (row, _) in within(contents, &initial_rows) {
        if let Ok(InitialKey::Session(session)) = rows::decode_initial_key(row) {
            lines.push(format!("session s{}", session.0));
        }
    }
    for (row, value) in within(contents, &rows::records(group, None, None)) {
        let key = rows::decode_record_key(row).expect("a key");
        let record = rows::decode_record(value).expect("a record");
        lines.push(format!("{key} {}", show_record(&Some(record))));
    }
    for (row, value) in within(contents, &rows::entries(group, 0)) {
        let entry = rows::decode_entry(row, value).expect("an entry");
        lines.push(format!("entry {} {:?}", entry.id, entry.data));
    }
    lines.join("\n")
}

/// The rows of a range.
pub(in crate::shard) fn within<'a>(
    contents: &'a Contents,
    range: &Range<Bytes>,
) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
    let rows = contents.rows_from(Table::Groups, &range.start);
    rows.take_while(move |(key, _)| **key < range.end)
}

/// A message between nodes, if enabled.
pub(in crate::shard) fn envelope(sent: &Envelope) -> Option<String> {
    let (from, to) = sent.pair();
    let text = match sent.message.content.message()? {
        Message::Forward(_) => "Forward".to_owned(),
        Message::Forwarded(result) => format!("Forwarded {}", answer(result)),
        Message::Redirect { leader: Some(leader) } => format!("Redirect to {leader}"),
        Message::Redirect { leader: None } => "Redirect without a leader".to_owned(),
        _ => return None,
    };
    Some(format!("{from} -> {to} {text}"))
}

/// A line for an event of the transcript.
pub(in crate::shard) fn trace(event: &TraceEvent, messages: bool) -> Option<String> {
    Some(match event {
        TraceEvent::Delivered(sent) if messages => return envelope(sent),
        TraceEvent::Output(_, Output::Reply(operation, result)) => {
            format!("op{operation} {}", answer(result))
        }
        TraceEvent::Output(node, Output::Emitted(event)) => format!("{node} event {event:?}"),
        _ => return None,
    })
}

fn show_record(record: &Option<Record>) -> String {
    match record {
        Some(record) => format!("{:?}@{}", record.value, record.version),
        None => "absent".to_owned(),
    }
}

fn show_view(view: &View) -> String {
    let age = match view.staleness_micros {
        Some(0) => String::new(),
        Some(micros) => format!(", at most {micros} us old"),
        None => ", of unknown age".to_owned(),
    };
    format!("(by {}, applied {}{age})", view.node, view.applied)
}

fn answer(result: &Result<Response, Error>) -> String {
    match result {
        Err(error) => format!("{}: {error}", error.name()),
        Ok(Response::Committed(committed)) => format!(
            "done at {}@t{} by {}",
            committed.index, committed.term, committed.leader
        ),
        Ok(Response::SessionOpened { session, .. }) => format!("session s{session}"),
        Ok(Response::Records { records, view }) => {
            let records: Vec<String> = records.iter().map(show_record).collect();
            format!("{} {}", records.join(", "), show_view(view))
        }
        Ok(Response::RecordPage { entries, next, view }) => {
            let record =
                |(key, record): &(_, Record)| format!("{key} {}", show_record(&Some(record.clone())));
            let entries: Vec<String> = entries.iter().map(record).collect();
            let more = next
                .as_ref()
                .map_or(String::new(), |key| format!(", more after {key}"));
            format!("[{}]{more} {}", entries.join(", "), show_view(view))
        }
        Ok(Response::LogPage { entries, next, view }) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| format!("{} {:?} of {:?}", entry.id, entry.data, entry.source))
                .collect();
            let more = next.map_or(String::new(), |id| format!(", more after {id}"));
            format!("[{}]{more} {}", entries.join(", "), show_view(view))
        }
        Ok(other) => format!("{other:?}"),
    }
}
