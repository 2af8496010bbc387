//! Runs `tests/transcripts/control` (golden scripts): an in-memory control plane
//! ([`testing`](super::testing)). A message takes half a millisecond.

use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings};
use quorate_protocol::message::Message;
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::types::GroupId;
use quorate_role_testing::{Envelope, Output, Roles};
use quorate_testing::transcript::{Call, Outcome, Script, Verb, run};
use quorate_testing::verbs;
use quorate_testing::verbs::{OnCluster, cluster_of, cluster_verbs};
use quorate_versions::WriteId;

use super::testing::{Cluster, ControlPlane as _, Plane, TraceEvent, entry, left, litter, stopped};

#[test]
fn transcripts() {
    run::<Play>(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts/control"));
}

#[derive(Default)]
struct Play {
    cluster: Option<Cluster>,
    messages: bool,
}

impl OnCluster for Play {
    type Protocol = Roles<Plane>;

    fn cluster(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_mut()
    }

    fn show(sent: &Envelope) -> String {
        envelope(sent).unwrap_or_default()
    }
}

impl Script for Play {
    fn verbs() -> Vec<Verb<Self>> {
        let mut all: Vec<Verb<Self>> = verbs! {
            "cluster" "nodes=3 [stopped]" "creates nodes, started or not" |play, call| {
                let cluster = play.cluster.insert(stopped(call.parsed("nodes")?.unwrap_or(3), 1, Bugs::none()));
                if call.word() != Some("stopped") {
                    cluster.start_all();
                }
                Ok(String::new())
            };
            "start" "n1 [port=1]" "it (re)starts from its disk, optionally at another address" |play, call| {
                let node = call.node()?;
                let cluster = cluster_of(play)?;
                if let Some(port) = call.parsed("port")? {
                    cluster.protocol.0.ports.insert(node, port);
                }
                cluster.start(node);
                Ok(String::new())
            };
            "persist" "n1 [writes=1]" "a stalled disk completes this many writes" |play, call| {
                let node = call.node()?;
                let count = call.parsed("writes")?.unwrap_or(1);
                cluster_of(play)?.persist(node, count);
                Ok(String::new())
            };
            "late" "n1 g2" "an ended role has an entry of its group's log in flight" |play, call| {
                let node = call.node()?;
                let group = GroupId(call.required("a group")?[1..].parse()?);
                cluster_of(play)?.node(node).disk.delay([entry(group, 1)]);
                Ok(String::new())
            };
            "catch_up" "n1" "such entries become durable" |play, call| {
                let node = call.node()?;
                cluster_of(play)?.node(node).disk.catch_up();
                Ok(String::new())
            };
            "litter" "n1 k1 g2 [g3 ...] [rows=9] [entries=ROWS]"
                "the roles of a keyspace and its groups leave this many rows and entries, a file each, and their small states" |play, call| {
                let id = |text: &str| text[1..].parse::<u32>();
                let node = call.node()?;
                let keyspace = KeyspaceId(id(call.required("a keyspace")?)?);
                let groups = call.rest().into_iter().map(|text| id(text).map(GroupId));
                let groups: Vec<GroupId> = groups.collect::<Result<_, _>>()?;
                let rows = call.parsed("rows")?.unwrap_or(9);
                let entries = call.parsed("entries")?.unwrap_or(u64::from(rows));
                litter(&mut cluster_of(play)?.node(node).disk.store, keyspace, &groups, rows, entries);
                Ok(String::new())
            };
            "left" "n1" "the number of such remains" |play, call| {
                let node: NodeId = call.node()?;
                let [rows, entries, files, states] = left(&cluster_of(play)?.node(node).disk.store);
                Ok(format!("{node} has {rows} rows, {entries} entries, {files} files, {states} states"))
            };
            "state" "" "what each node knows and serves" |play, _| Ok(state(cluster_of(play)?));
            "groups" "" "what each node claims about the group" |play, _| Ok(groups(cluster_of(play)?));
            "messages" "on" "also show messages between control roles" |play, call| {
                play.messages = call.word() == Some("on");
                Ok(String::new())
            };
        };
        all.extend(cluster_verbs());
        all
    }

    fn client_verbs() -> Vec<Verb<Self>> {
        verbs! {
            "create" "NAME [replicas=3] [shards=2] [timeout=1s]" "a client creates a keyspace; with shards in consensus mode" |play, call| {
                let name = call.required("a name")?;
                let replicas = call.parsed("replicas")?.unwrap_or(3);
                let settings = match call.parsed("shards")? {
                    None => KeyspaceSettings::quorum(name, replicas),
                    Some(shards) => KeyspaceSettings {
                        shards,
                        ..KeyspaceSettings::consensus(name, replicas)
                    },
                };
                ask(play, call, Request::CreateKeyspace(settings))
            };
            "alter" "NAME [read=ONE] [write=ONE] [write_id=1]" "likewise" |play, call| {
                let request = Request::AlterKeyspace {
                    change: KeyspaceChange {
                        read_level: call.parsed("read")?,
                        write_level: call.parsed("write")?,
                        read_repair: None,
                    },
                    name: call.required("a name")?.to_owned(),
                    write_id: write_id(play, call)?,
                };
                ask(play, call, request)
            };
            "drop" "NAME [write_id=1]" "likewise" |play, call| {
                let request = Request::DropKeyspace {
                    name: call.required("a name")?.to_owned(),
                    write_id: write_id(play, call)?,
                };
                ask(play, call, request)
            };
            "list" "" "likewise" |play, call| ask(play, call, Request::ListKeyspaces);
            "addresses" "" "likewise" |play, call| ask(play, call, Request::Topology);
            "membership" "" "the members of the control plane" |play, call| ask(play, call, Request::Membership);
            "put" "k1" "a request for a coordinator" |play, call| {
                let keyspace = call.required("a keyspace")?.trim_start_matches('k').parse()?;
                let request = Request::Put {
                    keyspace: KeyspaceId(keyspace),
                    key: Key::try_from("k")?,
                    value: None,
                    context: None,
                    level: None,
                    write_id: write_id(play, call)?,
                };
                ask(play, call, request)
            };
        }
    }

    fn happened(&mut self, _verb: &str) -> Vec<String> {
        let messages = self.messages;
        let cluster = self.cluster.iter_mut();
        let trace = cluster.flat_map(|cluster| std::mem::take(&mut cluster.trace));
        trace.filter_map(|event| show(&event, messages)).collect()
    }
}

fn ask(play: &mut Play, call: &mut Call<'_>, request: Request) -> Outcome {
    let (node, timeout) = (call.client()?, call.time("timeout", 1000)?);
    cluster_of(play)?.ask(node, request, timeout);
    Ok(String::new())
}

/// By default each request has an id of its own.
fn write_id(play: &mut Play, call: &mut Call<'_>) -> Result<WriteId, Box<dyn std::error::Error>> {
    let next = cluster_of(play)?.operations + 1;
    Ok(WriteId {
        client: 77,
        sequence: call.parsed("write_id")?.unwrap_or(next),
    })
}

fn definition(keyspace: &Keyspace) -> String {
    let settings = &keyspace.settings;
    format!(
        "{}={} replicas={} read={} write={}",
        keyspace.id, settings.name, settings.replicas, settings.read_level, settings.write_level
    )
}

fn list<'a>(keyspaces: impl IntoIterator<Item = &'a Keyspace>) -> String {
    let all: Vec<String> = keyspaces.into_iter().map(definition).collect();
    format!("[{}]", all.join(", "))
}

