//! Plays `tests/transcripts/shard`: a consensus keyspace in a test tube ([`lab`](super::lab)).
//!
//! ```text
//! cluster nodes=3 [members=3] [every=10000] [chunk=65536] [stopped]    nodes of which the first are members of the only group
//! live 100ms                     let time pass; a message takes half a millisecond
//! start n1, crash n1 [synced=1] [settled=1]     of what its disk was asked for so much is there
//! cut n1 n2, heal n1 n2          nothing passes between them, in either direction; both notice: cut n1 n2 noticed
//! isolate n1, rejoin n1          the same, with all others
//! hold n1, release n1            its disk answers no persists; likewise: unsettle n1, settle n1 (derived rows), and
//!                                hold_files n1, file n1 [steps=1] (steps of file tasks), release_files n1
//! full n1, space n1              its disk refuses everything
//! rot n1                         its files are damaged; rot_row n1 KEY: the row of a key is
//! drop n1                        it hears that the keyspace was dropped
//! n1: put KEY=VALUE ...          a client asks n1, for one batch; conditions stand behind: a=1@absent b=2@7
//! n1: delete KEY ...             likewise: a@7
//! n1: append DATA [source=web]
//! n1: get KEY ..., n1: range [from=a] [to=c] [limit=2] [after], n1: log [after=3] [limit=2]       [level=stale]
//! n1: open [idle=5s], n1: close s3
//! n1: put a=1 session=s3.1 [acked=0]         in a session, with this number             [timeout=1s]
//! state                          what each member is, how far it is, and its files
//! rows n1                        the rows of a node
//! messages on                    also show what gates and shards say to each other
//! repeat 100ms                   all of that comes a second time, so much later; repeat off
//! ```

use std::error::Error;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context};

use super::lab::{KEYSPACE, Lab, Setup, show};
use crate::api::{Request, Stamp};
use crate::ids::NodeId;
use crate::key::Key;
use crate::raft::alphabet::ReadLevel;
use crate::raft::types::GroupId;
use crate::shard::command::{self, Condition, Write};
use crate::shard::rows;
use crate::transcript;

type Outcome = Result<String, Box<dyn Error>>;

/// The only group.
const GROUP: GroupId = GroupId(2);

