//! The hello on the bare connection, at both ends, and what the kernel is told about the connection.

use std::io;

use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_protocol::wire::{HELLO_PREFIX, PeerAnswer, PeerHello, WireError, hello_body_length};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::config::TransportConfig;

/// Bytes that the kernel takes beyond what it has sent: a heartbeat would wait behind them.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// How a handshake fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The connection did not last, or took too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What arrived is not a hello.
    #[error("{0}")]
    Garbage(#[from] WireError),
    /// The other end does not want this one, or not now.
    #[error("{0}")]
    Refused(Error),
    /// This end does not want the other, which is a peer if it was right about that.
    #[error("{error}")]
    Objected {
        /// Which peer.
        peer: Option<NodeId>,
        /// Why not.
        error: Error,
    },
}

/// No delays, and an end to connections whose data nobody confirms.
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

/// Reads exactly a hello or an answer, and not a byte more.
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

/// Says hello and returns what is answered.
pub(super) async fn say_hello(
    stream: &mut TcpStream,
    hello: &PeerHello,
) -> Result<PeerAnswer, HandshakeError> {
    stream.write_all(&hello.encode()).await?;
    Ok(PeerAnswer::decode(&read_body(stream).await?)?)
}
