//! Commands against a real state machine with real sessions, through a network and nodes that lose, repeat and delay.
//!
//! In any case a command is executed at most once; one that succeeded was executed; one with a definite error was not,
//! and will not be.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::time::WallTime;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_raft::format;
use quorate_raft::format::FormatError;
use quorate_raft::machine::StateMachine;
use quorate_raft::sessions::{Answer, Request as Logged, SessionError, SessionId, Sessions, logged};
use quorate_raft::types::{LogIndex, LogPosition, Term};
use rand_core::Rng as _;

use super::super::{CallOptions, GRACE};
use super::harness::*;

/// Counts how often each command was executed.
#[derive(Clone, Debug, Default)]
struct Counter(BTreeMap<Bytes, u32>);

impl StateMachine for Counter {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, position: LogPosition, _: WallTime, command: Bytes) -> Bytes {
        *self.0.entry(command).or_default() += 1;
        Bytes::copy_from_slice(&position.index.0.to_be_bytes())
    }
}

struct Run {
    cluster: Harness,
    random: Rng,
    group: Sessions<Counter>,
    /// The leaders' clock is ahead by this: it jumps, and sessions expire.
    clock: u64,
    index: u64,
    /// Requests that nodes have and the group does not.
    pending: Vec<Arrived>,
    /// Attempts that were answered with an unknown outcome, or whose connection broke: they may yet be executed.
    ghosts: Vec<Request>,
    deadlines: BTreeMap<u64, u64>,
    commands: BTreeMap<u64, Bytes>,
    expired: u32,
}

