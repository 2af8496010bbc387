//! Runs `tests/transcripts/shard` (golden scripts): an in-memory consensus keyspace
//! ([`testing`](super::testing)). A message takes half a millisecond. Conditions follow values: `put
//! a=1@absent b=2@7`, `delete a@7`.

use std::error::Error;

use quorate_core::ids::NodeId;
use quorate_core::key::Key;
use quorate_core::store::Table;
use quorate_protocol::api::{Request, Stamp};
use quorate_protocol::shard_command::{self, Condition, Write};
use quorate_raft::event::ReadLevel;
use quorate_raft::types::GroupId;
use quorate_role_testing::{Envelope, Roles};
use quorate_testing::transcript::{Call, Outcome, Script, Verb, run};
use quorate_testing::verbs;
use quorate_testing::verbs::{OnCluster, cluster_of, cluster_verbs};

use super::testing::{Cluster, Consensus as _, KEYSPACE, Setup, Shards, show};
use crate::rows;

/// The only group.
const GROUP: GroupId = GroupId(2);

#[test]
fn transcripts() {
    run::<Play>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts/shard"));
}

#[derive(Default)]
struct Play {
    cluster: Option<Cluster>,
    messages: bool,
}

impl OnCluster for Play {
    type Protocol = Roles<Shards>;

    fn cluster(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_mut()
    }

    fn show(envelope: &Envelope) -> String {
        show::envelope(envelope).unwrap_or_default()
    }
}

impl Script for Play {
    fn verbs() -> Vec<Verb<Self>> {
        let mut all: Vec<Verb<Self>> = verbs! {
            "cluster" "nodes=3 [members=3] [every=10000] [chunk=65536] [stopped]"
                "nodes; the first ones are members of the only group" cluster;
            "hold_flush" "n1" "applied rows are not flushed until: flush n1" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.node(node).disk.unflushed = true;
                Ok(String::new())
            };
            "flush" "n1" "the disk completes all pending operations" release;
            "hold_files" "n1" "file tasks wait until: release_files n1" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.node(node).disk.files_held = true;
                Ok(String::new())
            };
            "release_files" "n1" "the disk completes all pending operations" release;
            "file" "n1 [steps=1]" "performs this many steps of file tasks" |play, call| {
                let node = call.node()?;
                for _ in 0..call.parsed("steps")?.unwrap_or(1) {
                    cluster_of(play)?.file_step(node, u64::from(GROUP.0));
                }
                Ok(String::new())
            };
            "damage_files" "n1" "damages its files" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.node(node).disk.store.corrupt_files();
                Ok(String::new())
            };
            "damage_row" "n1 KEY" "damages the row of a key" |play, call| {
                let node = call.node()?;
                let row = rows::record_key(GROUP, &key(call.required("a key")?)?);
                cluster_of(play)?.node(node).disk.store.corrupt_row(Table::Groups, &row);
                Ok(String::new())
            };
            "drop" "n1" "n1 learns that the keyspace was dropped" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.drop_keyspace(node);
                Ok(String::new())
            };
            "state" "" "the state, progress and files of each member" |play, _| {
                Ok(show::state(cluster_of(play)?, GROUP))
            };
            "rows" "n1" "the rows of a node" |play, call| {
                let node: NodeId = call.node()?;
                Ok(show::rows(&cluster_of(play)?.node(node).disk.store.contents, GROUP))
            };
            "messages" "on" "also show messages between forwarders and shards" |play, call| {
                play.messages = call.word() == Some("on");
                Ok(String::new())
            };
        };
        all.extend(cluster_verbs());
        all
    }

    fn client_verbs() -> Vec<Verb<Self>> {
        verbs! {
            "put" "KEY=VALUE[@absent] ... [session=s3.1] [acked=0]" "a client writes one batch, optionally in a session" propose;
            "delete" "KEY[@7] ... [session=s3.1] [acked=0]" "likewise" propose;
            "append" "DATA [source=web] [session=s3.1] [acked=0]" "likewise" propose;
            "open" "[idle=5s]" "... opens a session" |play, call| {
                let idle_ms = call.time("idle", 5000)?.as_millis() as u64;
                let (keyspace, group) = (KEYSPACE, GROUP);
                ask(play, call, Request::OpenSession { keyspace, group, idle_ms })
            };
            "close" "s3" "... closes it" |play, call| {
                let session = session(call.required("a session")?)?;
                let (keyspace, group) = (KEYSPACE, GROUP);
                ask(play, call, Request::CloseSession { keyspace, group, session })
            };
            "get" "KEY ... [level=stale]" "a client reads" |play, call| {
                let request = Request::Read {
                    keyspace: KEYSPACE,
                    group: GROUP,
                    level: level(call),
                    keys: call.rest().into_iter().map(key).collect::<Result<_, _>>()?,
                };
                ask(play, call, request)
            };
            "range" "[from=a] [to=c] [limit=2] [after] [level=stale]" "likewise" |play, call| {
                let request = Request::ReadRange {
                    keyspace: KEYSPACE,
                    group: GROUP,
                    start: call.key("from").map(key).transpose()?,
                    end: call.key("to").map(key).transpose()?,
                    after_start: call.word() == Some("after"),
                    limit: call.parsed("limit")?.unwrap_or(100),
                    level: level(call),
                };
                ask(play, call, request)
            };
            "log" "[after=3] [limit=2] [level=stale]" "likewise" |play, call| {
                let request = Request::ReadLog {
                    keyspace: KEYSPACE,
                    group: GROUP,
                    after: call.parsed("after")?.unwrap_or(0),
                    limit: call.parsed("limit")?.unwrap_or(100),
                    level: level(call),
                };
                ask(play, call, request)
            };
        }
    }

    fn happened(&mut self, _verb: &str) -> Vec<String> {
        let messages = self.messages;
        let cluster = self.cluster.iter_mut();
        let trace = cluster.flat_map(|cluster| std::mem::take(&mut cluster.trace));
        trace.filter_map(|event| show::trace(&event, messages)).collect()
    }
}

