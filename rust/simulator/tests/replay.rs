//! Recordings of roles replay to the same effects: roles have no hidden inputs.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_protocol::role::RoleId;
use quorate_simulator::simulation::{Config, Simulation};

#[test]
fn every_kind_of_role_replays_from_its_recorded_inputs() {
    let config = Config {
        seed: 3,
        record: true,
        nemesis: Duration::from_secs(3),
        ..Config::default()
    };
    let mut simulation = Simulation::new(config);
    simulation.play();
    assert_eq!(simulation.world().violation(), None);
    let recordings = simulation.into_recordings();
    let mut inputs: BTreeMap<&str, usize> = BTreeMap::new();
    for (node, role, recording) in &recordings.instances {
        let kind = match role {
            RoleId::Node => "node",
            RoleId::Control => "control",
            RoleId::Coordinator(_) => "coordinator",
            RoleId::Replica(_) => "replica",
            RoleId::Forwarder(_) => "forwarder",
            RoleId::Shard(_) => "shard",
        };
        *inputs.entry(kind).or_default() += recording.len();
        recording
            .replay()
            .unwrap_or_else(|divergence| panic!("{role:?} on {node}: {divergence}"));
    }
    for (node, peer, recording) in &recordings.links {
        *inputs.entry("link").or_default() += recording.len();
        recording
            .replay()
            .unwrap_or_else(|divergence| panic!("link of {node} to {peer}: {divergence}"));
    }
    for (client, recording) in &recordings.clients {
        *inputs.entry("client").or_default() += recording.len();
        recording
            .replay()
            .unwrap_or_else(|divergence| panic!("client {client}: {divergence}"));
    }
    let kinds: Vec<&str> = inputs.keys().copied().collect();
    assert_eq!(
        kinds,
        [
            "client",
            "control",
            "coordinator",
            "forwarder",
            "link",
            "node",
            "replica",
            "shard"
        ]
    );
    assert!(inputs.values().all(|count| *count > 10), "{inputs:?}");
}
