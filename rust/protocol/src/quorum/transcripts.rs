//! Plays `tests/transcripts/quorum`: a cluster in a test tube ([`lab`](super::lab)), one command after the other.
//!
//! ```text
//! cluster nodes=3 [replicas=3] [read_repair=off] [bug=NAME]     a cluster with keyspace ks
//! n1: put KEY VALUE [level=ALL] [context=NAME] [write=N] [timeout=1s] [size=BYTES]     a client asks n1; likewise:
//!                                     (context=NAME forged=N pretends to have read it here, and N later writes of each replica)
//! n1: delete KEY ...                  n1: get KEY [level=ONE] [as=NAME] ...   (NAME keeps the context it read)
//! n1: scan [from=KEY] [to=KEY] [after=KEY] [limit=N] [level=ONE] ...
//! wire                                what is on its way between nodes
//! deliver [n1 n2] [count=1]           deliver what is on the wire now (from n1 to n2): one hop
//! run                                 deliver until nothing moves any more
//! drop [n1 n2]                        lose it          duplicate n1 n2      put a second copy on the wire
//! block n1 n2                         what n1 sends to n2 stays on the wire until: unblock n1 n2
//! hold n1                             n1's disk makes nothing durable until: persist n1 [COUNT], or release n1
//! full n1                             n1's disk has no space until: space n1
//! refuse n1                           n1's disk has no space for the newest of the writes that it holds
//! corrupt n1 KEY                      n1's record of the key fails its checksum
//! lose n1 KEY                         n1's record of the key cannot be found any more
//! crash n1                            n1 ends at once, and the others notice
//! restart n1                          n1 starts again with what its disk has
//! peer-down n1 n2, peer-up n1 n2      n1 loses its link to n2, or gets it back
//! advance 50ms                        let time pass    skew n1 2s           set n1's wall clock ahead
//! show KEY                            what each disk has; a disk that has nothing of it is left out
//! where KEY                           the key's replicas, the most preferred first
//! busy                                how many requests each coordinator has in progress
//! verbose on                          also show what happens inside a node
//! ```
//!
//! A key state is shown as `{clock} value@dot`. Answers are numbered as the requests are: `op1`, `op2`, …

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};

use super::lab::{Happening, Lab, Setup, show};
use crate::api::{Request, Response};
use crate::bugs::Bugs;
use crate::ids::{KeyspaceId, NodeId};
use crate::instance::Instance;
use crate::key::{Key, record_key};
use crate::keyspace::{KeyspaceSettings, ReadRepair};
use crate::level::Level;
use crate::role::RoleId;
use crate::store::Table;
use crate::transcript;
use crate::versions::{self, Dot, WriteId};

type Outcome = Result<String, Box<dyn Error>>;

/// The keyspace of every transcript.
const KEYSPACE: KeyspaceId = KeyspaceId(1);

#[test]
fn transcripts() {
    transcript::run("quorum", Script::default);
}

#[derive(Default)]
struct Script {
    lab: Option<Lab>,
    contexts: BTreeMap<String, versions::Context>,
    /// Who wants to keep the context of which operation's answer.
    readers: BTreeMap<u64, String>,
    verbose: bool,
}

