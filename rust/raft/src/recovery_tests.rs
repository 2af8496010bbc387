//! Recovery from a disk that accepted a snapshot's record and refused the entries before it, which were
//! requested earlier.

use quorate_core::bugs::Bugs;
use quorate_core::contract::rng_from_seed;
use quorate_core::ids::NodeId;
use quorate_core::store::JournalOp;
use quorate_core::store::contents::Contents;
use quorate_core::time::{Instant, Now, WallTime};

use super::*;
use crate::action::Action;
use crate::configuration::Configuration;
use crate::entry::EntryKind;
use crate::message::{Body, Message};
use crate::server::{Raft, Turn};
use crate::settings::{Settings, Setup, Snapshots};
use crate::snapshot::SnapshotMeta;
use crate::types::{LogIndex, LogPosition, Term};

const GROUP: GroupId = GroupId(5);
const LEADER: NodeId = NodeId(2);

fn members() -> Configuration {
    Configuration::of_voters([NodeId(1), LEADER, NodeId(3)])
}

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition {
        term: Term(term),
        index: LogIndex(index),
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term: Term(term),
        index: LogIndex(index),
        kind: EntryKind::Empty,
    }
}

/// The log begins after entry 2 and has entries up to 5; the snapshot of its record is of entry 10.
fn disk() -> Contents {
    let mut disk = Contents::default();
    let log_start = LogStart {
        base: position(2, 1),
        members: members(),
        snapshot: Some(SnapshotRef {
            meta: SnapshotMeta {
                position: position(10, 2),
                configuration: members(),
                size: 1,
                checksum: 0,
            },
            handle: 7,
        }),
    };
    let hard = HardState {
        term: Term(2),
        vote: None,
    };
    disk.perform(JournalOp::PutHard {
        key: GROUP.log_start_key(),
        value: format::encode(&log_start),
    });
    disk.perform(JournalOp::PutHard {
        key: GROUP.hard_state_key(),
        value: format::encode(&hard),
    });
    for index in 3..=5 {
        disk.perform(JournalOp::Append {
            stream: GROUP.log_stream(),
            position: index,
            bytes: format::encode(&entry(index, 1)),
        });
    }
    disk
}

fn recovered(disk: &Contents, applied: u64) -> Recovered {
    let mut recovery = Recovery::without_snapshot(GROUP);
    loop {
        let rows = disk.answer(&recovery.query()).expect("it is readable");
        if let Some(done) = recovery.read(rows).expect("it is what a group writes") {
            return Recovered {
                applied: LogIndex(applied),
                ..done.recovered
            };
        }
    }
}

/// A server with a disk that completes writes at once.
struct Machine {
    disk: Contents,
    raft: Raft,
    sent: Vec<Body>,
}

/// Provides the context of a call.
fn turn<T>(call: impl FnOnce(&mut Turn<'_>) -> T) -> (T, Vec<Action>) {
    let mut actions = Vec::new();
    let result = call(&mut Turn {
        now: Now {
            instant: Instant(1_000_000),
            wall: WallTime(1),
        },
        rng: &mut rng_from_seed(1),
        actions: &mut actions,
    });
    (result, actions)
}

impl Machine {
    fn start(disk: Contents, applied: u64) -> Self {
        let setup = Setup {
            me: NodeId(1),
            group: GROUP,
            initial: members(),
            settings: Settings {
                snapshots: Snapshots::OnDemand,
                ..Settings::default()
            },
            bugs: Bugs::none(),
        };
        let (raft, actions) = turn(|turn| Raft::start(setup, recovered(&disk, applied), turn));
        let mut machine = Machine {
            disk,
            raft,
            sent: Vec::new(),
        };
        machine.perform(actions);
        machine
    }

    fn message(&mut self, term: u64, body: Body) {
        let message = Message {
            term: Term(term),
            body,
        };
        let ((), actions) = turn(|turn| self.raft.message(LEADER, message, turn));
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist { token, ops, .. } => {
                    ops.into_iter().for_each(|op| self.disk.perform(op));
                    let ((), actions) = turn(|turn| self.raft.persisted(&[token], turn));
                    self.perform(actions);
                }
                Action::Send { message, .. } => self.sent.push(message.body),
                _ => {}
            }
        }
    }
}

/// Whether or not its rows were loaded before the crash, entries acknowledged after the snapshot survive
/// another restart.
#[test]
fn a_snapshot_recorded_before_its_entries_becomes_the_start_of_the_log() {
    for applied in [2, 10] {
        let mut machine = Machine::start(disk(), applied);
        assert_eq!(machine.raft.log().base(), position(10, 2));
        machine.message(
            2,
            Body::Append {
                previous: position(10, 2),
                commit: LogIndex(11),
                entries: vec![entry(11, 2)],
            },
        );
        assert!(machine.sent.contains(&Body::Accepted {
            through: LogIndex(11)
        }));
        let again = Machine::start(machine.disk, 10);
        assert_eq!(again.raft.log().last(), position(11, 2));
        assert_eq!(again.raft.log().base(), position(10, 2));
    }
}

#[test]
fn the_end_of_a_log_is_its_last_entry_or_its_snapshot() {
    assert_eq!(recovered(&disk(), 0).last_index(), LogIndex(10));
    let mut longer = recovered(&disk(), 0);
    longer.entries.extend((6..=12).map(|index| entry(index, 2)));
    longer.entries.push(entry(14, 2));
    assert_eq!(longer.last_index(), LogIndex(12));
    assert_eq!(Recovered::default().last_index(), LogIndex(0));
}

#[test]
#[should_panic(expected = "entry 11 was applied, but the log ends at 10")]
fn rows_ahead_of_the_log_are_detected() {
    Machine::start(disk(), 11);
}
