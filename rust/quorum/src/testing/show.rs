//! Formats messages, states and responses for transcripts.

use quorate_core::error::Error;
use quorate_core::ids::ReplicaId;
use quorate_core::key::decode_record_key;
use quorate_core::store::{JournalOp, StateWrite, Table};
use quorate_protocol::api::{Entry, Request, Response};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::local::LocalMessage;
use quorate_protocol::message::Message;
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_role_testing::{Content, Envelope, Output};
use quorate_testing::Loss;
use quorate_versions::{Dot, KeyState, Reservation, Sibling, VersionVector};

use super::TraceEvent;

/// `{n1: 2} a@n1:1 b@n1:2`, or `{n1#d9bb: 2, n1#445e: 1} a@n1#445e:1` for a node that has had several replica ids.
pub(crate) fn state(state: &KeyState) -> String {
    let names = state.clock();
    let siblings = state.siblings().iter().map(|one| sibling(one, names));
    let siblings: Vec<String> = siblings.collect();
    format!("{{{}}} {}", clock(names), siblings.join(" "))
        .trim_end()
        .to_owned()
}

fn clock(clock: &VersionVector) -> String {
    let dots = clock.iter();
    let dots = dots.map(|dot| format!("{}: {}", name(dot.replica, clock), dot.counter));
    dots.collect::<Vec<_>>().join(", ")
}

fn sibling(sibling: &Sibling, names: &VersionVector) -> String {
    let value = match &sibling.value {
        Some(value) => text(value),
        None => "(deleted)".to_owned(),
    };
    format!("{value}@{}", dot(sibling.dot, names))
}

fn dot(dot: Dot, names: &VersionVector) -> String {
    format!("{}:{}", name(dot.replica, names), dot.counter)
}

/// The node, with the beginning of the id if its node has several ids among `names`.
fn name(replica: ReplicaId, names: &VersionVector) -> String {
    let node = replica.node();
    let ids = names.iter().filter(|dot| dot.replica.node() == node);
    match ids.count() {
        0 | 1 => node.to_string(),
        _ => format!("{node}#{:04x}", replica.0 >> 32 & 0xffff),
    }
}

/// A value, or the length of a long one.
fn text(value: &[u8]) -> String {
    match value.len() {
        0..=32 => String::from_utf8_lossy(value).into_owned(),
        length => format!("({length} bytes)"),
    }
}

pub(crate) fn envelope(envelope: &Envelope) -> String {
    let (from, to) = (envelope.from.node, envelope.to.node);
    format!("{from} -> {to} {}", content(&envelope.message.content))
}

fn content(content: &Content) -> String {
    match content {
        Content::Message(said) => message(said),
        Content::Local(said) => local(said),
    }
}

fn local(message: &LocalMessage) -> String {
    match message {
        LocalMessage::Assign { key, value, .. } => {
            let value = value.as_ref().map_or("(delete)".to_owned(), |value| text(value));
            format!("Assign {key} {value}")
        }
        LocalMessage::Assigned { dot, state: new, .. } => format!("Assigned {dot}: {}", state(new)),
        LocalMessage::Keyspaces(keyspaces) => {
            let names: Vec<String> = keyspaces.iter().map(definition).collect();
            format!("Keyspaces {}", names.join(" "))
        }
    }
}

fn message(said: &Message) -> String {
    match said {
        Message::Store { key, state: new } => format!("Store {key} {}", state(new)),
        Message::Heal { key, state: new } => format!("Heal {key} {}", state(new)),
        Message::Stored => "Stored".to_owned(),
        Message::Fetch { key } => format!("Fetch {key}"),
        Message::Fetched { state: found } => format!("Fetched {}", state(found)),
        Message::FetchRange { limit, .. } => format!("FetchRange, up to {limit} rows"),
        Message::FetchedRange { rows, more } => {
            let keys: Vec<String> = rows.iter().map(|(key, _)| key.to_string()).collect();
            let more = if *more { " and more" } else { "" };
            format!("FetchedRange [{}]{more}", keys.join(" "))
        }
        Message::Failed(reason) => format!("Failed {}", error(reason)),
        Message::Forward(forwarded) => format!("Forward {}", request(forwarded)),
        Message::Forwarded(answer) => format!("Forwarded {}", response(answer)),
        Message::Parts(parts) => {
            let parts = parts.iter().map(|part| message(&part.body.clone().into()));
            format!("Parts [{}]", parts.collect::<Vec<_>>().join("; "))
        }
        Message::Defined | Message::Redirect { .. } | Message::Raft { .. } | Message::Propose(_) => {
            unreachable!("control roles only")
        }
    }
}

fn definition(keyspace: &Keyspace) -> String {
    let settings = &keyspace.settings;
    format!("{}={} replicas={}", keyspace.id, settings.name, settings.replicas)
}

