//! The text of events in transcripts.

use bytes::Bytes;
use quorate_core::ids::NodeId;
use quorate_core::store::JournalOp;
use quorate_core::time::Instant;
use quorate_testing::Loss;

use super::{Cluster, Envelope, GROUP, Group as _, Output, TraceEvent};
use crate::action::Notice;
use crate::entry::{Entry, EntryKind};
use crate::event::{ProposeError, QueryError};
use crate::format;
use crate::message::Body;
use crate::server::Rejection;
use crate::sessions::{Answer, Logged, Request};
use crate::snapshot::LogStart;
use crate::status::ServerState;
use crate::types::HardState;

/// `n1 -> n2 Append t1 ...`.
pub(crate) fn envelope(envelope: &Envelope) -> String {
    let (from, to) = envelope.pair();
    let message = &envelope.message;
    format!("{from} -> {to} {} {}", message.term, body(&message.body))
}

fn body(body: &Body) -> String {
    match body {
        Body::PreVote { last } => format!("PreVote last {last}"),
        Body::PreVoteAnswer { granted } => format!("PreVoteAnswer {}", yes(*granted)),
        Body::Vote { last } => format!("Vote last {last}"),
        Body::VoteAnswer { granted } => format!("VoteAnswer {}", yes(*granted)),
        Body::Append {
            previous,
            commit,
            entries,
        } => {
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!(
                "Append after {previous}: [{}] commit {commit}",
                entries.join(", ")
            )
        }
        Body::Accepted { through } => format!("Accepted through {through}"),
        Body::Rejected { previous, conflict } => format!("Rejected {previous}, conflict {conflict}"),
        Body::Heartbeat { commit, round } => format!("Heartbeat commit {commit} round {round}"),
        Body::HeartbeatAck {
            round,
            received,
            durable,
        } => format!("HeartbeatAck round {round} received {received} durable {durable}"),
        // The number is random.
        Body::ReadIndex { .. } => "ReadIndex".to_owned(),
        Body::ReadIndexAnswer { index, .. } => format!("ReadIndexAnswer {index}"),
        Body::Snapshot { meta, offset, bytes } => {
            let end = offset + bytes.len() as u64;
            format!("Snapshot {} bytes {offset}-{end} of {}", meta.position, meta.size)
        }
        Body::SnapshotReceived { position, offset } => {
            format!("SnapshotReceived {position} through {offset}")
        }
        Body::Outdated => "Outdated".to_owned(),
        // The number is random.
        Body::Probe { .. } => "Probe".to_owned(),
        Body::ProbeAnswer { index, .. } => format!("ProbeAnswer {index}"),
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `3@t1 put a 1`.
fn entry(entry: &Entry) -> String {
    let what = match &entry.kind {
        EntryKind::Empty => "-".to_owned(),
        EntryKind::Configuration(members) => format!("members {members}"),
        EntryKind::Command(command) => match Logged::<Bytes>::decode(command).map(|logged| logged.request) {
            Ok(Request::Plain(command)) => text(&command),
            Ok(Request::Open { idle_ms }) => format!("open session {idle_ms}ms"),
            Ok(Request::Close(session)) => format!("close s{}", session.0),
            Ok(Request::InSession {
                session,
                sequence,
                command,
                ..
            }) => format!("s{}#{sequence} {}", session.0, text(&command)),
            Err(error) => error.to_string(),
        },
    };
    format!("{} {what}", entry.position())
}

/// A line for an event; none for details that only `verbose` shows.
pub(crate) fn trace(event: &TraceEvent, disks: bool) -> Option<String> {
    Some(match event {
        TraceEvent::Delivered(sent) => envelope(sent),
        TraceEvent::Lost(sent, loss) => {
            let why = match loss {
                Loss::Down => "node down",
                _ => "the network",
            };
            format!("{} (lost: {why})", envelope(sent))
        }
        TraceEvent::Local(_) | TraceEvent::Submitted { .. } => return None,
        TraceEvent::Disk { node, ops, refused } => {
            let ops: Vec<String> = ops.iter().map(op).collect();
            match (refused, disks) {
                (true, _) => format!("{node} has no space for: {}", ops.join(", ")),
                (false, true) => format!("{node} durable: {}", ops.join(", ")),
                (false, false) => return None,
            }
        }
        TraceEvent::Output(node, Output::Notice(notice)) => format!("{node} {}", self::notice(notice)),
        TraceEvent::Output(_, Output::Proposed { operation, result }) => format!(
            "op{operation} {}",
            match result {
                Ok((position, Answer::Done(answer))) => format!("done at {position}: {}", text(answer)),
                Ok((position, Answer::Opened(session))) =>
                    format!("done at {position}: session s{}", session.0),
                Ok((position, Answer::Closed)) => format!("done at {position}: session closed"),
                Err(ProposeError::Rejected(Rejection::NotLeader { leader: Some(leader) })) =>
                    format!("refused: {leader} leads"),
                Err(ProposeError::Rejected(Rejection::NotLeader { leader: None })) =>
                    "rejected: no leader known".to_owned(),
                Err(ProposeError::Rejected(rejection)) => format!("refused: {rejection:?}"),
                Err(ProposeError::NotCommitted) => "definitely not executed".to_owned(),
                Err(ProposeError::OutcomeUnknown) => "outcome unknown".to_owned(),
                Err(ProposeError::Session(error)) => format!("not executed: {error}"),
            }
        ),
        TraceEvent::Output(_, Output::Queried { operation, result }) => format!(
            "op{operation} {}",
            match result {
                Ok(read) => format!(
                    "read {} (applied {}, {})",
                    text(&read.answer),
                    read.applied,
                    read.age_micros
                        .map_or("of unknown age".to_owned(), |micros| format!(
                            "at most {}ms old",
                            micros / 1000
                        ))
                ),
                Err(QueryError::NotLeader { leader: Some(leader) }) => format!("refused: {leader} leads"),
                Err(QueryError::NotLeader { leader: None }) => "rejected: no leader known".to_owned(),
                Err(QueryError::TimedOut) => "timed out".to_owned(),
            }
        ),
    })
}

fn notice(notice: &Notice) -> String {
    match notice {
        Notice::Campaigning { term, pre: true } => format!("starts a pre-vote after {term}"),
        Notice::Campaigning { term, pre: false } => format!("starts an election in {term}"),
        Notice::Leading { term } => format!("LEADS in {term}"),
        Notice::Following { term, leader: None } => format!("has no leader in {term}"),
        Notice::Following {
            term,
            leader: Some(leader),
        } => format!("follows {leader} in {term}"),
        Notice::MessageRejected { from, reason } => format!("rejects a message from {from}: {reason}"),
        Notice::TermsExhausted { term } => format!("has exhausted its terms: {term}"),
        Notice::QuorumLost { term } => format!("has lost its quorum in {term}"),
        Notice::LogTruncated { from } => format!("truncates its log from {from}"),
        Notice::SnapshotTaken { position } => format!("takes a snapshot through {position}"),
        Notice::SnapshotInstalled { position } => format!("installs a snapshot through {position}"),
        Notice::SnapshotCorrupt { position } => {
            format!("receives a corrupt snapshot through {position}")
        }
        Notice::StorageFull => "has a full disk".to_owned(),
    }
}

fn op(op: &JournalOp) -> String {
    match op {
        JournalOp::Append { stream, bytes, .. } if *stream == GROUP.log_stream() => {
            format::decode("log entry", bytes).map_or_else(|error| error.to_string(), |found| entry(&found))
        }
        JournalOp::Append { position, .. } => format!("chunk {position}"),
        JournalOp::Truncate { stream, from } => format!("truncate {} from {from}", name(*stream)),
        JournalOp::Trim { stream, through } => format!("trim {} through {through}", name(*stream)),
        JournalOp::PutHard { key, value } if *key == GROUP.hard_state_key() => {
            let hard: HardState = format::decode("hard state", value).expect("servers write hard states");
            let vote = hard
                .vote
                .map_or("no vote".to_owned(), |node: NodeId| format!("voted {node}"));
            format!("{} {vote}", hard.term)
        }
        JournalOp::PutHard { value, .. } => {
            let log_start: LogStart = format::decode("log record", value).expect("servers write log records");
            let snapshot = log_start
                .snapshot
                .map_or("no snapshot".to_owned(), |snapshot_ref| {
                    format!("snapshot {}", snapshot_ref.meta.position)
                });
            format!("{snapshot} with log after {}", log_start.base)
        }
        JournalOp::DeleteHard { .. } => "delete a hard state".to_owned(),
        JournalOp::Write(_) => "rows".to_owned(),
    }
}

fn name(stream: quorate_core::store::StreamId) -> &'static str {
    if stream == GROUP.log_stream() {
        "log"
    } else {
        "snapshots"
    }
}

/// A line per server: state, watermarks, values.
pub(crate) fn servers(cluster: &Cluster) -> String {
    let line = |node: NodeId| {
        let Some(group) = cluster.group(node) else {
            return format!("{node} is down");
        };
        let (Some(status), Some(state)) = (group.status(Instant(cluster.now)), group.state()) else {
            return format!("{node} {}", group.failure().unwrap_or("is recovering"));
        };
        let values: Vec<String> = state
            .machine()
            .values()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let role = match status.state {
            ServerState::Leader => "leader".to_owned(),
            ServerState::Candidate => "candidate".to_owned(),
            ServerState::Follower => status
                .leader
                .map_or("follower".to_owned(), |leader| format!("follower of {leader}")),
        };
        let lag: String = status
            .lag
            .iter()
            .map(|(node, lag)| format!(" {node}-{lag}"))
            .collect();
        format!(
            "{node} {} {role}, last {}, durable {}, commit {}{}{} {{{}}}",
            status.term,
            status.last,
            status.stable,
            status.commit,
            status
                .snapshot
                .map_or(String::new(), |position| format!(", snapshot {position}")),
            if lag.is_empty() {
                lag
            } else {
                format!(", lag{lag}")
            },
            values.join(" "),
        )
    };
    cluster
        .names()
        .into_iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A line per server: the terms of its entries, the committed ones before the bar, compacted ones omitted.
pub(crate) fn logs(cluster: &Cluster) -> String {
    let line = |node: NodeId| {
        let raft = cluster.raft(node)?;
        let log = raft.log();
        let terms = |committed: bool| {
            log.range(log.base().index.next())
                .filter(|entry| (entry.index <= log.commit()) == committed)
                .map(|entry| format!(" {}", entry.term.0))
                .collect::<String>()
        };
        let base = if log.base().index.0 > 0 {
            format!(" after {}", log.base())
        } else {
            String::new()
        };
        Some(format!("{node}{base}:{} |{}", terms(true), terms(false)))
    };
    cluster
        .names()
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n")
}
