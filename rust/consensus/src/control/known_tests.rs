//! The saved state never goes back.

use quorate_core::bugs::Bugs;
use quorate_core::ids::NodeId;
use quorate_core::level::Level;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::{KeyspaceChange, KeyspaceSettings};
use quorate_testing::Crash;
use quorate_versions::WriteId;

use super::*;
use crate::control::testing::{Cluster, ControlPlane as _, stopped};

const NODE: NodeId = NodeId(1);
/// More than between two snapshots of the control plane.
const CHANGES: u64 = 1_200;

fn generation(cluster: &Cluster) -> u64 {
    cluster
        .control(NODE)
        .map_or(0, |control| control.known().generation())
}

/// Whether the known state is about to be saved.
fn is_to_be_saved(cluster: &mut Cluster) -> bool {
    let flights = cluster.node(NODE).disk.flights();
    let mut ops = flights.flat_map(|flight| &flight.ops);
    ops.any(|op| matches!(op, JournalOp::PutHard { key, .. } if *key == known_key()))
}

/// After a start the rows may have a state before the read of a newer one completes.
#[test]
fn nothing_is_written_before_the_saved_state_was_loaded() {
    let mut cluster = stopped(1, 1, Bugs::none());
    cluster.start(NODE);
    let pause = Duration::from_millis(1);
    cluster.live(pause);
    let create = Request::CreateKeyspace(KeyspaceSettings::quorum("users", 1));
    cluster.ask(NODE, create, Duration::from_secs(1));
    cluster.live(pause);
    for number in 1..=CHANGES {
        if number == CHANGES / 2 {
            // From here on the rows are not durable.
            cluster.profile.flushing = Some((u64::MAX / 4, u64::MAX / 2));
        }
        let level = if number % 2 == 0 {
            Level::Quorum
        } else {
            Level::One
        };
        let alter = Request::AlterKeyspace {
            name: "users".to_owned(),
            change: KeyspaceChange {
                read_level: Some(level),
                ..KeyspaceChange::default()
            },
            write_id: WriteId {
                client: 7,
                sequence: number,
            },
        };
        cluster.ask(NODE, alter, Duration::from_secs(1));
        cluster.live(pause);
    }
    let newest = generation(&cluster);
    assert!(newest > CHANGES, "{newest}");
    cluster.crash(NODE, Crash::default());
    let disk = &mut cluster.node(NODE).disk;
    (disk.slow, disk.held) = (Some(KNOWN_READ), true);
    cluster.start(NODE);
    let recovered = generation(&cluster);
    assert!(0 < recovered && recovered < newest, "{recovered} of {newest}");
    for _ in 0..10 {
        assert!(!is_to_be_saved(&mut cluster));
        cluster.persist(NODE, 1);
    }
    assert_eq!(generation(&cluster), newest, "it leads, and has applied its log");
    cluster.crash(NODE, Crash::default());
    cluster.node(NODE).disk.slow = None;
    cluster.start(NODE);
    assert_eq!(generation(&cluster), newest);
}
