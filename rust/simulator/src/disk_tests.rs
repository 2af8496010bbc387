use quorate_core::files::FileId;
use quorate_core::store::{Priority, StateWrite};

use super::*;

fn request(token: u64, value: &'static str) -> Request {
    let write = StateWrite {
        table: Table::Meta,
        key: Bytes::from_static(b"row"),
        value: Some(Bytes::from_static(value.as_bytes())),
    };
    Request {
        owner: 1,
        token,
        priority: Priority::Normal,
        ops: vec![JournalOp::Write(vec![write])],
    }
}

fn stored(disk: &Disk) -> Option<Bytes> {
    disk.row(Table::Meta, b"row")
}

#[test]
fn writes_are_visible_only_after_their_sync() {
    let mut disk = Disk::new(SimRng::named(1, "disk"));
    disk.submit(request(7, "new"));
    assert!(matches!(disk.begin(), Begun::Syncing(_)));
    assert_eq!(stored(&disk), None);
    assert_eq!(disk.begin(), Begun::Nothing, "one commit at a time");
    let (completions, _) = disk.synced();
    assert_eq!(
        completions,
        [Completion {
            owner: 1,
            tokens: vec![7],
            outcome: Outcome::Durable
        }]
    );
    assert_eq!(stored(&disk).as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_crash_keeps_or_loses_the_current_batch_and_loses_pending_requests() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut disk = Disk::new(SimRng::named(seed, "disk"));
        disk.submit(request(1, "under way"));
        disk.begin();
        disk.submit(request(2, "waiting"));
        disk.crash();
        assert_eq!(disk.begin(), Begun::Nothing);
        seen.insert(stored(&disk));
    }
    let expected = [None, Some(Bytes::from_static(b"under way"))];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_full_disk_rejects_writes_and_recovers() {
    let mut disk = Disk::new(SimRng::named(1, "disk"));
    disk.set_conditions(DiskConditions {
        full: true,
        ..DiskConditions::default()
    });
    disk.submit(request(1, "refused"));
    let refused = Completion {
        owner: 1,
        tokens: vec![1],
        outcome: Outcome::Full,
    };
    assert_eq!(disk.begin(), Begun::Refused(vec![refused]));
    disk.set_conditions(DiskConditions::default());
    disk.submit(request(2, "taken"));
    assert!(matches!(disk.begin(), Begun::Syncing(_)));
}

const FILE: FileId = FileId { owner: 5, number: 1 };

fn group_row(name: &str, value: &str) -> StateWrite {
    StateWrite {
        table: Table::Groups,
        key: format!("g{name}").into(),
        value: Some(value.to_owned().into()),
    }
}

/// A disk with a file of twenty rows, which were overwritten since.
fn disk_with_a_file(seed: u64) -> Disk {
    let mut disk = Disk::new(SimRng::named(seed, "disk"));
    let apply_rows = |disk: &mut Disk, value: &str| {
        let rows = (0..20).map(|i| group_row(&format!("row {i:02}"), &value.repeat(50)));
        disk.apply_rows(1, 1, rows.chain([group_row("marker", value)]).collect());
    };
    apply_rows(&mut disk, "old");
    let save = FileTask::Save {
        file: FILE,
        table: Table::Groups,
        prefix: "g".into(),
        marker: "gmarker".into(),
    };
    assert!(disk.ask_files(1, 2, save).is_some());
    let step = disk.files_step(FILE.owner);
    assert!(matches!(
        step.answer,
        Some((1, 2, Ok(FileDone::Saved { marker: Some(_), .. })))
    ));
    assert_eq!(step.next, None);
    apply_rows(&mut disk, "new");
    disk
}

fn load() -> FileTask {
    FileTask::Load {
        file: FILE,
        table: Table::Groups,
        prefix: "g".into(),
        marker: "gmarker".into(),
    }
}

fn group_rows(disk: &Disk) -> Vec<(Bytes, Bytes)> {
    let query = Query::Range {
        table: Table::Groups,
        start: "g".into(),
        end: "h".into(),
        limit_rows: 100,
        limit_bytes: 1 << 20,
    };
    disk.read(&query).unwrap().rows
}

#[test]
fn a_crash_between_the_steps_of_a_load_leaves_no_marker() {
    let mut seen = BTreeSet::new();
    let steps = {
        let mut disk = disk_with_a_file(1);
        disk.ask_files(1, 3, load());
        (1..)
            .find(|_| disk.files_step(FILE.owner).next.is_none())
            .unwrap()
    };
    assert!(steps > 8, "{steps} steps");
    for crash_after in 0..=steps {
        let mut disk = disk_with_a_file(1);
        let before = group_rows(&disk);
        disk.ask_files(1, 3, load());
        let flushed: Vec<_> = (0..crash_after)
            .flat_map(|_| disk.files_step(FILE.owner).flushed)
            .collect();
        assert_eq!(
            flushed.is_empty(),
            crash_after == 0,
            "the load flushes derived rows"
        );
        disk.crash();
        let rows = group_rows(&disk);
        let marker = rows
            .iter()
            .find(|(key, _)| key == "gmarker")
            .map(|(_, value)| value.clone());
        match crash_after {
            0 => assert_eq!(rows, []),
            1 => assert_eq!(rows, before),
            _ if crash_after >= steps - 1 => {
                assert_eq!(marker, Some("old".into()), "after {crash_after} of {steps} steps");
                assert_eq!(rows.len(), 21);
            }
            _ => {
                assert_eq!(marker, None, "after {crash_after} of {steps} steps");
                seen.insert(rows.len());
                // The load can be repeated.
                assert!(disk.ask_files(1, 4, load()).is_some());
                while disk.files_step(FILE.owner).next.is_some() {}
                assert_eq!(group_rows(&disk).len(), 21);
            }
        }
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn tasks_of_one_owner_are_sequential() {
    let mut disk = disk_with_a_file(1);
    let read = |owner| FileTask::Read {
        file: FileId { owner, ..FILE },
        offset: 0,
        length: 7,
    };
    assert!(disk.ask_files(1, 3, load()).is_some());
    assert_eq!(disk.ask_files(2, 4, read(FILE.owner)), None);
    assert!(disk.ask_files(3, 5, read(6)).is_some());
    let missing = disk.files_step(6).answer.unwrap();
    assert!(matches!(missing, (3, 5, Err(Error::NotFound(_)))), "{missing:?}");
    let mut answers = Vec::new();
    loop {
        let step = disk.files_step(FILE.owner);
        answers.extend(step.answer);
        if step.next.is_none() {
            break;
        }
    }
    assert_eq!(
        answers,
        [
            (1, 3, Ok(FileDone::Loaded)),
            (2, 4, Ok(FileDone::Chunk("quorate".into())))
        ]
    );
}

#[test]
fn a_crash_loses_unsealed_files_and_a_full_disk_rejects_writes() {
    let mut disk = disk_with_a_file(1);
    let answer = |disk: &mut Disk, task: FileTask| {
        disk.ask_files(1, 9, task);
        disk.files_step(FILE.owner).answer.unwrap().2
    };
    let other = FileId { number: 2, ..FILE };
    let write = FileTask::Write {
        file: other,
        offset: 0,
        bytes: "part".into(),
    };
    let seal = FileTask::Seal {
        file: other,
        size: 4,
        checksum: 0,
    };
    assert_eq!(answer(&mut disk, write.clone()), Ok(FileDone::Written));
    disk.crash();
    assert!(matches!(answer(&mut disk, seal.clone()), Err(Error::NotFound(_))));
    assert_eq!(answer(&mut disk, write.clone()), Ok(FileDone::Written));
    assert_eq!(answer(&mut disk, seal), Ok(FileDone::Sealed { intact: false }));
    disk.set_conditions(DiskConditions {
        full: true,
        ..DiskConditions::default()
    });
    assert!(matches!(answer(&mut disk, write), Err(Error::StorageFull(_))));
}
