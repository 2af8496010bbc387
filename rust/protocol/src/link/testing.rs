//! For tests: two links and the connection between them, with a manual clock.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::contract::{Rng, Role, rng_from_seed};
use quorate_core::ids::KeyspaceId;
use quorate_core::time::{Instant, Now, WallTime};
use quorate_raft as raft;
use quorate_raft::entry::{Entry, EntryKind};
use quorate_raft::message::Body;
use quorate_raft::types::{GroupId, LogIndex, LogPosition, Term};

use super::*;
use crate::message::{Header, Message};
use crate::role::RoleId;
use crate::wire::Envelope;

/// The effects of one end.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Batches in flight to the other end.
    pub(super) flight: VecDeque<(SessionId, Bytes)>,
    /// The session of an outstanding batch.
    pub(super) unsent: Option<SessionId>,
    /// The request ids of delivered messages, in order.
    pub(super) delivered: Vec<u64>,
    /// Credit that roles have not returned.
    pub(super) untaken: Vec<(SessionId, u64, u64)>,
    pub(super) shed: Vec<(ShedCause, u64)>,
    pub(super) closed: Vec<(SessionId, CloseReason)>,
    pub(super) changes: Vec<bool>,
    pub(super) timer: Option<Instant>,
}

impl End {
    pub(super) fn shed_total(&self) -> u64 {
        self.shed.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn shed_by(&self, cause: ShedCause) -> u64 {
        self.shed
            .iter()
            .filter(|(by, _)| *by == cause)
            .map(|(_, count)| count)
            .sum()
    }
}

/// Both ends and the clock.
pub(super) struct Ends {
    pub(super) links: [Link; 2],
    pub(super) ends: [End; 2],
    pub(super) now: Instant,
    next_session: u64,
    rng: Rng,
}

impl Ends {
    pub(super) fn new(settings: LinkSettings) -> Self {
        let now = Instant(1_000_000);
        Ends {
            links: [Link::new(settings.clone(), now), Link::new(settings, now)],
            ends: Default::default(),
            now,
            next_session: 1,
            rng: rng_from_seed(1),
        }
    }

    /// Ends with a session that is up on both.
    pub(super) fn connected(settings: LinkSettings) -> Self {
        let mut ends = Ends::new(settings);
        ends.connect();
        ends.settle();
        assert!(ends.links[0].is_up() && ends.links[1].is_up());
        ends
    }

    pub(super) fn connect(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        for side in 0..2 {
            self.ends[side].flight.clear();
        }
        for side in 0..2 {
            self.handle(side, LinkEvent::SessionUp { session });
        }
        session
    }

    /// The connection ends, with an event at both ends.
    pub(super) fn disconnect(&mut self) {
        for side in 0..2 {
            self.ends[side].flight.clear();
            if let Some(session) = self.links[side].session() {
                let reason = "broken".to_owned();
                self.handle(side, LinkEvent::SessionDown { session, reason });
            }
        }
    }

    pub(super) fn handle(&mut self, side: usize, event: LinkEvent) {
        let now = Now {
            instant: self.now,
            wall: WallTime(self.now.0),
        };
        let mut effects = Vec::new();
        self.links[side].handle(now, &mut self.rng, event, &mut effects);
        for effect in effects {
            self.perform(side, effect);
        }
    }

    fn perform(&mut self, side: usize, effect: LinkEffect) {
        let end = &mut self.ends[side];
        match effect {
            LinkEffect::Transmit { session, batch } => {
                assert!(batch.len() <= MAX_BATCH);
                assert_ne!(end.unsent, Some(session), "a batch while another is outstanding");
                end.unsent = Some(session);
                end.flight.push_back((session, batch));
            }
            LinkEffect::Deliver {
                session,
                envelopes,
                bytes,
                count,
            } => {
                let now = self.now;
                assert!(envelopes.iter().all(|envelope| envelope.header.deadline > now));
                end.delivered
                    .extend(envelopes.iter().map(|envelope| envelope.header.request));
                end.untaken.push((session, bytes, count));
            }
            LinkEffect::Close { session, reason } => end.closed.push((session, reason)),
            LinkEffect::Up { .. } => end.changes.push(true),
            LinkEffect::Down { .. } => end.changes.push(false),
            LinkEffect::SetTimer { at } => end.timer = Some(at),
            LinkEffect::Shed { cause, count } => end.shed.push((cause, count)),
        }
    }

