//! A network that misbehaves as TCP lets it misbehave.
//!
//! What programs see of a network is **sessions**: ordered streams of bytes between two programs. A session never
//! loses, repeats or reorders a byte while it lives; everything bad shows as *delay*, *silence* or its *end*:
//!
//! * a lost packet is a delay: it is sent again, later each time, and all that follows waits for it;
//! * a partition is silence: what was sent waits, in order, until the path is open again or an end gives up;
//! * a session may break at any time. What was in flight is lost, and nobody is told how much of it arrived. If the
//!   path is blocked, the other side is not even told that the session ended: it is half open;
//! * a slow receiver or path fills the window, and the sender is not told that its bytes are out.
//!
//! Paths have a direction, so a partition can be one-way. Loss, repetition and reordering of whole *messages*, which
//! no TCP shows, are a harsher rule that the world applies above the links (see [`MessageFaults`]).
//!
//! The network is driven as roles are: calls return what is to be put on the event queue ([`Flight`]), and when its time
//! comes [`Network::land`] says what a program sees of it.

mod profile;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::rng::SimRng;
pub use profile::{Conditions, MessageFaults};

/// Bytes of one direction of a session that may be under way before the sender has to wait, as socket buffers do.
pub const WINDOW_BYTES: usize = 512 << 10;

/// How long a sender waits before it sends a lost packet again; doubled each time.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// A node of the cluster.
    Node(NodeId),
    /// A simulated client.
    Client(u32),
}

/// A session, numbered in the order of dialling and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Who of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The one that opened the session.
    Dialler,
    /// The one that was dialled.
    Listener,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// What a host does with packets that no program of it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// The program runs: knocks reach it.
    Serving,
    /// The program is gone, the host is not: it answers strangers with the end of their session.
    Refusing,
    /// The host is gone, too, or cut off by its power: it answers nothing.
    Silent,
}

/// What a program sees of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrival {
    /// Somebody dials: [`Network::accept`] or [`Network::end`] the session, or leave it unanswered.
    Knock {
        /// Who.
        from: Endpoint,
    },
    /// The dialled side accepted.
    Opened,
    /// Bytes, in order.
    Bytes(Bytes),
    /// The oldest bytes not yet reported so have left the sender.
    Out,
    /// The session is over.
    Ended,
}

/// Something under way. Opaque: put it on the event queue and give it to [`Network::land`] when its time comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    session: SessionId,
    /// Who sees it when it lands.
    to: Side,
    /// What was sent before a cut does not land after it.
    cuts: u32,
    cargo: Cargo,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Cargo {
    Knock,
    Welcome,
    Chunk(Bytes),
    End,
    /// Not cargo but the sender's own notice that its bytes have left.
    Out,
    /// Not cargo either: the path is open again, the oldest of what stalled there lands.
    Resume,
}

/// What landed: who sees what.
pub type Landed = (SessionId, Side, Endpoint, Arrival);

/// What calls put on the event queue.
pub type Flights = Vec<(Instant, Flight)>;

/// One direction of a session.
#[derive(Clone, Debug, Default)]
struct Direction {
    /// Bytes that have left the sender and not landed.
    in_flight: usize,
    /// Bytes that wait for the window.
    waiting: VecDeque<Bytes>,
    /// What landed while the path was blocked.
    stalled: VecDeque<Cargo>,
    /// Nothing may land before what was sent before it.
    last_landing: Instant,
    /// When the path is done with what was sent before.
    idle_at: Instant,
}

#[derive(Clone, Debug)]
struct Session {
    /// The dialler, the listener.
    endpoints: [Endpoint; 2],
    /// Whether each still holds its end.
    held: [bool; 2],
    /// To the dialler, to the listener.
    directions: [Direction; 2],
    cuts: u32,
}

/// All hosts, paths and sessions.
#[derive(Clone, Debug)]
pub struct Network {
    rng: SimRng,
    ordinary: Conditions,
    paths: BTreeMap<(Endpoint, Endpoint), Conditions>,
    hosts: BTreeMap<Endpoint, Host>,
    sessions: BTreeMap<SessionId, Session>,
    dialled: u64,
}

impl Network {
    /// A network on which every path has the `ordinary` conditions and every host is silent.
    pub fn new(rng: SimRng, ordinary: Conditions) -> Self {
        Network {
            rng,
            ordinary,
            paths: BTreeMap::new(),
            hosts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            dialled: 0,
        }
    }

    /// The conditions on the path from one endpoint to another.
    pub fn conditions(&self, from: Endpoint, to: Endpoint) -> Conditions {
        self.paths.get(&(from, to)).copied().unwrap_or(self.ordinary)
    }