fn cluster(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let nodes = call.parsed("nodes")?.unwrap_or(3);
    let mut setup = Setup::of(nodes, call.parsed("members")?.unwrap_or(nodes));
    if let Some(every) = call.parsed("every")? {
        setup.settings.snapshot_every = every;
        setup.settings.retained_entries = 1;
    }
    if let Some(chunk) = call.parsed("chunk")? {
        setup.settings.chunk_bytes = chunk;
    }
    let cluster = play.cluster.insert(setup.stopped());
    if call.word() != Some("stopped") {
        cluster.start_all();
    }
    Ok(String::new())
}

fn release(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let node = call.node()?;
    cluster_of(play)?.release(node);
    Ok(String::new())
}

// ---- clients ----

/// The default is `timeout=1s`.
fn ask(play: &mut Play, call: &mut Call<'_>, request: Request) -> Outcome {
    let (node, timeout) = (call.client()?, call.time("timeout", 1000)?);
    cluster_of(play)?.ask(node, GROUP, request, timeout);
    Ok(String::new())
}

fn propose(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    // The remaining arguments with names are keys and values.
    let timeout = call.time("timeout", 1000)?;
    let request = Request::Propose {
        keyspace: KEYSPACE,
        group: GROUP,
        session: stamp(call)?,
        command: change(call)?,
    };
    cluster_of(play)?.ask(call.client()?, GROUP, request, timeout);
    Ok(String::new())
}

fn level(call: &mut Call<'_>) -> ReadLevel {
    match call.key("level") {
        Some("stale") => ReadLevel::Stale,
        _ => ReadLevel::Linearizable,
    }
}

fn change(call: &mut Call<'_>) -> Result<shard_command::Command, Box<dyn Error>> {
    if call.verb == "append" {
        return Ok(shard_command::Command::Append {
            source: call.key("source").unwrap_or("").to_owned(),
            data: call.required("data")?.to_owned().into(),
        });
    }
    let write = |name: &str, value: Option<&str>, condition: Option<&str>| -> Result<Write, Box<dyn Error>> {
        Ok(Write {
            key: key(name)?,
            value: value.map(|text| text.to_owned().into()),
            condition: match condition {
                None => Condition::Any,
                Some("absent") => Condition::Absent,
                Some(version) => Condition::Version(version.parse()?),
            },
        })
    };
    let split = |text| match str::split_once(text, '@') {
        Some((text, condition)) => (text, Some(condition)),
        None => (text, None),
    };
    let mut writes = Vec::new();
    while let Some((name, text)) = call.next_key() {
        let (value, condition) = split(text);
        writes.push(write(name, Some(value), condition)?);
    }
    while let Some(text) = call.word() {
        let (name, condition) = split(text);
        writes.push(write(name, None, condition)?);
    }
    Ok(shard_command::Command::Write(writes))
}

/// `s3.1`: the first command of session 3.
fn stamp(call: &mut Call<'_>) -> Result<Option<Stamp>, Box<dyn Error>> {
    let acknowledged = call.parsed("acked")?.unwrap_or(0);
    let Some(text) = call.key("session") else {
        return Ok(None);
    };
    let (name, sequence) = text.split_once('.').ok_or("write session=s3.1")?;
    Ok(Some(Stamp {
        session: session(name)?,
        sequence: sequence.parse()?,
        acknowledged,
    }))
}

fn session(text: &str) -> Result<u64, Box<dyn Error>> {
    Ok(text.strip_prefix('s').ok_or("sessions are called s3")?.parse()?)
}

fn key(text: &str) -> Result<Key, Box<dyn Error>> {
    Ok(Key::try_from(text)?)
}
