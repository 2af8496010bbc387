use quorate_ring::HashKind;

use super::*;

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);

fn formation(name: &str) -> Formation {
    Formation {
        name: name.to_owned(),
        nodes: 5,
        ring: RingSettings {
            vnodes: 100,
            hash: HashKind::Xxh3,
        },
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn golden_bytes_of_the_identity_file() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 0xbeef).unwrap();
    let text = || fs::read_to_string(folder.path().join("identity")).unwrap();
    assert_eq!(
        text(),
        "quorate-identity 3\n\
         cluster 00000000000000000123456789abcdef\n\
         node n3\n\
         replica 000300000000beef\n\
         has-data false\n\
         formed false\n\
         crc32c 8682f432\n"
    );
    dir.set_formed(formation("a\nb\\n")).unwrap();
    assert_eq!(
        text(),
        "quorate-identity 3\n\
         cluster 00000000000000000123456789abcdef\n\
         node n3\n\
         replica 000300000000beef\n\
         has-data false\n\
         formed true\n\
         name a\\nb\\\\n\n\
         nodes 5\n\
         vnodes 100\n\
         hash xxh3\n\
         crc32c 020023ed\n"
    );
}

#[test]
fn a_claimed_directory_keeps_its_replica() {
    let folder = folder();
    let path = folder.path().join("deep/er");
    let identity = Identity {
        cluster: CLUSTER,
        node: NodeId(3),
        replica: ReplicaId::new(NodeId(3), 7),
    };
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.identity().unwrap(), None);
    assert_eq!(
        dir.claim(CLUSTER, NodeId(3), 7).unwrap(),
        Claim {
            identity,
            fresh: true
        }
    );
    drop(dir);
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(dir.identity().unwrap(), Some(identity));
    assert_eq!(
        dir.claim(CLUSTER, NodeId(3), 8).unwrap(),
        Claim {
            identity,
            fresh: false
        }
    );
}

#[test]
fn an_empty_directory_gets_another_replica() {
    let (first, second) = (folder(), folder());
    let claim = |folder: &tempfile::TempDir, bits| {
        DataDir::open(folder.path())
            .unwrap()
            .claim(CLUSTER, NodeId(3), bits)
            .unwrap()
            .identity
            .replica
    };
    assert_ne!(claim(&first, 1), claim(&second, 2));
}

#[test]
fn a_foreign_directory_is_rejected() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 7).unwrap();
    let error = dir.claim(ClusterId(1), NodeId(3), 7).unwrap_err();
    assert!(matches!(
        error,
        OpenError::ForeignCluster {
            found: CLUSTER,
            expected: ClusterId(1),
            ..
        }
    ));
    let text = error.to_string();
    assert!(
        text.contains(&dir.path().display().to_string()) && text.contains("empty directory"),
        "{text}"
    );
    let error = dir.claim(CLUSTER, NodeId(4), 7).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::ForeignNode {
                found: NodeId(3),
                expected: NodeId(4),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_directory_is_locked_exclusively() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    let error = DataDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::DirectoryInUse { .. }), "{error}");
    let kept = dir.clone();
    drop(dir);
    assert!(DataDir::open(folder.path()).is_err(), "a clone keeps the lock");
    drop(kept);
    DataDir::open(folder.path()).unwrap();
}

#[test]
fn every_flipped_bit_of_the_identity_is_detected() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 7).unwrap();
    dir.set_formed(formation("ranking")).unwrap();
    let path = folder.path().join("identity");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(dir.identity().is_err(), "flipped bit in byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(
            matches!(dir.identity(), Err(OpenError::Corrupt { .. })),
            "cut at {at}"
        );
    }
    fs::write(&path, &whole).unwrap();
    assert!(dir.identity().unwrap().is_some());
}

#[test]
fn an_identity_of_another_version_is_rejected() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    fs::write(folder.path().join("identity"), "quorate-identity 4\nmore\n").unwrap();
    let error = dir.identity().unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::FormatTooNew {
                found: 4,
                supported: 3,
                ..
            }
        ),
        "{error}"
    );
    fs::write(
        folder.path().join("identity"),
        "quorate-identity 1\ncluster 00000000000000000123456789abcdef\n",
    )
    .unwrap();
    for error in [
        dir.claim(CLUSTER, NodeId(3), 7).unwrap_err(),
        dir.reset(CLUSTER, NodeId(3), 7).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("version 1") && text.contains("reads 3"), "{text}");
    }
}

#[test]
fn a_name_of_any_characters_is_read_back() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 7).unwrap();
    for name in ["", "a b", "\r\n", "\\", "\\n", "\\\n", "\u{2028}é\u{0}", " \\r"] {
        dir.set_formed(formation(name)).unwrap();
        let (_, found) = inspect(folder.path()).unwrap().unwrap();
        assert_eq!(found, Some(formation(name)));
    }
}

#[test]
fn a_directory_can_be_reset_until_its_cluster_is_formed() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    assert_eq!(inspect(folder.path()).unwrap(), None);
    let first = dir.reset(CLUSTER, NodeId(3), 7).unwrap();
    dir.set_has_data().unwrap();
    // Another cluster, another node: an unformed directory has no owner to protect.
    let second = dir.reset(ClusterId(1), NodeId(4), 8).unwrap();
    assert!(first.fresh && second.fresh);
    assert!(!dir.has_data().unwrap(), "the store is empty");
    assert_eq!(inspect(folder.path()).unwrap(), Some((second.identity, None)));
    dir.set_formed(formation("ranking")).unwrap();
    dir.set_has_data().unwrap();
    let error = dir.reset(ClusterId(1), NodeId(4), 9).unwrap_err();
    assert!(
        matches!(&error, OpenError::AlreadyFormed { name, .. } if name == "ranking"),
        "{error}"
    );
    assert_eq!(
        inspect(folder.path()).unwrap(),
        Some((second.identity, Some(formation("ranking"))))
    );
}

#[test]
fn data_without_an_identity_are_not_claimed() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    fs::create_dir(folder.path().join("journal")).unwrap();
    for error in [
        dir.claim(CLUSTER, NodeId(3), 7).unwrap_err(),
        dir.reset(CLUSTER, NodeId(3), 7).unwrap_err(),
    ] {
        assert!(
            matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with("journal")),
            "{error}"
        );
    }
}

#[test]
fn a_file_is_not_a_directory() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DataDir::open(path.join("below")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
