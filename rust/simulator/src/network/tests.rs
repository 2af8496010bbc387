//! Sessions with and without faults.

use quorate_core::ids::NodeId;

use super::*;
use crate::event_queue::EventQueue;
use crate::rng::Delay;

const A: Endpoint = Endpoint::Node(NodeId(1));
const B: Endpoint = Endpoint::Node(NodeId(2));

/// Two hosts, and a record of what they see.
struct Bench {
    network: Network,
    queue: EventQueue<Flight>,
    now: Instant,
    seen: Vec<(Endpoint, Arrival)>,
}

impl Bench {
    fn new(seed: u64, ordinary: Conditions) -> Self {
        let mut bench = Bench {
            network: Network::new(SimRng::named(seed, "network"), ordinary),
            queue: EventQueue::default(),
            now: Instant(0),
            seen: Vec::new(),
        };
        for host in [A, B] {
            bench.act(|network, now, flights| network.set_host(now, host, Host::Serving, flights));
        }
        bench
    }

    fn act<R>(&mut self, action: impl FnOnce(&mut Network, Instant, &mut Flights) -> R) -> R {
        let mut flights = Vec::new();
        let result = action(&mut self.network, self.now, &mut flights);
        for (at, flight) in flights {
            assert!(at >= self.now);
            self.queue.push(at, flight);
        }
        result
    }

    /// Lands all flights; every knock is accepted.
    fn settle(&mut self) {
        while let Some((at, flight)) = self.queue.pop() {
            self.now = at;
            let landed = self.act(|network, now, flights| network.land(now, flight, flights));
            if let Some((session, _, endpoint, arrival)) = landed {
                if matches!(arrival, Arrival::Knock { .. }) {
                    self.act(|network, now, flights| network.accept(now, session, flights));
                }
                self.seen.push((endpoint, arrival));
            }
        }
    }

    fn open(&mut self) -> SessionId {
        let session = self.act(|network, now, flights| network.dial(now, A, B, flights));
        self.settle();
        assert_eq!(
            std::mem::take(&mut self.seen),
            [(B, Arrival::Knock { from: A }), (A, Arrival::Opened)]
        );
        session
    }

    fn send(&mut self, session: SessionId, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.act(|network, now, flights| network.send(now, session, Side::Dialler, bytes, flights));
    }

    /// What B has seen since the last call, without notices about sent bytes.
    fn seen_by_b(&mut self) -> Vec<Arrival> {
        let seen = std::mem::take(&mut self.seen);
        seen.into_iter()
            .filter(|(endpoint, _)| *endpoint == B)
            .map(|(_, arrival)| arrival)
            .collect()
    }

    fn block(&mut self, from: Endpoint, to: Endpoint, blocked: bool) {
        let conditions = Conditions {
            blocked,
            ..Conditions::default()
        };
        self.act(|network, now, flights| network.set_conditions(now, (from, to), conditions, flights));
    }
}

fn bytes(text: &'static str) -> Arrival {
    Arrival::Bytes(Bytes::from_static(text.as_bytes()))
}

#[test]
fn a_session_keeps_its_order_on_a_lossy_path_of_varying_delay() {
    for seed in 0..20 {
        let delay = Delay {
            spikes: 0.2,
            spike: Duration::from_secs(1),
            ..Conditions::default().delay
        };
        let mut bench = Bench::new(
            seed,
            Conditions {
                delay,
                loss: 0.3,
                ..Conditions::default()
            },
        );
        let session = bench.open();
        let sent: Vec<Arrival> = (0..50u8)
            .map(|n| Arrival::Bytes(Bytes::copy_from_slice(&[n])))
            .collect();
        for n in 0..50u8 {
            bench.send(session, vec![n]);
        }
        bench.settle();
        assert_eq!(bench.seen_by_b(), sent);
    }
}

#[test]
fn a_blocked_path_delays_and_then_delivers_in_order() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed, Conditions::default());
        let session = bench.open();
        bench.send(session, "one");
        bench.block(A, B, true);
        bench.send(session, "two");
        bench.settle();
        assert_eq!(bench.seen_by_b(), []);
        bench.send(session, "three");
        bench.block(A, B, false);
        bench.send(session, "four");
        bench.settle();
        assert_eq!(bench.seen_by_b(), ["one", "two", "three", "four"].map(bytes));
    }
}

#[test]
fn one_direction_can_be_blocked_alone() {
    let mut bench = Bench::new(1, Conditions::default());
    let session = bench.open();
    bench.block(B, A, true);
    bench.send(session, "hello");
    bench.act(|network, now, flights| {
        network.send(
            now,
            session,
            Side::Listener,
            Bytes::from_static(b"silence"),
            flights,
        )
    });
    bench.settle();
    assert!(bench.seen.contains(&(B, bytes("hello"))));
    assert!(!bench.seen.contains(&(A, bytes("silence"))));
}

#[test]
fn a_cut_loses_bytes_in_flight_and_notifies_both_sides() {
    let mut bench = Bench::new(1, Conditions::default());
    let session = bench.open();
    bench.send(session, "lost");
    bench.act(|network, now, flights| network.cut(now, session, flights));
    bench.send(session, "too late");
    bench.settle();
    let mut ended: Vec<Endpoint> = Vec::new();
    for (endpoint, arrival) in &bench.seen {
        assert!(!matches!(arrival, Arrival::Bytes(_)), "{arrival:?}");
        ended.extend((*arrival == Arrival::Ended).then_some(*endpoint));
    }
    ended.sort();
    assert_eq!(ended, [A, B]);
}

#[test]
fn the_end_of_a_program_is_visible_and_that_of_a_host_is_not() {
    for (host, noticed) in [(Host::Refusing, true), (Host::Silent, false)] {
        let mut bench = Bench::new(1, Conditions::default());
        let session = bench.open();
        bench.act(|network, now, flights| network.set_host(now, B, host, flights));
        bench.settle();
        assert_eq!(bench.seen.contains(&(A, Arrival::Ended)), noticed);
        bench.send(session, "anybody there?");
        bench.settle();
        assert_eq!(bench.seen.contains(&(A, Arrival::Ended)), noticed);
        // After a restart, the host resets the unknown session.
        bench.act(|network, now, flights| network.set_host(now, B, Host::Serving, flights));
        bench.send(session, "and now?");
        bench.settle();
        assert!(bench.seen.contains(&(A, Arrival::Ended)));
    }
}

#[test]
fn a_full_window_blocks_the_sender() {
    let mut bench = Bench::new(1, Conditions::default());
    let session = bench.open();
    bench.block(A, B, true);
    let quarter = Bytes::from(vec![0; WINDOW_BYTES / 4]);
    for _ in 0..10 {
        bench.send(session, quarter.clone());
    }
    bench.settle();
    let outs = |bench: &Bench| {
        bench
            .seen
            .iter()
            .filter(|(_, arrival)| *arrival == Arrival::Out)
            .count()
    };
    assert_eq!(outs(&bench), 4);
    bench.block(A, B, false);
    bench.settle();
    assert_eq!(outs(&bench), 10);
    assert_eq!(bench.seen_by_b().len(), 10);
}
