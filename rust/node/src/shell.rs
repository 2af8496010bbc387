//! What the effects of roles are performed through: one [`Shell`] per node, shared by the actors of all its roles.

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

/// A finished request and its answer.
pub type Answer = (ClientRef, Result<Response, Error>);

/// The way to the other nodes.
pub trait PeerPort: Send + Sync {
    /// Sends messages to one peer: each at most once, in no promised order. Never blocks; drops what it cannot hold.
    fn send(&self, to: NodeId, messages: Vec<Envelope>);
}

/// The way to the disk.
pub trait CommitPort: Send + Sync {
    /// Makes requests durable; each is answered to its owner. Never blocks.
    fn submit(&self, requests: Vec<Commit>);

    /// Why the disk is full and what can be done about it; `None` while it has room, or where nobody knows.
    fn why_full(&self) -> Option<String> {
        None
    }

    /// Makes rows readable before it returns; the owner is told when they survive a crash.
    fn apply_rows(&self, owner: Owner, token: u64, writes: Vec<StateWrite>);
}

/// The way to the files of rows.
pub trait FilePort: Send + Sync {
    /// Has a task performed, and answers it to `mailbox` under `token`. Never blocks.
    fn perform(&self, token: u64, task: FileTask, mailbox: Mailbox);
}

/// The way to the clients.
pub trait ReplyPort: Send + Sync {
    /// Sends answers; one whose client is gone is dropped. Never blocks.
    fn reply(&self, answers: Vec<Answer>);
}

/// Makes the role instances of this node match.
pub trait Reconciler: Send + Sync {
    /// Creates and ends instances; the receiver gets its value when that is done.
    fn reconcile(&self, specs: Vec<Spec>) -> oneshot::Receiver<()>;
}

/// Everything that a role's actor needs to perform effects.
pub struct Shell {
    /// This node.
    pub node: NodeId,
    /// The node's time.
    pub clock: Arc<Clock>,
    /// The other roles of this node.
    pub roles: RoleRegistry,
    /// The other nodes.
    pub peers: Arc<dyn PeerPort>,
    /// The disk, for writing.
    pub commits: Arc<dyn CommitPort>,
    /// The disk, for reading.
    pub reads: ReadPort,
    /// The files beside the store.
    pub files: Arc<dyn FilePort>,
    /// The clients.
    pub replies: Arc<dyn ReplyPort>,
    /// The supervisor.
    pub reconciler: Arc<dyn Reconciler>,
    /// The timeline, spans and metrics.
    pub telemetry: Arc<Telemetry>,
    /// The end.
    pub fatal: Fatal,
}
