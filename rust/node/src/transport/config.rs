//! How connections between nodes behave.

use std::time::Duration;

use quorate_protocol::link::LinkSettings;
use ractor::ActorCell;

/// How the transport behaves.
#[derive(Clone)]
pub struct TransportConfig {
    /// Heartbeats, windows, lanes.
    pub link: LinkSettings,
    /// What both ends of a session must know; `None` takes the cluster id, which keeps clusters apart but nobody out.
    pub secret: Option<Vec<u8>>,
    /// From the connection to the end of the hello, and for connecting itself.
    pub handshake: Duration,
    /// From the end of the hello to a session that carries messages.
    pub authentication: Duration,
    /// The first pause before dialling again.
    pub backoff_min: Duration,
    /// The longest pause before dialling again.
    pub backoff_max: Duration,
    /// Connections that have not said hello yet, at most; more are closed at once.
    pub pending_hellos: usize,
    /// How long data that was sent may stay unconfirmed before the kernel ends the connection.
    pub user_timeout: Duration,
    /// To whom the transport's supervisor is linked.
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
