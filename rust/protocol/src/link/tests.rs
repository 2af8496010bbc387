use std::time::Duration;

use bytes::Bytes;

use super::testing::{Ends, message, urgent};
use super::*;
use crate::wire::Envelope;

const MS: Duration = Duration::from_millis(1);

fn ends() -> Ends {
    Ends::connected(LinkSettings::default())
}

fn messages(ends: &Ends, requests: std::ops::Range<u64>, size: usize) -> Vec<Envelope> {
    requests
        .map(|request| message(ends.now, request, size, None))
        .collect()
}

#[test]
fn a_single_message_is_sent_immediately() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, 10));
    assert_eq!(ends.ends[0].flight.len(), 1);
    assert!(ends.arrive(0));
    assert_eq!(ends.ends[1].delivered, [0]);
}

#[test]
fn messages_are_batched_while_a_batch_is_outstanding() {
    let mut ends = ends();
    for request in 0..1000 {
        ends.enqueue(0, messages(&ends, request..request + 1, 10));
    }
    assert_eq!(
        ends.ends[0].flight.len(),
        1,
        "the first was sent alone, the others wait for it"
    );
    ends.sent(0);
    assert_eq!(ends.ends[0].flight.len(), 2);
    ends.settle();
    assert_eq!(ends.ends[1].delivered, (0..1000).collect::<Vec<_>>());
    assert_eq!(ends.links[0].totals().sent_envelopes, 1000);
}

#[test]
fn batches_are_bounded() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..100, 10_000));
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered.len(), 100);
    assert!(ends.links[0].totals().sent_batches >= 4);
}

#[test]
fn a_sender_stops_without_credit_and_continues_when_roles_take_messages() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..700, 10_000));
    while ends.sent(0) | ends.arrive(0) | ends.sent(1) | ends.arrive(1) {}
    let delivered = ends.ends[1].delivered.len();
    assert!(
        (400..=420).contains(&delivered),
        "4 MiB of credit, {delivered} of 10 kB delivered"
    );
    assert!(ends.links[0].queued_bytes() > 2_800_000);
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered.len(), 700);
    assert_eq!(ends.links[0].queued_bytes(), 0);
}

#[test]
fn a_stuck_role_uses_bounded_memory_at_both_ends() {
    let mut ends = ends();
    for round in 0..200 {
        ends.enqueue(0, messages(&ends, round * 1000..(round + 1) * 1000, 200));
        while ends.sent(0) | ends.arrive(0) | ends.sent(1) | ends.arrive(1) {}
    }
    assert!(ends.links[0].queued_bytes() <= 8 << 20);
    let delivered = ends.ends[1].delivered.len() as u64;
    assert!(delivered <= 16 << 10);
    let full = ends.ends[0].shed_by(ShedCause::Full);
    assert_eq!(full + delivered + ends.links[0].queued_envelopes(), 200_000);
    assert!(full > 0);
}

#[test]
fn control_is_sent_when_data_has_no_credit() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..700, 10_000));
    while ends.sent(0) | ends.arrive(0) | ends.sent(1) | ends.arrive(1) {}
    ends.enqueue(0, vec![urgent(ends.now, 9999)]);
    ends.sent(0);
    ends.arrive(0);
    assert_eq!(ends.ends[1].delivered.last(), Some(&9999));
}

#[test]
fn control_is_sent_before_earlier_data() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, 10));
    ends.enqueue(0, messages(&ends, 1..3, 10));
    ends.enqueue(0, vec![urgent(ends.now, 77)]);
    ends.settle();
    assert_eq!(ends.ends[1].delivered, [0, 77, 1, 2]);
}

#[test]
fn a_large_value_is_sent_in_chunks_and_arrives_once() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..3, 1 << 20));
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered, [0, 1, 2]);
    assert_eq!(ends.links[0].chunks_in_flight(), 0);
    assert_eq!(ends.links[0].queued_bytes(), 0);
}

#[test]
fn at_most_half_a_mebibyte_of_bulk_delays_a_heartbeat() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..20, 1 << 20));
    // Nothing arrives, so nothing is confirmed: this is the maximum that can be ahead of the next heartbeat.
    while ends.sent(0) {}
    let ahead: usize = ends.ends[0].flight.iter().map(|(_, batch)| batch.len()).sum();
    assert!((500 << 10..=512 << 10).contains(&ahead), "{ahead} bytes ahead");
    assert_eq!(ends.links[0].chunks_in_flight(), 8);
    ends.advance(100 * MS);
    let (_, heartbeat) = ends.ends[0].flight.back().unwrap();
    assert!(
        heartbeat.len() < 100,
        "the heartbeat is sent although the window is full"
    );
}

