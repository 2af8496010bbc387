//! Runs `tests/transcripts` (golden scripts): an in-memory quorum keyspace ([`testing`](super::testing)).
//!
//! A key state is shown as `{clock} value@dot`. Requests and their responses are numbered: `op1`, `op2`, …

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use quorate_core::bugs::Bug;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::{Key, record_key};
use quorate_core::level::Level;
use quorate_core::store::{JournalOp, StateWrite, Table};
use quorate_protocol::api::{PutItem, Request, Response};
use quorate_protocol::keyspace::{KeyspaceSettings, ReadRepair};
use quorate_protocol::role::RoleId;
use quorate_role_testing::{Envelope, Instance, Output, Roles};
use quorate_testing::transcript::{Call, Outcome, Script, Verb, run};
use quorate_testing::verbs;
use quorate_testing::verbs::{OnCluster, cluster_of, cluster_verbs};
use quorate_versions::{self as versions, Dot, WriteId};

use super::testing::{Cluster, Keyspaces as _, Quorum, Setup, TraceEvent, show};

/// The keyspace of every transcript.
const KEYSPACE: KeyspaceId = KeyspaceId(1);

#[test]
fn transcripts() {
    run::<Play>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"));
}

#[derive(Default)]
struct Play {
    cluster: Option<Cluster>,
    contexts: BTreeMap<String, versions::Context>,
    /// The name under which to keep the context of an operation's response.
    readers: BTreeMap<u64, String>,
    verbose: bool,
}

impl OnCluster for Play {
    type Protocol = Roles<Quorum>;

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
            "cluster" "nodes=3 [replicas=3] [read_repair=off] [bug=NAME]" "a cluster with keyspace ks" cluster;
            "corrupt" "n1 KEY" "n1's record of the key fails its checksum" |play, call| {
                let (node, row) = record(play, call)?;
                cluster_of(play)?.node(node).disk.store.contents.corrupt(Table::Records, row);
                Ok(String::new())
            };
            "lose" "n1 KEY" "n1's record of the key cannot be found" |play, call| {
                let (node, key) = record(play, call)?;
                let row = StateWrite { table: Table::Records, key, value: None };
                cluster_of(play)?.node(node).disk.apply(&[JournalOp::Write(vec![row])]);
                Ok(String::new())
            };
            "show" "KEY" "the state on each disk; disks without the key are omitted" |play, call| {
                let key = Key::try_from(call.required("a key")?)?;
                Ok(durable(cluster_of(play)?, &key))
            };
            "where" "KEY" "the key's replicas, the most preferred first" |play, call| {
                let key = Key::try_from(call.required("a key")?)?;
                replicas(cluster_of(play)?, &key)
            };
            "busy" "" "the number of operations in progress on each coordinator" |play, _| Ok(busy(cluster_of(play)?));
            "verbose" "on" "also show the events inside a node" |play, call| {
                play.verbose = call.word() == Some("on");
                Ok(String::new())
            };
        };
        all.extend(cluster_verbs());
        all
    }

    fn client_verbs() -> Vec<Verb<Self>> {
        verbs! {
            "put" "KEY VALUE [level=ALL] [context=NAME [forged=N]] [write=N] [timeout=1s] [size=BYTES]"
                "send a put; context=NAME forged=N claims to have read NAME, and N later writes of each replica" request;
            "delete" "KEY [level=ALL] [context=NAME [forged=N]] [write=N]" "likewise" request;
            "get" "KEY [level=ONE] [as=NAME]" "likewise; NAME keeps the context of the response" request;
            "put_many" "'KEY:VALUE ...' [level=ALL] [write=N]" "send one request for many puts" request;
            "get_many" "'KEY ...' [level=ONE]" "send one request for many gets" request;
            "scan" "[from=KEY] [to=KEY] [after=KEY] [limit=N] [level=ONE]" "likewise" request;
        }
    }

    /// The events since the last command, a line each.
    fn happened(&mut self, verb: &str) -> Vec<String> {
        let disks = matches!(verb, "persist" | "release");
        let trace = match &mut self.cluster {
            Some(cluster) => std::mem::take(&mut cluster.trace),
            None => Vec::new(),
        };
        let mut lines = Vec::new();
        for event in trace {
            let everything = self.verbose || disks && matches!(event, TraceEvent::Disk { .. });
            lines.extend(show::trace(&event, everything));
            if let TraceEvent::Output(_, Output::Reply(operation, Ok(Response::Entry(entry)))) = event
                && let Some(reader) = self.readers.remove(&operation)
            {
                self.contexts.insert(reader, entry.context);
            }
        }
        lines
    }
}

fn cluster(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let nodes = call.parsed("nodes")?.unwrap_or(3u16);
    let replicas = call.parsed("replicas")?.unwrap_or(3);
    let bug = match call.key("bug") {
        None => None,
        Some("siblings_dropped") => Some(Bug::SiblingsDropped),
        Some("counter_restarts") => Some(Bug::CounterRestarts),
        Some("id_kept_after_crash") => Some(Bug::IdKeptAfterCrash),
        Some("ack_before_durable") => Some(Bug::AckBeforeDurable),
        Some("write_quorum_by_liveness") => Some(Bug::WriteQuorumByLiveness),
        Some(other) => return Err(format!("unknown bug {other}").into()),
    };
    let mut settings = KeyspaceSettings::quorum("ks", replicas);
    if call.key("read_repair") == Some("off") {
        settings.read_repair = ReadRepair::Off;
    }
    let setup = Setup {
        nodes,
        seed: 1,
        bugs: quorate_testing::bugs(bug),
        scrambled: false,
    };
    let cluster = play.cluster.insert(setup.started());
    cluster.create_keyspace(settings);
    cluster.trace.clear();
    Ok(String::new())
}

