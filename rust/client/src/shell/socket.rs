//! One socket of the driver: bytes in, bytes gathered and out.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// Room made for each read.
const READ_BUFFER: usize = 64 << 10;
/// A write buffer that has grown beyond this is not kept when it is empty.
const KEPT_BUFFER: usize = 1 << 20;
/// A node's machine that has vanished is noticed after about this long even when nothing is asked of it.
const KEEPALIVE: Duration = Duration::from_secs(30);

pub(super) struct Socket {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Bytes that the operating system has taken.
    pub(super) written: u64,
}

/// Connects; names are resolved.
pub(super) async fn dial(address: String) -> io::Result<Socket> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(Socket {
        stream,
        incoming: BytesMut::new(),
        outgoing: BytesMut::new(),
        written: 0,
    })
}

impl Socket {
    /// The next bytes that have come; none at the end of the stream.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.incoming.reserve(READ_BUFFER);
        let read = pin!(self.stream.read_buf(&mut self.incoming));
        read.poll(context)
            .map_ok(|_| ())
            .map(|result| result.map(|()| self.incoming.split().freeze()))
    }

    /// Adds bytes to those that go out with the next [`Socket::flush`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Writes as much as the socket takes at once, before it is closed.
    pub(super) fn farewell(&mut self) {
        // What it does not take now, or cannot take any more, is not worth waiting for.
        let _taken = self.stream.try_write(&self.outgoing);
    }

    /// Writes as much as the socket takes now; it wakes the task when it takes more.
    pub(super) fn flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.outgoing) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.outgoing.advance(written);
                    self.written += written as u64;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if self.outgoing.capacity() > KEPT_BUFFER {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }
}
