//! The encoding of batches: a header, then frames to the end.
//!
//! ```text
//! header   version: u8, session: u64, sequence: u64
//! ping     1, at: u64                                       answered by a pong
//! pong     2, at: u64                                       copied from the ping
//! credit   3, window bytes, window count, taken bytes, taken count, chunks seen: u64 each
//! control  4, size: u32, envelope
//! data     5, size: u32, envelope
//! chunk    6, transfer: u64, total: u32, offset: u32, size: u32, bytes
//! ```
//! Numbers are little-endian and of fixed width. Credit is cumulative from the beginning of the session, so that the
//! latest frame supersedes earlier ones.

use crate::link::credit::Grant;
use crate::link::event::SessionId;
use crate::link::settings::{CHUNK_BYTES, MAX_BATCH};
use crate::wire::WireError;

/// The bytes of a batch before its frames.
pub const BATCH_HEADER: usize = 1 + 8 + 8;
/// The bytes of an envelope's frame before the envelope.
pub(super) const ENVELOPE_FRAME: usize = 1 + 4;
/// The bytes of a chunk's frame before its contents.
pub(super) const CHUNK_FRAME: usize = 1 + 8 + 4 + 4 + 4;
/// The maximum contents of a chunk.
pub(super) const MAX_CHUNK: usize = CHUNK_BYTES - CHUNK_FRAME;

const BATCH_VERSION: u8 = 1;

const PING: u8 = 1;
const PONG: u8 = 2;
const CREDIT: u8 = 3;
const CONTROL: u8 = 4;
const DATA: u8 = 5;
const CHUNK: u8 = 6;

/// The maximum size of pings, pongs and credit in a batch.
pub(super) const CONTROL_FRAMES: usize = 9 + 9 + 41;

