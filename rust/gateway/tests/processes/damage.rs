//! Corrupt, truncated and missing files: the node reports them and never serves damaged data.

use std::os::unix::fs::FileExt;
use std::path::Path;

use quorate_core::level::Level;
use quorate_protocol::api::Response;
use quorate_protocol::telemetry::TimelineEvent;

use crate::client::{get, put};
use crate::lifecycle::{lone, refused};
use crate::process::{Cluster, NodeOptions};
use crate::until;

const PAGE: usize = 4096;

/// Flips one bit of the last byte of every occurrence of `needle` in the file; returns their number.
fn corrupt(file: &std::path::Path, needle: &[u8]) -> usize {
    let mut bytes = std::fs::read(file).unwrap();
    let found: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect();
    for at in &found {
        bytes[at + needle.len() - 1] ^= 1;
    }
    std::fs::write(file, bytes).unwrap();
    found.len()
}

#[test]
fn a_corrupt_record_is_not_served_and_is_repaired() {
    let mut cluster = Cluster::start(2);
    let keyspace = cluster.nodes[0].client().create("old", 2).id;
    let value = "a value that has lain on the disk for years";
    cluster.nodes[0]
        .client()
        .ask(put(keyspace, "key", value, Level::All, 1))
        .unwrap();
    let state = cluster.directory.path().join("n1/state/data.mdb");
    until("the value is in the state", || {
        let bytes = std::fs::read(&state).unwrap();
        bytes
            .windows(value.len())
            .any(|window| window == value.as_bytes())
            .then_some(())
    });
    cluster.nodes[0].signal("TERM");
    cluster.nodes[0].wait();
    assert!(corrupt(&state, value.as_bytes()) > 0);
    cluster.restart(0);
    cluster.await_links();
    let mut client = cluster.nodes[0].client();
    let answer = client.ask(get(keyspace, "key", Level::All));
    let Ok(Response::Entry(entry)) = &answer else {
        panic!("the read repaired the record: {answer:?}");
    };
    let values: Vec<_> = entry.versions.iter().map(|version| &version.value[..]).collect();
    assert_eq!((values, entry.answered.len()), (vec![value.as_bytes()], 2));
    let noted = client
        .events()
        .into_iter()
        .any(|occurrence| matches!(occurrence.event, TimelineEvent::CorruptRecord { .. }));
    assert!(noted, "the timeline reports it");
}

/// Whether a message names the file and the remedy.
fn names_file_and_remedy(message: &str, file: &Path) -> bool {
    message.contains(&file.display().to_string()) && message.contains("new id with an empty directory")
}

#[test]
fn a_truncated_or_damaged_file_is_rejected_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = lone(path);
    node.client().create("kept", 1);
    node.kill();
    for file in ["journal", "state"].map(|part| path.join("n1").join(part).join("data.mdb")) {
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..3 * PAGE]).unwrap();
        let (error, message) = refused(path, &NodeOptions::new(1));
        assert_eq!(error, "Truncated");
        assert!(names_file_and_remedy(&message, &file), "{message}");
        std::fs::write(&file, vec![0x5a; whole.len()]).unwrap();
        let (error, message) = refused(path, &NodeOptions::new(1));
        assert_eq!(error, "Corrupt");
        assert!(names_file_and_remedy(&message, &file), "{message}");
        std::fs::remove_file(&file).unwrap();
        let (error, message) = refused(path, &NodeOptions::new(1));
        assert_eq!(error, "DataMissing");
        assert!(
            names_file_and_remedy(&message, file.parent().unwrap()),
            "{message}"
        );
        std::fs::write(&file, whole).unwrap();
    }
    lone(path).kill();
}

#[test]
fn a_corrupt_definition_is_rejected_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = lone(path);
    node.client().create("a-name-like-no-other", 1);
    node.signal("TERM");
    node.wait();
    let journal = path.join("n1/journal/data.mdb");
    assert!(corrupt(&journal, b"a-name-like-no-other") > 0);
    let (_, message) = refused(path, &NodeOptions::new(1));
    assert!(names_file_and_remedy(&message, &path.join("n1")), "{message}");
}

#[test]
fn a_page_reference_beyond_the_file_ends_the_node_with_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    lone(path).kill();
    let file = path.join("n1/state/data.mdb");
    let bytes = std::fs::metadata(&file).unwrap().len();
    assert!(
        bytes < 15 * PAGE as u64,
        "the first node of every page lies behind the end"
    );
    let pages = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    for page in 2..bytes / PAGE as u64 {
        pages
            .write_all_at(&[0xf0, 0xff], page * PAGE as u64 + 16)
            .unwrap();
    }
    let (error, message) = refused(path, &NodeOptions::new(1));
    assert_eq!(error, "Corrupt");
    assert!(names_file_and_remedy(&message, &path.join("n1")), "{message}");
}

#[test]
fn truncating_a_file_of_a_running_node_ends_it_with_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = lone(directory.path());
    let mut client = node.client();
    let keyspace = client.create("kept", 1).id;
    let file = directory.path().join("n1/state/data.mdb");
    let state = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    state.set_len(2 * PAGE as u64).unwrap();
    assert!(client.try_ask(get(keyspace, "absent", Level::One)).is_none());
    let (status, errors) = node.wait_with_errors();
    assert_eq!(status, Some(70), "{errors}");
    assert!(
        names_file_and_remedy(&errors, &directory.path().join("n1")),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
