//! Frames: the framing of the client protocol's byte streams.
//!
//! A frame is a length (four bytes, little-endian, not counting itself) and that many bytes of postcard. The stream
//! from a client opens with [`CLIENT_MAGIC`] and a frame with a [`ClientHello`](crate::api::ClientHello); the one from
//! the node opens with a frame with a [`ServerHello`](crate::api::ServerHello). Requests and responses follow.
//!
//! Both ends treat the other's bytes as hostile. A length beyond the limit is rejected when its four bytes have arrived;
//! no memory is reserved for a frame before its bytes arrive; a frame must decode to exactly its length. A stream that
//! breaks these rules cannot be resynchronized: the connection closes. Only a frame that is too large, but whose length is
//! plausible, may be [skipped](Decoder::skip).

use bytes::{Buf, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::CLIENT_MAGIC;

/// The bytes of a frame's length.
const HEADER: usize = 4;

/// A buffer that has grown beyond this capacity is freed when it is empty.
const KEPT_CAPACITY: usize = 256 << 10;

/// The largest hello, in bytes: the memory that an unauthenticated client can occupy.
pub const MAX_HELLO_FRAME: usize = 16 << 10;

/// The largest request, in bytes: a key, the largest value, and a context of some thousand replicas.
pub const MAX_REQUEST_FRAME: usize = 2 << 20;

/// Why a byte stream cannot be decoded, or a message not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than this end accepts or sends.
    #[error("a frame of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes of the frame; for one that is being encoded, at least this many.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The first bytes are not [`CLIENT_MAGIC`].
    #[error("not a connection of Quorate's client protocol: check the port")]
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

/// Decodes the messages of a byte stream that arrives in pieces of any size.
///
/// Append bytes with [`Decoder::extend`] (or read into [`Decoder::buffer_mut`]), then call [`Decoder::decode`] until it
/// returns `None`. After an error the stream is unusable: close the connection; or [`Decoder::skip`] the frame, if it is
/// only too large.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
    /// Bytes of a skipped frame that have not arrived yet.
    to_skip: usize,
}

impl Decoder {
    /// A decoder that rejects frames of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder {
            buffer: BytesMut::new(),
            limit,
            to_skip: 0,
        }
    }

    /// Rejects frames of more than `limit` bytes from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Appends the next bytes of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to which the next bytes of the stream may be appended; its contents must not be changed.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The number of buffered bytes.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a frame has begun and is incomplete.
    pub fn is_within_frame(&self) -> bool {
        self.to_skip > 0 || !self.buffer.is_empty()
    }

    /// The length of the partial frame, when its header has arrived; `None` for a frame that is being skipped.
    pub fn partial_frame(&self) -> Option<usize> {
        if self.to_skip > 0 {
            return None;
        }
        let header = self.buffer.first_chunk::<HEADER>()?;
        Some(u32::from_le_bytes(*header) as usize)
    }

    /// Consumes [`CLIENT_MAGIC`] at the beginning of a stream; `false` while it is incomplete.
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

    /// The next message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`], after which the frame may be [skipped](Self::skip); or [`FrameError::Malformed`],
    /// which is final.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        Ok(self.decode_sized()?.map(|(message, _)| message))
    }

    /// Like [`decode`](Self::decode), with the size of the frame in bytes.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode_sized<T: DeserializeOwned>(&mut self) -> Result<Option<(T, usize)>, FrameError> {
        self.drop_skipped();
        let Some(size) = self.partial_frame() else {
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
                "{} of {size} bytes are trailing",
                rest.len()
            )));
        }
        self.buffer.advance(HEADER + size);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = BytesMut::new();
        }
        Ok(Some((message, size)))
    }

    /// Skips the partial frame, which [`decode`](Self::decode) has rejected as too large: returns the `T` at the beginning
    /// of its body, and drops the rest of its bytes as they arrive. `None` until enough bytes have arrived; then call again.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] when the body does not begin with a `T`; the stream is unusable.
    pub fn skip<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(size) = self.partial_frame() else {
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