impl Script {
    fn lab(&mut self) -> Result<&mut Lab, Box<dyn Error>> {
        self.lab
            .as_mut()
            .ok_or_else(|| "begin with: cluster nodes=3".into())
    }

    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let nodes = number(args, "nodes")?.unwrap_or(3u16);
        let replicas = number(args, "replicas")?.unwrap_or(3);
        let mut bugs = Bugs::default();
        match args.take_key("bug") {
            None => {}
            Some("siblings_dropped") => bugs.siblings_dropped = true,
            Some("counter_restarts") => bugs.counter_restarts = true,
            Some("id_kept_after_crash") => bugs.id_kept_after_crash = true,
            Some("ack_before_durable") => bugs.ack_before_durable = true,
            Some("write_quorum_by_liveness") => bugs.write_quorum_by_liveness = true,
            Some(other) => return Err(format!("there is no bug {other}").into()),
        }
        let mut settings = KeyspaceSettings::quorum("ks", replicas);
        if args.take_key("read_repair") == Some("off") {
            settings.read_repair = ReadRepair::Off;
        }
        let mut lab = Lab::new(&Setup {
            nodes,
            seed: 1,
            bugs,
            scrambled: false,
        });
        lab.create_keyspace(settings);
        lab.happenings.clear();
        self.lab = Some(lab);
        Ok(String::new())
    }

    // ---- clients ----

    fn request(&mut self, node: NodeId, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let name = command.name.as_str();
        let timeout = args
            .take_key("timeout")
            .map_or(Ok(Duration::from_secs(1)), duration)?;
        let reader = args.take_key("as").map(ToOwned::to_owned);
        let role = RoleId::Coordinator(KEYSPACE);
        let request = self.data_request(name, &mut args)?;
        args.reject_next()?;
        let lab = self.lab()?;
        if !lab.machine(node).has(role) {
            return Err(format!("{node} does not serve that").into());
        }
        let operation = lab.ask(node, role, request, timeout);
        if let Some(reader) = reader {
            self.readers.insert(operation, reader);
        }
        Ok(String::new())
    }

    fn data_request(
        &mut self,
        name: &str,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<Request, Box<dyn Error>> {
        let keyspace = KEYSPACE;
        let level = args.take_key("level").map(str::parse::<Level>).transpose()?;
        let context = match args.take_key("context") {
            Some(reader) => Some(
                self.contexts
                    .get(reader)
                    .ok_or("nobody of that name has read")?
                    .clone(),
            ),
            None => None,
        };
        let forged = number::<u64>(args, "forged")?;
        let next = self.lab()?.operations.len() as u64 + 1;
        let write_id = WriteId {
            client: 1,
            sequence: number(args, "write")?.unwrap_or(next),
        };
        if name == "scan" {
            let mut bound = |name| args.take_key(name).map(Key::try_from).transpose();
            let (from, to, after) = (bound("from")?, bound("to")?, bound("after")?);
            return Ok(Request::Scan {
                keyspace,
                after_start: after.is_some(),
                start: after.or(from),
                end: to,
                limit: number(args, "limit")?.unwrap_or(100),
                level,
            });
        }
        let key = Key::try_from(args.next_pos().ok_or("which key?")?)?;
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
        let value = match name {
            "get" => return Ok(Request::Get { keyspace, key, level }),
            "delete" => None,
            "put" => match number::<usize>(args, "size")? {
                Some(size) => Some(Bytes::from(vec![b'x'; size])),
                None => Some(Bytes::copy_from_slice(
                    args.next_pos().ok_or("which value?")?.as_bytes(),
                )),
            },
            other => return Err(format!("clients do not ask for {other}").into()),
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

    // ---- the world ----

    fn world(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let name = command.name.as_str();
        if name == "cluster" {
            let output = self.cluster(&mut args);
            args.reject_next()?;
            return output;
        }
        if name == "verbose" {
            self.verbose = args.next_pos() == Some("on");
            return Ok(String::new());
        }
        let lab = self.lab()?;
        let output = match name {
            "wire" => {
                let wire = lab.wire.iter().map(show::envelope);
                wire.collect::<Vec<_>>().join("\n")
            }
            "deliver" => {
                let between = pair(&mut args)?;
                let count = number(&mut args, "count")?.unwrap_or(usize::MAX);
                lab.deliver_round(between, count);
                String::new()
            }
            "run" => {
                lab.run();
                String::new()
            }
            "drop" => {
                for place in lab.places(pair(&mut args)?).into_iter().rev() {
                    lab.wire.remove(place);
                }
                String::new()
            }
            "duplicate" => {
                for place in lab.places(pair(&mut args)?) {
                    lab.wire.push(lab.wire[place].clone());
                }
                String::new()
            }
            "block" | "unblock" | "peer-down" | "peer-up" => {
                let (from, to) = pair(&mut args)?.ok_or("between which nodes?")?;
                match name {
                    "block" => drop(lab.blocked.insert((from, to))),
                    "unblock" => drop(lab.blocked.remove(&(from, to))),
                    _ => lab.link(from, to, name == "peer-up"),
                }
                String::new()
            }
            "advance" => {
                lab.advance(duration(args.next_pos().ok_or("by how much?")?)?);
                String::new()
            }
            "show" | "where" => {
                let key = Key::try_from(args.next_pos().ok_or("which key?")?)?;
                if name == "show" {
                    durable(lab, &key)
                } else {
                    replicas(lab, &key)?
                }
            }
            "busy" => lab
                .machines
                .values()
                .filter_map(|machine| match machine.instance(RoleId::Coordinator(KEYSPACE)) {
                    Some(Instance::Coordinator(role)) => {
                        Some(format!("{} {}", machine.node, role.in_progress()))
                    }
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join("\n"),
            _ => self.on_node(name, &mut args)?,
        };
        args.reject_next()?;
        Ok(output)
    }

    fn on_node(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let lab = self.lab()?;
        let node: NodeId = args.next_pos().ok_or("which node?")?.parse()?;
        match name {
            "hold" => lab.machine(node).disk.held = true,
            "persist" => {
                let count = args.next_pos().map_or(Ok(usize::MAX), str::parse)?;
                lab.persist(node, count);
            }
            "release" => {
                lab.machine(node).disk.held = false;
                lab.persist(node, usize::MAX);
            }
            "refuse" => lab.refuse_newest(node),
            "full" | "space" => lab.machine(node).disk.full = name == "full",
            "corrupt" => {
                let key = Key::try_from(args.next_pos().ok_or("which key?")?)?;
                if !lab
                    .machine(node)
                    .disk
                    .corrupt(Table::Records, record_key(KEYSPACE, &key))
                {
                    return Err(format!("{node} has no record of {key}").into());
                }
            }
            "lose" => {
                let key = Key::try_from(args.next_pos().ok_or("which key?")?)?;
                if !lab
                    .machine(node)
                    .disk
                    .lose(Table::Records, record_key(KEYSPACE, &key))
                {
                    return Err(format!("{node} has no record of {key}").into());
                }
            }
            "crash" => lab.crash(node, 0),
            "restart" => lab.restart(node),
            "skew" => {
                let ahead = duration(args.next_pos().ok_or("by how much?")?)?;
                lab.machine(node).skew_micros = ahead.as_micros().try_into()?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(String::new())
    }

    /// What has happened since the last command, a line each.
    fn happened(&mut self, disks: bool) -> Vec<String> {
        let Some(lab) = &mut self.lab else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for happening in std::mem::take(&mut lab.happenings) {
            let everything = self.verbose || disks && matches!(happening, Happening::Disk { .. });
            lines.extend(show::happening(&happening, everything));
            if let Happening::Reply {
                operation,
                response: Ok(Response::Entry(entry)),
            } = happening
                && let Some(reader) = self.readers.remove(&operation)
            {
                self.contexts.insert(reader, entry.context);
            }
        }
        lines
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Outcome {
        let output = match &context.prefix {
            Some(node) => self.request(node.parse()?, command)?,
            None => self.world(command)?,
        };
        let disks = matches!(command.name.as_str(), "persist" | "release");
        let mut lines = self.happened(disks);
        if !output.is_empty() {
            lines.push(output);
        }
        Ok(lines.join("\n"))
    }
}

fn durable(lab: &Lab, key: &Key) -> String {
    let mut lines = Vec::new();
    for node in lab.machines.keys() {
        let disk = &lab.machines[node].disk;
        if disk.is_corrupt(Table::Records, &record_key(KEYSPACE, key)) {
            lines.push(format!("{node} (corrupt)"));
        } else if let Some(state) = lab.durable(*node, KEYSPACE, key) {
            lines.push(format!("{node} {}", show::state(&state)));
        }
    }
    lines.join("\n")
}

fn replicas(lab: &Lab, key: &Key) -> Outcome {
    let machines = lab.machines.values();
    let keyspace = machines
        .filter_map(|machine| match machine.instance(RoleId::Node) {
            Some(Instance::Node(role)) => role.keyspaces().find(|keyspace| keyspace.id == KEYSPACE),
            _ => None,
        })
        .next()
        .ok_or("no node knows the keyspace")?;
    let preference = lab.placement().preference(keyspace.settings.replicas)?;
    Ok(show::nodes(preference.of(key)))
}

fn pair(args: &mut ArgumentConsumer<'_>) -> Result<Option<(NodeId, NodeId)>, Box<dyn Error>> {
    Ok(match (args.next_pos(), args.next_pos()) {
        (Some(from), Some(to)) => Some((from.parse()?, to.parse()?)),
        (None, _) => None,
        (Some(_), None) => return Err("name two nodes".into()),
    })
}

fn number<T: std::str::FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    name: &str,
) -> Result<Option<T>, Box<dyn Error>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (digits, unit) = text.split_at(
        text.find(char::is_alphabetic)
            .ok_or("a duration is like 50ms or 2s")?,
    );
    let number: u64 = digits.parse()?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        other => Err(format!("unknown unit {other}").into()),
    }
}
