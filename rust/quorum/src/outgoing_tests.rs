use std::sync::Arc;

use bytes::Bytes;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::time::Instant;
use quorate_protocol::message::{BULK_THRESHOLD, Lane};
use quorate_protocol::role::RoleId;
use quorate_protocol::telemetry::TraceContext;
use quorate_protocol::wire::Envelope;
use quorate_versions::{Dot, KeyState, WriteId};

use super::*;

const TO: Address = Address {
    node: NodeId(2),
    role: RoleId::Replica(KeyspaceId(1)),
};

fn header(request: u64, generation: u64) -> Header {
    Header {
        generation,
        request,
        deadline: Instant(1_000_000 + request),
        trace: None,
    }
}

/// A store of a value of this many bytes.
fn store(size: usize) -> Message {
    let dot = Dot {
        replica: ReplicaId::new(NodeId(1), 1),
        counter: 1,
    };
    let value = Some(Bytes::from(vec![7; size]));
    let state = KeyState::default().put(dot, value, Timestamp::default(), WriteId::default(), None);
    Message::Store {
        key: Key::try_from("k").expect("a key"),
        state: Arc::new(state.expect("a new dot")),
    }
}

/// The envelopes of a turn that sends these messages.
fn sent_in_one_turn(messages: impl IntoIterator<Item = (Header, Message)>) -> Vec<(Header, Message)> {
    let (mut outgoing, mut effects) = (Outgoing::default(), Vec::new());
    for (header, message) in messages {
        outgoing.send(TO, header, message, &mut effects);
    }
    outgoing.flush(&mut effects);
    assert!(outgoing.is_empty());
    let sent = effects.into_iter().map(|effect| match effect {
        Effect::Send {
            to: TO,
            header,
            message,
        } => (header, message),
        other => panic!("{other:?}"),
    });
    sent.collect()
}

/// The number of messages in each envelope.
fn counts(sent: &[(Header, Message)]) -> Vec<usize> {
    let count = |(_, message): &(Header, Message)| match message {
        Message::Parts(parts) => parts.len(),
        _ => 1,
    };
    sent.iter().map(count).collect()
}

#[test]
fn a_single_message_is_sent_unchanged() {
    let alone = (header(7, 1), Message::Stored);
    assert_eq!(sent_in_one_turn([alone.clone()]), [alone]);
}

#[test]
fn messages_to_one_receiver_are_batched_and_unpacked() {
    let messages: Vec<(Header, Message)> = (0..100).map(|request| (header(request, 1), store(10))).collect();
    let sent = sent_in_one_turn(messages.clone());
    assert_eq!(counts(&sent), [100]);
    let (envelope, Message::Parts(parts)) = &sent[0] else {
        panic!("{sent:?}");
    };
    for (part, (own, message)) in parts.iter().cloned().zip(messages) {
        let (unpacked, same) = part.unpack(envelope);
        assert!(unpacked.deadline <= own.deadline, "no deadline is extended");
        assert_eq!((unpacked.request, same), (own.request, message));
    }
}

#[test]
fn no_envelope_of_parts_is_bulk() {
    let sent = sent_in_one_turn((0..500).map(|request| (header(request, 1), store(1_000))));
    assert_eq!(counts(&sent).iter().sum::<usize>(), 500);
    assert!(sent.len() < 20, "{}", sent.len());
    for (header, message) in sent {
        let envelope = Envelope {
            from: TO.role,
            to: TO.role,
            header,
            message,
        };
        let mut bytes = Vec::new();
        envelope.encode(Instant(0), &mut bytes);
        assert!(bytes.len() < BULK_THRESHOLD, "{} bytes", bytes.len());
        assert_eq!(envelope.message.lane(bytes.len()), Lane::Data);
    }
}

#[test]
fn large_and_traced_messages_and_other_generations_are_sent_separately() {
    let large = sent_in_one_turn([
        (header(1, 1), store(10)),
        (header(2, 1), store(100 << 10)),
        (header(3, 1), store(10)),
    ]);
    assert_eq!(counts(&large), [1, 2]);
    assert_eq!(large[0].0.request, 2, "sent immediately");
    let traced = Header {
        trace: Some(TraceContext {
            trace_id: 1,
            span_id: 2,
            sampled: true,
        }),
        ..header(2, 1)
    };
    let sent = sent_in_one_turn([
        (header(1, 1), store(10)),
        (traced, store(10)),
        (header(3, 1), store(10)),
    ]);
    assert_eq!((counts(&sent), sent[0].0), (vec![1, 2], traced));
    let sent = sent_in_one_turn([
        (header(1, 1), store(10)),
        (header(2, 2), store(10)),
        (header(3, 2), store(10)),
    ]);
    let generations: Vec<u64> = sent.iter().map(|(header, _)| header.generation).collect();
    assert_eq!((counts(&sent), generations), (vec![1, 2], vec![1, 2]));
}
