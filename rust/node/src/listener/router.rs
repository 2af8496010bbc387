//! Who takes the requests that a listener lets in.

use quorate_protocol::admission::Need;
use quorate_protocol::api::RequestFrame;
use quorate_protocol::role::ClientRef;

/// Takes the requests that were let in. Each must be answered once, through [`Replies`](super::Replies).
pub trait Router: Send + Sync {
    /// Never blocks.
    fn dispatch(&self, requests: Vec<(ClientRef, RequestFrame)>);

    /// How many replicas have to answer such a request; 1 where nobody can say. Asked only for the words of an error.
    fn required(&self, _need: &Need) -> u8 {
        1
    }
}