fn command(number: u64) -> Command {
    Command::Write(vec![Write {
        key: key(&format!("k{number}")),
        value: Some(Bytes::from_static(b"v")),
        condition: Condition::Any,
    }])
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut cluster = Harness::new(3);
        cluster.rng = rng_from_seed(seed ^ 0x5eed);
        cluster.event(super::super::ClientEvent::Start);
        Run {
            cluster,
            random: rng_from_seed(seed),
            group: Sessions::default(),
            clock: 0,
            index: 0,
            pending: Vec::new(),
            ghosts: Vec::new(),
            deadlines: BTreeMap::new(),
            commands: BTreeMap::new(),
            expired: 0,
        }
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    fn submit(&mut self) {
        let number = self.commands.len() as u64;
        let request = Request::Propose {
            keyspace: ACCOUNTS,
            group: GROUP,
            command: command(number),
            session: None,
        };
        let timeout = Duration::from_millis(50 + self.pick(3000));
        let deadline = self.cluster.now + timeout.as_micros() as u64;
        let op = self.cluster.submit_with(request, CallOptions::timeout(timeout));
        self.deadlines.insert(op, deadline);
        self.commands.insert(op, format::encode_inner(&command(number)));
    }

    fn collect(&mut self) {
        self.pending.append(&mut self.cluster.arrived);
    }

    /// The group executes a request.
    fn execute(&mut self, request: &Request) -> Result<Response, Error> {
        let entry = match request {
            Request::OpenSession { idle_ms, .. } => Logged::Open { idle_ms: *idle_ms },
            Request::Propose { command, session, .. } => {
                let stamp = session.expect("commands go through sessions");
                Logged::InSession {
                    session: SessionId(stamp.session),
                    sequence: stamp.sequence,
                    acknowledged: stamp.acknowledged,
                    command: format::encode_inner(command),
                }
            }
            other => panic!("unexpected request {other:?}"),
        };
        self.index += 1;
        let position = LogPosition {
            term: Term(1),
            index: LogIndex(self.index),
        };
        let time = WallTime(self.cluster.now + self.clock);
        let answer = self.group.apply(position, &logged(time, entry));
        match answer.expect("it can be read") {
            Ok(Answer::Opened(session)) => Ok(opened(session.0, 1)),
            Ok(Answer::Done(answer)) => {
                let index = u64::from_be_bytes(answer[..].try_into().unwrap());
                Ok(committed(index, 1))
            }
            Ok(Answer::Closed) => Ok(Response::Done),
            Err(SessionError::Expired) => {
                self.expired += 1;
                Err(Error::SessionExpired("it has expired".to_owned()))
            }
            Err(error @ SessionError::Forgotten) => Err(Error::SessionExpired(error.to_string())),
        }
    }

    /// A node processes one of its requests.
    fn serve(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let place = self.pick(self.pending.len() as u64) as usize;
        let arrived = self.pending.swap_remove(place);
        let request = arrived.frame.request.clone();
        let unknown = || Error::OutcomeUnknown {
            acked: 0,
            required: 2,
            reason: None,
        };
        let answer = match self.pick(10) {
            0 => Err(Error::Overloaded("busy".to_owned())),
            1 => Err(Error::unavailable(2, 1)),
            2 => Err(Error::Closed("stopping".to_owned())),
            3 => {
                self.ghosts.push(request);
                Err(unknown())
            }
            // Executed, but the leader is deposed before it says so.
            4 => {
                let _lost = self.execute(&request);
                Err(unknown())
            }
            _ => self.execute(&request),
        };
        // The response may be lost with its connection, later.
        if self.cluster.open.contains_key(&arrived.connection) {
            self.cluster.reply(&arrived, answer);
        }
    }

    /// An abandoned attempt is delivered after all.
    fn haunt(&mut self) {
        if !self.ghosts.is_empty() {
            let place = self.pick(self.ghosts.len() as u64) as usize;
            let request = self.ghosts.swap_remove(place);
            let _nobody = self.execute(&request);
        }
    }

    fn disturb(&mut self) {
        let node = 1 + self.pick(3) as u16;
        let behaviour = match self.pick(5) {
            0 => Behaviour::Refusing,
            1 => Behaviour::Silent,
            _ => Behaviour::Up,
        };
        self.cluster.behaviour.insert(address(node), behaviour);
        let open: Vec<u64> = self.cluster.open.keys().copied().collect();
        if open.is_empty() || self.pick(3) > 0 {
            return;
        }
        let connection = open[self.pick(open.len() as u64) as usize];
        self.cluster.open.remove(&connection);
        let lost = self
            .pending
            .extract_if(.., |arrived| arrived.connection == connection)
            .map(|arrived| arrived.frame.request);
        let lost: Vec<Request> = lost.collect();
        // Either nothing of it got out, or the node has it and may yet execute it.
        let written = if self.pick(3) == 0 { 0 } else { u64::MAX };
        if written > 0 {
            self.ghosts.extend(lost);
        }
        self.cluster.event(super::super::ClientEvent::Disconnected {
            connection,
            written,
            error: Error::ConnectionLost("cut".to_owned()),
        });
    }

    fn check_deadlines(&self) {
        let grace = GRACE.as_micros() as u64;
        for (op, deadline) in &self.deadlines {
            assert!(
                self.cluster.completed.contains_key(op) || self.cluster.now < deadline + grace,
                "operation {op} is overdue"
            );
        }
    }

    fn check_executions(&self, seed: u64) -> (usize, usize) {
        let (mut done, mut lost) = (0, 0);
        for (op, command) in &self.commands {
            let times = self.group.machine().0.get(command).copied().unwrap_or(0);
            let result = &self.cluster.outcome(*op).result;
            assert!(
                times <= 1,
                "seed {seed}: operation {op} was executed {times} times"
            );
            match result {
                Ok(_) => assert_eq!(times, 1, "seed {seed}: operation {op} was not executed"),
                Err(error) if error.is_definite() => {
                    assert_eq!(times, 0, "seed {seed}: operation {op} was executed: {error}");
                }
                Err(_) => lost += 1,
            }
            done += usize::from(result.is_ok());
        }
        (done, lost)
    }
}

fn run(seed: u64) -> (usize, usize, u32) {
    let mut run = Run::new(seed);
    for _ in 0..500 {
        match run.pick(20) {
            0..=4 => run.submit(),
            5..=12 => run.serve(),
            13 => run.disturb(),
            14 => run.haunt(),
            15 if run.pick(4) == 0 => run.clock += 61_000_000,
            _ => {
                let pause = Duration::from_micros(run.pick(100_000));
                run.cluster.advance(pause);
            }
        }
        run.collect();
        run.check_deadlines();
    }
    run.cluster.advance(Duration::from_secs(10));
    run.check_deadlines();
    assert_eq!(run.cluster.core.in_flight(), 0);
    // Attempts that are still in flight are executed at the end.
    for arrived in std::mem::take(&mut run.pending) {
        let _nobody = run.execute(&arrived.frame.request);
    }
    while !run.ghosts.is_empty() {
        run.haunt();
    }
    let (done, lost) = run.check_executions(seed);
    (done, lost, run.expired)
}

#[test]
fn a_command_is_executed_at_most_once_whatever_happens() {
    let (mut done, mut lost, mut expired) = (0, 0, 0);
    for seed in 0..300 {
        let outcome = run(seed);
        done += outcome.0;
        lost += outcome.1;
        expired += outcome.2;
    }
    assert!(
        done > 300 * 30 && lost > 100 && expired > 100,
        "{done} done, {lost} unknown, {expired} expired: this tests too little"
    );
}
