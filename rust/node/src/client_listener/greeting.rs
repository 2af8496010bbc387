//! The handshake with a client: versions, cluster and secret.

use bytes::BytesMut;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_protocol::api::{CLIENT_VERSION_MAX, CLIENT_VERSION_MIN, ClientHello, ServerHello};
use quorate_protocol::frame::{Decoder, MAX_HELLO_FRAME, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Secret;

/// The node's identity, and the secret that clients must present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This run of it.
    pub boot: BootId,
    /// The secret that clients must present; `None` admits all clients.
    pub secret: Option<Secret>,
}

impl Identity {
    /// Answers a hello.
    fn answer(&self, hello: &ClientHello) -> ServerHello {
        if hello.version_min > CLIENT_VERSION_MAX || hello.version_max < CLIENT_VERSION_MIN {
            return ServerHello::Refused(Error::Refused(format!(
                "the client supports versions {} to {} of the client protocol, {} supports {CLIENT_VERSION_MIN} to \
                 {CLIENT_VERSION_MAX}: use a client of the node's release",
                hello.version_min, hello.version_max, self.node
            )));
        }
        if let Some(expected) = hello.cluster.filter(|expected| *expected != self.cluster) {
            return ServerHello::Refused(Error::Refused(format!(
                "{} belongs to cluster {}, not to {expected}: check the address",
                self.node, self.cluster
            )));
        }
        if let Some(secret) = &self.secret
            && !secret.matches(&hello.credentials)
        {
            return ServerHello::Refused(Error::Refused(format!(
                "{} belongs to a cluster with a secret, and this client presented another one: connect with the cluster's \
                 secret",
                self.node
            )));
        }
        ServerHello::Welcome {
            version: hello.version_max.min(CLIENT_VERSION_MAX),
            features: 0,
            cluster: self.cluster,
            node: self.node,
            boot: self.boot,
        }
    }
}

/// Reads the client's hello and answers it: with a welcome, with `refusal`, or with the reason why the two are
/// incompatible. Returns the decoder with the bytes after the hello.
///
/// # Errors
/// The reason why the connection must be closed.
pub(super) async fn greet(
    stream: &mut TcpStream,
    identity: &Identity,
    refusal: Option<Error>,
) -> Result<Decoder, String> {
    let mut decoder = Decoder::new(MAX_HELLO_FRAME);
    while !decoder.magic().map_err(|error| error.to_string())? {
        more(stream, &mut decoder).await?;
    }
    let hello: ClientHello = loop {
        if let Some(hello) = decoder.decode().map_err(|error| error.to_string())? {
            break hello;
        }
        more(stream, &mut decoder).await?;
    };
    let answer = match refusal {
        Some(error) => ServerHello::Refused(error),
        None => identity.answer(&hello),
    };
    let mut bytes = BytesMut::new();
    encode(&answer, MAX_HELLO_FRAME, &mut bytes).map_err(|error| error.to_string())?;
    stream
        .write_all(&bytes)
        .await
        .map_err(|error| error.to_string())?;
    match answer {
        ServerHello::Welcome { .. } => Ok(decoder),
        ServerHello::Refused(error) => Err(error.to_string()),
    }
}

async fn more(stream: &mut TcpStream, decoder: &mut Decoder) -> Result<(), String> {
    // Unauthenticated: no more than a hello needs.
    decoder.buffer_mut().reserve(1024);
    match stream.read_buf(decoder.buffer_mut()).await {
        Ok(0) => Err("closed by the client".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
