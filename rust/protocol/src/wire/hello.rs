//! The hello: the handshake of two nodes.
//!
//! The dialling node sends [`PeerHello`], the other one responds with [`PeerAnswer`]. Both consist of [`PEER_MAGIC`], a
//! length of two bytes (little-endian) and that many bytes of postcard; so the first four bytes distinguish a peer from
//! garbage, and a peer can make the other one read at most [`MAX_HELLO`] bytes.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId, ReplicaId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::error::WireError;
use crate::wire::layout::{Difference, Layout};

/// The first bytes of every connection between nodes, in both directions.
pub const PEER_MAGIC: [u8; 4] = *b"QRTp";
/// The oldest version of the protocol between nodes that this build supports.
pub const PEER_VERSION_MIN: u16 = 2;
/// The newest version of the protocol between nodes that this build supports.
pub const PEER_VERSION_MAX: u16 = 2;
/// The size of the prefix of a hello or an answer in bytes: magic and length.
pub const HELLO_PREFIX: usize = PEER_MAGIC.len() + 2;
/// The maximum size of a hello or an answer after the prefix, in bytes.
pub const MAX_HELLO: usize = 4096;

/// The first message of the dialling node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The oldest version it supports.
    pub version_min: u16,
    /// The newest version it supports.
    pub version_max: u16,
    /// Optional features it supports, as bits; none are defined yet.
    pub features: u64,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Which node it is.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// Its boot.
    pub boot: BootId,
    /// The topology generation it is in.
    pub generation: u64,
    /// Its gateway: the number of the actor that receives batches from peers.
    pub gateway: u64,
    /// The node that it has dialled.
    pub expects: NodeId,
    /// Empty: the session that follows proves that both know the cluster's secret.
    pub credentials: Bytes,
    /// The data directory by which it knows the other node, if they have connected before: so a node that has lost its
    /// directory detects that, whichever of the two dials.
    pub knows: Option<ReplicaId>,
    /// Its placement of keys.
    pub layout: Layout,
}

/// The response of the dialled node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// The connection is accepted.
    Welcome(PeerWelcome),
    /// The connection closes after this.
    Refused(Error),
    /// Like [`Refused`](Self::Refused), but permanent: the dialling node is known by another data directory. The text
    /// names the remedy.
    Disowned(String),
}

/// The responding node, and the id of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWelcome {
    /// The negotiated version.
    pub version: u16,
    /// The negotiated features.
    pub features: u64,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Which node it is.
    pub node: NodeId,
    /// Its data directory.
    pub replica: ReplicaId,
    /// Its boot.
    pub boot: BootId,
    /// The topology generation it is in.
    pub generation: u64,
    /// Its gateway: the number of the actor that receives batches from peers.
    pub gateway: u64,
    /// The id of the new session, random, not zero; every batch carries it.
    pub session: u64,
}

impl PeerHello {
    /// Negotiates the version and the features with the sender of this hello, at the node `local` of `cluster`.
    ///
    /// # Errors
    /// [`Error::Refused`], naming both values that clash and the remedy.
    pub fn negotiate(&self, cluster: ClusterId, local: NodeId) -> Result<(u16, u64), Error> {
        if self.cluster != cluster {
            return Err(Error::Refused(format!(
                "node {} belongs to cluster {} but this is cluster {cluster}: correct the addresses or the cluster name",
                self.node, self.cluster
            )));
        }
        if self.expects != local {
            return Err(Error::Refused(format!(
                "node {} dialled {} but reached {local}: correct the peer addresses",
                self.node, self.expects
            )));
        }
        if self.node == local {
            return Err(Error::Refused(format!(
                "{local} was dialled by another node with the same id: give each node its own id"
            )));
        }
        if self.replica.node() != self.node {
            return Err(Error::Refused(format!(
                "node {} uses the data directory {} of another node: start it with its own",
                self.node, self.replica
            )));
        }
        if self.version_min > PEER_VERSION_MAX || self.version_max < PEER_VERSION_MIN {
            return Err(Error::Refused(format!(
                "node {} supports peer protocol {} to {} but this node supports {PEER_VERSION_MIN} to {PEER_VERSION_MAX}: \
                 upgrade the older one",
                self.node, self.version_min, self.version_max
            )));
        }
        Ok((self.version_max.min(PEER_VERSION_MAX), 0))
    }

