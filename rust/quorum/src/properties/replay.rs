//! Determinism, the third promise of the driving contract: the same inputs with the same seed give the same effects.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::contract::Input;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_protocol::role::{Effect, Event};
use quorate_role_testing::{Instance, now};
use quorate_testing::{Clock, Crash};
use quorate_versions::WriteId;

use crate::testing::{Cluster, Keyspaces as _, Recording, Setup};

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const TIMEOUT: Duration = Duration::from_secs(1);

fn put(cluster: &mut Cluster, node: u16, key: &str, level: Level) {
    let request = Request::Put {
        keyspace: KEYSPACE,
        key: Key::try_from(key).unwrap(),
        value: Some("value".into()),
        context: None,
        level: Some(level),
        write_id: WriteId {
            client: 1,
            sequence: cluster.operations,
        },
    };
    cluster.submit(NodeId(node), KEYSPACE, request, TIMEOUT);
}

fn get(cluster: &mut Cluster, node: u16, key: &str, level: Level) {
    let request = Request::Get {
        keyspace: KEYSPACE,
        key: Key::try_from(key).unwrap(),
        level: Some(level),
    };
    cluster.submit(NodeId(node), KEYSPACE, request, TIMEOUT);
}

/// Four nodes with all roles, all kinds of requests, a crash, a full disk, and deadlines that pass.
fn scenario(seed: u64) -> Vec<Recording> {
    let setup = Setup {
        nodes: 4,
        seed,
        bugs: Bugs::none(),
        scrambled: true,
    };
    let mut cluster = setup.started();
    cluster.create_keyspace(KeyspaceSettings::quorum("ks", 3));
    for (number, key) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        put(&mut cluster, number as u16 % 4 + 1, key, Level::Quorum);
        cluster.run();
        get(&mut cluster, 4 - number as u16 % 4, key, Level::One);
        put(&mut cluster, 1, key, Level::All);
        put(&mut cluster, 2, key, Level::All);
    }
    cluster.crash(NodeId(3), Crash::default());
    cluster.node(NodeId(2)).disk.full = true;
    for key in ["a", "b", "g"] {
        put(&mut cluster, 2, key, Level::Quorum);
        put(&mut cluster, 1, key, Level::One);
    }
    cluster.run();
    cluster.node(NodeId(2)).disk.full = false;
    cluster.start(NodeId(3));
    for key in ["a", "b", "g"] {
        get(&mut cluster, 3, key, Level::Quorum);
    }
    let scan = Request::Scan {
        keyspace: KEYSPACE,
        start: None,
        end: None,
        after_start: false,
        limit: 3,
        level: None,
    };
    cluster.submit(NodeId(4), KEYSPACE, scan, TIMEOUT);
    cluster.run();
    put(&mut cluster, 1, "h", Level::All);
    cluster.advance(Duration::from_secs(5));
    cluster.into_recordings()
}

fn inputs(recording: &Recording) -> Vec<Input<Event>> {
    let steps = recording.steps.iter();
    let input = |(clock, event, _): &(Clock, Event, Vec<Effect>)| Input {
        now: now(*clock),
        event: event.clone(),
    };
    steps.map(input).collect()
}

fn hash(instance: &Instance<crate::Instance>) -> u64 {
    let mut hasher = DefaultHasher::new();
    instance.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn recorded_inputs_replay_to_the_same_effects_and_the_same_state() {
    let recordings = scenario(1);
    let kinds = [
        |instance: &Instance<crate::Instance>| matches!(instance, Instance::Node(_)),
        |instance: &Instance<crate::Instance>| {
            matches!(instance, Instance::Role(crate::Instance::Coordinator(_)))
        },
        |instance: &Instance<crate::Instance>| {
            matches!(instance, Instance::Role(crate::Instance::Replica(_)))
        },
    ];
    for kind in kinds {
        assert!(
            recordings.iter().any(|recording| kind(recording.end())),
            "every role took part"
        );
    }
    for recording in &recordings {
        let replayed = recording.replay();
        assert_eq!(hash(&replayed), hash(recording.end()), "equal states hash alike");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (scenario(1), scenario(1));
    assert_eq!(first.len(), second.len());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(inputs(first), inputs(second));
        assert_eq!(first.end(), second.end());
    }
}

#[test]
#[should_panic(expected = "after")]
fn a_replay_with_one_input_missing_is_detected() {
    for mut recording in scenario(1) {
        recording.steps.remove(0);
        recording.replay();
    }
}

#[test]
fn inputs_survive_serialization() {
    for recording in scenario(1) {
        for input in inputs(&recording) {
            let bytes = postcard::to_stdvec(&input).unwrap();
            assert_eq!(postcard::from_bytes::<Input<Event>>(&bytes).unwrap(), input);
        }
    }
}