#[test]
fn data_and_bulk_share_a_batch_so_that_neither_starves() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..2, 1 << 20));
    for round in 0..200 {
        ends.enqueue(0, messages(&ends, 100 + round * 100..200 + round * 100, 3000));
        ends.settle();
    }
    let position = |request| ends.ends[1].delivered.iter().position(|at| *at == request);
    assert!(position(1).unwrap() < 5000, "bulk is not starved by data");
    assert!(
        position(100).unwrap() < position(0).unwrap(),
        "data does not wait for bulk"
    );
}

#[test]
fn an_envelope_larger_than_the_window_is_sent_when_nothing_else_is_in_flight() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..50, 10_000));
    ends.enqueue(0, messages(&ends, 50..51, 6 << 20));
    ends.enqueue(0, messages(&ends, 51..100, 10_000));
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered.len(), 100);
}

#[test]
fn an_envelope_beyond_the_limit_is_shed() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, MAX_ENVELOPE));
    assert_eq!(ends.ends[0].shed, [(ShedCause::TooLarge, 1)]);
    ends.settle();
    assert!(ends.ends[1].delivered.is_empty());
}

#[test]
fn expired_messages_are_not_sent() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, 10));
    let now = ends.now;
    let soon = (1..4).map(|request| message(now, request, 10, Some(5 * MS)));
    ends.enqueue(0, soon.chain([message(now, 4, 10, Some(50 * MS))]).collect());
    ends.enqueue(0, vec![message(now, 5, 100_000, Some(5 * MS))]);
    ends.advance(5 * MS);
    ends.settle();
    assert_eq!(ends.ends[1].delivered, [0, 4]);
    assert_eq!(ends.ends[0].shed_by(ShedCause::Expired), 4);
    ends.enqueue(0, vec![message(now, 6, 10, Some(5 * MS))]);
    assert_eq!(ends.ends[0].shed_by(ShedCause::Expired), 5);
}

#[test]
fn expired_messages_make_room_in_a_full_lane() {
    let mut ends = Ends::connected(LinkSettings {
        window_count: 1,
        queue_count: 10,
        ..LinkSettings::default()
    });
    let now = ends.now;
    ends.enqueue(0, messages(&ends, 0..2, 10));
    ends.enqueue(
        0,
        (2..20)
            .map(|request| message(now, request, 10, Some(5 * MS)))
            .collect(),
    );
    assert_eq!(ends.ends[0].shed_by(ShedCause::Full), 9, "one was sent, ten wait");
    ends.advance(5 * MS);
    ends.enqueue(0, messages(&ends, 20..25, 10));
    assert_eq!(ends.ends[0].shed_by(ShedCause::Full), 9);
    ends.settle_all();
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered, [0, 1, 20, 21, 22, 23, 24]);
}

#[test]
fn a_peer_is_up_after_a_batch_and_down_after_the_idle_timeout() {
    let mut ends = ends();
    assert_eq!(ends.ends[0].changes, [true]);
    // The peer is stopped: it neither receives nor sends.
    ends.ends[1].timer = None;
    ends.advance(999 * MS);
    assert_eq!(ends.ends[0].changes, [true]);
    ends.advance(MS);
    assert_eq!(ends.ends[0].changes, [true, false]);
    assert_eq!(ends.ends[0].closed[0].1, CloseReason::Idle { silent_ms: 1000 });
    assert!(!ends.links[0].is_up());
}

#[test]
fn heartbeats_keep_an_idle_session_and_measure_the_round_trip() {
    let mut ends = ends();
    for _ in 0..5000 {
        ends.advance(MS);
        if ends.arrive(0) {
            ends.advance(3 * MS);
        }
        ends.settle();
    }
    assert_eq!((ends.ends[0].closed.len(), ends.ends[1].closed.len()), (0, 0));
    assert_eq!(ends.links[0].round_trip(), Some(3 * MS));
}

#[test]
fn a_process_that_was_stopped_extends_the_idle_timeout() {
    let mut ends = ends();
    ends.now = ends.now + Duration::from_secs(60);
    ends.ends[0].timer = None;
    ends.handle(0, LinkEvent::Timer);
    assert!(ends.links[0].is_up(), "it was this end that was stopped");
    ends.advance(1100 * MS);
    assert!(!ends.links[0].is_up(), "the extension is bounded");
}

#[test]
fn a_new_session_replaces_the_old_one_and_starts_with_fresh_credit() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..700, 10_000));
    while ends.sent(0) | ends.arrive(0) | ends.sent(1) | ends.arrive(1) {}
    let before = ends.ends[1].delivered.len();
    ends.connect();
    assert_eq!(ends.ends[0].closed[0].1, CloseReason::Replaced);
    ends.settle_all();
    assert_eq!(
        ends.ends[1].delivered.len(),
        700,
        "{before} arrived on the previous session"
    );
    assert_eq!(ends.ends[0].changes, [true, false, true]);
}

#[test]
fn an_unfinished_large_envelope_begins_again_on_the_next_session() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, 1 << 20));
    ends.sent(0);
    ends.arrive(0);
    ends.disconnect();
    ends.connect();
    ends.settle_all();
    assert_eq!(ends.ends[1].delivered, [0]);
}

