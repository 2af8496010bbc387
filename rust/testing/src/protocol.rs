//! The interface between a cluster and the protocol that it runs.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

use rand_core::SeedableRng;

use crate::disk::Store;
use crate::node::Process;

/// The random source of an instance.
pub type Rng = rand_chacha::ChaCha8Rng;

/// The random source with this seed.
pub fn rng_from_seed(seed: u64) -> Rng {
    Rng::seed_from_u64(seed)
}

/// Both clocks of a node, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clock {
    /// Monotonic time, for timers and deadlines.
    pub instant: u64,
    /// Time since the Unix epoch; may be skewed.
    pub wall: u64,
}

/// A role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address<N, R> {
    /// The node.
    pub node: N,
    /// The role.
    pub role: R,
}

/// The address of a protocol's role.
pub type AddressOf<P> = Address<<P as Protocol>::NodeId, <P as Protocol>::Role>;

/// A message with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Envelope<N, R, M> {
    /// The sender.
    pub from: Address<N, R>,
    /// The receiver.
    pub to: Address<N, R>,
    /// The message.
    pub message: M,
}

impl<N: Copy, R, M> Envelope<N, R, M> {
    /// The sending and the receiving node.
    pub fn pair(&self) -> (N, N) {
        (self.from.node, self.to.node)
    }
}

/// A protocol's message with its addresses.
pub type EnvelopeOf<P> = Envelope<<P as Protocol>::NodeId, <P as Protocol>::Role, <P as Protocol>::Message>;

/// A protocol: the events of its roles, and the meaning of their effects. The value is the state that a test keeps beside the
/// cluster, such as its configuration.
pub trait Protocol: Sized {
    /// Names a node.
    type NodeId: Copy + Ord + Hash + Debug + Display + FromStr<Err: Display>;
    /// Names a role of a node; `()` where there is only one.
    type Role: Copy + Ord + Hash + Debug;
    /// An instance of a role.
    type Instance: Clone + PartialEq + Debug;
    /// An event.
    type Event: Clone + Debug;
    /// An effect.
    type Effect: Clone + PartialEq + Debug;
    /// A message between nodes.
    type Message: Clone + Debug;
    /// Other output of effects for tests: responses, notices.
    type Output;
    /// The contents of disks.
    type Store: Store;

    /// Whether nodes track links: nothing is sent to unreachable nodes, and a crash is detected. If not, every message is sent,
    /// and tests notify servers about links.
    const LINKS: bool;
    /// Whether a crash loses the messages in flight to the node, because their connections break.
    const SESSIONS: bool;

    /// The initial instances of a node, in the order in which they are started. `boot` counts the node's starts from 1.
    fn start(&mut self, node: Self::NodeId, boot: u64) -> Vec<Hosted<Self>>;

    /// The events of instances after they have started.
    fn started(&mut self, _node: Self::NodeId) -> Vec<(Self::Role, Self::Event)> {
        Vec::new()
    }

    /// Passes an event to an instance.
    fn handle(
        instance: &mut Self::Instance,
        clock: Clock,
        rng: &mut Rng,
        event: Self::Event,
        effects: &mut Vec<Self::Effect>,
    );

    /// Converts an effect to an action.
    fn action(
        &mut self,
        from: AddressOf<Self>,
        effect: Self::Effect,
        process: &Process<Self>,
    ) -> Action<Self>;

    /// Converts an input to an event.
    fn event(input: Input<Self>) -> Self::Event;

    /// Whether a message has expired at this time, so that links drop it.
    fn is_expired(_message: &Self::Message, _now: u64) -> bool {
        false
    }

    /// Whether a message is sent over a connection: a duplicate is delivered only within the same boot of the receiver.
    fn has_connection(_message: &Self::Message) -> bool {
        false
    }
}

/// An instance to be hosted.
pub struct Hosted<P: Protocol> {
    /// The role.
    pub role: P::Role,
    /// The seed of its random source.
    pub seed: u64,
    /// The instance.
    pub instance: P::Instance,
}

/// The inputs of an instance from the cluster.
pub enum Input<P: Protocol> {
    /// The instance was started.
    Start,
    /// A message arrived.
    Message {
        /// The sender.
        from: AddressOf<P>,
        /// The message.
        message: P::Message,
    },
    /// A timer fired.
    Timer {
        /// The timer.
        id: u64,
    },
    /// A persist is durable.
    Persisted {
        /// Its token.
        token: u64,
    },
    /// A persist was rejected.
    Refused {
        /// Its token.
        token: u64,
    },
    /// Derived rows were flushed.
    Flushed {
        /// Their token.
        token: u64,
    },
    /// A read completed.
    Read {
        /// Its token.
        token: u64,
        /// The result.
        answer: <P::Store as Store>::Answer,
    },
    /// A file task completed.
    File {
        /// Its token.
        token: u64,
        /// The result.
        done: <P::Store as Store>::Done,
    },
    /// A link came up or went down.
    Peer {
        /// The peer.
        node: P::NodeId,
        /// Whether it is reachable.
        up: bool,
    },
}

/// The meaning of an effect for a cluster.
pub enum Action<P: Protocol> {
    /// Send a message; to a role of the same node it is delivered to the mailbox.
    Send {
        /// The receiver.
        to: AddressOf<P>,
        /// The message.
        message: P::Message,
    },
    /// Persist operations, then notify.
    Persist {
        /// Returned with the result.
        token: u64,
        /// Whether it has low priority; a crash may leave a part of it.
        background: bool,
        /// The message.
        ops: Vec<<P::Store as Store>::Op>,
    },
    /// Make derived rows visible, and notify when they are flushed.
    ApplyRows {
        /// Returned with the result.
        token: u64,
        /// The rows.
        rows: <P::Store as Store>::Rows,
    },
    /// Read, then return the result.
    Read {
        /// Returned with the result.
        token: u64,
        /// What to read.
        query: <P::Store as Store>::Query,
    },
    /// Perform a file task; those of one owner are sequential.
    File {
        /// Returned with the result.
        token: u64,
        /// The owner of the files.
        owner: u64,
        /// The task.
        task: <P::Store as Store>::Task,
    },
    /// Set a timer; replaces one with the same id.
    SetTimer {
        /// Its id within the role.
        id: u64,
        /// When.
        at: u64,
    },
    /// Pass an event to another role of the node.
    Post {
        /// The role.
        role: P::Role,
        /// The message.
        event: P::Event,
    },
    /// Host these instances, except those whose role exists already.
    Host(Vec<Hosted<P>>),
    /// Output for the test.
    Output(P::Output),
    /// No action.
    Nothing,
}

/// The reachable nodes of a node.
pub type Alive<P> = BTreeSet<<P as Protocol>::NodeId>;
