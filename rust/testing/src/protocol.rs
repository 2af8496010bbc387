//! What a cluster has to know of the protocol that it runs.

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
    /// Never runs backwards: for timers and deadlines.
    pub instant: u64,
    /// Since the Unix epoch; may be skewed.
    pub wall: u64,
}

/// A role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address<N, R> {
    /// On which node.
    pub node: N,
    /// Which of its roles.
    pub role: R,
}

/// The address of a protocol's role.
pub type AddressOf<P> = Address<<P as Protocol>::NodeId, <P as Protocol>::Role>;

/// A message with its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Envelope<N, R, M> {
    /// Who sent it.
    pub from: Address<N, R>,
    /// To whom.
    pub to: Address<N, R>,
    /// What.
    pub message: M,
}

impl<N: Copy, R, M> Envelope<N, R, M> {
    /// From which node to which.
    pub fn pair(&self) -> (N, N) {
        (self.from.node, self.to.node)
    }
}

/// A protocol's message with its way.
pub type EnvelopeOf<P> = Envelope<<P as Protocol>::NodeId, <P as Protocol>::Role, <P as Protocol>::Message>;

/// A protocol: what its roles are given, and what their effects mean. The value is whatever a test keeps beside the cluster:
/// how it was set up, what it has of the world that is not played.
pub trait Protocol: Sized {
    /// Names a node.
    type NodeId: Copy + Ord + Hash + Debug + Display + FromStr<Err: Display>;
    /// Names a role of a node; `()` where there is only one.
    type Role: Copy + Ord + Hash + Debug;
    /// An instance of a role.
    type Instance: Clone + PartialEq + Debug;
    /// What an instance can be given.
    type Event: Clone + Debug;
    /// What it can ask for.
    type Effect: Clone + PartialEq + Debug;
    /// What goes from node to node.
    type Message: Clone + Debug;
    /// What tests see of effects beside messages and disks: answers, notices.
    type Output;
    /// What disks store.
    type Store: Store;

    /// Whether nodes know of links: who is not known to be reachable is sent nothing, and a crash is noticed. If not, every
    /// message goes onto the wire, and tests say what servers hear of links.
    const LINKS: bool;
    /// Whether a crash takes the messages that are on their way to the node: they were on connections that broke.
    const SESSIONS: bool;

    /// The instances that a node begins with, in the order in which they are started. `boot` counts the node's starts from 1.
    fn start(&mut self, node: Self::NodeId, boot: u64) -> Vec<Hosted<Self>>;

    /// What instances are told once they have started.
    fn started(&mut self, _node: Self::NodeId) -> Vec<(Self::Role, Self::Event)> {
        Vec::new()
    }

    /// Gives an instance an event.
    fn handle(
        instance: &mut Self::Instance,
        clock: Clock,
        rng: &mut Rng,
        event: Self::Event,
        effects: &mut Vec<Self::Effect>,
    );

    /// What an effect means.
    fn action(
        &mut self,
        from: AddressOf<Self>,
        effect: Self::Effect,
        process: &Process<Self>,
    ) -> Action<Self>;

    /// The event that says this.
    fn event(input: Input<Self>) -> Self::Event;

    /// Whether a message is worth delivering at this time; links lose those that are not.
    fn is_expired(_message: &Self::Message, _now: u64) -> bool {
        false
    }

    /// Whether a message goes over a connection: a second copy of it comes as long as the receiver lives, or never.
    fn has_connection(_message: &Self::Message) -> bool {
        false
    }
}

/// An instance to be hosted.
pub struct Hosted<P: Protocol> {
    /// In which role.
    pub role: P::Role,
    /// What its random source begins with.
    pub seed: u64,
    /// The instance.
    pub instance: P::Instance,
}

/// What can happen to an instance by the cluster's doing.
pub enum Input<P: Protocol> {
    /// It exists now.
    Start,
    /// A message came.
    Message {
        /// Who sent it.
        from: AddressOf<P>,
        /// What it says.
        message: P::Message,
    },
    /// A timer went off.
    Timer {
        /// The one that was set.
        id: u64,
    },
    /// A persist is durable.
    Persisted {
        /// Its token.
        token: u64,
    },
    /// A persist was refused.
    Refused {
        /// Its token.
        token: u64,
    },
    /// Derived rows survive a crash from now on.
    Flushed {
        /// Their token.
        token: u64,
    },
    /// A read answered.
    Read {
        /// Its token.
        token: u64,
        /// What was there.
        answer: <P::Store as Store>::Answer,
    },
    /// A task with files is done.
    File {
        /// Its token.
        token: u64,
        /// What came of it.
        done: <P::Store as Store>::Done,
    },
    /// A link came up or broke.
    Peer {
        /// To which node.
        node: P::NodeId,
        /// Whether it can be reached now.
        up: bool,
    },
}

/// What an effect means to a cluster.
pub enum Action<P: Protocol> {
    /// A message leaves; to a role of the same node it goes from mailbox to mailbox.
    Send {
        /// To whom.
        to: AddressOf<P>,
        /// What.
        message: P::Message,
    },
    /// Make durable, then say so.
    Persist {
        /// Returned in the answer.
        token: u64,
        /// Others go before it, and a crash may leave a part of it.
        background: bool,
        /// What.
        ops: Vec<<P::Store as Store>::Op>,
    },
    /// Show rows at once, and say when they survive a crash.
    ApplyRows {
        /// Returned in the answer.
        token: u64,
        /// The rows.
        rows: <P::Store as Store>::Rows,
    },
    /// Read, then say what is there.
    Read {
        /// Returned in the answer.
        token: u64,
        /// What to read.
        query: <P::Store as Store>::Query,
    },
    /// Do something with files, one task of an owner after the other.
    File {
        /// Returned in the answer.
        token: u64,
        /// Whose files.
        owner: u64,
        /// What to do.
        task: <P::Store as Store>::Task,
    },
    /// Wake the role; replaces a timer of the same id.
    SetTimer {
        /// Its name within the role.
        id: u64,
        /// When.
        at: u64,
    },
    /// Give another role of the node an event.
    Post {
        /// Which role.
        role: P::Role,
        /// What.
        event: P::Event,
    },
    /// Host these, but those whose role is there already.
    Host(Vec<Hosted<P>>),
    /// Something for the test.
    Output(P::Output),
    /// Nothing that a test cares about.
    Nothing,
}

/// The nodes that a node can reach.
pub type Alive<P> = BTreeSet<<P as Protocol>::NodeId>;
