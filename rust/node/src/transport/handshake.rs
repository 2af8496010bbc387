//! The hello on the raw connection, at both ends, and the socket options.

use std::io;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::wire::{HELLO_PREFIX, PeerAnswer, PeerHello, WireError, hello_body_length};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::TransportConfig;

/// The most unsent bytes in the kernel's buffer, which delay a heartbeat.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The connection failed or timed out.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Malformed hello.
    #[error("{0}")]
    Garbage(#[from] WireError),
    /// The other end rejected this one, possibly temporarily.
    #[error("{0}")]
    Refused(Error),
    /// This end rejected the other; `peer` is the id it presented, if that is a member.
    #[error("{error}")]
    Objected {
        /// The peer.
        peer: Option<NodeId>,
        /// The reason.
        error: Error,
    },
}

/// Sets `TCP_NODELAY`, and a timeout for unacknowledged data.
pub(super) fn prepare(stream: &TcpStream, config: &TransportConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(config.user_timeout))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    #[cfg(not(target_os = "linux"))]
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(config.user_timeout))?;
    Ok(())
}

/// Reads exactly one hello or answer.
async fn read_body(stream: &mut TcpStream) -> Result<Vec<u8>, HandshakeError> {
    let mut prefix = [0; HELLO_PREFIX];
    stream.read_exact(&mut prefix).await?;
    let mut body = vec![0; hello_body_length(&prefix)?];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

pub(super) async fn read_hello(stream: &mut TcpStream) -> Result<PeerHello, HandshakeError> {
    Ok(PeerHello::decode(&read_body(stream).await?)?)
}

pub(super) async fn write_answer(stream: &mut TcpStream, answer: &PeerAnswer) -> Result<(), HandshakeError> {
    Ok(stream.write_all(&answer.encode()).await?)
}

/// Sends a hello and returns the answer.
pub(super) async fn send_hello(
    stream: &mut TcpStream,
    hello: &PeerHello,
) -> Result<PeerAnswer, HandshakeError> {
    stream.write_all(&hello.encode()).await?;
    Ok(PeerAnswer::decode(&read_body(stream).await?)?)
}
