//! The hello: what two nodes say to each other before anything else.
//!
//! Whoever dialled sends [`PeerHello`], the other one answers with [`PeerAnswer`]. Both travel as [`PEER_MAGIC`], a
//! length of two bytes (little-endian) and that many bytes of postcard; so garbage is told from a peer by its first
//! four bytes, and no peer can make the other one read more than [`MAX_HELLO`] bytes.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId, ReplicaId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::error::WireError;
use crate::wire::layout::{Difference, Layout};

/// The first bytes of every connection between nodes, in both directions.
pub const PEER_MAGIC: [u8; 4] = *b"QRTp";
/// The oldest version of the protocol between nodes that this build speaks.
pub const PEER_VERSION_MIN: u16 = 2;
/// The newest version of the protocol between nodes that this build speaks.
pub const PEER_VERSION_MAX: u16 = 2;
/// The bytes in front of a hello or an answer: magic and length.
pub const HELLO_PREFIX: usize = PEER_MAGIC.len() + 2;
/// The most bytes of a hello or an answer after the prefix.
pub const MAX_HELLO: usize = 4096;

/// What the dialling node says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// The oldest version it speaks.
    pub version_min: u16,
    /// The newest version it speaks.
    pub version_max: u16,
    /// Optional features it understands, as bits; none are defined yet.
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
    /// Its gateway: the number of the actor that takes batches from peers.
    pub gateway: u64,
    /// Which node it believes it has dialled.
    pub expects: NodeId,
    /// Empty: the session that follows proves that both know the cluster's secret.
    pub credentials: Bytes,
    /// The data directory that it knows the other node by, if they have met: so a node that has lost its own learns of
    /// it, whichever of the two dials.
    pub knows: Option<ReplicaId>,
    /// Where it has the keys.
    pub layout: Layout,
}

/// What the node that was dialled answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// Go ahead.
    Welcome(PeerWelcome),
    /// The connection closes after this.
    Refused(Error),
    /// As [`Refused`](Self::Refused), and for good: the data directory is not the one that the dialling node is known
    /// by. Says so, and names the remedy.
    Disowned(String),
}

/// Who answers, and what the session is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWelcome {
    /// The version both speak.
    pub version: u16,
    /// The features both understand.
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
    /// Its gateway: the number of the actor that takes batches from peers.
    pub gateway: u64,
    /// The name of the session that begins, random, not zero; every batch carries it.
    pub session: u64,
}

impl PeerHello {
    /// The version and the features to speak with the sender of this hello, at the node `local` of `cluster`.
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
                "{local} was dialled by a node that calls itself {local} too: give each node its own id"
            )));
        }
        if self.replica.node() != self.node {
            return Err(Error::Refused(format!(
                "node {} came with the data directory {} of another node: start it with its own",
                self.node, self.replica
            )));
        }
        if self.version_min > PEER_VERSION_MAX || self.version_max < PEER_VERSION_MIN {
            return Err(Error::Refused(format!(
                "node {} speaks peer protocol {} to {} but this node speaks {PEER_VERSION_MIN} to {PEER_VERSION_MAX}: \
                 upgrade the older one",
                self.node, self.version_min, self.version_max
            )));
        }
        Ok((self.version_max.min(PEER_VERSION_MAX), 0))
    }

    /// Whether its sender has every key on the same nodes as the node `local`, which is in `generation`.
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

    /// Whether its sender knows the node that it has reached by another data directory than `local`.
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

    /// As it goes onto the wire.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what follows the prefix.
    ///
    /// # Errors
    /// [`WireError`], whatever the bytes are.
    pub fn decode(body: &[u8]) -> Result<PeerHello, WireError> {
        decode("hello", body)
    }
}

impl PeerWelcome {
    /// Checks at the dialling node, which sent `hello`, that the right node answered.
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
    /// As it goes onto the wire. A refusal whose words do not fit is shortened to the name of its error.
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

    /// Reads what follows the prefix.
    ///
    /// # Errors
    /// [`WireError`], whatever the bytes are.
    pub fn decode(body: &[u8]) -> Result<PeerAnswer, WireError> {
        decode("answer to a hello", body)
    }
}

/// How many bytes follow this prefix.
///
/// # Errors
/// [`WireError`] if it is not the prefix of a hello or an answer, or announces more than [`MAX_HELLO`] bytes.
pub fn hello_body_length(prefix: &[u8; HELLO_PREFIX]) -> Result<usize, WireError> {
    let [a, b, c, d, low, high] = *prefix;
    if [a, b, c, d] != PEER_MAGIC {
        return Err(WireError::malformed(
            "hello",
            "it does not begin like one: no node of Quorate sent it",
        ));
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > MAX_HELLO {
        return Err(WireError::malformed(
            "hello",
            format_args!("{length} bytes are announced but the limit is {MAX_HELLO}"),
        ));
    }
    Ok(length)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(value).expect("every hello has a coding");
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
