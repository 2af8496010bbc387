use quorate_core::ids::ClusterId;
use quorate_core::level::Level;
use quorate_protocol::keyspace::ReadRepair;
use quorate_raft::types::Term;
use quorate_ring::RingSettings;

use super::*;

/// A state machine and the index of its log.
#[derive(Default)]
struct Log {
    state: ControlPlane,
    index: u64,
}

impl Log {
    fn bootstrapped() -> Self {
        let mut log = Log::default();
        log.commit(Command::Bootstrap(topology(3)));
        log
    }

    fn commit(&mut self, command: Command) -> Outcome {
        let id = WriteId {
            client: 9,
            sequence: self.index,
        };
        self.commit_as(id, command)
    }

    fn commit_as(&mut self, id: WriteId, command: Command) -> Outcome {
        self.index += 1;
        let position = LogPosition {
            term: Term(1),
            index: LogIndex(self.index),
        };
        let change = Change { id, command };
        self.state.apply(position, change)
    }

    fn create(&mut self, name: &str, replicas: u8) -> Outcome {
        self.commit(Command::CreateKeyspace(KeyspaceSettings::quorum(name, replicas)))
    }

    fn drop_keyspace(&mut self, name: &str) -> Outcome {
        self.commit(Command::DropKeyspace {
            name: name.to_owned(),
        })
    }

    fn names(&self) -> Vec<(u32, &str)> {
        let keyspaces = self.state.keyspaces().values();
        keyspaces
            .map(|one| (one.id.0, one.settings.name.as_str()))
            .collect()
    }
}

fn member(number: u16, port: u16) -> Member {
    Member {
        id: NodeId(number),
        peer_address: format!("h{number}:{port}"),
        client_address: format!("h{number}:{}", port + 1),
        http_address: format!("h{number}:{}", port + 2),
        rack: "r".to_owned(),
        datacenter: "d".to_owned(),
    }
}

fn topology(members: u16) -> Topology {
    let members = (1..=members).map(|number| member(number, 100)).collect();
    Topology::new(ClusterId(7), 1, members, RingSettings::default()).unwrap()
}

fn created(outcome: Outcome) -> (u32, bool) {
    match outcome {
        Outcome::Keyspace { keyspace, created } => (keyspace.id.0, created),
        other => panic!("{other:?}"),
    }
}

fn refusal(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused(error) => error.name(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_bootstrap_counts() {
    let mut log = Log::bootstrapped();
    let first = log.state.clone();
    assert_eq!((first.generation(), first.version()), (1, CLUSTER_VERSION));
    assert_eq!(first.topology(), Some(topology(3)));
    assert_eq!(log.commit(Command::Bootstrap(topology(5))), Outcome::Done);
    assert_eq!(log.state.topology(), first.topology());
    assert_eq!(log.state.generation(), 1);
}

#[test]
fn a_member_changes_its_addresses_and_nothing_else() {
    let mut log = Log::bootstrapped();
    assert_eq!(log.commit(Command::Register(member(2, 100))), Outcome::Done);
    assert_eq!(log.state.generation(), 1, "nothing has changed");
    let mut moved = member(2, 200);
    moved.rack = "another".to_owned();
    assert_eq!(log.commit(Command::Register(moved)), Outcome::Done);
    assert_eq!(log.state.member(NodeId(2)), Some(&member(2, 200)));
    assert_eq!(log.state.generation(), 2);
    assert_eq!(log.state.topology().unwrap().generation, 2);
    assert!(log.state.touched(NodeId(2)) > log.state.touched(NodeId(1)));
    assert_eq!(refusal(log.commit(Command::Register(member(4, 100)))), "NotFound");
}

#[test]
fn ids_are_never_reused() {
    let mut log = Log::bootstrapped();
    assert_eq!(created(log.create("a", 3)), (1, true));
    assert_eq!(created(log.create("b", 1)), (2, true));
    assert_eq!(created(log.drop_keyspace("b")), (2, false));
    assert_eq!(created(log.create("b", 1)), (3, true));
    assert_eq!(log.names(), [(1, "a"), (3, "b")]);
    log.state = ControlPlane::load(&log.state.save()).unwrap();
    log.drop_keyspace("b");
    assert_eq!(created(log.create("c", 1)), (4, true));
    assert_eq!(log.state.generation(), 7, "one for each change");
}

#[test]
fn an_identical_keyspace_is_found_and_a_conflicting_one_rejected() {
    let mut log = Log::bootstrapped();
    assert_eq!(created(log.create("a", 3)), (1, true));
    assert_eq!(created(log.create("a", 3)), (1, false));
    assert_eq!(refusal(log.create("a", 2)), "KeyspaceExists");
    assert_eq!(refusal(log.create("wide", 4)), "InvalidArgument");
    assert_eq!(refusal(log.create("no spaces", 1)), "InvalidArgument");
    assert_eq!(refusal(log.drop_keyspace("nobody")), "NotFound");
    assert_eq!(log.state.generation(), 2);
    assert_eq!(refusal(Log::default().create("early", 1)), "InvalidArgument");
}

#[test]
fn alterations_of_levels_and_read_repair_are_atomic() {
    let mut log = Log::bootstrapped();
    log.create("a", 2);
    let mut alter = |change| {
        let name = "a".to_owned();
        log.commit(Command::AlterKeyspace { name, change })
    };
    let change = KeyspaceChange {
        read_level: Some(Level::One),
        write_level: Some(Level::Three),
        read_repair: Some(ReadRepair::Off),
    };
    assert_eq!(refusal(alter(change.clone())), "InvalidArgument");
    let change = KeyspaceChange {
        write_level: None,
        ..change
    };
    assert_eq!(created(alter(change.clone())), (1, false));
    assert_eq!(created(alter(change)), (1, false));
    let settings = &log.state.keyspaces()[&KeyspaceId(1)].settings;
    assert_eq!(settings.read_level, Level::One);
    assert_eq!(settings.write_level, Level::Quorum);
    assert_eq!(settings.read_repair, ReadRepair::Off);
    assert_eq!(
        log.state.generation(),
        3,
        "the rejected and the repeated change had no effect"
    );
}

/// A change is in the log twice when its first answer was lost.
#[test]
fn a_retried_change_is_executed_once() {
    let mut log = Log::bootstrapped();
    let name = || "a".to_owned();
    let id = |sequence| WriteId { client: 1, sequence };
    let create = || Command::CreateKeyspace(KeyspaceSettings::quorum("a", 1));
    let drop = || Command::DropKeyspace { name: name() };
    assert_eq!(created(log.commit_as(id(1), create())), (1, true));
    assert_eq!(
        created(log.commit_as(id(1), create())),
        (1, true),
        "the first answer"
    );
    assert_eq!(created(log.commit_as(id(2), drop())), (1, false));
    assert_eq!(created(log.commit_as(id(3), create())), (2, true));
    log.state = ControlPlane::load(&log.state.save()).unwrap();
    assert_eq!(created(log.commit_as(id(2), drop())), (1, false));
    assert_eq!(log.names(), [(2, "a")], "later changes stay");
    for sequence in 0..2 * RECENT as u64 {
        log.commit_as(WriteId { client: 2, sequence }, create());
    }
    assert_eq!(log.state.recent.len(), RECENT);
}

#[test]
fn states_round_trip() {
    let mut log = Log::bootstrapped();
    log.create("a", 3);
    log.commit(Command::Register(member(3, 300)));
    assert_eq!(ControlPlane::load(&log.state.save()), Ok(log.state.clone()));
    assert!(ControlPlane::load(&Bytes::from_static(b"\x02")).is_err());
}
