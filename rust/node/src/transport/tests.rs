//! Failures of internal actors of the transport.

use std::sync::atomic::AtomicU64;

use quorate_core::ids::KeyspaceId;
use quorate_protocol::topology::Member;
use quorate_ring::RingSettings;
use ractor::ActorCell;

use super::*;

/// Counts messages and records why the peer went down.
#[derive(Default)]
struct Counting(AtomicU64, std::sync::Mutex<Vec<String>>);

impl Inbound for Counting {
    fn deliver(&self, _: NodeId, messages: Vec<Incoming>) {
        self.0.fetch_add(messages.len() as u64, Ordering::Relaxed);
    }

    fn peer(&self, _: NodeId, up: bool, reason: &str) {
        if !up {
            self.1.lock().unwrap().push(reason.to_owned());
        }
    }

    fn admit(&self, _: PeerIdentity) -> BoxFuture<Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn event(&self, _: TimelineEvent) {}
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < end, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn pair() -> Vec<(Transport, Arc<Counting>)> {
    let mut listeners = Vec::new();
    let mut members = Vec::new();
    for id in 1..=2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        members.push(Member {
            id: NodeId(id),
            peer_address: listener.local_addr().unwrap().to_string(),
            client_address: String::new(),
            http_address: String::new(),
            rack: String::new(),
            datacenter: String::new(),
        });
        listeners.push(listener);
    }
    let topology = Topology::new(ClusterId(1), 1, members, RingSettings::default()).unwrap();
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let identity = LocalIdentity {
            cluster: ClusterId(1),
            node: NodeId(id),
            replica: ReplicaId::new(NodeId(id), 1),
            boot: BootId(u64::from(id)),
        };
        let inbound = Arc::new(Counting::default());
        let config = TransportConfig::default();
        let clock = Arc::new(Clock::start());
        let transport = Transport::start(config, listener, &topology, identity, clock, inbound.clone()).await;
        nodes.push((transport.unwrap(), inbound));
    }
    both_up(&nodes).await;
    nodes
}

async fn both_up(nodes: &[(Transport, Arc<Counting>)]) {
    eventually("both are up", || {
        nodes.iter().all(|(transport, _)| transport.status()[0].up)
    })
    .await;
}

async fn exchange(nodes: &[(Transport, Arc<Counting>)]) {
    for (at, to) in [(0, NodeId(2)), (1, NodeId(1))] {
        let before = nodes[1 - at].1.0.load(Ordering::Relaxed);
        let envelope = Envelope {
            from: RoleId::Coordinator(KeyspaceId(1)),
            to: RoleId::Replica(KeyspaceId(1)),
            header: Header {
                generation: 1,
                request: 1,
                deadline: Instant::NEVER,
                trace: None,
            },
            message: Message::Stored,
        };
        nodes[at].0.send(to, vec![envelope]);
        eventually("a message", || nodes[1 - at].1.0.load(Ordering::Relaxed) > before).await;
    }
}

/// Kills the oldest restartable actor of the first node and waits until it is restarted.
async fn replace_oldest(nodes: &[(Transport, Arc<Counting>)]) {
    let transport = &nodes[0].0;
    let children = || transport.supervisor.get_cell().get_children();
    let before: Vec<_> = children().iter().map(ActorCell::get_id).collect();
    // The gateway and the node server were started first.
    let mut ids = before.clone();
    ids.sort();
    let victim = children()
        .into_iter()
        .find(|child| child.get_id() == ids[2])
        .unwrap();
    victim.kill();
    eventually("the actor is restarted", || {
        let now = children();
        now.len() == before.len() && now.iter().all(|child| child.get_id() != ids[2])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_links_diallers_and_listeners_are_restarted() {
    let nodes = pair().await;
    for _actor in ["link", "dialler", "listener"] {
        replace_oldest(&nodes).await;
        both_up(&nodes).await;
        exchange(&nodes).await;
    }
    for (transport, _) in &nodes {
        transport.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_session_is_replaced_by_one_of_the_same_boot() {
    let nodes = pair().await;
    let sessions = |at: usize| nodes[at].0.core.sessions.all();
    let old = sessions(1)[0].id;
    // n1 loses its end without notifying n2, which still has a session that looks healthy.
    nodes[0].0.core.forget_session(old, "lost");
    eventually("another session on both sides", || {
        let replaced = |at| {
            sessions(at)
                .iter()
                .any(|session| session.id != old && session.ready())
        };
        replaced(0) && replaced(1)
    })
    .await;
    both_up(&nodes).await;
    exchange(&nodes).await;
    let reasons = nodes[1].1.1.lock().unwrap().clone();
    assert_eq!(
        reasons,
        ["the peer has connected again"],
        "before the idle deadline"
    );
    for (transport, _) in &nodes {
        transport.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transport_ends_with_its_gateway() {
    let nodes = pair().await;
    let supervisor = nodes[0].0.supervisor.get_cell();
    let mut children = supervisor.get_children();
    children.sort_by_key(ActorCell::get_id);
    children[0].kill();
    supervisor.wait(Some(Duration::from_secs(20))).await.unwrap();
    eventually("the peer notices", || !nodes[1].0.status()[0].up).await;
    nodes[1].0.stop().await;
}

#[test]
fn one_event_per_interval_passes_the_limiter() {
    let limiter = Limiter::default();
    let start = Instant(0);
    let passed = (0..1000)
        .filter(|at| limiter.passes(start + Duration::from_millis(*at)))
        .count();
    assert_eq!(passed, 10);
}
