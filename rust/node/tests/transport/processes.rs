//! Nodes in their own processes are killed, stopped and restarted; the others detect it and reconnect.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::child::SPEC;
use crate::support::PATIENCE;

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The test may have killed it.
        let _gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Process {
    fn start(id: u16, boot: u64, port: u16, idle_ms: u64) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child::run_as_a_child",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(SPEC, format!("{id} {boot} {port} {idle_ms}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(line) = line.split_once("@ ").map(|(_, line)| line.to_owned())
                    && sender.send(line).is_err()
                {
                    return;
                }
            }
        });
        let mut process = Process {
            child,
            input,
            lines,
            port: 0,
        };
        process.port = process.expect("port ").parse().unwrap();
        process
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// What follows `prefix` in the next line that begins with it; other lines are skipped.
    fn expect(&mut self, prefix: &str) -> String {
        self.within(prefix, PATIENCE)
            .unwrap_or_else(|| panic!("no line begins with {prefix:?}"))
    }

    fn within(&mut self, prefix: &str, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => match line.strip_prefix(prefix) {
                    Some(rest) => return Some(rest.to_owned()),
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the child has ended"),
            }
        }
    }

    fn status(&mut self) -> BTreeMap<String, u64> {
        self.send("status");
        let line = self.expect("status ");
        let pairs = line.split(' ').map(|pair| pair.split_once('=').unwrap());
        pairs
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    fn eventually(&mut self, what: &str, condition: impl Fn(&BTreeMap<String, u64>) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if condition(&status) {
                return;
            }
            assert!(Instant::now() < end, "timed out: {what}: {status:?}");
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

fn members(ports: &[u16]) -> String {
    let members: Vec<String> = (1..)
        .zip(ports)
        .map(|(id, port)| format!("{id}=127.0.0.1:{port}"))
        .collect();
    format!("members {}", members.join(" "))
}

/// n1 and n2, connected.
fn pair(idle_ms: u64) -> (Process, Process) {
    let mut first = Process::start(1, 1, 0, idle_ms);
    let mut second = Process::start(2, 2, 0, idle_ms);
    let members = members(&[first.port, second.port]);
    first.send(&members);
    second.send(&members);
    first.expect("up n2");
    second.expect("up n1");
    (first, second)
}

fn exchange(first: &mut Process, second: &mut Process) {
    let before = (first.status()["received"], second.status()["received"]);
    first.send("send 2 10 100");
    second.send("send 1 10 100");
    first.eventually("messages of n2", |status| status["received"] >= before.0 + 10);
    second.eventually("messages of n1", |status| status["received"] >= before.1 + 10);
}

#[test]
fn a_killed_peer_is_detected_immediately_and_reconnects() {
    let (mut first, mut second) = pair(1000);
    let members = members(&[first.port, second.port]);
    for boot in 3..6 {
        second.signal("KILL");
        let reason = first.expect("down n2 ");
        assert!(
            !reason.contains("nothing received"),
            "detected only by the idle timeout: {reason}"
        );
        let port = second.port;
        drop(second);
        second = Process::start(2, boot, port, 1000);
        second.send(&members);
        first.expect("up n2");
        second.expect("up n1");
        exchange(&mut first, &mut second);
    }
}

#[test]
fn a_killed_dialling_end_reconnects() {
    let (mut first, mut second) = pair(1000);
    let members = members(&[first.port, second.port]);
    first.signal("KILL");
    second.expect("down n1");
    let port = first.port;
    drop(first);
    first = Process::start(1, 3, port, 1000);
    first.send(&members);
    first.expect("up n2");
    second.expect("up n1");
    exchange(&mut first, &mut second);
}

#[test]
fn a_stopped_peer_is_detected_by_the_idle_timeout_and_reconnects() {
    let (mut first, mut second) = pair(1000);
    for (stopped, other, name) in [(1, 0, "n2"), (0, 1, "n1")] {
        let pair = [&mut first, &mut second];
        let begun = Instant::now();
        pair[stopped].signal("STOP");
        let reason = pair[other].expect(&format!("down {name} "));
        let took = begun.elapsed();
        pair[stopped].signal("CONT");
        assert!(reason.contains("nothing received"), "{reason}");
        assert!(
            took >= Duration::from_millis(800) && took < Duration::from_secs(4),
            "{took:?}"
        );
        pair[other].expect(&format!("up {name}"));
        pair[stopped].expect("up ");
        exchange(&mut first, &mut second);
    }
}

#[test]
fn a_stream_of_large_values_does_not_delay_heartbeats() {
    let (mut first, mut second) = pair(1000);
    let mut round_trips = Vec::new();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let status = first.status();
        if status["queued"] < 20 << 20 {
            first.send("send 2 20 1048576");
        }
        if round_trips.last() != Some(&status["round_trip"]) {
            round_trips.push(status["round_trip"]);
        }
    }
    first.eventually("everything was sent", |status| status["queued"] == 0);
    assert!(second.status()["received"] > 100);
    // The link asserts that there is never more than half a mebibyte ahead of a heartbeat, which bounds the round trip.
    // Without pacing it was 150 to 500 ms.
    round_trips.sort_unstable();
    assert!(round_trips.len() > 5, "{round_trips:?}");
    assert!(round_trips[round_trips.len() / 2] < 100_000, "{round_trips:?}");
    let calm =
        |process: &mut Process, name| process.within(&format!("down {name}"), Duration::ZERO).is_none();
    assert!(calm(&mut first, "n2") && calm(&mut second, "n1"));
}

#[test]
fn a_stopped_transport_leaks_nothing() {
    let (mut first, mut second) = pair(1000);
    exchange(&mut first, &mut second);
    assert_eq!(
        first.status()["listening"],
        1,
        "ractor_cluster's own listener is closed"
    );
    first.send("stop");
    let left = first.expect("stopped ");
    assert_eq!(left, "actors=0 listening=0");
    second.expect("down n1");
}

#[test]
fn memory_is_bounded_while_a_peer_is_stopped() {
    let (mut first, mut second) = pair(30_000);
    exchange(&mut first, &mut second);
    let before = first.status()["resident"];
    second.signal("STOP");
    for _ in 0..40 {
        first.send("send 2 5000 1000");
        first.send("send 2 10 1048576");
    }
    first.eventually("everything is queued or shed", |status| status["shed"] > 150_000);
    let status = first.status();
    second.signal("CONT");
    // 200 MB and 400 MiB were enqueued.
    assert!(status["queued"] <= (8 + 64) << 20, "{status:?}");
    assert!(
        status["resident"] - before < 320 << 20,
        "{before} before, {status:?}"
    );
    first.eventually("the lanes are empty again", |status| status["queued"] == 0);
    let shed = first.status()["shed"];
    second.eventually("what was not shed", |status| {
        status["received"] + shed == 10 + 200_400
    });
}

#[test]
fn memory_is_bounded_at_both_ends_while_a_role_takes_no_messages() {
    let (mut first, mut second) = pair(1000);
    exchange(&mut first, &mut second);
    let before = second.status()["resident"];
    second.send("keep");
    for _ in 0..40 {
        first.send("send 2 5000 1000");
    }
    first.eventually("everything is queued or shed", |status| status["shed"] > 150_000);
    let status = second.status();
    assert!(status["received"] - 10 <= 16 << 10, "{status:?}");
    assert!(
        status["resident"] - before < 64 << 20,
        "{before} before, {status:?}"
    );
    second.send("release");
    first.eventually("the lanes are empty again", |status| status["queued"] == 0);
    exchange(&mut first, &mut second);
}