#[test]
fn lanes_keep_their_messages_for_the_grace_period_only() {
    let mut ends = Ends::new(LinkSettings::default());
    ends.enqueue(0, messages(&ends, 0..10, 10));
    ends.advance(999 * MS);
    ends.enqueue(0, messages(&ends, 10..11, 10));
    assert_eq!(ends.ends[0].shed, []);
    ends.advance(MS);
    assert_eq!(ends.ends[0].shed, [(ShedCause::NoSession, 11)]);
    ends.enqueue(0, messages(&ends, 11..12, 10));
    assert_eq!(ends.ends[0].shed_by(ShedCause::NoSession), 12);
    assert_eq!(ends.links[0].queued_bytes(), 0);
}

#[test]
fn events_of_other_sessions_are_ignored() {
    let mut ends = ends();
    let before = ends.links[0].clone();
    let session = SessionId(99);
    ends.handle(0, LinkEvent::Sent { session });
    ends.handle(
        0,
        LinkEvent::Taken {
            session,
            bytes: 1,
            count: 1,
        },
    );
    ends.handle(
        0,
        LinkEvent::SessionDown {
            session,
            reason: "late".to_owned(),
        },
    );
    ends.handle(
        0,
        LinkEvent::Received {
            session,
            batch: Bytes::from_static(b"junk"),
        },
    );
    assert_eq!(ends.links[0], before);
}

#[test]
fn a_duplicate_batch_is_ignored_and_a_gap_closes_the_session() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..1, 10));
    let again = ends.ends[0].flight[0].clone();
    ends.settle();
    ends.ends[0].flight.push_back(again);
    ends.settle();
    assert_eq!(ends.ends[1].delivered, [0]);
    assert_eq!(ends.links[1].totals().duplicate_batches, 1);

    ends.enqueue(0, messages(&ends, 1..2, 10));
    ends.ends[0].flight.clear();
    ends.sent(0);
    ends.enqueue(0, messages(&ends, 2..3, 10));
    ends.arrive(0);
    assert!(
        matches!(&ends.ends[1].closed[0].1, CloseReason::Violation(reason) if reason.contains("missing"))
    );
    assert_eq!(ends.ends[1].delivered, [0]);
}

#[test]
fn garbage_closes_only_the_session() {
    let mut ends = ends();
    let session = ends.links[0].session().unwrap();
    let batch = Bytes::from_static(b"\x01garbage that is long enough to have a header");
    ends.handle(0, LinkEvent::Received { session, batch });
    assert!(matches!(
        ends.ends[0].closed[..],
        [(_, CloseReason::Violation(_))]
    ));
    assert_eq!(ends.links[0].totals().violations, 1);
    assert_eq!(ends.ends[0].changes, [true, false]);
}

#[test]
fn envelopes_before_garbage_in_a_batch_are_delivered() {
    let mut ends = ends();
    ends.enqueue(0, messages(&ends, 0..2, 10));
    let (session, batch) = ends.ends[0].flight.pop_front().unwrap();
    let cut = batch.slice(..batch.len() - 1);
    ends.handle(1, LinkEvent::Received { session, batch: cut });
    assert_eq!(ends.ends[1].delivered, [0]);
    assert_eq!(ends.ends[1].closed.len(), 1);
}

#[test]
fn a_sender_without_credit_violates_the_protocol() {
    let generous = LinkSettings::default();
    let mut ends = ends();
    ends.links[1] = Link::new(
        LinkSettings {
            window_count: 3,
            ..generous
        },
        ends.now,
    );
    let session = SessionId(1);
    ends.handle(1, LinkEvent::SessionUp { session });
    // The sender uses the window of the previous link.
    ends.links[0] = Ends::connected(LinkSettings::default()).links[0].clone();
    ends.ends[0].unsent = None;
    ends.ends[0].flight.clear();
    ends.enqueue(0, messages(&ends, 0..5, 10));
    let (_, batch) = ends.ends[0].flight.pop_front().unwrap();
    let mut first = batch.to_vec();
    first[9..17].copy_from_slice(&0u64.to_le_bytes());
    ends.handle(
        1,
        LinkEvent::Received {
            session,
            batch: first.into(),
        },
    );
    assert!(matches!(&ends.ends[1].closed[0].1, CloseReason::Violation(reason) if reason.contains("credit")));
    assert_eq!(ends.ends[1].delivered, [0, 1, 2]);
}

#[test]
fn the_same_inputs_give_the_same_effects() {
    let run = || {
        let mut ends = ends();
        ends.enqueue(0, messages(&ends, 0..50, 20_000));
        ends.enqueue(1, messages(&ends, 50..60, 200_000));
        ends.settle_all();
        ends.disconnect();
        (
            ends.links,
            ends.ends[0].delivered.clone(),
            ends.ends[1].delivered.clone(),
        )
    };
    assert_eq!(run(), run());
}
