//! Crashes of the store on disk: killed processes and power failures.
//!
//! The **power failure** test runs the real store in its own process, whose writes and syncs are recorded (`shim.c`, loaded
//! before the C library). Then, for every moment just before a sync returns and just after an acknowledgement, it rebuilds
//! the files as a power failure could have left them: with all, none, or a random part of the unsynced data. Each image is
//! opened and must have the content after some number of requests, and no fewer than were acknowledged.
#![cfg(target_os = "linux")]

mod disk;
mod files;
mod trace;
mod workload;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quorate_storage::Options;
use tempfile::TempDir;

use self::disk::{Coin, Disk, Fate};
use self::trace::Event;

const ROLE: &str = "CRASH_ROLE";
const ROOT: &str = "CRASH_ROOT";
const REQUESTS: &str = "CRASH_REQUESTS";

/// Not a test: the child process of the tests below. Does nothing without its environment variables.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let root = PathBuf::from(std::env::var(ROOT).unwrap());
    let requests = std::env::var(REQUESTS).unwrap().parse().unwrap();
    let data = root.join("data");
    match &role[..] {
        "killed" => workload::run(&data, requests, false, std::io::stderr()),
        role => {
            let (without_sync, files) = (role.contains("without sync"), role.contains("files"));
            let acks = OpenOptions::new()
                .create(true)
                .append(true)
                .open(root.join("acks"))
                .unwrap();
            if files {
                files::run(&data, without_sync, acks);
            } else {
                workload::run(&data, requests, without_sync, acks);
            }
        }
    }
}

fn other(role: &str, root: &Path, requests: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "other_process", "--nocapture", "--test-threads", "1"]);
    command
        .env(ROLE, role)
        .env(ROOT, root)
        .env(REQUESTS, requests.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Compiles the shim with the C compiler that builds LMDB.
fn compile_shim(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c");
    let library = folder.join("shim.so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&library)
        .arg(&source)
        .args(["-ldl", "-lpthread"])
        .output()
        .unwrap();
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    library
}

/// Runs the workload in a recorded process.
fn record(role: &str, requests: u64, folder: &Path) -> Vec<Event> {
    let root = folder.join("root");
    let trace = folder.join("trace");
    std::fs::create_dir(&root).unwrap();
    let shim = compile_shim(folder);
    let mut command = other(role, &root, requests);
    let ran = command
        .env("LD_PRELOAD", shim)
        .env("CRASH_TRACE", &trace)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    trace::read(&trace)
}

/// The fate of unsynced writes.
#[derive(Clone, Copy, Debug)]
enum How {
    Lost,
    Kept,
    HalfInOrder,
    Mixed,
}

/// The results of all crash images.
#[derive(Default)]
struct Verdict {
    acknowledged: u64,
    images: usize,
    losses: Vec<String>,
}

/// Checks the data after a crash, given what was acknowledged.
type Check = fn(&Path, u64, &Options) -> Result<(), String>;

/// Simulates a power failure before the end of every sync and after every acknowledgement, in several ways.
fn cut_everywhere(events: &[Event], folder: &Path, hows: &[How], check: Check) -> Verdict {
    let root = folder.join("root");
    // An image is only inspected, so its syncs are omitted.
    let options = Options {
        without_sync: true,
        zero_fill: 0,
        ..Options::default()
    };
    // In memory if possible: there are many images, and their own syncs are irrelevant.
    let memory = Path::new("/dev/shm");
    let images = TempDir::new_in(if memory.is_dir() { memory } else { folder }).unwrap();
    let mut disk = Disk::default();
    let mut coin = Coin(0x9e37_79b9_7f4a_7c15);
    let mut verdict = Verdict::default();
    for (at, event) in events.iter().enumerate() {
        if let Event::Acknowledged(number) = event {
            verdict.acknowledged = *number;
        }
        if matches!(event, Event::End(_) | Event::Acknowledged(_)) {
            for how in hows {
                let mut fate = match how {
                    How::Lost => Fate::Lost,
                    How::Kept => Fate::Kept,
                    How::HalfInOrder => Fate::First(disk.pending() / 2),
                    How::Mixed => Fate::Mixed(&mut coin),
                };
                let image = TempDir::new_in(images.path()).unwrap();
                let target = image.path().join("image");
                disk.write_image(&root, &target, &mut fate);
                verdict.images += 1;
                if let Err(loss) = check(&target.join("data"), verdict.acknowledged, &options) {
                    verdict
                        .losses
                        .push(format!("event {at}, unsynced writes {how:?}: {loss}"));
                }
            }
        }
        disk.perform(event);
    }
    verdict
}

#[test]
fn a_power_failure_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let events = record("recorded", 150, folder.path());
    let hows = [How::Lost, How::Kept, How::HalfInOrder, How::Mixed, How::Mixed];
    let verdict = cut_everywhere(&events, folder.path(), &hows, workload::check);
    assert_eq!(verdict.acknowledged, 150);
    assert!(verdict.images > 1000, "only {} images", verdict.images);
    let Verdict { images, losses, .. } = verdict;
    assert!(
        losses.is_empty(),
        "{} of {images} images: {losses:#?}",
        losses.len()
    );
}

#[test]
fn a_power_failure_leaves_complete_files_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    let events = record("recorded files", 0, folder.path());
    let mut hows = vec![How::Lost, How::Kept, How::HalfInOrder];
    hows.extend([How::Mixed; 7]);
    let verdict = cut_everywhere(&events, folder.path(), &hows, files::check);
    assert_eq!(verdict.acknowledged, 7);
    assert!(verdict.images > 250, "only {} images", verdict.images);
    let Verdict { images, losses, .. } = verdict;
    assert!(
        losses.is_empty(),
        "{} of {images} images: {losses:#?}",
        losses.len()
    );
}

/// Verifies that the first test above can fail.
#[test]
fn without_its_syncs_the_store_loses_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let events = record("without sync", 30, folder.path());
    // Not mixed: LMDB trusts its pages, and would crash this process on images that its syncs prevent.
    let verdict = cut_everywhere(
        &events,
        folder.path(),
        &[How::Lost, How::HalfInOrder],
        workload::check,
    );
    assert!(
        verdict
            .losses
            .iter()
            .any(|loss| loss.contains("was acknowledged")),
        "{:#?}",
        verdict.losses
    );
}

/// Kills the process during its work, repeatedly in the same directory.
#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut child = other("killed", folder.path(), 1_000_000)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = 0;
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            acknowledged = line
                .parse()
                .unwrap_or_else(|_| panic!("unexpected line of the killed process: {line:?}"));
            seen += 1;
            if seen == 40 + 37 * round {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= 40, "round {round} ended after {seen} acknowledgements");
        workload::check(&folder.path().join("data"), acknowledged, &Options::default()).unwrap();
    }
}
