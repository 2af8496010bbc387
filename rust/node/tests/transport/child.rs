//! A node in its own process: this test binary, started with an environment variable.
//!
//! Its protocol is line-based. It prints `@ port N`, reads `members 1=address 2=address`, then prints `@ up n2` and
//! `@ down n2 reason` as they happen, and executes: `send TO COUNT SIZE`, `keep` (the role stops taking messages),
//! `release` (it takes all), `status` (answered by `@ status ...`), `stop` (answered by `@ stopped ...`, with leaked
//! resources). It ends when its input closes, so no child outlives its test.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate_core::ids::NodeId;
use quorate_node::transport::TransportConfig;
use quorate_protocol::link::LinkSettings;
use tokio::net::TcpListener;

use crate::support::{Memory, Node, PATIENCE, identity, topology};

/// `id boot port idle_ms`
pub(crate) const SPEC: &str = "QUORATE_TEST_TRANSPORT_CHILD";

fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may have exited; then this process ends soon.
    let _gone = writeln!(out, "@ {line}").and_then(|()| out.flush());
}

/// Does nothing unless this process was started as a child.
#[test]
fn run_as_a_child() {
    let Ok(spec) = std::env::var(SPEC) else { return };
    let numbers: Vec<u64> = spec.split(' ').map(|number| number.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(numbers[0] as u16, numbers[1], numbers[2] as u16, numbers[3]));
    std::process::exit(0);
}

async fn run(id: u16, boot: u64, port: u16, idle_ms: u64) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    print_line(&format!("port {}", listener.local_addr().unwrap().port()));
    let (lines, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let members = commands.recv().await.unwrap();
    let addresses: Vec<(u16, String)> = members
        .split(' ')
        .skip(1)
        .map(|member| member.split_once('=').unwrap())
        .map(|(id, address)| (id.parse().unwrap(), address.to_owned()))
        .collect();
    let config = TransportConfig {
        link: LinkSettings {
            idle: Duration::from_millis(idle_ms),
            ..LinkSettings::default()
        },
        user_timeout: Duration::from_millis(idle_ms * 3),
        ..TransportConfig::default()
    };
    let node = Node::start(config, listener, &topology(&addresses), identity(id, boot)).await;
    let mut recorded = 0;
    loop {
        recorded = report(&node.memory, recorded);
        let line = match tokio::time::timeout(Duration::from_millis(2), commands.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(_) => continue,
        };
        if line == "stop" {
            node.transport.stop().await;
            print_line(&format!("stopped {}", left_behind().await));
            return;
        }
        execute(&node, &line);
    }
    node.transport.stop().await;
}

/// The resources left by the transport after it had time to end.
async fn left_behind() -> String {
    let left = || (ractor::registry::get_all_pids().len(), listening_sockets());
    let end = Instant::now() + PATIENCE;
    while left() != (0, 0) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (actors, listening) = left();
    format!("actors={actors} listening={listening}")
}

/// The number of listening TCP sockets of this process.
fn listening_sockets() -> usize {
    let own: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let listens = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"0A") && own.iter().any(|inode| fields.get(9) == Some(&inode.as_str()))
    };
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables
        .iter()
        .map(|path| {
            std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .filter(listens)
                .count()
        })
        .sum()
}

/// Prints changes of the peers after the first `recorded`, and returns their number.
fn report(memory: &Arc<Memory>, recorded: usize) -> usize {
    let peers = memory.recorded.lock().unwrap().peers.clone();
    for (node, up, reason) in &peers[recorded..] {
        print_line(&if *up {
            format!("up {node}")
        } else {
            format!("down {node} {reason}")
        });
    }
    peers.len()
}

fn execute(node: &Node, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| -> u64 { words[at].parse().unwrap() };
    match words[0] {
        "send" => {
            let envelopes = (0..number(2))
                .map(|request| node.envelope(request, number(3) as usize))
                .collect();
            node.transport.send(NodeId(number(1) as u16), envelopes);
        }
        "keep" => node.memory.keep.store(true, Ordering::Relaxed),
        "release" => {
            node.memory.keep.store(false, Ordering::Relaxed);
            let messages = std::mem::take(&mut node.memory.recorded.lock().unwrap().messages);
            drop(messages);
        }
        "status" => {
            let peers = node.transport.status();
            let shed: u64 = node
                .transport
                .links()
                .iter()
                .map(|(_, totals)| totals.shed_envelopes)
                .sum();
            let queued: u64 = peers.iter().map(|peer| peer.queued_bytes).sum();
            let slowest = peers.iter().map(|peer| peer.round_trip_micros).max().unwrap_or(0);
            print_line(&format!(
                "status received={} queued={queued} shed={shed} round_trip={slowest} resident={} listening={}",
                node.memory.received(),
                resident_bytes(),
                listening_sockets()
            ));
        }
        other => panic!("unknown command {other}"),
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
