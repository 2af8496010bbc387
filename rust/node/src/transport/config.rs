//! Configuration of the connections between nodes.

use std::time::Duration;

use quorate_protocol::link::LinkSettings;
use ractor::ActorCell;

/// The configuration of the transport.
#[derive(Clone)]
pub struct TransportConfig {
    /// Heartbeats, windows, lanes.
    pub link: LinkSettings,
    /// The secret of both ends of a session; `None` uses the cluster id, which separates clusters but is not secret.
    pub secret: Option<Vec<u8>>,
    /// The timeout of connecting, and of the handshake.
    pub handshake: Duration,
    /// The timeout from the end of the handshake until the session is ready.
    pub authentication: Duration,
    /// The initial backoff before dialling again.
    pub backoff_min: Duration,
    /// The maximum backoff before dialling again.
    pub backoff_max: Duration,
    /// The most pending handshakes; further connections are closed immediately.
    pub pending_hellos: usize,
    /// How long sent data may stay unacknowledged before the kernel closes the connection.
    pub user_timeout: Duration,
    /// The actor to which the transport's supervisor is linked.
    pub supervisor: Option<ActorCell>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            link: LinkSettings::default(),
            secret: None,
            handshake: Duration::from_secs(1),
            authentication: Duration::from_secs(2),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            pending_hellos: 64,
            user_timeout: Duration::from_secs(3),
            supervisor: None,
        }
    }
}
