//! Plays `tests/transcripts/raft`: a group in a test tube ([`lab`](super::lab)), one command after the other. Begin reading
//! with `figure2.txt`, which takes the rules of the paper's Figure 2 one by one; the other files have what they leave open.
//!
//! ```text
//! cluster nodes=3 [learners=n4] [outgoing=n1,n5] [bug=NAME] [ages=on] [SETTING=NUMBER] [stopped]      a group of so many voters;
//!       settings: append_bytes append_window snapshot_every kept_entries chunk_bytes chunk_window uncommitted_bytes
//! preload n1 1 1 4 [term=6] [vote=n2]   n1's disk has a log of these terms (before its first start)
//! campaign n1                           n1 asks for an election, as if its timeout had passed
//! n1: put NAME VALUE [timeout=1s]       a client proposes at n1; likewise: n1: add NAME NUMBER
//! n1: open [idle=10s]                   ... opens a session, or closes it: n1: close s5
//! n1: call s5 1 [acked=0] put NAME VALUE   ... proposes in session s5 under number 1
//! n1: get NAME [timeout=1s]             a client reads at n1, linearizable; n1: stale NAME   whatever n1 has
//! wire                                  what is on its way
//! deliver [n1 n2] [count=1]             deliver what is on the wire now (from n1 to n2): one hop
//! run                                   deliver until nothing moves any more
//! drop [n1 n2]      lose it             duplicate n1 n2      put a second copy on the wire
//! reorder n1 n2                         the last message from n1 to n2 overtakes the others
//! block n1 n2                           what n1 sends to n2 stays on the wire until: unblock n1 n2
//! isolate n1                            what n1 sends and is sent is lost until: heal
//! hold n1                               n1's disk makes nothing durable until: persist n1 [COUNT], or release n1
//! full n1                               n1's disk has no space until: space n1
//! lose n1 5                             n1's disk does not have entry 5 any more
//! crash n1 [synced=0]                   n1 ends at once; so many of its writes in flight have reached the disk
//! restart n1                            n1 starts (again) with what its disk has
//! peer-down n1 n2, peer-up n1 n2        n1's link to n2 breaks, or comes back
//! advance 50ms                          let time pass
//! live 500ms                            let time pass while all messages arrive at once; shows no messages
//! skew n1 2s                            set n1's wall clock ahead
//! show                                  each server         logs    the terms of each server's entries, committed | not
//! disk n1                               how many entries of log and snapshots n1's disk has
//! verbose on                            also show what becomes durable
//! ```
//! Answers are numbered as the requests are: `op1`, `op2`, ….

use std::error::Error;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context};

use super::lab::{GROUP, Happening, Lab, Setup, show};
use crate::ids::NodeId;
use crate::raft::alphabet::{Event, ReadLevel};
use crate::raft::bugs::RaftBugs;
use crate::raft::entry::{Entry, EntryKind};
use crate::raft::format;
use crate::raft::sessions::{Request, SessionId};
use crate::raft::types::{HardState, LogIndex, Term};
use crate::store::JournalOp;
use crate::transcript;

type Outcome = Result<String, Box<dyn Error>>;

#[test]
fn transcripts() {
    transcript::run("raft", Script::default);
}

#[derive(Default)]
struct Script {
    lab: Option<Lab>,
    verbose: bool,
}

