//! A simulated network with the faults that TCP allows.
//!
//! Programs see **sessions**: ordered byte streams between two programs. A session never loses, duplicates or reorders a
//! byte while it is open; all faults appear as *delay*, *silence* or its *end*:
//!
//! * a lost packet is a delay: it is retransmitted with backoff, and all later bytes wait for it;
//! * a partition is silence: sent bytes wait, in order, until the path is healed or an end closes the session;
//! * a session may break at any time. Bytes in flight are lost, and the sender does not learn how many arrived. If the
//!   path is blocked, the other side does not learn that the session ended: it is half open;
//! * a slow receiver or path fills the window, and the sender is not notified that its bytes were sent.
//!
//! Paths are directed, so a partition can be one-way. Loss, duplication and reordering of whole *messages*, which TCP does
//! not show, are injected by the world above the links (see [`MessageFaults`]).
//!
//! The network is driven like a role: calls return the flights to schedule ([`Flight`]), and when a flight is due,
//! [`Network::land`] returns what a program sees of it.

mod profile;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::NodeId;
use quorate_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::rng::SimRng;
pub use profile::{Conditions, MessageFaults};

/// The window of one direction of a session: bytes in flight before the sender must wait, like socket buffers.
pub const WINDOW_BYTES: usize = 512 << 10;

/// The retransmission timeout of a lost packet; doubled each time.
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

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The side that opened the session.
    Dialler,
    /// The side that was dialled.
    Listener,
}

impl Side {
    /// The other side.
    pub fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// How a host responds to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// The program runs and receives knocks.
    Serving,
    /// The program has ended but the host is up: it resets unknown sessions.
    Refusing,
    /// The host is down: it answers nothing.
    Silent,
}

/// What a program sees of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrival {
    /// An incoming session: [`Network::accept`] or [`Network::end`] it, or leave it unanswered.
    Knock {
        /// The dialler.
        from: Endpoint,
    },
    /// The dialled side accepted.
    Opened,
    /// Bytes, in order.
    Bytes(Bytes),
    /// The oldest bytes not yet reported were sent.
    Out,
    /// The session ended.
    Ended,
}

/// Something in flight. Opaque: schedule it and pass it to [`Network::land`] when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    session: SessionId,
    /// The side that receives it.
    to: Side,
    /// The number of cuts when it was sent: it is lost if the session was cut since.
    cuts: u32,
    cargo: Cargo,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Cargo {
    Knock,
    Welcome,
    Chunk(Bytes),
    End,
    /// Not cargo but the sender's notice that its bytes were sent.
    Out,
    /// Not cargo either: the path is healed, and the oldest stalled cargo lands.
    Resume,
}

/// What landed: the session, the receiver, and the arrival.
pub type Landed = (SessionId, Side, Endpoint, Arrival);

/// Flights to schedule.
pub type Flights = Vec<(Instant, Flight)>;

/// One direction of a session.
#[derive(Clone, Debug, Default)]
struct Direction {
    /// Bytes sent and not landed.
    in_flight: usize,
    /// Bytes that wait for the window.
    waiting: VecDeque<Bytes>,
    /// Cargo that landed while the path was blocked.
    stalled: VecDeque<Cargo>,
    /// The last landing, before which nothing may land.
    last_landing: Instant,
    /// When the path has transmitted what was sent before.
    idle_at: Instant,
}

#[derive(Clone, Debug)]
struct Session {
    /// The dialler, the listener.
    endpoints: [Endpoint; 2],
    /// Whether each side holds its end open.
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

    /// Changes a path. Unblocking it delivers stalled cargo, in order.
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

    /// Heals all paths.
    pub fn heal(&mut self, now: Instant, flights: &mut Flights) {
        for path in self.paths.keys().copied().collect::<Vec<_>>() {
            self.set_conditions(now, path, self.ordinary, flights);
        }
        self.paths.clear();
    }

    /// A host's program starts (without sessions) or stops. When it stops, sent bytes still arrive and its sessions end, if
    /// the host keeps running; otherwise they are half open until the other side closes them.
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

    /// All sessions of an endpoint, and its side.
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

    /// Opens a session. The other side sees an [`Arrival::Knock`], unless the path is blocked or the host is silent.
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

    /// The listener accepts the session.
    pub fn accept(&mut self, now: Instant, session: SessionId, flights: &mut Flights) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.held[Side::Listener as usize] = true;
            self.launch(now, session, Side::Dialler, Cargo::Welcome, flights);
        }
    }

    /// Sends bytes. [`Arrival::Out`] reports when they were sent. Bytes for a closed session are dropped.
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

    /// `side` closes the session: sent bytes arrive, then the other side sees the end.
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

    /// Breaks the session: bytes in flight are lost in both directions, and each side sees the end if the path is open.
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

    /// The dialler of a session; `None` if it is closed.
    pub fn dialler(&self, session: SessionId) -> Option<Endpoint> {
        let session = self.sessions.get(&session)?;
        Some(session.endpoints[Side::Dialler as usize])
    }

    /// The receiver of a flight; `None` if the session is closed.
    pub fn receiver(&self, flight: &Flight) -> Option<Endpoint> {
        self.sessions
            .get(&flight.session)
            .map(|session| session.endpoints[flight.to as usize])
    }

    /// A flight lands. `None` if no program sees it.
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
            // Cargo behind stalled cargo stalls too.
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

    /// Sends pending bytes while the window allows.
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

    /// Sends cargo; returns when it has left the sender.
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
    /// The landing time of cargo that leaves at `out`.
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
