//! A host whose state is durable by itself: compaction without snapshots, and snapshots on demand.

use quorate_core::bugs::Bugs;
use quorate_core::contract::{Rng, rng_from_seed};
use quorate_core::store::JournalOp;
use quorate_core::time::Now;

use super::*;
use crate::entry::{Entry, EntryKind};
use crate::server::Recovered;
use crate::settings::Setup;
use crate::types::{GroupId, HardState, Term};

const ME: NodeId = NodeId(1);
const LEARNER: NodeId = NodeId(2);

/// A server whose disk completes writes at once.
struct Host {
    raft: Raft,
    rng: Rng,
}

impl Host {
    fn start(recovered: Recovered) -> Self {
        let mut initial = Configuration::of_voters([ME]);
        initial.learners.insert(LEARNER);
        let setup = Setup {
            me: ME,
            group: GroupId(1),
            initial,
            settings: Settings {
                snapshots: Snapshots::OnDemand,
                snapshot_every: 4,
                retained_entries: 1,
                ..Settings::default()
            },
            bugs: Bugs::none(),
        };
        let mut rng = rng_from_seed(1);
        let mut actions = Vec::new();
        let mut turn = Turn {
            now: Now::default(),
            rng: &mut rng,
            actions: &mut actions,
        };
        let raft = Raft::start(setup, recovered, &mut turn);
        let mut host = Host { raft, rng };
        host.call(|raft, turn| raft.campaign_now(turn));
        host
    }

    fn call(&mut self, call: impl FnOnce(&mut Raft, &mut Turn<'_>)) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut turn = Turn {
            now: Now::default(),
            rng: &mut self.rng,
            actions: &mut actions,
        };
        call(&mut self.raft, &mut turn);
        let mut all = Vec::new();
        while !actions.is_empty() {
            let mut more = Vec::new();
            for output in actions {
                if let Action::Persist { token, .. } = &output {
                    let mut turn = Turn {
                        now: Now::default(),
                        rng: &mut self.rng,
                        actions: &mut more,
                    };
                    self.raft.persisted(&[*token], &mut turn);
                }
                all.push(output);
            }
            actions = more;
        }
        all
    }

    fn propose(&mut self, count: usize) -> Vec<Action> {
        self.call(|raft, turn| {
            raft.propose(vec![Bytes::from_static(b"x"); count], turn)
                .expect("it leads");
        })
    }
}

fn wanted(actions: &[Action]) -> Vec<LogPosition> {
    let position = |output: &Action| match output {
        Action::TakeSnapshot { position } => Some(*position),
        _ => None,
    };
    actions.iter().filter_map(position).collect()
}

fn position(index: u64) -> LogPosition {
    LogPosition {
        term: Term(1),
        index: LogIndex(index),
    }
}

#[test]
fn a_durable_state_permits_compaction_and_a_snapshot_is_taken_for_a_member_that_lags() {
    let mut host = Host::start(Recovered::default());
    assert_eq!(wanted(&host.propose(10)), []);
    let actions = host.call(|raft, turn| raft.flushed(LogIndex(4), turn));
    assert_eq!(
        (host.raft.log().base(), actions),
        (LogPosition::default(), vec![]),
        "not worthwhile"
    );
    let actions = host.call(|raft, turn| raft.flushed(LogIndex(9), turn));
    assert_eq!(host.raft.log().base(), position(8));
    let trim = |output: &Action| matches!(output, Action::Persist { ops, .. } if matches!(ops[..], [JournalOp::Trim { through: 8, .. }]));
    assert!(actions.iter().any(trim), "{actions:?}");
    // The learner lacks even the first entry.
    assert_eq!(wanted(&actions), [position(11)]);
    assert_eq!(wanted(&host.propose(1)), [], "one at a time");
    let actions = host.call(|raft, turn| {
        assert!(raft.snapshot_taken(position(11), 5, 77, 3, turn));
    });
    let read = Action::ReadChunk {
        to: LEARNER,
        position: position(11),
        offset: 0,
        length: 5,
    };
    assert!(
        actions.contains(&read) && actions.contains(&Action::SnapshotDurable { handle: 3 }),
        "{actions:?}"
    );
    // Entries after the snapshot are retained during its transfer.
    host.propose(8);
    host.call(|raft, turn| raft.flushed(LogIndex(20), turn));
    assert_eq!(host.raft.log().base(), position(10));
}

#[test]
fn durably_applied_entries_are_not_applied_again() {
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        kind: EntryKind::Empty,
    };
    let mut host = Host::start(Recovered {
        hard: HardState {
            term: Term(1),
            vote: Some(ME),
        },
        log_start: Some(LogStart {
            base: position(8),
            members: Configuration::of_voters([ME]),
            snapshot: None,
        }),
        applied: LogIndex(10),
        entries: (9..=12).map(entry).collect(),
    });
    let actions = host.propose(1);
    let applied = actions.iter().find_map(|output| match output {
        Action::Apply(entries) => entries.first().map(|entry| entry.index),
        _ => None,
    });
    assert_eq!((applied, host.raft.term()), (Some(LogIndex(14)), Term(2)));
    assert_eq!(host.raft.log().released(), LogIndex(14));
}
