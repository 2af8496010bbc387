//! Frames: how the client protocol cuts a byte stream into messages.
//!
//! A frame is a length (four bytes, little-endian, not counting itself) and that many bytes of postcard. The stream
//! from a client opens with [`CLIENT_MAGIC`] and a frame with a [`ClientHello`](crate::api::ClientHello); the one from
//! the node opens with a frame with a [`ServerHello`](crate::api::ServerHello). Requests and responses follow.
//!
//! Both ends treat the other's bytes as hostile. A length beyond the limit is refused as soon as its four bytes are
//! there; no memory is set aside for a frame before its bytes have come; a frame must decode to exactly its length. A
//! stream that breaks these rules cannot be brought back into step: the connection closes. Only a frame that is too long,
//! and yet of a length that can be believed, may be [skipped](Decoder::skip).

use bytes::{Buf, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::CLIENT_MAGIC;

/// The bytes of a frame's length.
const HEADER: usize = 4;

/// A buffer that has grown beyond this for one large frame is given back when it is empty.
const KEPT_CAPACITY: usize = 256 << 10;

/// The largest hello, in bytes: a stranger may not make a node keep more than this.
pub const MAX_HELLO_FRAME: usize = 16 << 10;

/// The largest request, in bytes: a key, the largest value, and a context of some thousand replicas.
pub const MAX_REQUEST_FRAME: usize = 2 << 20;

/// Why a byte stream is not one of frames, or why a message does not fit into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than this end takes or sends.
    #[error("a frame of {size} bytes is beyond the limit of {limit}")]
    TooLarge {
        /// Bytes of the frame; for one that is being encoded, at least this many.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The first bytes are not [`CLIENT_MAGIC`].
    #[error("the connection does not begin as Quorate's client protocol does: check the port")]
    NotMagic,
    /// The frame's bytes are not the expected message.
    #[error("malformed frame: {0}")]
    Malformed(String),
}

/// Appends `message` to `out` as one frame. On an error `out` is as it was.
///
/// # Errors
/// [`FrameError::TooLarge`] when it takes more than `limit` bytes.
pub fn encode<T: Serialize>(message: &T, limit: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let body = start + HEADER;
    let writer = Writer {
        out,
        end: body.saturating_add(limit),
    };
    match postcard::serialize_with_flavor(message, writer) {
        Ok(()) => {
            let length = u32::try_from(out.len() - body).expect("the limit of a frame fits its length");
            out[start..body].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            let size = out.len() - body;
            out.truncate(start);
            Err(match error {
                postcard::Error::SerializeBufferFull => FrameError::TooLarge {
                    size: size.max(limit.saturating_add(1)),
                    limit,
                },
                other => FrameError::Malformed(other.to_string()),
            })
        }
    }
}

/// Writes postcard into a [`BytesMut`] up to a limit.
struct Writer<'a> {
    out: &'a mut BytesMut,
    end: usize,
}

impl Writer<'_> {
    fn room_for(&self, more: usize) -> postcard::Result<()> {
        if self.out.len() + more > self.end {
            return Err(postcard::Error::SerializeBufferFull);
        }
        Ok(())
    }
}

impl Flavor for Writer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.room_for(bytes.len())?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Cuts a byte stream into messages, whatever pieces it comes in.
///
/// Put bytes in with [`Decoder::extend`] (or read into [`Decoder::buffer_mut`]), then take messages out with
/// [`Decoder::decode`] until there is none. After an error the stream is lost: close the connection; or
/// [`Decoder::skip`] the frame, if it is only too large.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
    /// Bytes of a skipped frame that have not come yet.
    to_skip: usize,
}

impl Decoder {
    /// A decoder that refuses frames of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder {
            buffer: BytesMut::new(),
            limit,
            to_skip: 0,
        }
    }

    /// From now on refuses frames of more than `limit` bytes.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes the next bytes of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the next bytes of the stream may be read into (appended, never changed).
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a frame has begun and is not whole yet.
    pub fn is_within_frame(&self) -> bool {
        self.to_skip > 0 || !self.buffer.is_empty()
    }

    /// The length of the frame that is under way, once its header is there; of one that is skipped, nothing.
    pub fn frame_under_way(&self) -> Option<usize> {
        if self.to_skip > 0 {
            return None;
        }
        let header = self.buffer.first_chunk::<HEADER>()?;
        Some(u32::from_le_bytes(*header) as usize)
    }

    /// Takes [`CLIENT_MAGIC`] off the beginning of a stream; `false` while it is not complete.
    ///
    /// # Errors
    /// [`FrameError::NotMagic`], at the first byte that differs.
    pub fn magic(&mut self) -> Result<bool, FrameError> {
        let there = self.buffer.len().min(CLIENT_MAGIC.len());
        if self.buffer[..there] != CLIENT_MAGIC[..there] {
            return Err(FrameError::NotMagic);
        }
        let complete = there == CLIENT_MAGIC.len();
        if complete {
            self.buffer.advance(there);
        }
        Ok(complete)
    }

    /// The next message, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], after which the frame may be [skipped](Self::skip); or [`FrameError::Malformed`],
    /// which is final.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        Ok(self.decode_sized()?.map(|(message, _)| message))
    }

    /// As [`decode`](Self::decode), with the bytes of the frame.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode_sized<T: DeserializeOwned>(&mut self) -> Result<Option<(T, usize)>, FrameError> {
        self.drop_skipped();
        let Some(size) = self.frame_under_way() else {
            return Ok(None);
        };
        if size > self.limit {
            return Err(FrameError::TooLarge {
                size,
                limit: self.limit,
            });
        }
        let Some(body) = self.buffer.get(HEADER..HEADER + size) else {
            return Ok(None);
        };
        let (message, rest) =
            postcard::take_from_bytes(body).map_err(|error| FrameError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(FrameError::Malformed(format!(
                "{} of {size} bytes are left over",
                rest.len()
            )));
        }
        self.buffer.advance(HEADER + size);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = BytesMut::new();
        }
        Ok(Some((message, size)))
    }

    /// Gives up the frame under way, which [`decode`](Self::decode) has found too large: answers what its body begins
    /// with, and from then on drops the frame's bytes as they come. `None` until so much of it has come; then ask again.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] when the body does not begin with a `T`; the stream is lost.
    pub fn skip<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(size) = self.frame_under_way() else {
            return Ok(None);
        };
        let there = &self.buffer[HEADER..];
        let whole = there.len() >= size;
        match postcard::take_from_bytes(&there[..size.min(there.len())]) {
            Ok((head, _)) => {
                self.to_skip = HEADER + size;
                self.drop_skipped();
                Ok(Some(head))
            }
            Err(postcard::Error::DeserializeUnexpectedEnd) if !whole => Ok(None),
            Err(error) => Err(FrameError::Malformed(error.to_string())),
        }
    }

    fn drop_skipped(&mut self) {
        let there = self.to_skip.min(self.buffer.len());
        self.buffer.advance(there);
        self.to_skip -= there;
    }
}
