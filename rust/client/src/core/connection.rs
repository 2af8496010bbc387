//! One connection: how far its opening has come, and when its node was last heard.

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

/// The ids of requests that the client makes by itself: below those of operations, above that of the keyspaces.
const FIRST_OWN_ID: u64 = 16;
pub(super) const LAST_OWN_ID: u64 = 0xff;

/// The time to establish a connection and get the hello answered.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Operations wait this long for the first attempt to reach the node that they prefer.
pub(super) const FIRST_DIAL_PATIENCE: Duration = Duration::from_secs(1);
/// A node that owes answers and is silent for this long is asked whether it is there.
const PROBE_WHEN_BUSY: Duration = Duration::from_millis(500);
/// The same when it owes nothing. This also is how a changed topology is noticed.
const PROBE_WHEN_IDLE: Duration = Duration::from_secs(5);
/// Without any byte for this long after that question it is suspected.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);
/// Without any byte for this long after that question the connection is given up.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// For whom a connection was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// An endpoint that the user named, by its position.
    Seed(usize),
    /// A node.
    Node(NodeId),
}

/// How far the opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Being established.
    Dialing,
    /// The hello is on its way.
    Greeting,
    /// Requests flow.
    Ready { node: NodeId, boot: BootId },
}

/// What a silent connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Nothing before this time.
    Nothing { until: Instant },
    /// To be asked whether it is there.
    Probe,
    /// To be suspected.
    Suspect,
    /// To be given up.
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
    /// Operations whose latest attempt went this way and is not answered.
    pub(super) in_flight: usize,
    pub(super) suspect: bool,
    /// It was asked for the keyspaces and has not answered.
    pub(super) listing: bool,
    /// Later of: bytes came; the first operation was sent after none were in flight.
    heard: Instant,
    /// Since when it has owed the answer to a probe.
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

    /// What a client says first.
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

    /// The node's hello, once all of it has come.
    ///
    /// # Errors
    /// [`Error::Refused`] or the node's own words, naming the address.
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
            Some(ServerHello::Refused(error)) => Err(named(address, error)),
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

    /// An operation went out.
    pub(super) fn took(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.heard = self.heard.max(now);
        }
        self.in_flight += 1;
    }

    /// An operation that went this way was answered, moved or given up.
    pub(super) fn released(&mut self) {
        assert!(
            self.in_flight > 0,
            "an operation left {} that was not on it",
            self.address
        );
        self.in_flight -= 1;
    }

    /// Bytes came: whoever sent them is alive.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.probed = None;
        self.suspect = false;
    }

    /// Since when nothing has come, or nothing was owed.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Since when it has owed the answer to a probe.
    pub(super) fn probed(&self) -> Option<Instant> {
        self.probed
    }

    /// An id for one of the client's own requests. They go round: a node that owes so many answers is given up long before.
    pub(super) fn own_id(&mut self) -> u64 {
        self.last_own = if self.last_own == LAST_OWN_ID {
            FIRST_OWN_ID
        } else {
            self.last_own + 1
        };
        self.last_own
    }

    /// A probe went out.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probed = Some(now);
    }

    /// What it needs now, if it is ready.
    pub(super) fn care(&self, now: Instant) -> Care {
        let (due, care) = match self.probed {
            None if self.in_flight > 0 => (self.heard + PROBE_WHEN_BUSY, Care::Probe),
            None => (self.heard + PROBE_WHEN_IDLE, Care::Probe),
            Some(at) if !self.suspect => (at + SUSPECT_AFTER, Care::Suspect),
            Some(at) => (at + LOST_AFTER, Care::GiveUp),
        };
        if due <= now {
            care
        } else {
            Care::Nothing { until: due }
        }
    }
}

/// The same error with the address in its words.
fn named(address: &str, error: Error) -> Error {
    let named = |text: String| format!("{address}: {text}");
    match error {
        Error::Overloaded(text) => Error::Overloaded(named(text)),
        Error::Closed(text) => Error::Closed(named(text)),
        Error::Refused(text) => Error::Refused(named(text)),
        other => Error::Refused(named(other.to_string())),
    }
}
