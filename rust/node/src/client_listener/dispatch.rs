//! The interface from the client listener to the roles.

use quorate_protocol::admission::Need;
use quorate_protocol::api::RequestFrame;
use quorate_protocol::role::ClientRef;

/// Receives the admitted requests. Each must be answered once, through [`Replies`](super::Replies).
pub trait Router: Send + Sync {
    /// Dispatches requests to roles. Never blocks.
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>);

    /// How many replicas must answer such a request; 1 if unknown. Used only in error messages.
    fn required(&self, _need: &Need) -> u8 {
        1
    }
}