impl Script {
    fn lab(&mut self) -> Result<&mut Lab, Box<dyn Error>> {
        self.lab
            .as_mut()
            .ok_or_else(|| "begin with: cluster nodes=3".into())
    }

    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let voters = number(args, "nodes")?.unwrap_or(3u16);
        let mut setup = Setup::of(voters);
        for (key, nodes) in [
            ("learners", &mut setup.initial.learners),
            ("outgoing", &mut setup.initial.outgoing),
        ] {
            if let Some(list) = args.take_key(key) {
                *nodes = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
        }
        let highest = setup.initial.members().map(|node| node.0).max();
        setup.nodes = highest.unwrap_or(voters);
        let settings = &mut setup.settings;
        for (key, value) in [
            ("append_bytes", &mut settings.append_bytes),
            ("append_window", &mut settings.append_window),
            ("kept_bytes", &mut settings.kept_bytes),
            ("uncommitted_bytes", &mut settings.uncommitted_bytes),
        ] {
            *value = number(args, key)?.unwrap_or(*value);
        }
        settings.snapshot_every = number(args, "snapshot_every")?.unwrap_or(settings.snapshot_every);
        settings.kept_entries = number(args, "kept_entries")?.unwrap_or(settings.kept_entries);
        settings.chunk_bytes = number(args, "chunk_bytes")?.unwrap_or(settings.chunk_bytes);
        settings.chunk_window = number(args, "chunk_window")?.unwrap_or(settings.chunk_window);
        settings.ages = args.take_key("ages").is_some_and(|wanted| wanted == "on");
        if let Some(name) = args.take_key("bug") {
            setup.bugs = bug(name).ok_or_else(|| format!("there is no bug {name}"))?;
        }
        self.lab = Some(match args.next_pos() {
            Some("stopped") => Lab::stopped(&setup),
            _ => Lab::new(&setup),
        });
        Ok(String::new())
    }

    // ---- clients ----

    fn client(&mut self, node: NodeId, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let timeout = args
            .take_key("timeout")
            .map_or(Ok(Duration::from_secs(1)), duration)?;
        let idle = args
            .take_key("idle")
            .map_or(Ok(Duration::from_secs(10)), duration)?;
        let acknowledged = number(&mut args, "acked")?.unwrap_or(0);
        let rest = positions(&mut args);
        args.reject_next()?;
        let lab = self.lab()?;
        let request = match (command.name.as_str(), &rest[..]) {
            (verb @ ("put" | "add"), _) => Request::Plain(format!("{verb} {}", rest.join(" ")).into()),
            ("open", []) => Request::Open {
                idle_ms: idle.as_millis().try_into()?,
            },
            ("close", [id]) => Request::Close(session(id)?),
            ("call", [id, sequence, command @ ..]) => Request::InSession {
                session: session(id)?,
                sequence: sequence.parse()?,
                acknowledged,
                command: command.join(" ").into(),
            },
            ("get", [name]) => {
                lab.query(node, name, ReadLevel::Linearizable, timeout);
                return Ok(String::new());
            }
            ("stale", [name]) => {
                lab.query(node, name, ReadLevel::Stale, timeout);
                return Ok(String::new());
            }
            _ => return Err(format!("clients do not ask for {}", command.name).into()),
        };
        lab.propose(node, request, timeout);
        Ok(String::new())
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
        let mut output = String::new();
        match name {
            "wire" => output = lab.wire.iter().map(show::envelope).collect::<Vec<_>>().join("\n"),
            "deliver" => {
                let between = pair(&mut args)?;
                let count = number(&mut args, "count")?.unwrap_or(usize::MAX);
                lab.deliver_round(between, count);
            }
            "run" => lab.run(),
            "drop" => {
                for place in lab.places(pair(&mut args)?).into_iter().rev() {
                    lab.wire.remove(place);
                }
            }
            "duplicate" => {
                for place in lab.places(pair(&mut args)?) {
                    lab.wire.push(lab.wire[place].clone());
                }
            }
            "reorder" => {
                let places = lab.places(pair(&mut args)?);
                let (first, last) = (places.first(), places.last());
                let (first, last) = first.zip(last).ok_or("there is nothing to reorder")?;
                lab.wire[*first..=*last].rotate_right(1);
            }
            "block" | "unblock" | "peer-down" | "peer-up" => {
                let (from, to) = pair(&mut args)?.ok_or("between which nodes?")?;
                match name {
                    "block" => drop(lab.blocked.insert((from, to))),
                    "unblock" => drop(lab.blocked.remove(&(from, to))),
                    _ => lab.link(from, to, name == "peer-up"),
                }
            }
            "heal" => lab.cut.clear(),
            "advance" => lab.advance(duration(args.next_pos().ok_or("by how much?")?)?),
            "live" => lab.live(duration(args.next_pos().ok_or("for how long?")?)?),
            "show" => output = show::servers(lab),
            "logs" => output = show::logs(lab),
            _ => output = self.on_node(name, &mut args)?,
        }
        args.reject_next()?;
        Ok(output)
    }

