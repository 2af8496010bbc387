//! Runs `tests/transcripts` (golden scripts): commands to an in-memory group ([`testing`](super::testing)). Start
//! reading with `figure2.txt`, which covers the rules of the paper's Figure 2 one by one; the other files cover the
//! rest.
//!
//! Answers have the numbers of their requests: `op1`, `op2`, ….

use std::error::Error;

use quorate_core::bugs::{Bug, Bugs};
use quorate_core::ids::NodeId;
use quorate_core::store::{JournalOp, StreamId};
use quorate_testing::transcript::{Call, Outcome, Script, Verb, run};
use quorate_testing::verbs;
use quorate_testing::verbs::{OnCluster, cluster_of, cluster_verbs};

use super::testing::{Cluster, Envelope, GROUP, Group as _, Servers, Setup, TraceEvent, show};
use crate::entry::{Entry, EntryKind};
use crate::event::ReadLevel;
use crate::format;
use crate::sessions::{Request, SessionId};
use crate::types::{HardState, LogIndex, Term};

#[test]
fn transcripts() {
    run::<Play>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"));
}

#[derive(Default)]
struct Play {
    cluster: Option<Cluster>,
    verbose: bool,
}

impl OnCluster for Play {
    type Protocol = Servers;

    fn cluster(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_mut()
    }

    fn show(envelope: &Envelope) -> String {
        show::envelope(envelope)
    }
}

impl Script for Play {
    fn verbs() -> Vec<Verb<Self>> {
        let mut all: Vec<Verb<Self>> = verbs! {
            "cluster" "nodes=3 [learners=n4] [outgoing=n1,n5] [bug=NAME] [track_staleness=on] [SETTING=NUMBER] [stopped]"
                "creates a group with this many voters; settings: append_bytes append_window snapshot_every retained_entries chunk_bytes \
                 chunk_window retained_bytes uncommitted_bytes" cluster;
            "preload" "n1 1 1 4 [term=6] [vote=n2]" "n1's disk has a log of these terms (before its first start)" preload;
            "campaign" "n1" "n1 starts an election, as if its timeout had passed" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.campaign(node);
                Ok(String::new())
            };
            "lose" "n1 5" "n1's disk loses entry 5" lose;
            "show" "" "each server" |play, _| Ok(show::servers(cluster_of(play)?));
            "logs" "" "the terms of each server's entries, committed | uncommitted" |play, _| Ok(show::logs(cluster_of(play)?));
            "disk" "n1" "the number of log entries and snapshot chunks on n1's disk" disk;
            "verbose" "on" "also show completed writes" |play, call| {
                play.verbose = call.word() == Some("on");
                Ok(String::new())
            };
        };
        all.extend(cluster_verbs());
        all
    }

    fn client_verbs() -> Vec<Verb<Self>> {
        verbs! {
            "put" "NAME VALUE [timeout=1s]" "a client proposes" plain;
            "add" "NAME NUMBER" "likewise" plain;
            "open" "[idle=10s]" "... opens a session" |play, call| {
                let idle_ms = call.time("idle", 10_000)?.as_millis().try_into()?;
                propose(play, call, Request::Open { idle_ms })
            };
            "close" "s5" "... closes it" |play, call| {
                let session = session(call.required("a session")?)?;
                propose(play, call, Request::Close(session))
            };
            "call" "s5 1 [acked=0] put NAME VALUE" "... proposes in session s5 under number 1" |play, call| {
                let request = Request::InSession {
                    session: session(call.required("a session")?)?,
                    sequence: call.required("a number")?.parse()?,
                    acknowledged: call.parsed("acked")?.unwrap_or(0),
                    command: call.rest().join(" ").into(),
                };
                propose(play, call, request)
            };
            "get" "NAME [timeout=1s]" "a client reads, linearizable" |play, call| query(play, call, ReadLevel::Linearizable);
            "stale" "NAME [timeout=1s]" "... stale" |play, call| query(play, call, ReadLevel::Stale);
        }
    }

    fn happened(&mut self, verb: &str) -> Vec<String> {
        let disks = self.verbose || matches!(verb, "persist" | "release");
        let messages = verb != "live";
        let cluster = self.cluster.iter_mut();
        let trace = cluster.flat_map(|cluster| std::mem::take(&mut cluster.trace));
        trace
            .filter(|event| messages || !matches!(event, TraceEvent::Delivered(_) | TraceEvent::Lost(..)))
            .filter_map(|event| show::trace(&event, disks))
            .collect()
    }
}

