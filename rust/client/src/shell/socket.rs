//! One socket of the driver, with a write buffer. Nothing here blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};

/// A write buffer larger than this is freed when it is empty.
const KEPT_BUFFER: usize = 1 << 20;
/// Interval after which a vanished machine is detected even without pending requests, approximately.
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) struct Socket {
    stream: TcpStream,
    outgoing: BytesMut,
    /// The last write was incomplete.
    blocked: bool,
    /// Bytes that the operating system has accepted.
    pub(super) written: u64,
}

/// The result of a read.
pub(super) enum Received {
    /// Bytes, and whether there may be more.
    Bytes(Bytes, bool),
    /// Nothing yet.
    Nothing,
    /// The node has closed the connection.
    End,
}

impl Socket {
    /// An established, non-blocking connection.
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

    /// The next bytes that have arrived, read through a buffer that is large enough for most responses.
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

    /// Whether it has bytes that the system did not accept yet.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether there is nothing to send.
    pub(super) fn is_clean(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Buffers bytes for the next [`Socket::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Writes as much as the socket accepts at once, before it is closed.
    pub(super) fn flush_before_close(&mut self) {
        // The rest is dropped.
        let _taken = self.stream.write(&self.outgoing);
    }

    /// Writes as much as the socket accepts now. [`Socket::is_blocked`] returns whether bytes remain.
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