    /// Checks that its sender places every key on the same nodes as the node `local`, which is in `generation`.
    ///
    /// # Errors
    /// [`Error::Refused`], naming what differs and the remedy.
    pub fn agree(&self, local: NodeId, generation: u64, layout: &Layout) -> Result<(), Error> {
        if let Some(Difference {
            setting,
            theirs,
            ours,
        }) = self.layout.difference(layout)
        {
            return Err(Error::Refused(format!(
                "node {} was started with {theirs} but {local} with {ours}: start every node with the same {setting}",
                self.node
            )));
        }
        if self.generation != generation {
            return Err(Error::Refused(format!(
                "node {} was started with generation={} but {local} with generation={generation}: start every node \
                 with the same generation",
                self.node, self.generation
            )));
        }
        Ok(())
    }

    /// Checks that its sender does not know this node by another data directory than `local`.
    ///
    /// # Errors
    /// [`Error::Refused`], naming both directories and the remedy.
    pub fn recognise(&self, local: ReplicaId) -> Result<(), Error> {
        match self.knows {
            Some(known) if known != local => Err(Error::Refused(format!(
                "node {} knows {} with the data directory {known} but now it has {local}: its directory was lost or \
                 replaced; restore the old one, or give the node a new id and remove {}",
                self.node,
                local.node(),
                local.node()
            ))),
            _ => Ok(()),
        }
    }

    /// Its wire format.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes the bytes after the prefix.
    ///
    /// # Errors
    /// [`WireError`] for malformed bytes.
    pub fn decode(body: &[u8]) -> Result<PeerHello, WireError> {
        decode("hello", body)
    }
}

impl PeerWelcome {
    /// Checks at the dialling node, which sent `hello`, that the expected node responded.
    ///
    /// # Errors
    /// [`Error::Refused`], naming both values that clash and the remedy.
    pub fn check(&self, hello: &PeerHello) -> Result<(), Error> {
        if self.cluster != hello.cluster || self.node != hello.expects || self.replica.node() != self.node {
            return Err(Error::Refused(format!(
                "dialled {} of cluster {} but {} of cluster {} with data directory {} answered: correct the addresses",
                hello.expects, hello.cluster, self.node, self.cluster, self.replica
            )));
        }
        if self.version < hello.version_min || self.version > hello.version_max || self.session == 0 {
            return Err(Error::Refused(format!(
                "node {} answered with peer protocol {} and session {} which were not offered: upgrade the older node",
                self.node, self.version, self.session
            )));
        }
        Ok(())
    }
}

impl PeerAnswer {
    /// Its wire format. A rejection whose text does not fit is shortened to the name of its error.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            PeerAnswer::Refused(error) if error.to_string().len() > MAX_HELLO / 2 => {
                encode(&PeerAnswer::Refused(Error::Refused(format!(
                    "{}: see the other node's log",
                    error.name()
                ))))
            }
            answer => encode(answer),
        }
    }

    /// Decodes the bytes after the prefix.
    ///
    /// # Errors
    /// [`WireError`] for malformed bytes.
    pub fn decode(body: &[u8]) -> Result<PeerAnswer, WireError> {
        decode("answer to a hello", body)
    }
}

/// The number of bytes after this prefix.
///
/// # Errors
/// [`WireError`] if it is not the prefix of a hello or an answer, or its length exceeds [`MAX_HELLO`].
pub fn hello_body_length(prefix: &[u8; HELLO_PREFIX]) -> Result<usize, WireError> {
    let [a, b, c, d, low, high] = *prefix;
    if [a, b, c, d] != PEER_MAGIC {
        return Err(WireError::malformed(
            "hello",
            "wrong magic bytes: not from a Quorate node",
        ));
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > MAX_HELLO {
        return Err(WireError::malformed(
            "hello",
            format_args!("length {length} exceeds the limit of {MAX_HELLO} bytes"),
        ));
    }
    Ok(length)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(value).expect("every hello is serializable");
    assert!(body.len() <= MAX_HELLO, "a hello of {} bytes", body.len());
    let mut bytes = Vec::with_capacity(HELLO_PREFIX + body.len());
    bytes.extend_from_slice(&PEER_MAGIC);
    bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Bytes after the value are ignored: a newer node may append fields.
fn decode<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, WireError> {
    postcard::take_from_bytes(body)
        .map(|(value, _)| value)
        .map_err(|error| WireError::malformed(what, error))
}
