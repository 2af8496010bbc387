//! One connection: its handshake, and the health of its node.

use std::time::Duration;

use bytes::BytesMut;
use quorate_core::error::Error;
use quorate_core::ids::{BootId, ClusterId, NodeId};
use quorate_core::time::Instant;
use quorate_protocol::api::{
    CLIENT_MAGIC, CLIENT_VERSION_MAX, CLIENT_VERSION_MIN, ClientHello, MAX_CLIENT_FRAME, ServerHello,
};
use quorate_protocol::frame::{self, Decoder, MAX_HELLO_FRAME};

use super::ClientConfig;

/// The ids of the client's own requests: below those of operations, above that of the keyspaces.
const FIRST_OWN_ID: u64 = 16;
pub(super) const LAST_OWN_ID: u64 = 0xff;

/// The timeout of a connection and its handshake.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Operations wait this long for the first connection to the node that they prefer.
pub(super) const FIRST_DIAL_PATIENCE: Duration = Duration::from_secs(1);
/// A node with pending responses is probed after this long without any byte.
const PROBE_WHEN_BUSY: Duration = Duration::from_millis(500);
/// The same without pending responses. Probes also detect a changed topology.
const PROBE_WHEN_IDLE: Duration = Duration::from_secs(5);
/// A node is suspected after this long without any byte after a probe.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// A connection is closed after this long without any byte after a probe.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// What a connection was dialled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A configured endpoint, by its index.
    Seed(usize),
    /// A node.
    Node(NodeId),
}

/// The stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Being established.
    Dialing,
    /// The hello was sent.
    Greeting,
    /// The handshake is complete.
    Ready { node: NodeId, boot: BootId },
}

/// What the health check of a connection requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkCheck {
    /// Nothing until this time.
    Wait { until: Instant },
    /// Send a probe.
    Probe,
    /// Suspect the node.
    Suspect,
    /// Close the connection.
    GiveUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    pub(super) owner: Owner,
    pub(super) address: String,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    pub(super) decoder: Decoder,
    /// Bytes handed to the shell.
    pub(super) sent: u64,
    /// The number of operations whose latest attempt is pending on this connection.
    pub(super) in_flight: usize,
    pub(super) suspect: bool,
    /// A request for the keyspaces is pending.
    pub(super) listing: bool,
    /// The later of: the last bytes arrived; an operation was sent while none was in flight.
    heard: Instant,
    /// When the pending probe was sent.
    probed: Option<Instant>,
    /// The id of the client's latest own request.
    last_own: u64,
}

impl Connection {
    pub(super) fn new(owner: Owner, address: String, now: Instant) -> Self {
        Connection {
            owner,
            address,
            stage: Stage::Dialing,
            since: now,
            decoder: Decoder::new(MAX_HELLO_FRAME),
            sent: 0,
            in_flight: 0,
            suspect: false,
            listing: false,
            heard: now,
            probed: None,
            last_own: LAST_OWN_ID,
        }
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        match self.stage {
            Stage::Ready { node, .. } => Some(node),
            Stage::Dialing | Stage::Greeting => None,
        }
    }

    /// The first bytes of a client: magic and hello.
    pub(super) fn greeting(config: &ClientConfig, cluster: Option<ClusterId>) -> BytesMut {
        let hello = ClientHello {
            version_min: CLIENT_VERSION_MIN,
            version_max: CLIENT_VERSION_MAX,
            features: 0,
            cluster: config.cluster.or(cluster),
            credentials: config.credentials.clone(),
        };
        let mut bytes = BytesMut::from(&CLIENT_MAGIC[..]);
        frame::encode(&hello, MAX_HELLO_FRAME, &mut bytes)
            .expect("credentials that fit into a hello were checked at creation");
        bytes
    }

    /// The node's hello, once it has arrived completely.
    ///
    /// # Errors
    /// [`Error::Refused`] or the node's own error, naming the address.
    pub(super) fn welcome(
        &mut self,
        cluster: Option<ClusterId>,
    ) -> Result<Option<(ClusterId, NodeId, BootId)>, Error> {
        let address = &self.address;
        let hello = self.decoder.decode::<ServerHello>().map_err(|error| {
            Error::Refused(format!(
                "{address} does not speak Quorate's client protocol ({error}): check the port"
            ))
        })?;
        match hello {
            None => Ok(None),
            Some(ServerHello::Refused(error)) => Err(with_address(address, error)),
            Some(ServerHello::Welcome { version, .. })
                if !(CLIENT_VERSION_MIN..=CLIENT_VERSION_MAX).contains(&version) =>
            {
                Err(Error::Refused(format!(
                    "{address} chose version {version} of the client protocol but this client speaks \
                     {CLIENT_VERSION_MIN} to {CLIENT_VERSION_MAX}: upgrade the older of the two"
                )))
            }
            Some(ServerHello::Welcome { cluster: theirs, .. })
                if cluster.is_some_and(|ours| ours != theirs) =>
            {
                Err(Error::Refused(format!(
                    "{address} belongs to another cluster ({theirs}): give endpoints of one cluster only"
                )))
            }
            Some(ServerHello::Welcome {
                cluster, node, boot, ..
            }) => {
                self.decoder.set_limit(MAX_CLIENT_FRAME);
                Ok(Some((cluster, node, boot)))
            }
        }
    }

    /// An operation was sent.
    pub(super) fn operation_sent(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.heard = self.heard.max(now);
        }
        self.in_flight += 1;
    }

    /// An operation on this connection has completed, moved or been abandoned.
    pub(super) fn operation_left(&mut self) {
        assert!(
            self.in_flight > 0,
            "an operation left {} that was not on it",
            self.address
        );
        self.in_flight -= 1;
    }

    /// Bytes arrived: the node is alive.
    pub(super) fn mark_alive(&mut self, now: Instant) {
        self.heard = now;
        self.probed = None;
        self.suspect = false;
    }

    /// Since when nothing has arrived, or nothing was pending.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// When the pending probe was sent.
    pub(super) fn probed(&self) -> Option<Instant> {
        self.probed
    }

    /// An id for one of the client's own requests. Ids wrap around: a node with so many pending responses is
    /// disconnected long before.
    pub(super) fn own_id(&mut self) -> u64 {
        self.last_own = if self.last_own == LAST_OWN_ID {
            FIRST_OWN_ID
        } else {
            self.last_own + 1
        };
        self.last_own
    }

    /// A probe was sent.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probed = Some(now);
    }

    /// What its health check requires now, if it is ready.
    pub(super) fn check_link(&self, now: Instant) -> LinkCheck {
        let (due, check) = match self.probed {
            None if self.in_flight > 0 => (self.heard + PROBE_WHEN_BUSY, LinkCheck::Probe),
            None => (self.heard + PROBE_WHEN_IDLE, LinkCheck::Probe),
            Some(at) if !self.suspect => (at + SUSPECT_AFTER, LinkCheck::Suspect),
            Some(at) => (at + LOST_AFTER, LinkCheck::GiveUp),
        };
        if due <= now {
            check
        } else {
            LinkCheck::Wait { until: due }
        }
    }
}

/// The same error with the address in its message.
fn with_address(address: &str, error: Error) -> Error {
    let named = |text: String| format!("{address}: {text}");
    match error {
        Error::Overloaded(text) => Error::Overloaded(named(text)),
        Error::Closed(text) => Error::Closed(named(text)),
        Error::Refused(text) => Error::Refused(named(text)),
        other => Error::Refused(named(other.to_string())),
    }
}
