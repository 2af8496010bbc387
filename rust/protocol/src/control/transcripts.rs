//! Plays `tests/transcripts/control`: a cluster's control plane in a test tube ([`lab`](super::lab)).
//!
//! ```text
//! cluster nodes=3 [stopped]           nodes that have just started, or have not
//! live 100ms                          let time pass; a message takes half a millisecond
//! start n1, crash n1                  (again) with what its disk has, maybe at another address: start n1 port=1
//! cut n1 n2, heal n1 n2               nothing passes between them, in either direction; both notice: cut n1 n2 noticed
//! isolate n1, rejoin n1               the same, with all others
//! hold n1, release n1                 its disk answers nothing until it is released
//! persist n1 [writes=1]               a disk that is held does so many writes
//! full n1, space n1                   its disk refuses everything that needs room
//! n1: create NAME [replicas=3]        a client asks n1 (for groups: shards=2); likewise:
//! n1: alter NAME [read=ONE] [write=ONE] [write_id=1]
//! n1: drop NAME [write_id=1]          n1: list          n1: addresses          n1: put k1          [timeout=1s]
//! n1: membership                      what the control plane is made of
//! litter n1 k1 g2 [g3 ...] [rows=9] [entries=ROWS]
//!                                     the roles of a keyspace and its groups leave so many rows, entries, and a file each,
//!                                     and their small states
//! left n1                             what is there of such things
//! late n1 g2, catch_up n1             a role that ends has an entry of its group's log on its way, which arrives
//! stall n1 [slices=2]                 its disk does only so many things in the background; without a number all
//! state                               what each node knows and serves
//! groups                              what each node claims about the group
//! messages on                         also show what the desks say to each other
//! repeat 100ms                        all of that comes a second time, so much later; repeat off
//! ```

use std::error::Error;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context};

use super::lab::{Happening, Lab};
use crate::api::{Request, Response};
use crate::error::Error as Failure;
use crate::ids::{KeyspaceId, NodeId};
use crate::key::Key;
use crate::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings};
use crate::message::Message;
use crate::raft::types::GroupId;
use crate::role::RoleId;
use crate::telemetry::TimelineEvent;
use crate::transcript;
use crate::versions::WriteId;

type Outcome = Result<String, Box<dyn Error>>;

#[test]
fn transcripts() {
    transcript::run("control", Script::default);
}

#[derive(Default)]
struct Script {
    lab: Option<Lab>,
    messages: bool,
}

impl Script {
    fn lab(&mut self) -> Result<&mut Lab, Box<dyn Error>> {
        self.lab
            .as_mut()
            .ok_or_else(|| "begin with: cluster nodes=3".into())
    }

    fn request(&mut self, node: NodeId, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let timeout = args
            .take_key("timeout")
            .map_or(Ok(Duration::from_secs(1)), duration)?;
        let next = self.lab()?.operations + 1;
        let write_id = WriteId {
            client: 77,
            sequence: number(&mut args, "write_id")?.unwrap_or(next),
        };
        let level = |args: &mut ArgumentConsumer<'_>, name| args.take_key(name).map(str::parse).transpose();
        let request = match command.name.as_str() {
            "list" => Request::ListKeyspaces,
            "addresses" => Request::Topology,
            "membership" => Request::Membership,
            "put" => {
                let keyspace: u32 = args
                    .next_pos()
                    .ok_or("which keyspace?")?
                    .trim_start_matches('k')
                    .parse()?;
                Request::Put {
                    keyspace: KeyspaceId(keyspace),
                    key: Key::try_from("k")?,
                    value: None,
                    context: None,
                    level: None,
                    write_id,
                }
            }
            name => {
                let keyspace = args.next_pos().ok_or("which name?")?.to_owned();
                match name {
                    "create" => {
                        let replicas = number(&mut args, "replicas")?.unwrap_or(3);
                        let settings = match number(&mut args, "shards")? {
                            None => KeyspaceSettings::quorum(&keyspace, replicas),
                            Some(shards) => KeyspaceSettings {
                                shards,
                                ..KeyspaceSettings::consensus(&keyspace, replicas)
                            },
                        };
                        Request::CreateKeyspace(settings)
                    }
                    "alter" => Request::AlterKeyspace {
                        change: KeyspaceChange {
                            read_level: level(&mut args, "read")?,
                            write_level: level(&mut args, "write")?,
                            read_repair: None,
                        },
                        name: keyspace,
                        write_id,
                    },
                    "drop" => Request::DropKeyspace {
                        name: keyspace,
                        write_id,
                    },
                    other => return Err(format!("clients do not ask for {other}").into()),
                }
            }
        };
        args.reject_next()?;
        self.lab()?.ask(node, request, timeout);
        Ok(String::new())
    }

    fn world(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let name = command.name.as_str();
        let output = match name {
            "cluster" => {
                let mut lab = Lab::stopped(number(&mut args, "nodes")?.unwrap_or(3), 1);
                if args.next_pos() != Some("stopped") {
                    for node in lab.nodes() {
                        lab.start(node);
                    }
                }
                self.lab = Some(lab);
                String::new()
            }
            "messages" => {
                self.messages = args.next_pos() == Some("on");
                String::new()
            }
            "repeat" => {
                let time = args.next_pos().filter(|text| *text != "off");
                self.lab()?.repeat = time.map(duration).transpose()?;
                String::new()
            }
            "live" => {
                let time = duration(args.next_pos().ok_or("how long?")?)?;
                self.lab()?.live(time);
                String::new()
            }
            "state" => state(self.lab()?),
            "groups" => groups(self.lab()?),
            _ => self.on_node(name, &mut args)?,
        };
        args.reject_next()?;
        Ok(output)
    }