pub(crate) fn request(request: &Request) -> String {
    match request {
        Request::Put {
            key,
            value: Some(value),
            ..
        } => format!("put {key} {}", text(value)),
        Request::Put { key, value: None, .. } => format!("delete {key}"),
        Request::Get { key, .. } => format!("get {key}"),
        Request::GetMany { keys, .. } => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("get_many {}", keys.join(" "))
        }
        Request::Scan { .. } => "scan".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn response(answer: &Result<Response, Error>) -> String {
    match answer {
        Err(reason) => error(reason),
        Ok(Response::Written(written)) => {
            format!("written as {}, durable on {}", written.dot, nodes(&written.acked))
        }
        Ok(Response::Entry(found)) => format!(
            "{}, context {{{}}}, from {}",
            values(found),
            clock(&found.context),
            nodes(&found.answered)
        ),
        Ok(Response::Page(page)) => {
            let entries: Vec<String> = page
                .entries
                .iter()
                .map(|(key, found)| format!("{key}={}", values(found)))
                .collect();
            let next = page
                .next
                .as_ref()
                .map_or("the end".to_owned(), |key| format!("more after {key}"));
            format!("[{}], {next}", entries.join(" "))
        }
        Ok(Response::WrittenMany(all)) => {
            each(all, |written| response(&Ok(Response::Written(written.clone()))))
        }
        Ok(Response::Entries(all)) => each(all, |found| response(&Ok(Response::Entry(found.clone())))),
        Ok(other) => format!("{other:?}"),
    }
}

fn each<T>(results: &[Result<T, Error>], show: impl Fn(&T) -> String) -> String {
    let lines = results.iter().map(|result| match result {
        Ok(done) => show(done),
        Err(reason) => error(reason),
    });
    lines.collect::<Vec<_>>().join("\n    ")
}

fn values(entry: &Entry) -> String {
    let values: Vec<String> = entry
        .versions
        .iter()
        .map(|version| text(&version.value))
        .collect();
    match values.len() {
        0 if entry.context.is_empty() => "never written".to_owned(),
        0 => "deleted".to_owned(),
        1 => values.concat(),
        _ => format!("siblings {}", values.join(" | ")),
    }
}

fn error(error: &Error) -> String {
    format!("{}: {error}", error.name())
}

pub(crate) fn nodes<'a>(nodes: impl IntoIterator<Item = &'a quorate_core::ids::NodeId>) -> String {
    let names: Vec<String> = nodes.into_iter().map(ToString::to_string).collect();
    names.join(" ")
}

fn timeline(event: &TimelineEvent) -> String {
    match event {
        TimelineEvent::ReadRepaired { replicas, .. } => format!("ReadRepaired {}", nodes(replicas)),
        TimelineEvent::ClockAhead { node, offset_ms } => format!("ClockAhead {node} by {offset_ms}ms"),
        TimelineEvent::CorruptRecord { record } => format!("CorruptRecord: {record}"),
        other => format!("{other:?}"),
    }
}

/// The line of a trace event; `None` for events that are shown only with `everything`.
pub(crate) fn trace(event: &TraceEvent, everything: bool) -> Option<String> {
    Some(match event {
        TraceEvent::Delivered(sent) => envelope(sent),
        TraceEvent::Lost(sent, loss) => {
            let why = match loss {
                Loss::NoLink => "no link",
                Loss::Network => "the network",
                Loss::Down => "the node is down",
                Loss::NoRole => "the node does not serve that",
                Loss::Expired => "too late",
            };
            format!("{} (lost: {why})", envelope(sent))
        }
        TraceEvent::Local(sent) if everything => {
            let role = match sent.to.role {
                RoleId::Node => "node",
                RoleId::Control => "control",
                RoleId::Coordinator(_) => "coordinator",
                RoleId::Replica(_) => "replica",
                RoleId::Forwarder(_) => "forwarder",
                RoleId::Shard(_) => "shard",
            };
            format!("{} (to its own {role})", envelope(sent))
        }
        TraceEvent::Disk {
            node,
            ops,
            refused: true,
        } => format!("{node} disk full: {}", rows(ops)),
        TraceEvent::Disk { node, ops, .. } if everything => format!("{node} durable: {}", rows(ops)),
        TraceEvent::Local(_) | TraceEvent::Disk { .. } | TraceEvent::Submitted { .. } => return None,
        TraceEvent::Output(_, Output::Reply(operation, answer)) => {
            format!("op{operation} {}", response(answer))
        }
        TraceEvent::Output(node, Output::Emitted(event)) => format!("{node} event {}", timeline(event)),
        TraceEvent::Output(_, Output::Relayed(..)) => unreachable!("control roles only"),
    })
}

fn rows(ops: &[JournalOp]) -> String {
    super::rows(ops).map(row).collect::<Vec<_>>().join(", ")
}

fn row(write: &StateWrite) -> String {
    match (write.table, &write.value) {
        (Table::Records, Some(value)) => {
            let (_, key) = decode_record_key(&write.key).expect("a record's key");
            format!(
                "{key} {}",
                state(&KeyState::decode(value).expect("a record's state"))
            )
        }
        (Table::TokenIndex, _) => "index row".to_owned(),
        (Table::Meta, Some(value)) if write.key.starts_with(b"counter/") => {
            let Reservation { replica, mark } = Reservation::decode(value).expect("a reservation");
            format!(
                "dots of {}#{:04x} up to {mark}",
                replica.node(),
                replica.0 >> 32 & 0xffff
            )
        }
        (table, _) => format!("{table:?} {}", String::from_utf8_lossy(&write.key)),
    }
}
