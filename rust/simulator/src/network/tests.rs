//! What programs see of sessions, on good days and bad ones.

use quorate_core::ids::NodeId;

use super::*;
use crate::event_queue::EventQueue;
use crate::rng::Delay;

const A: Endpoint = Endpoint::Node(NodeId(1));
const B: Endpoint = Endpoint::Node(NodeId(2));

/// Two hosts, and a record of what they see.
struct Lab {
    network: Network,
    queue: EventQueue<Flight>,
    now: Instant,
    seen: Vec<(Endpoint, Arrival)>,
}

impl Lab {
    fn new(seed: u64, ordinary: Conditions) -> Self {
        let mut lab = Lab {
            network: Network::new(SimRng::named(seed, "network"), ordinary),
            queue: EventQueue::default(),
            now: Instant(0),
            seen: Vec::new(),
        };
        for host in [A, B] {
            lab.act(|network, now, flights| network.set_host(now, host, Host::Serving, flights));
        }
        lab
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

    /// Lets everything land; every knock is accepted.
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

    /// What B has seen since the last call, notices about what is out left out.
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
        let mut lab = Lab::new(
            seed,
            Conditions {
                delay,
                loss: 0.3,
                ..Conditions::default()
            },
        );
        let session = lab.open();
        let sent: Vec<Arrival> = (0..50u8)
            .map(|n| Arrival::Bytes(Bytes::copy_from_slice(&[n])))
            .collect();
        for n in 0..50u8 {
            lab.send(session, vec![n]);
        }
        lab.settle();
        assert_eq!(lab.seen_by_b(), sent);
    }
}

#[test]
fn a_blocked_path_delays_and_then_delivers_in_order() {
    for seed in 0..20 {
        let mut lab = Lab::new(seed, Conditions::default());
        let session = lab.open();
        lab.send(session, "one");
        lab.block(A, B, true);
        lab.send(session, "two");
        lab.settle();
        assert_eq!(lab.seen_by_b(), []);
        lab.send(session, "three");
        lab.block(A, B, false);
        lab.send(session, "four");
        lab.settle();
        assert_eq!(lab.seen_by_b(), ["one", "two", "three", "four"].map(bytes));
    }
}

#[test]
fn one_direction_can_be_blocked_alone() {
    let mut lab = Lab::new(1, Conditions::default());
    let session = lab.open();
    lab.block(B, A, true);
    lab.send(session, "hello");
    lab.act(|network, now, flights| {
        network.send(
            now,
            session,
            Side::Listener,
            Bytes::from_static(b"silence"),
            flights,
        )
    });
    lab.settle();
    assert!(lab.seen.contains(&(B, bytes("hello"))));
    assert!(!lab.seen.contains(&(A, bytes("silence"))));
}

#[test]
fn a_cut_loses_what_is_in_flight_and_tells_both() {
    let mut lab = Lab::new(1, Conditions::default());
    let session = lab.open();
    lab.send(session, "lost");
    lab.act(|network, now, flights| network.cut(now, session, flights));
    lab.send(session, "too late");
    lab.settle();
    let mut ended: Vec<Endpoint> = Vec::new();
    for (endpoint, arrival) in &lab.seen {
        assert!(!matches!(arrival, Arrival::Bytes(_)), "{arrival:?}");
        ended.extend((*arrival == Arrival::Ended).then_some(*endpoint));
    }
    ended.sort();
    assert_eq!(ended, [A, B]);
}

#[test]
fn a_program_that_ends_is_noticed_and_a_host_without_power_is_not() {
    for (host, noticed) in [(Host::Refusing, true), (Host::Silent, false)] {
        let mut lab = Lab::new(1, Conditions::default());
        let session = lab.open();
        lab.act(|network, now, flights| network.set_host(now, B, host, flights));
        lab.settle();
        assert_eq!(lab.seen.contains(&(A, Arrival::Ended)), noticed);
        lab.send(session, "anybody there?");
        lab.settle();
        assert_eq!(lab.seen.contains(&(A, Arrival::Ended)), noticed);
        // Back again, the host knows nothing of the session and says so.
        lab.act(|network, now, flights| network.set_host(now, B, Host::Serving, flights));
        lab.send(session, "and now?");
        lab.settle();
        assert!(lab.seen.contains(&(A, Arrival::Ended)));
    }
}

#[test]
fn a_full_window_holds_the_sender_back() {
    let mut lab = Lab::new(1, Conditions::default());
    let session = lab.open();
    lab.block(A, B, true);
    let quarter = Bytes::from(vec![0; WINDOW_BYTES / 4]);
    for _ in 0..10 {
        lab.send(session, quarter.clone());
    }
    lab.settle();
    let outs = |lab: &Lab| {
        lab.seen
            .iter()
            .filter(|(_, arrival)| *arrival == Arrival::Out)
            .count()
    };
    assert_eq!(outs(&lab), 4);
    lab.block(A, B, false);
    lab.settle();
    assert_eq!(outs(&lab), 10);
    assert_eq!(lab.seen_by_b().len(), 10);
}