    fn on_node(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome {
        let lab = self.lab()?;
        let node: NodeId = args.next_pos().ok_or("which node?")?.parse()?;
        match name {
            "campaign" => lab.input(node, Event::Campaign),
            "preload" => preload(lab, node, args)?,
            "isolate" => {
                let others = lab.nodes().into_iter().filter(|other| *other != node);
                lab.cut
                    .extend(others.flat_map(|other| [(node, other), (other, node)]));
            }
            "hold" => lab.machine(node).disk.held = true,
            "persist" => lab.persist(node, args.next_pos().map_or(Ok(usize::MAX), str::parse)?),
            "release" => {
                lab.machine(node).disk.held = false;
                lab.persist(node, usize::MAX);
            }
            "full" | "space" => lab.machine(node).disk.full = name == "full",
            "lose" => {
                let position = args.next_pos().ok_or("which entry?")?.parse()?;
                lab.machine(node).disk.lose(GROUP.log_stream(), position);
            }
            "crash" => lab.crash(node, number(args, "synced")?.unwrap_or(0)),
            "restart" => lab.restart(node),
            "disk" => {
                let disk = &lab.machine(node).disk;
                let (log, chunks) = (
                    disk.entries(GROUP.log_stream()),
                    disk.entries(GROUP.snapshot_stream()),
                );
                return Ok(format!("{log} entries, {chunks} chunks"));
            }
            "skew" => {
                let ahead = duration(args.next_pos().ok_or("by how much?")?)?;
                lab.machine(node).skew_micros = ahead.as_micros().try_into()?;
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
            Some(node) => self.client(node.parse()?, command)?,
            None => self.world(command)?,
        };
        let disks = self.verbose || matches!(command.name.as_str(), "persist" | "release");
        let messages = command.name != "live";
        let happenings = self
            .lab
            .iter_mut()
            .flat_map(|lab| std::mem::take(&mut lab.happenings));
        let mut lines: Vec<String> = happenings
            .filter(|happening| {
                messages || !matches!(happening, Happening::Delivered(_) | Happening::Lost(..))
            })
            .filter_map(|happening| show::happening(&happening, disks))
            .collect();
        if !output.is_empty() {
            lines.push(output);
        }
        Ok(lines.join("\n"))
    }
}

fn preload(lab: &mut Lab, node: NodeId, args: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
    let vote = args.take_key("vote").map(str::parse).transpose()?;
    let term = number(args, "term")?;
    let terms: Vec<u64> = positions(args)
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
    lab.machine(node).disk.apply(&ops);
    Ok(())
}

/// The bug of this name, switched on.
pub(super) fn bug(name: &str) -> Option<RaftBugs> {
    let mut bugs = RaftBugs::default();
    match name {
        "vote_not_durable" => bugs.vote_not_durable = true,
        "old_term_commit" => bugs.old_term_commit = true,
        "no_pre_vote" => bugs.no_pre_vote = true,
        "stale_read_index" => bugs.stale_read_index = true,
        "ack_before_durable" => bugs.ack_before_durable = true,
        "sessions_lost_at_snapshot" => bugs.sessions_lost_at_snapshot = true,
        "restarted_in_place" => bugs.restarted_in_place = true,
        _ => return None,
    }
    Some(bugs)
}

fn session(text: &str) -> Result<SessionId, Box<dyn Error>> {
    let number = text.strip_prefix('s').ok_or("a session is written s5")?;
    Ok(SessionId(number.parse()?))
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    args: &mut ArgumentConsumer<'_>,
    name: &str,
) -> Result<Option<T>, Box<dyn Error>> {
    Ok(args.take_key(name).map(str::parse).transpose()?)
}

/// All arguments without a name that are left.
fn positions<'a>(args: &mut ArgumentConsumer<'a>) -> Vec<&'a str> {
    std::iter::from_fn(|| args.next_pos()).collect()
}

fn pair(args: &mut ArgumentConsumer<'_>) -> Result<Option<(NodeId, NodeId)>, Box<dyn Error>> {
    let Some(from) = args.next_pos() else {
        return Ok(None);
    };
    let to = args.next_pos().ok_or("and to which node?")?;
    Ok(Some((from.parse()?, to.parse()?)))
}

fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse()?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!("{text}: write 50ms or 2s").into()),
    }
}