    /// Changes a path. Opening a blocked one sends what waited there on its way, in order.
    pub fn set_conditions(
        &mut self,
        now: Instant,
        (from, to): (Endpoint, Endpoint),
        conditions: Conditions,
        flights: &mut Flights,
    ) {
        self.paths.insert((from, to), conditions);
        if conditions.blocked {
            return;
        }
        for (&id, session) in &mut self.sessions {
            for side in [Side::Dialler, Side::Listener] {
                if session.endpoints[side.other() as usize] != from || session.endpoints[side as usize] != to
                {
                    continue;
                }
                if !session.directions[side as usize].stalled.is_empty() {
                    let at = now + conditions.delay.sample(&mut self.rng);
                    flights.push((
                        at,
                        Flight {
                            session: id,
                            to: side,
                            cuts: session.cuts,
                            cargo: Cargo::Resume,
                        },
                    ));
                }
            }
        }
    }

    /// All paths are ordinary again.
    pub fn heal(&mut self, now: Instant, flights: &mut Flights) {
        for path in self.paths.keys().copied().collect::<Vec<_>>() {
            self.set_conditions(now, path, self.ordinary, flights);
        }
        self.paths.clear();
    }

    /// A host's program starts (with no sessions) or stops. When it stops, what it has sent still arrives and its
    /// sessions end, if the host goes on; otherwise they are half open until the other side gives up.
    pub fn set_host(&mut self, now: Instant, endpoint: Endpoint, host: Host, flights: &mut Flights) {
        self.hosts.insert(endpoint, host);
        for (session, side) in self.sessions_of(endpoint) {
            if host == Host::Silent {
                self.sessions.get_mut(&session).expect("just listed").held[side as usize] = false;
                self.forget_if_over(session);
            } else {
                self.end(now, session, side, flights);
            }
        }
    }

    /// All sessions of which this endpoint holds an end, and which end.
    pub fn sessions_of(&self, endpoint: Endpoint) -> Vec<(SessionId, Side)> {
        let mut found = Vec::new();
        for (&id, session) in &self.sessions {
            for side in [Side::Dialler, Side::Listener] {
                if session.endpoints[side as usize] == endpoint && session.held[side as usize] {
                    found.push((id, side));
                }
            }
        }
        found
    }

    /// Opens a session. The other side sees a [`Arrival::Knock`], unless the path is blocked or it is not there.
    pub fn dial(&mut self, now: Instant, from: Endpoint, to: Endpoint, flights: &mut Flights) -> SessionId {
        self.dialled += 1;
        let id = SessionId(self.dialled);
        let session = Session {
            endpoints: [from, to],
            held: [true, false],
            directions: [Direction::default(), Direction::default()],
            cuts: 0,
        };
        self.sessions.insert(id, session);
        self.launch(now, id, Side::Listener, Cargo::Knock, flights);
        id
    }