fn state(cluster: &Cluster) -> String {
    let line = |node: NodeId| {
        let Some(control) = cluster.control(node) else {
            return format!("{node} down");
        };
        let known = control.known();
        let names: Vec<&str> = known
            .keyspaces()
            .values()
            .map(|one| one.settings.name.as_str())
            .collect();
        let served: Vec<String> = cluster.protocol.0.served[&node]
            .keys()
            .map(KeyspaceId::to_string)
            .collect();
        format!(
            "{node} generation {} knows [{}] serves [{}]",
            known.generation(),
            names.join(" "),
            served.join(" ")
        )
    };
    cluster
        .names()
        .into_iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

fn groups(cluster: &Cluster) -> String {
    let line = |node: NodeId| {
        let claim = cluster.control(node)?.claim(Instant(cluster.now));
        let leader = claim
            .leader
            .map_or("unknown".to_owned(), |leader| leader.to_string());
        Some(format!(
            "{node} {} in t{}, leader {leader}, commit {} applied {} last {}",
            claim.state.name(),
            claim.term,
            claim.commit,
            claim.applied,
            claim.last
        ))
    };
    cluster
        .names()
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Messages between control roles, if enabled.
fn envelope(sent: &Envelope) -> Option<String> {
    let text = match sent.message.content.message()? {
        Message::Propose(change) => format!("Propose {:?}", change.command),
        Message::Forwarded(result) => format!("Forwarded {}", answer(result)),
        Message::Redirect { leader } => format!("Redirect {leader:?}"),
        Message::Defined => "Defined".to_owned(),
        _ => return None,
    };
    let (from, to) = sent.pair();
    (sent.from.role == RoleId::Control).then(|| format!("{from} -> {to} {text}"))
}

fn show(event: &TraceEvent, messages: bool) -> Option<String> {
    Some(match event {
        TraceEvent::Delivered(sent) if messages => return envelope(sent),
        TraceEvent::Output(_, Output::Reply(operation, result)) => {
            format!("op{operation} {}", answer(result))
        }
        TraceEvent::Output(node, Output::Relayed(role, operation)) => {
            format!("op{operation} goes to {role:?} of {node}")
        }
        TraceEvent::Output(_, Output::Emitted(TimelineEvent::TopologyChanged { .. })) => return None,
        TraceEvent::Output(node, Output::Emitted(event)) => format!("{node} event {event:?}"),
        _ => return None,
    })
}

fn answer(result: &Result<Response, Error>) -> String {
    match result {
        Err(error) => format!("{}: {error}", error.name()),
        Ok(Response::Keyspace { keyspace, created }) => {
            let how = if *created { "created" } else { "is" };
            format!("{how} {}", definition(keyspace))
        }
        Ok(Response::Keyspaces(keyspaces)) => list(keyspaces),
        Ok(Response::Membership(membership)) => {
            let names = |nodes: &[NodeId]| {
                let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
                match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(" "),
                }
            };
            format!(
                "version {} in generation {}, voters {}, learners {}",
                membership.version,
                membership.topology.generation,
                names(&membership.voters),
                names(&membership.learners)
            )
        }
        Ok(Response::Topology(topology)) => {
            let addresses: Vec<&str> = topology
                .members
                .iter()
                .map(|member| member.client_address.as_str())
                .collect();
            format!("generation {}: {}", topology.generation, addresses.join(" "))
        }
        Ok(other) => format!("{other:?}"),
    }
}
