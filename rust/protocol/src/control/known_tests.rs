//! What the disk has of the known state is never replaced by an earlier one.

use super::*;
use crate::api::Request;
use crate::control::lab::Lab;
use crate::ids::NodeId;
use crate::keyspace::{KeyspaceChange, KeyspaceSettings};
use crate::level::Level;
use crate::versions::WriteId;

const NODE: NodeId = NodeId(1);
/// More than are between two snapshots of the control plane.
const CHANGES: u64 = 1_200;

fn generation(lab: &Lab) -> u64 {
    lab.control(NODE)
        .map_or(0, |control| control.known().generation())
}

/// After a start the log may show the state of its snapshot before the read of a newer one comes back.
#[test]
fn nothing_is_written_before_the_newest_state_was_read() {
    let mut lab = Lab::stopped(1, 1);
    lab.start(NODE);
    let pause = Duration::from_millis(1);
    lab.live(pause);
    let create = Request::CreateKeyspace(KeyspaceSettings::quorum("users", 1));
    lab.ask(NODE, create, Duration::from_secs(1));
    lab.live(pause);
    for number in 1..=CHANGES {
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
        lab.ask(NODE, alter, Duration::from_secs(1));
        lab.live(pause);
    }
    let newest = generation(&lab);
    assert!(newest > CHANGES, "{newest}");
    lab.crash(NODE);
    let disk = &mut lab.machine(NODE).disk;
    (disk.slow, disk.held) = (Some(KNOWN_READ), true);
    lab.start(NODE);
    let recovered = generation(&lab);
    assert!(0 < recovered && recovered < newest, "{recovered} of {newest}");
    for _ in 0..10 {
        assert!(!lab.machine(NODE).disk.is_to_keep(&known_key()));
        lab.persist(NODE, 1);
    }
    assert_eq!(generation(&lab), newest, "it leads, and has applied its log");
    lab.crash(NODE);
    lab.machine(NODE).disk.slow = None;
    lab.start(NODE);
    assert_eq!(generation(&lab), newest);
}