// ---- clients ----

fn request(play: &mut Play, call: &mut Call<'_>) -> Outcome {
    let (node, timeout) = (call.client()?, call.time("timeout", 1000)?);
    let reader = call.key("as").map(ToOwned::to_owned);
    let request = data_request(play, call)?;
    let cluster = cluster_of(play)?;
    if !cluster.serves(node, KEYSPACE) {
        return Err(format!("{node} does not serve the keyspace").into());
    }
    let operation = cluster.submit(node, KEYSPACE, request, timeout);
    if let Some(reader) = reader {
        play.readers.insert(operation, reader);
    }
    Ok(String::new())
}

fn data_request(play: &mut Play, call: &mut Call<'_>) -> Result<Request, Box<dyn Error>> {
    let keyspace = KEYSPACE;
    let level = call.parsed::<Level>("level")?;
    let context = match call.key("context") {
        Some(reader) => Some(play.contexts.get(reader).ok_or("no read with that name")?.clone()),
        None => None,
    };
    let forged = call.parsed::<u64>("forged")?;
    let next = cluster_of(play)?.operations + 1;
    let write_id = WriteId {
        client: 1,
        sequence: call.parsed("write")?.unwrap_or(next),
    };
    if call.verb == "scan" {
        let mut bound = |name| call.key(name).map(Key::try_from).transpose();
        let (from, to, after) = (bound("from")?, bound("to")?, bound("after")?);
        return Ok(Request::Scan {
            keyspace,
            after_start: after.is_some(),
            start: after.or(from),
            end: to,
            limit: call.parsed("limit")?.unwrap_or(100),
            level,
        });
    }
    if call.verb == "get_many" {
        let keys: Result<_, _> = call.required("keys")?.split(' ').map(Key::try_from).collect();
        let keys = keys?;
        return Ok(Request::GetMany {
            keyspace,
            keys,
            level,
        });
    }
    if call.verb == "put_many" {
        let item = |item: &str| -> Result<PutItem, Box<dyn Error>> {
            let (key, value) = item.split_once(':').ok_or("key:value")?;
            Ok(PutItem {
                key: Key::try_from(key)?,
                value: Some(Bytes::copy_from_slice(value.as_bytes())),
                context: None,
            })
        };
        let items: Result<_, _> = call.required("items")?.split(' ').map(item).collect();
        return Ok(Request::PutMany {
            keyspace,
            items: items?,
            level,
            write_id,
        });
    }
    let key = Key::try_from(call.required("a key")?)?;
    let context = match (context, forged) {
        (Some(context), Some(ahead)) => {
            let later = context.iter().map(|dot| Dot {
                counter: dot.counter.saturating_add(ahead),
                ..dot
            });
            Some(versions::Context::new(keyspace, &key, later.collect()))
        }
        (context, _) => context,
    };
    let value = match call.verb {
        "get" => return Ok(Request::Get { keyspace, key, level }),
        "delete" => None,
        "put" => match call.parsed::<usize>("size")? {
            Some(size) => Some(Bytes::from(vec![b'x'; size])),
            None => Some(Bytes::copy_from_slice(call.required("a value")?.as_bytes())),
        },
        other => return Err(format!("unknown request {other}").into()),
    };
    Ok(Request::Put {
        keyspace,
        key,
        value,
        context,
        level,
        write_id,
    })
}

// ---- state ----

/// A node's row of a key's record.
fn record(play: &mut Play, call: &mut Call<'_>) -> Result<(NodeId, Bytes), Box<dyn Error>> {
    let node: NodeId = call.node()?;
    let key = Key::try_from(call.required("a key")?)?;
    if cluster_of(play)?.durable(node, KEYSPACE, &key).is_none() {
        return Err(format!("{node} has no record of {key}").into());
    }
    Ok((node, record_key(KEYSPACE, &key)))
}

fn durable(cluster: &Cluster, key: &Key) -> String {
    let mut lines = Vec::new();
    for (node, found) in &cluster.nodes {
        let contents = &found.disk.store.contents;
        if contents.is_corrupt(Table::Records, &record_key(KEYSPACE, key)) {
            lines.push(format!("{node} (corrupt)"));
        } else if let Some(state) = cluster.durable(*node, KEYSPACE, key) {
            lines.push(format!("{node} {}", show::state(&state)));
        }
    }
    lines.join("\n")
}

fn replicas(cluster: &Cluster, key: &Key) -> Outcome {
    let nodes = cluster.nodes.keys();
    let keyspace = nodes
        .filter_map(|node| match cluster.instance(*node, RoleId::Node) {
            Some(Instance::Node(role)) => role.keyspaces().find(|keyspace| keyspace.id == KEYSPACE),
            _ => None,
        })
        .next()
        .ok_or("no node knows the keyspace")?;
    let placement = &cluster.protocol.0.placement;
    let preference = placement.preference(keyspace.settings.replicas)?;
    Ok(show::nodes(preference.of(key)))
}

fn busy(cluster: &Cluster) -> String {
    let nodes = cluster.nodes.keys();
    let busy = nodes.filter_map(
        |node| match cluster.instance(*node, RoleId::Coordinator(KEYSPACE)) {
            Some(Instance::Role(crate::Instance::Coordinator(role))) => {
                Some(format!("{node} {}", role.in_progress()))
            }
            _ => None,
        },
    );
    busy.collect::<Vec<_>>().join("\n")
}