    /// The listener takes the session.
    pub fn accept(&mut self, now: Instant, session: SessionId, flights: &mut Flights) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.held[Side::Listener as usize] = true;
            self.launch(now, session, Side::Dialler, Cargo::Welcome, flights);
        }
    }

    /// Sends bytes. [`Arrival::Out`] tells when they have left. Bytes for a session that is over go nowhere.
    pub fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        from: Side,
        bytes: Bytes,
        flights: &mut Flights,
    ) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.directions[from.other() as usize].waiting.push_back(bytes);
            self.fill_window(now, session, from.other(), flights);
        }
    }

    /// `side` lets go of the session: what has left it arrives, then the other side sees the end.
    pub fn end(&mut self, now: Instant, session: SessionId, side: Side, flights: &mut Flights) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if std::mem::replace(&mut entry.held[side as usize], false) {
            entry.directions[side.other() as usize].waiting.clear();
            self.launch(now, session, side.other(), Cargo::End, flights);
        }
        self.forget_if_over(session);
    }

    /// The session breaks: what is in flight is lost both ways, and both sides see the end where the path is open.
    pub fn cut(&mut self, now: Instant, session: SessionId, flights: &mut Flights) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        entry.cuts += 1;
        entry.directions = [Direction::default(), Direction::default()];
        for side in [Side::Dialler, Side::Listener] {
            self.launch(now, session, side, Cargo::End, flights);
        }
    }

    /// Who has dialled a session; `None` when it is over.
    pub fn dialler(&self, session: SessionId) -> Option<Endpoint> {
        let session = self.sessions.get(&session)?;
        Some(session.endpoints[Side::Dialler as usize])
    }

    /// Who will see it when this lands; `None` when the session is over.
    pub fn receiver(&self, flight: &Flight) -> Option<Endpoint> {
        self.sessions
            .get(&flight.session)
            .map(|session| session.endpoints[flight.to as usize])
    }

    /// What was under way is there. `None`: nobody sees anything of it.
    pub fn land(&mut self, now: Instant, flight: Flight, flights: &mut Flights) -> Option<Landed> {
        let Flight {
            session: id,
            to,
            cuts,
            mut cargo,
        } = flight;
        let session = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.cuts == cuts)?;
        let (from, receiver) = (
            session.endpoints[to.other() as usize],
            session.endpoints[to as usize],
        );
        if cargo == Cargo::Out {
            return session.held[to as usize].then_some((id, to, receiver, Arrival::Out));
        }
        let direction = &mut session.directions[to as usize];
        let blocked = self
            .paths
            .get(&(from, receiver))
            .is_some_and(|conditions| conditions.blocked);
        if cargo == Cargo::Resume {
            if blocked {
                return None;
            }
            cargo = direction.stalled.pop_front()?;
            if !direction.stalled.is_empty() {
                flights.push((
                    now,
                    Flight {
                        session: id,
                        to,
                        cuts,
                        cargo: Cargo::Resume,
                    },
                ));
            }
        } else if blocked || !direction.stalled.is_empty() {
            // What comes after something that waits has to wait behind it.
            direction.stalled.push_back(cargo);
            return None;
        }
        let held = session.held[to as usize];
        let host = self.hosts.get(&receiver).copied().unwrap_or(Host::Silent);
        let arrival = match cargo {
            Cargo::Knock => match host {
                Host::Serving => Some(Arrival::Knock { from }),
                Host::Refusing => {
                    self.launch(now, id, Side::Dialler, Cargo::End, flights);
                    None
                }
                Host::Silent => None,
            },
            Cargo::Chunk(bytes) => {
                direction.in_flight -= bytes.len();
                self.fill_window(now, id, to, flights);
                if !held && host != Host::Silent {
                    self.launch(now, id, to.other(), Cargo::End, flights);
                }
                held.then_some(Arrival::Bytes(bytes))
            }
            Cargo::Welcome => held.then_some(Arrival::Opened),
            Cargo::End => {
                session.held[to as usize] = false;
                self.forget_if_over(id);
                held.then_some(Arrival::Ended)
            }
            Cargo::Out | Cargo::Resume => None,
        };
        arrival.map(|arrival| (id, to, receiver, arrival))
    }

    /// Sends waiting bytes on their way while the window allows.
    fn fill_window(&mut self, now: Instant, id: SessionId, to: Side, flights: &mut Flights) {
        while let Some(session) = self.sessions.get_mut(&id) {
            let direction = &mut session.directions[to as usize];
            if direction.in_flight >= WINDOW_BYTES {
                return;
            }
            let Some(bytes) = direction.waiting.pop_front() else {
                return;
            };
            direction.in_flight += bytes.len();
            let cuts = session.cuts;
            let out = self.launch(now, id, to, Cargo::Chunk(bytes), flights);
            flights.push((
                out,
                Flight {
                    session: id,
                    to: to.other(),
                    cuts,
                    cargo: Cargo::Out,
                },
            ));
        }
    }

    /// Puts cargo on its way and says when it has left its sender.
    fn launch(
        &mut self,
        now: Instant,
        id: SessionId,
        to: Side,
        cargo: Cargo,
        flights: &mut Flights,
    ) -> Instant {
        let Some(session) = self.sessions.get_mut(&id) else {
            return now;
        };
        let path = (
            session.endpoints[to.other() as usize],
            session.endpoints[to as usize],
        );
        let conditions = self.paths.get(&path).unwrap_or(&self.ordinary);
        let direction = &mut session.directions[to as usize];
        let bytes = if let Cargo::Chunk(bytes) = &cargo {
            bytes.len() as u64
        } else {
            0
        };
        let transmission = Duration::from_micros(bytes * 1_000_000 / conditions.bytes_per_second.max(1));
        direction.idle_at = direction.idle_at.max(now) + transmission;
        let out = direction.idle_at;
        let at = direction.landing(out, conditions, &mut self.rng);
        flights.push((
            at,
            Flight {
                session: id,
                to,
                cuts: session.cuts,
                cargo,
            },
        ));
        out
    }

    fn forget_if_over(&mut self, id: SessionId) {
        if self
            .sessions
            .get(&id)
            .is_some_and(|session| session.held == [false, false])
        {
            self.sessions.remove(&id);
        }
    }
}

impl Direction {
    /// When something that leaves at `out` lands.
    fn landing(&mut self, out: Instant, conditions: &Conditions, rng: &mut SimRng) -> Instant {
        let mut at = out + conditions.delay.sample(rng);
        let mut again = RETRANSMISSION;
        while conditions.loss > 0.0 && again < Duration::from_secs(10) && rng.chance(conditions.loss) {
            at = at + again;
            again *= 2;
        }
        self.last_landing = self.last_landing.max(at);
        self.last_landing
    }
}

#[cfg(test)]
mod tests;