fn cluster(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let voters = call.parsed("nodes")?.unwrap_or(3u16);
    let mut setup = Setup::of(voters);
    for (key, nodes) in [
        ("learners", &mut setup.initial.learners),
        ("outgoing", &mut setup.initial.outgoing),
    ] {
        if let Some(list) = call.key(key) {
            *nodes = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
        }
    }
    let highest = setup.initial.members().map(|node| node.0).max();
    setup.nodes = highest.unwrap_or(voters);
    let settings = &mut setup.settings;
    for (key, value) in [
        ("append_bytes", &mut settings.append_bytes),
        ("append_window", &mut settings.append_window),
        ("retained_bytes", &mut settings.retained_bytes),
        ("uncommitted_bytes", &mut settings.uncommitted_bytes),
    ] {
        *value = call.parsed(key)?.unwrap_or(*value);
    }
    settings.snapshot_every = call.parsed("snapshot_every")?.unwrap_or(settings.snapshot_every);
    settings.retained_entries = call
        .parsed("retained_entries")?
        .unwrap_or(settings.retained_entries);
    settings.chunk_bytes = call.parsed("chunk_bytes")?.unwrap_or(settings.chunk_bytes);
    settings.chunk_window = call.parsed("chunk_window")?.unwrap_or(settings.chunk_window);
    settings.track_staleness = call.key("track_staleness").is_some_and(|wanted| wanted == "on");
    if let Some(name) = call.key("bug") {
        setup.bugs = bug(name).ok_or_else(|| format!("unknown bug {name}"))?;
    }
    play.cluster = Some(match call.word() {
        Some("stopped") => setup.stopped(),
        _ => setup.started(),
    });
    Ok(String::new())
}

// ---- clients ----

fn plain(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let words = call.rest().join(" ");
    let command = format!("{} {words}", call.verb);
    propose(play, call, Request::Plain(command.into()))
}

fn propose(play: &mut Play, call: &mut Call<'_>, request: Request) -> Outcome {
    let (node, timeout) = (call.client()?, call.time("timeout", 1000)?);
    cluster_of(play)?.propose(node, request, timeout);
    Ok(String::new())
}

fn query(play: &mut Play, call: &mut Call<'_>, level: ReadLevel) -> Outcome {
    let (node, timeout) = (call.client()?, call.time("timeout", 1000)?);
    let name = call.required("a name")?;
    cluster_of(play)?.query(node, name, level, timeout);
    Ok(String::new())
}

fn session(text: &str) -> Result<SessionId, Box<dyn Error>> {
    let number = text.strip_prefix('s').ok_or("a session is written s5")?;
    Ok(SessionId(number.parse()?))
}

// ---- disks ----

fn preload(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let node: NodeId = call.node()?;
    let (vote, term) = (call.parsed("vote")?, call.parsed("term")?);
    let terms: Vec<u64> = call
        .rest()
        .into_iter()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let hard = HardState {
        term: Term(term.or(terms.last().copied()).unwrap_or(0)),
        vote,
    };
    let hard = JournalOp::PutHard {
        key: GROUP.hard_state_key(),
        value: format::encode(&hard),
    };
    let entries = terms.iter().zip(1..).map(|(term, index)| JournalOp::Append {
        stream: GROUP.log_stream(),
        position: index,
        bytes: format::encode(&Entry {
            term: Term(*term),
            index: LogIndex(index),
            kind: EntryKind::Empty,
        }),
    });
    let ops: Vec<JournalOp> = entries.chain([hard]).collect();
    cluster_of(play)?.node(node).disk.apply(&ops);
    Ok(String::new())
}

fn lose(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let node: NodeId = call.node()?;
    let position = call.required("an entry")?.parse()?;
    let store = &mut cluster_of(play)?.node(node).disk.store;
    store.lose_entry(GROUP.log_stream(), position);
    Ok(String::new())
}

fn disk(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let node: NodeId = call.node()?;
    let contents = &cluster_of(play)?.node(node).disk.store.contents;
    let count = |wanted: StreamId| {
        let found = contents.streams().find(|(stream, _)| *stream == wanted);
        found.map_or(0, |(_, count)| count)
    };
    let (log, chunks) = (count(GROUP.log_stream()), count(GROUP.snapshot_stream()));
    Ok(format!("{log} entries, {chunks} chunks"))
}

/// The bug of this name, switched on.
pub(super) fn bug(name: &str) -> Option<Bugs> {
    let bug = match name {
        "vote_not_durable" => Bug::VoteNotDurable,
        "old_term_commit" => Bug::OldTermCommit,
        "no_pre_vote" => Bug::NoPreVote,
        "stale_read_index" => Bug::StaleReadIndex,
        "ack_before_durable" => Bug::RaftAckBeforeDurable,
        "sessions_lost_at_snapshot" => Bug::SessionsLostAtSnapshot,
        "restarted_in_place" => Bug::RestartedInPlace,
        _ => return None,
    };
    Some(quorate_testing::bugs([bug]))
}
