//! The ports through which the effects of roles are performed: one [`Shell`] per node, shared by all role actors.

use std::sync::Arc;

use quorate_core::error::Error;
use quorate_core::files::FileTask;
use quorate_core::ids::NodeId;
use quorate_protocol::api::Response;
use quorate_protocol::role::{ClientRef, Spec};
use quorate_protocol::wire::Envelope;
use quorate_storage::StateWrite;
use quorate_storage::queue::Request as Commit;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::fatal::Fatal;
use crate::inbox::Mailbox;
use crate::readers::ReadPort;
use crate::role_registry::{Owner, RoleRegistry};
use crate::telemetry::Telemetry;

/// A completed request and its response.
pub type Answer = (ClientRef, Result<Response, Error>);

/// Sends to the other nodes.
pub trait PeerPort: Send + Sync {
    /// Sends messages to one peer: each at most once, in any order. Never blocks; drops messages when its queue is full.
    fn send(&self, to: NodeId, messages: Vec<Envelope>);
}

/// Writes to the store.
pub trait CommitPort: Send + Sync {
    /// Makes requests durable; the owner of each gets its completion. Never blocks.
    fn submit(&self, requests: Vec<Commit>);

    /// Why the disk is full, and the remedy; `None` while it has room or if unknown.
    fn why_full(&self) -> Option<String> {
        None
    }

    /// Makes rows readable before it returns; the owner is notified when they are durable.
    fn apply_rows(&self, owner: Owner, token: u64, writes: Vec<StateWrite>);
}

/// Performs tasks on files of rows.
pub trait FilePort: Send + Sync {
    /// Starts a task; its result is delivered to `mailbox` under `token`. Never blocks.
    fn perform(&self, token: u64, task: FileTask, mailbox: Mailbox);
}

/// Responds to clients.
pub trait ReplyPort: Send + Sync {
    /// Sends responses; drops those of closed connections. Never blocks.
    fn reply(&self, answers: Vec<Answer>);
}

/// Reconciles the role instances of this node.
pub trait Reconciler: Send + Sync {
    /// Creates and ends instances to match `specs`; the receiver completes when that is done.
    fn reconcile(&self, specs: Vec<Spec>) -> oneshot::Receiver<()>;
}

/// The dependencies of a role's actor.
pub struct Shell {
    /// This node.
    pub node: NodeId,
    /// The node's time.
    pub clock: Arc<Clock>,
    /// The other roles of this node.
    pub roles: RoleRegistry,
    /// The other nodes.
    pub peers: Arc<dyn PeerPort>,
    /// Writes to the store.
    pub commits: Arc<dyn CommitPort>,
    /// Reads of the store.
    pub reads: ReadPort,
    /// Files beside the store.
    pub files: Arc<dyn FilePort>,
    /// The clients.
    pub replies: Arc<dyn ReplyPort>,
    /// The supervisor.
    pub reconciler: Arc<dyn Reconciler>,
    /// The timeline, spans and metrics.
    pub telemetry: Arc<Telemetry>,
    /// Ends the node.
    pub fatal: Fatal,
}