/// One part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Ping { at: u64 },
    Pong { at: u64 },
    Credit(Grant),
    Control(&'a [u8]),
    Data(&'a [u8]),
    Chunk(Chunk<'a>),
}

/// A piece of an envelope that is too large for one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// Counts the bulk envelopes of a session.
    pub(super) transfer: u64,
    /// The bytes of the whole envelope.
    pub(super) total: u32,
    /// The offset of this piece in it.
    pub(super) offset: u32,
    pub(super) bytes: &'a [u8],
}

/// A batch that is being written. It allocates nothing until the first frame.
pub(super) struct BatchWriter {
    session: SessionId,
    sequence: u64,
    /// The capacity to reserve at the first frame.
    expected: usize,
    bytes: Vec<u8>,
}

impl BatchWriter {
    pub(super) fn new(session: SessionId, sequence: u64, expected: usize) -> Self {
        BatchWriter {
            session,
            sequence,
            expected: expected.min(MAX_BATCH),
            bytes: Vec::new(),
        }
    }

    /// The number of bytes left.
    pub(super) fn room(&self) -> usize {
        MAX_BATCH - self.bytes.len().max(BATCH_HEADER)
    }

    /// The batch, or `None` if it has no frames.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        assert!(
            self.bytes.len() <= MAX_BATCH,
            "a batch of {} bytes",
            self.bytes.len()
        );
        (!self.bytes.is_empty()).then_some(self.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn ping(&mut self, at: u64) {
        self.start(PING).extend_from_slice(&at.to_le_bytes());
    }

    pub(super) fn pong(&mut self, at: u64) {
        self.start(PONG).extend_from_slice(&at.to_le_bytes());
    }

    pub(super) fn credit(&mut self, grant: &Grant) {
        let bytes = self.start(CREDIT);
        for number in grant.fields() {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Appends an envelope of the control lane (or else of the data lane); returns its bytes, to set its deadline.
    pub(super) fn envelope(&mut self, control: bool, encoded: &[u8]) -> &mut [u8] {
        let bytes = self.start(if control { CONTROL } else { DATA });
        bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(encoded);
        &mut bytes[start..]
    }

    pub(super) fn chunk(&mut self, chunk: &Chunk<'_>) {
        assert!(
            chunk.bytes.len() <= MAX_CHUNK,
            "a chunk of {} bytes",
            chunk.bytes.len()
        );
        let bytes = self.start(CHUNK);
        bytes.extend_from_slice(&chunk.transfer.to_le_bytes());
        bytes.extend_from_slice(&chunk.total.to_le_bytes());
        bytes.extend_from_slice(&chunk.offset.to_le_bytes());
        bytes.extend_from_slice(&(chunk.bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(chunk.bytes);
    }

    fn start(&mut self, tag: u8) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.reserve(BATCH_HEADER + self.expected);
            self.bytes.push(BATCH_VERSION);
            self.bytes.extend_from_slice(&self.session.0.to_le_bytes());
            self.bytes.extend_from_slice(&self.sequence.to_le_bytes());
        }
        self.bytes.push(tag);
        &mut self.bytes
    }
}

/// The session of a batch: the only part that a driver reads.
///
/// # Errors
/// [`WireError`] if it is too short or of another version.
pub fn session_of_batch(batch: &[u8]) -> Result<SessionId, WireError> {
    read_header(batch).map(|(session, _, _)| session)
}

/// Session, sequence and frames.
pub(super) fn read_header(batch: &[u8]) -> Result<(SessionId, u64, Frames<'_>), WireError> {
    if batch.len() < BATCH_HEADER {
        return Err(WireError::TooShort {
            what: "batch",
            size: batch.len(),
        });
    }
    if batch[0] != BATCH_VERSION {
        return Err(WireError::malformed(
            "batch",
            format_args!("version {} but this node supports {BATCH_VERSION}", batch[0]),
        ));
    }
    if batch.len() > MAX_BATCH {
        return Err(WireError::malformed(
            "batch",
            format_args!("{} bytes", batch.len()),
        ));
    }
    let mut rest = Frames { rest: &batch[1..] };
    let session = SessionId(rest.u64()?);
    let sequence = rest.u64()?;
    Ok((session, sequence, rest))
}

/// The frames of a batch; stops at the first malformed one.
pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.frame();
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

impl<'a> Frames<'a> {
    fn frame(&mut self) -> Result<Frame<'a>, WireError> {
        let [tag] = *self.array::<1>()?;
        Ok(match tag {
            PING => Frame::Ping { at: self.u64()? },
            PONG => Frame::Pong { at: self.u64()? },
            CREDIT => {
                let mut fields = [0; Grant::FIELDS];
                for field in &mut fields {
                    *field = self.u64()?;
                }
                Frame::Credit(Grant::from_fields(fields))
            }
            CONTROL => Frame::Control(self.sized()?),
            DATA => Frame::Data(self.sized()?),
            CHUNK => Frame::Chunk(Chunk {
                transfer: self.u64()?,
                total: self.u32()?,
                offset: self.u32()?,
                bytes: self.sized()?,
            }),
            tag => return Err(WireError::malformed("batch", format_args!("unknown frame {tag}"))),
        })
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn sized(&mut self) -> Result<&'a [u8], WireError> {
        let size = self.u32()? as usize;
        let Some((bytes, rest)) = self.rest.split_at_checked(size) else {
            return Err(self.cut_off());
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.cut_off());
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn cut_off(&self) -> WireError {
        WireError::TooShort {
            what: "frame of a batch",
            size: self.rest.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_frame() -> Vec<u8> {
        let mut batch = BatchWriter::new(SessionId(0x0102), 3, 0);
        batch.ping(7);
        batch.pong(8);
        batch.credit(&Grant::from_fields([1, 2, 3, 4, 5]));
        batch.envelope(true, b"control");
        batch.envelope(false, b"data");
        batch.chunk(&Chunk {
            transfer: 9,
            total: 70_000,
            offset: 65_000,
            bytes: b"chunk",
        });
        batch.finish().unwrap()
    }

    #[test]
    fn frames_keep_their_encoding() {
        let hex: String = every_frame().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "0102010000000000000300000000000000",
            "010700000000000000",
            "020800000000000000",
            "0301000000000000000200000000000000030000000000000004000000000000000500000000000000",
            "0407000000636f6e74726f6c",
            "050400000064617461",
            "06090000000000000070110100e8fd0000050000006368756e6b",
        ];
        assert_eq!(hex, expected.concat());
    }

    #[test]
    fn frames_are_decoded_and_truncated_batches_rejected() {
        let bytes = every_frame();
        let (session, sequence, frames) = read_header(&bytes).unwrap();
        assert_eq!((session, sequence), (SessionId(0x0102), 3));
        let frames: Vec<Frame<'_>> = frames.collect::<Result<_, _>>().unwrap();
        assert_eq!(frames.len(), 6);
        assert_eq!(frames[4], Frame::Data(b"data"));
        for cut in 0..bytes.len() {
            let whole = read_header(&bytes[..cut]).is_ok_and(|(_, _, frames)| frames.flatten().count() == 6);
            assert!(!whole, "cut to {cut}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(session_of_batch(b"").is_err());
        assert!(session_of_batch(&[2; 40]).is_err());
        assert!(session_of_batch(&vec![1; MAX_BATCH + 1]).is_err());
        let mut bytes = every_frame();
        bytes.push(77);
        let (_, _, frames) = read_header(&bytes).unwrap();
        assert!(frames.last().unwrap().is_err());
    }

    #[test]
    fn an_empty_batch_is_none() {
        let batch = BatchWriter::new(SessionId(1), 0, 100);
        assert_eq!(batch.room(), MAX_BATCH - BATCH_HEADER);
        assert_eq!(batch.finish(), None);
    }
}