    pub(super) fn enqueue(&mut self, side: usize, envelopes: Vec<Envelope>) {
        self.handle(side, LinkEvent::Enqueue(envelopes));
    }

    /// The outstanding batch is sent.
    pub(super) fn sent(&mut self, side: usize) -> bool {
        let Some(session) = self.ends[side].unsent.take() else {
            return false;
        };
        self.handle(side, LinkEvent::Sent { session });
        true
    }

    /// The oldest batch in flight from `side` arrives at the other end.
    pub(super) fn arrive(&mut self, side: usize) -> bool {
        let Some((session, batch)) = self.ends[side].flight.pop_front() else {
            return false;
        };
        self.handle(1 - side, LinkEvent::Received { session, batch });
        true
    }

    /// Roles at `side` take all delivered messages.
    pub(super) fn take(&mut self, side: usize) -> bool {
        let untaken = std::mem::take(&mut self.ends[side].untaken);
        let any = !untaken.is_empty();
        for (session, bytes, count) in untaken {
            self.handle(
                side,
                LinkEvent::Taken {
                    session,
                    bytes,
                    count,
                },
            );
        }
        any
    }

    /// Advances the clock; due timers fire.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, side)) = (0..2)
            .filter_map(|side| Some((self.ends[side].timer?, side)))
            .min()
            && at <= end
        {
            self.now = self.now.max(at);
            self.ends[side].timer = None;
            self.handle(side, LinkEvent::Timer);
        }
        self.now = end;
    }

    /// Handles all events that are possible without advancing the clock, until quiescence.
    pub(super) fn settle(&mut self) {
        let mut steps = 0;
        while (0..2).any(|side| self.sent(side) | self.arrive(side) | self.take(side)) {
            steps += 1;
            assert!(steps < 100_000, "the links never become quiescent");
        }
    }

    /// Like [`Ends::settle`], with heartbeats that carry the last credit.
    pub(super) fn settle_all(&mut self) {
        for round in 0..100 {
            if round >= 4 && self.links.iter().all(|link| link.queued_bytes() == 0) {
                break;
            }
            self.settle();
            self.advance(Duration::from_millis(100));
        }
        self.settle();
    }
}

/// A message with about `size` bytes of value, a deadline in `left` (`None` for never) and the id `request`.
pub(super) fn message(now: Instant, request: u64, size: usize, left: Option<Duration>) -> Envelope {
    Envelope {
        from: RoleId::Coordinator(KeyspaceId(1)),
        to: RoleId::Replica(KeyspaceId(1)),
        header: Header {
            generation: 1,
            request,
            deadline: left.map_or(Instant::NEVER, |left| now + left),
            trace: None,
        },
        message: Message::FetchRange {
            start: vec![b'v'; size].into(),
            end: Bytes::new(),
            limit: 1,
        },
    }
}

/// An append to a group, with about `size` bytes of entries.
pub(super) fn append(request: u64, group: GroupId, size: usize) -> Envelope {
    let mut envelope = message(Instant(0), request, 0, None);
    let entry = Entry {
        term: Term(1),
        index: LogIndex(request),
        kind: EntryKind::Command(vec![b'v'; size].into()),
    };
    let body = Body::Append {
        previous: LogPosition::default(),
        commit: LogIndex(0),
        entries: vec![entry],
    };
    let message = raft::message::Message { term: Term(1), body };
    envelope.message = Message::Raft { group, message };
    envelope
}

/// A message of the control lane.
pub(super) fn urgent(now: Instant, request: u64) -> Envelope {
    let mut envelope = message(now, request, 0, None);
    envelope.message = Message::Defined;
    envelope
}
