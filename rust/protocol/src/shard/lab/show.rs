//! How what happens is shown in transcripts.

use super::disk::{Disk, within};
use super::{Happening, Lab};
use crate::api::{Record, Response, View};
use crate::error::Error;
use crate::message::Message;
use crate::raft::format;
use crate::raft::types::GroupId;
use crate::shard::rows::{self, Marker};

/// Each member of a group.
pub(in crate::shard) fn state(lab: &Lab, group: GroupId) -> String {
    let line = |node| {
        let files = lab.machines[&node].disk.files();
        let Some(shard) = lab.shard(node, group) else {
            let (_, known) = lab.keyspace.group(group)?;
            return known.members.contains(&node).then(|| format!("{node} down"));
        };
        let claim = shard.claim(lab.now);
        let leader = claim
            .leader
            .map_or("nobody".to_owned(), |leader| leader.to_string());
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
    lab.nodes()
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A group's rows on a disk, as they are read.
pub(in crate::shard) fn rows(disk: &Disk, group: GroupId) -> String {
    let table = disk.table(false);
    let mut lines = Vec::new();
    lines.push(match table.get(&rows::marker_key(group)) {
        Some(bytes) => {
            let marker: Marker = format::decode("marker", bytes).expect("a marker");
            format!("applied {}", marker.applied)
        }
        None => "no marker".to_owned(),
    });
    let beginning = rows::beginning(group);
    for (row, _) in within(table, beginning) {
        if let Ok(Some(session)) = rows::decode_session_key(row) {
            lines.push(format!("session s{}", session.0));
        }
    }
    for (row, value) in within(table, rows::records(group, None, None)) {
        let key = rows::decode_record_key(row).expect("a key");
        let record = rows::decode_record(value).expect("a record");
        lines.push(format!("{key} {}", show_record(&Some(record))));
    }
    for (row, value) in within(table, rows::entries(group, 0)) {
        let entry = rows::decode_entry(row, value).expect("an entry");
        lines.push(format!("entry {} {:?}", entry.id, entry.data));
    }
    lines.join("\n")
}

/// A line for what a person would want to see.
pub(in crate::shard) fn happening(happening: &Happening, messages: bool) -> Option<String> {
    Some(match happening {
        Happening::Delivered(from, to, message) if messages => {
            let text = match message {
                Message::Forward(_) => "Forward".to_owned(),
                Message::Forwarded(result) => format!("Forwarded {}", answer(result)),
                Message::Redirect { leader: Some(leader) } => format!("Redirect to {leader}"),
                Message::Redirect { leader: None } => "Redirect to nobody".to_owned(),
                _ => return None,
            };
            format!("{} -> {} {text}", from.node, to.node)
        }
        Happening::Delivered(..) => return None,
        Happening::Reply(operation, result) => format!("op{operation} {}", answer(result)),
        Happening::Emitted(node, event) => format!("{node} event {event:?}"),
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