    fn on_node(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let lab = self.lab()?;
        let node: NodeId = args.next_pos().ok_or("which node?")?.parse()?;
        match name {
            "start" => {
                if let Some(port) = number(args, "port")? {
                    lab.machine(node).port = port;
                }
                lab.start(node);
            }
            "crash" => lab.crash(node),
            "hold" => lab.machine(node).disk.held = true,
            "release" => {
                lab.machine(node).disk.held = false;
                lab.persist(node, usize::MAX);
            }
            "persist" => lab.persist(node, number(args, "writes")?.unwrap_or(1)),
            "late" => {
                let group = args.next_pos().ok_or("whose entry?")?[1..].parse()?;
                lab.machine(node).disk.delay_entry(GroupId(group));
            }
            "catch_up" => lab.machine(node).disk.catch_up(),
            "litter" => {
                let id = |text: &str| text[1..].parse::<u32>();
                let keyspace = KeyspaceId(id(args.next_pos().ok_or("which keyspace?")?)?);
                let rows = number(args, "rows")?.unwrap_or(9);
                let entries = number(args, "entries")?.unwrap_or(rows);
                let groups = std::iter::from_fn(|| args.next_pos()).map(|text| id(text).map(GroupId));
                let groups: Vec<GroupId> = groups.collect::<Result<_, _>>()?;
                lab.machine(node).disk.litter(keyspace, &groups, rows, entries);
            }
            "left" => {
                let [rows, entries, files, states] = lab.machine(node).disk.left();
                return Ok(format!(
                    "{node} has {rows} rows, {entries} entries, {files} files, {states} states"
                ));
            }
            "stall" => lab.machine(node).disk.slices = number(args, "slices")?,
            "full" | "space" => lab.machine(node).disk.full = name == "full",
            "cut" | "heal" => {
                let other: NodeId = args.next_pos().ok_or("and which other?")?.parse()?;
                let noticed = args.next_pos() == Some("noticed");
                cut(lab, node, other, name == "cut", noticed);
            }
            "isolate" | "rejoin" => {
                let noticed = args.next_pos() == Some("noticed");
                for other in lab.nodes().into_iter().filter(|other| *other != node) {
                    cut(lab, node, other, name == "isolate", noticed);
                }
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(String::new())
    }

    fn happened(&mut self) -> Vec<String> {
        let messages = self.messages;
        let Some(lab) = &mut self.lab else {
            return Vec::new();
        };
        let happenings = std::mem::take(&mut lab.happenings);
        happenings
            .iter()
            .filter_map(|happening| show(happening, messages))
            .collect()
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Outcome {
        let output = match &context.prefix {
            Some(node) => self.request(node.parse()?, command)?,
            None => self.world(command)?,
        };
        let mut lines = self.happened();
        if !output.is_empty() {
            lines.push(output);
        }
        Ok(lines.join("\n"))
    }
}

fn cut(lab: &mut Lab, one: NodeId, other: NodeId, apart: bool, noticed: bool) {
    for (from, to) in [(one, other), (other, one)] {
        if apart {
            lab.cut.insert((from, to));
        } else {
            lab.cut.remove(&(from, to));
        }
    }
    if noticed || !apart {
        lab.link(one, other, !apart && lab.is_up(other));
        lab.link(other, one, !apart && lab.is_up(one));
    }
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

fn state(lab: &Lab) -> String {
    let line = |node: NodeId| {
        let Some(control) = lab.control(node) else {
            return format!("{node} down");
        };
        let known = control.known();
        let names: Vec<&str> = known
            .keyspaces()
            .values()
            .map(|one| one.settings.name.as_str())
            .collect();
        let served: Vec<String> = lab.machines[&node]
            .served
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
    lab.nodes().into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn groups(lab: &Lab) -> String {
    let line = |node: NodeId| {
        let claim = lab.control(node)?.claim(lab.now);
        let leader = claim
            .leader
            .map_or("nobody".to_owned(), |leader| leader.to_string());
        Some(format!(
            "{node} {} in t{}, leader {leader}, commit {} applied {} last {}",
            claim.state.name(),
            claim.term,
            claim.commit,
            claim.applied,
            claim.last
        ))
    };
    lab.nodes()
        .into_iter()
        .filter_map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

fn show(happening: &Happening, messages: bool) -> Option<String> {
    Some(match happening {
        Happening::Delivered(from, to, message) if messages && from.role == RoleId::Control => {
            let text = match message {
                Message::Propose(change) => format!("Propose {:?}", change.command),
                Message::Forwarded(result) => format!("Forwarded {}", answer(result)),
                Message::Redirect { leader } => format!("Redirect {leader:?}"),
                Message::Defined => "Defined".to_owned(),
                _ => return None,
            };
            format!("{} -> {} {text}", from.node, to.node)
        }
        Happening::Delivered(..) => return None,
        Happening::Reply(operation, result) => format!("op{operation} {}", answer(result)),
        Happening::Relayed(node, role, operation) => format!("op{operation} goes to {role:?} of {node}"),
        Happening::Emitted(_, TimelineEvent::TopologyChanged { .. }) => return None,
        Happening::Emitted(node, event) => format!("{node} event {event:?}"),
    })
}

fn answer(result: &Result<Response, Failure>) -> String {
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

fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse()?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!("{text:?} is no time: write 10ms").into()),
    }
}

fn number<T: std::str::FromStr>(
    args: &mut ArgumentConsumer<'_>,
    name: &str,
) -> Result<Option<T>, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(name).map(str::parse).transpose()?)
}
