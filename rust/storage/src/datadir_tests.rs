use super::*;

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn golden_bytes_of_the_identity_file() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 0xbeef).unwrap();
    assert_eq!(
        fs::read_to_string(folder.path().join("identity")).unwrap(),
        "quorate-identity 1\n\
         cluster 00000000000000000123456789abcdef\n\
         node n3\n\
         replica 000300000000beef\n\
         has-data false\n\
         crc32c d4158551\n"
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
fn a_foreign_directory_is_refused() {
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
fn a_directory_is_used_once_at_a_time() {
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
fn every_damage_to_the_identity_is_found_out() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    dir.claim(CLUSTER, NodeId(3), 7).unwrap();
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
fn a_newer_identity_says_so() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    fs::write(folder.path().join("identity"), "quorate-identity 2\nmore\n").unwrap();
    assert!(matches!(
        dir.identity(),
        Err(OpenError::FormatTooNew {
            found: 2,
            supported: 1,
            ..
        })
    ));
}

#[test]
fn data_without_an_identity_are_not_claimed() {
    let folder = folder();
    let dir = DataDir::open(folder.path()).unwrap();
    fs::create_dir(folder.path().join("journal")).unwrap();
    let error = dir.claim(CLUSTER, NodeId(3), 7).unwrap_err();
    assert!(
        matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with("journal")),
        "{error}"
    );
}

#[test]
fn a_file_is_no_directory() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DataDir::open(path.join("below")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
