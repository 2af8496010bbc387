//! One socket of the driver: bytes in, bytes gathered and out. Nothing here blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};

/// A write buffer that has grown beyond this is not kept when it is empty.
const KEPT_BUFFER: usize = 1 << 20;
/// A node's machine that has vanished is noticed after about this long even when nothing is asked of it.
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) struct Socket {
    stream: TcpStream,
    outgoing: BytesMut,
    /// The last write was not taken whole.
    blocked: bool,
    /// Bytes that the operating system has taken.
    pub(super) written: u64,
}

/// What a read found.
pub(super) enum Received {
    /// Bytes, and whether there may be more.
    Bytes(Bytes, bool),
    /// Nothing yet.
    Nothing,
    /// The node has closed the connection.
    End,
}

impl Socket {
    /// A connection that is established, and does not block.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Socket {
            stream,
            outgoing: BytesMut::new(),
            blocked: false,
            written: 0,
        })
    }

    /// The next bytes that have come, by way of a buffer that is large enough for most answers.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(read) => Ok(Received::Bytes(
                    Bytes::copy_from_slice(&buffer[..read]),
                    read == buffer.len(),
                )),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Whether it waits for room: it has bytes that the system did not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether nothing is to be sent.
    pub(super) fn is_clean(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Adds bytes to those that go out with the next [`Socket::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Writes as much as the socket takes at once, before it is closed.
    pub(super) fn farewell(&mut self) {
        // What it does not take now, or cannot take any more, is not worth waiting for.
        let _taken = self.stream.write(&self.outgoing);
    }

    /// Writes as much as the socket takes now. [`Socket::is_blocked`] says whether that was all.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.blocked = false;
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.outgoing.advance(written);
                    self.written += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.outgoing.capacity() > KEPT_BUFFER {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
