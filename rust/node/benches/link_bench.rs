//! Benchmark of the link between two nodes: replications per second, and their cost.
//!
//! Two processes, this one and a copy of itself, each with a transport. This one keeps a number of writes of 100 bytes in
//! flight; the other one acknowledges each, which triggers the next write: the traffic of a quorum write, without disks
//! and coordinators. For each number in flight it prints round trips per second, the mean latency
//! and the CPU time of both processes together per round trip.
//!
//! ```text
//! cargo bench -p quorate-node --bench link_bench -- [seconds per line]
//! ```

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_node::clock::Clock;
use quorate_node::transport::{
    BoxFuture, Inbound, Incoming, LocalIdentity, PeerIdentity, Transport, TransportConfig,
};
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::{Member, Topology};
use quorate_protocol::wire::Envelope;
use quorate_ring::RingSettings;
use tokio::net::TcpListener;

const CHILD: &str = "QUORATE_LINK_BENCH_CHILD";
const VALUE: usize = 100;

/// Acknowledges writes, and sends the next write for each acknowledgement.
struct Exchange {
    transport: OnceLock<Transport>,
    clock: Arc<Clock>,
    answers: AtomicU64,
    /// Acknowledgements that trigger no further write, to reduce the number in flight.
    surplus: AtomicU64,
}

impl Exchange {
    fn write(&self, request: u64) -> Envelope {
        Envelope {
            from: RoleId::Coordinator(KeyspaceId(1)),
            to: RoleId::Replica(KeyspaceId(1)),
            header: Header {
                generation: 1,
                request,
                deadline: self.clock.instant() + Duration::from_secs(60),
                trace: None,
            },
            message: Message::FetchRange {
                start: Bytes::from_static(&[b'v'; VALUE]),
                end: Bytes::new(),
                limit: 1,
            },
        }
    }

    fn next(&self, incoming: &Incoming) -> Option<Envelope> {
        if let Message::FetchRange { .. } = incoming.message {
            return Some(Envelope {
                from: incoming.to,
                to: incoming.from.role,
                header: incoming.header,
                message: Message::Stored,
            });
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
        let surplus = self
            .surplus
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        surplus.is_err().then(|| self.write(incoming.header.request))
    }
}

impl Inbound for Exchange {
    fn deliver(&self, from: NodeId, messages: Vec<Incoming>) {
        let envelopes = messages
            .iter()
            .filter_map(|incoming| self.next(incoming))
            .collect();
        if let Some(transport) = self.transport.get() {
            transport.send(from, envelopes);
        }
    }

    fn peer(&self, _: NodeId, _: bool, _: &str) {}

    fn admit(&self, _: PeerIdentity) -> BoxFuture<Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn event(&self, _: TimelineEvent) {}
}

async fn start(id: u16, listener: TcpListener, addresses: [String; 2]) -> Arc<Exchange> {
    let members = (1..).zip(addresses).map(|(id, address)| Member {
        id: NodeId(id),
        peer_address: address,
        client_address: String::new(),
        http_address: String::new(),
        rack: String::new(),
        datacenter: String::new(),
    });
    let topology =
        Topology::new(ClusterId(1), 1, members.collect(), RingSettings::default()).expect("a topology");
    let clock = Arc::new(Clock::start());
    let exchange = Arc::new(Exchange {
        transport: OnceLock::new(),
        clock: clock.clone(),
        answers: AtomicU64::new(0),
        surplus: AtomicU64::new(0),
    });
    let identity = LocalIdentity {
        cluster: ClusterId(1),
        node: NodeId(id),
        replica: ReplicaId::new(NodeId(id), 1),
        boot: BootId(u64::from(id)),
    };
    let transport = Transport::start(
        TransportConfig::default(),
        listener,
        &topology,
        identity,
        clock,
        exchange.clone(),
    )
    .await
    .expect("the transport starts");
    let _only_once = exchange.transport.set(transport);
    exchange
}

/// User and system time of this process and of the other, in microseconds.
fn cpu_micros(child: u32) -> u64 {
    let ticks = |pid: &str| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("a name")
            .split_whitespace()
            .collect();
        let field = |at: usize| fields[at].parse::<u64>().expect("a number");
        field(11) + field(12)
    };
    // A tick is 10 ms on every Linux that this runs on.
    (ticks("self") + ticks(&child.to_string())) * 10_000
}

async fn child() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    std::io::stdout().flush().expect("the parent reads the pipe");
    let mut first = String::new();
    std::io::stdin()
        .read_line(&mut first)
        .expect("the parent sends its address");
    let own = listener.local_addr().expect("an address").to_string();
    let _exchange = start(2, listener, [first.trim().to_owned(), own]).await;
    // Ends with the parent.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    drop(ended);
}

async fn parent(seconds: f64) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("an address").to_string();
    let mut input = child.stdin.take().expect("piped");
    writeln!(input, "{own}").expect("the child listens");
    let mut address = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut address)
        .expect("its address");
    let exchange = start(1, listener, [own, address.trim().to_owned()]).await;
    let transport = exchange.transport.get().expect("it has started");
    while !transport.status()[0].up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "{:>10} {:>14} {:>12} {:>16}",
        "in flight", "round trips/s", "latency us", "CPU us/round trip"
    );
    for in_flight in [1, 16, 64, 256, 1024, 4096] {
        transport.send(
            NodeId(2),
            (0..in_flight).map(|request| exchange.write(request)).collect(),
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (begun, answers, cpu) = (
            Instant::now(),
            exchange.answers.load(Ordering::Relaxed),
            cpu_micros(child.id()),
        );
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let done = (exchange.answers.load(Ordering::Relaxed) - answers) as f64;
        let rate = done / begun.elapsed().as_secs_f64();
        let cpu = (cpu_micros(child.id()) - cpu) as f64 / done;
        println!(
            "{in_flight:>10} {rate:>14.0} {:>12.0} {cpu:>16.2}",
            in_flight as f64 * 1e6 / rate
        );
        exchange.surplus.fetch_add(in_flight, Ordering::Relaxed);
        while exchange.surplus.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    transport.stop().await;
    drop(input);
    child.wait().expect("the child ends");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if std::env::var_os(CHILD).is_some() {
        runtime.block_on(child());
        return;
    }
    let seconds = std::env::args()
        .filter(|argument| argument != "--bench")
        .nth(1)
        .map_or(2.0, |text| text.parse().expect("seconds per line"));
    runtime.block_on(parent(seconds));
}