#[test]
fn transcripts() {
    transcript::run("shard", Script::default);
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
        let level = match args.take_key("level") {
            Some("stale") => ReadLevel::Stale,
            _ => ReadLevel::Linearizable,
        };
        let (keyspace, group) = (KEYSPACE, GROUP);
        let request = match command.name.as_str() {
            "put" | "delete" | "append" => Request::Propose {
                keyspace,
                group,
                session: stamp(&mut args)?,
                command: change(command.name.as_str(), &mut args)?,
            },
            "open" => Request::OpenSession {
                keyspace,
                group,
                idle_ms: args
                    .take_key("idle")
                    .map_or(Ok(Duration::from_secs(5)), duration)?
                    .as_millis() as u64,
            },
            "close" => Request::CloseSession {
                keyspace,
                group,
                session: session(args.next_pos().ok_or("which session?")?)?,
            },
            "get" => Request::Read {
                keyspace,
                group,
                keys: std::iter::from_fn(|| args.next_pos())
                    .map(key)
                    .collect::<Result<_, _>>()?,
                level,
            },
            "range" => Request::ReadRange {
                keyspace,
                group,
                start: args.take_key("from").map(key).transpose()?,
                end: args.take_key("to").map(key).transpose()?,
                after_start: args.next_pos() == Some("after"),
                limit: number(&mut args, "limit")?.unwrap_or(100),
                level,
            },
            "log" => Request::ReadLog {
                keyspace,
                group,
                after: number(&mut args, "after")?.unwrap_or(0),
                limit: number(&mut args, "limit")?.unwrap_or(100),
                level,
            },
            other => return Err(format!("clients do not ask for {other}").into()),
        };
        args.reject_next()?;
        self.lab()?.ask(node, GROUP, request, timeout);
        Ok(String::new())
    }

    fn world(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let name = command.name.as_str();
        let output = match name {
            "cluster" => {
                self.lab = Some(cluster(&mut args)?);
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
            "state" => show::state(self.lab()?, GROUP),
            _ => self.on_node(name, &mut args)?,
        };
        args.reject_next()?;
        Ok(output)
    }

    fn on_node(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let lab = self.lab()?;
        let node: NodeId = args.next_pos().ok_or("which node?")?.parse()?;
        match name {
            "start" => lab.start(node),
            "crash" => {
                let synced = number(args, "synced")?.unwrap_or(0);
                let settled = number(args, "settled")?.unwrap_or(0);
                lab.crash(node, synced, settled);
            }
            "hold" => lab.machine(node).disk.held = true,
            "unsettle" => lab.machine(node).disk.unsettled = true,
            "hold_files" => lab.machine(node).disk.files_held = true,
            "release" | "settle" | "release_files" => {
                let disk = &mut lab.machine(node).disk;
                (disk.held, disk.unsettled, disk.files_held) = (false, false, false);
                lab.catch_up(node);
            }
            "file" => {
                for _ in 0..number(args, "steps")?.unwrap_or(1) {
                    lab.file_step(node, u64::from(GROUP.0));
                }
            }
            "full" | "space" => lab.machine(node).disk.full = name == "full",
            "rot" => lab.machine(node).disk.rot(),
            "rot_row" => {
                let row = rows::record_key(GROUP, &key(args.next_pos().ok_or("whose row?")?)?);
                lab.machine(node).disk.rot_row(&row);
            }
            "drop" => lab.drop_keyspace(node),
            "rows" => return Ok(show::rows(&lab.machine(node).disk, GROUP)),
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
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Outcome {
        let output = match &context.prefix {
            Some(node) => self.request(node.parse()?, command)?,
            None => self.world(command)?,
        };
        let messages = self.messages;
        let happenings = match &mut self.lab {
            Some(lab) => std::mem::take(&mut lab.happenings),
            None => Vec::new(),
        };
        let lines = happenings
            .iter()
            .filter_map(|happening| show::happening(happening, messages));
        let mut lines: Vec<String> = lines.collect();
        if !output.is_empty() {
            lines.push(output);
        }
        Ok(lines.join("\n"))
    }
}

fn cluster(args: &mut ArgumentConsumer<'_>) -> Result<Lab, Box<dyn Error>> {
    let nodes = number(args, "nodes")?.unwrap_or(3);
    let mut setup = Setup::of(nodes, number(args, "members")?.unwrap_or(nodes));
    if let Some(every) = number(args, "every")? {
        setup.settings.snapshot_every = every;
        setup.settings.kept_entries = 1;
    }
    if let Some(chunk) = number(args, "chunk")? {
        setup.settings.chunk_bytes = chunk;
    }
    let mut lab = Lab::stopped(setup);
    if args.next_pos() != Some("stopped") {
        for node in lab.nodes() {
            lab.start(node);
        }
    }
    Ok(lab)
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

fn change(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<command::Command, Box<dyn Error>> {
    if name == "append" {
        return Ok(command::Command::Append {
            source: args.take_key("source").unwrap_or("").to_owned(),
            data: args.next_pos().ok_or("which data?")?.to_owned().into(),
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
    while let Some((name, text)) = args.next_key() {
        let (value, condition) = split(text);
        writes.push(write(name, Some(value), condition)?);
    }
    while let Some(text) = args.next_pos() {
        let (name, condition) = split(text);
        writes.push(write(name, None, condition)?);
    }
    Ok(command::Command::Write(writes))
}

/// `s3.1`: the first command of session 3.
fn stamp(args: &mut ArgumentConsumer<'_>) -> Result<Option<Stamp>, Box<dyn Error>> {
    let acknowledged = number(args, "acked")?.unwrap_or(0);
    let Some(text) = args.take_key("session") else {
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
