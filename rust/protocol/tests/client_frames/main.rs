//! The client protocol on the wire: golden bytes of every variant, and the decoding of pieces and garbage.

mod samples;

use std::fmt::Write as _;

use bytes::BytesMut;
use proptest::prelude::*;
use quorate_protocol::api::{CLIENT_MAGIC, MAX_CLIENT_FRAME, RequestFrame, ResponseFrame, ServerHello};
use quorate_protocol::frame::{Decoder, FrameError, MAX_HELLO_FRAME, MAX_REQUEST_FRAME, encode};
use serde::Serialize;

const GOLDEN: &str = include_str!("../golden/client_frames.txt");

fn frame<T: Serialize>(message: &T) -> BytesMut {
    let mut out = BytesMut::new();
    encode(message, MAX_CLIENT_FRAME, &mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// To accept a deliberate change: `QUORATE_BLESS=1 cargo test -p quorate-protocol --test client_frames`.
#[test]
fn every_variant_has_its_golden_bytes() {
    let mut lines = String::new();
    let mut line = |name: &str, bytes: &[u8]| writeln!(lines, "{name} {}", hex(bytes)).unwrap();
    line("hello.client", &frame(&samples::client_hello()));
    for (name, hello) in samples::server_hellos() {
        line(name, &frame(&hello));
    }
    for (name, request) in samples::requests() {
        line(name, &frame(&request));
    }
    for (name, response) in samples::responses() {
        line(&name, &frame(&response));
    }
    if std::env::var_os("QUORATE_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/client_frames.txt");
        std::fs::write(path, &lines).unwrap();
        return;
    }
    for (golden, now) in GOLDEN.lines().zip(lines.lines()) {
        assert_eq!(
            now, golden,
            "the wire format changed: old clients and nodes would misread it"
        );
    }
    assert_eq!(lines.lines().count(), GOLDEN.lines().count());
}

#[test]
fn golden_bytes_decode_to_their_samples() {
    let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
    for (name, request) in samples::requests() {
        decoder.extend(&frame(&request));
        assert_eq!(decoder.decode::<RequestFrame>().unwrap(), Some(request), "{name}");
    }
    for (name, response) in samples::responses() {
        decoder.extend(&frame(&response));
        assert_eq!(
            decoder.decode::<ResponseFrame>().unwrap(),
            Some(response),
            "{name}"
        );
    }
    for (name, hello) in samples::server_hellos() {
        decoder.extend(&frame(&hello));
        assert_eq!(decoder.decode::<ServerHello>().unwrap(), Some(hello), "{name}");
    }
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn garbage_is_rejected_at_the_first_byte() {
    let mut decoder = Decoder::new(MAX_HELLO_FRAME);
    assert_eq!(decoder.magic(), Ok(false));
    decoder.extend(&CLIENT_MAGIC[..2]);
    assert_eq!(decoder.magic(), Ok(false));
    decoder.extend(&CLIENT_MAGIC[2..]);
    assert_eq!(decoder.magic(), Ok(true));
    decoder.extend(b"G");
    assert_eq!(decoder.magic(), Err(FrameError::NotMagic));
}

#[test]
fn an_oversized_frame_is_rejected_by_its_length_alone() {
    let mut decoder = Decoder::new(MAX_REQUEST_FRAME);
    decoder.extend(&(MAX_REQUEST_FRAME as u32 + 1).to_le_bytes());
    let rejected = decoder.decode::<RequestFrame>();
    assert_eq!(
        rejected,
        Err(FrameError::TooLarge {
            size: MAX_REQUEST_FRAME + 1,
            limit: MAX_REQUEST_FRAME
        })
    );
}

#[test]
fn an_oversized_frame_can_be_skipped_in_pieces_of_any_size() {
    let long = frame(&(300_u64, "x".repeat(5_000)));
    let stream = [long.clone(), frame(&"next"), long, frame(&"last")].concat();
    for step in [1, 7, 4_999, stream.len()] {
        let mut decoder = Decoder::new(100);
        let (mut skipped, mut taken) = (Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            decoder.extend(piece);
            loop {
                match decoder.decode::<String>() {
                    Ok(Some(text)) => taken.push(text),
                    Ok(None) => break,
                    Err(FrameError::TooLarge { .. }) => match decoder.skip::<u64>().unwrap() {
                        Some(head) => skipped.push(head),
                        None => break,
                    },
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(
                decoder.buffered() < 100 || step > 100,
                "skipped bytes are not buffered"
            );
        }
        assert_eq!(skipped, [300, 300], "in pieces of {step}");
        assert_eq!(taken, ["next", "last"], "in pieces of {step}");
        assert!(!decoder.is_within_frame());
    }
}

#[test]
fn an_oversized_frame_that_begins_with_garbage_is_malformed() {
    let mut decoder = Decoder::new(4);
    decoder.extend(&[20, 0, 0, 0]);
    decoder.extend(&[0xff; 20]);
    assert!(matches!(decoder.skip::<u64>(), Err(FrameError::Malformed(_))));
}

#[test]
fn the_largest_length_reserves_no_memory() {
    let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
    decoder.extend(&(MAX_CLIENT_FRAME as u32).to_le_bytes());
    decoder.extend(&[0; 1000]);
    assert_eq!(decoder.decode::<ResponseFrame>(), Ok(None));
    assert!(decoder.buffer_mut().capacity() < 16 << 10);
}

#[test]
fn memory_of_a_large_frame_is_freed() {
    let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
    decoder.extend(&frame(&vec![7u8; 1 << 20]));
    assert!(decoder.decode::<Vec<u8>>().unwrap().is_some());
    assert_eq!(decoder.buffer_mut().capacity(), 0);
}

#[test]
fn a_message_beyond_the_limit_leaves_the_buffer_unchanged() {
    let mut out = BytesMut::from(&b"before"[..]);
    let rejected = encode(&"x".repeat(100), 50, &mut out);
    assert_eq!(rejected, Err(FrameError::TooLarge { size: 51, limit: 50 }));
    assert_eq!(&out[..], b"before");
}

#[test]
fn trailing_bytes_in_a_frame_are_malformed() {
    let mut decoder = Decoder::new(100);
    decoder.extend(&[2, 0, 0, 0, 5, 6]);
    assert!(matches!(decoder.decode::<u8>(), Err(FrameError::Malformed(_))));
}

proptest! {
    #[test]
    fn any_split_of_the_stream_decodes_the_same(cuts in prop::collection::vec(0usize..4000, 0..40)) {
        let sent: Vec<ResponseFrame> = samples::responses().into_iter().map(|(_, response)| response).collect();
        let stream: Vec<u8> = sent.iter().flat_map(|response| frame(response).to_vec()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
        let mut received = Vec::new();
        for pair in cuts.windows(2) {
            decoder.extend(&stream[pair[0]..pair[1]]);
            while let Some(response) = decoder.decode::<ResponseFrame>().unwrap() {
                received.push(response);
            }
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn garbage_never_panics_and_never_grows_the_buffer(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new(MAX_REQUEST_FRAME);
        decoder.extend(&garbage);
        while let Ok(Some(_)) = decoder.decode::<RequestFrame>() {}
        prop_assert!(decoder.buffer_mut().capacity() <= 2 * garbage.len().max(64));
    }

    #[test]
    fn a_damaged_frame_never_panics(which in 0usize..100, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let samples = samples::responses();
        let mut bytes = frame(&samples[which % samples.len()].1);
        let at = 4 + at.index(bytes.len() - 4);
        bytes[at] ^= 1 << bit;
        let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
        decoder.extend(&bytes);
        // Most damage is detected; some only changes a number. Neither may panic.
        drop(decoder.decode::<ResponseFrame>());
    }
}
