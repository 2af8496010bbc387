//! The events in the event queue, and their dispatch.

use quorate_core::ids::{BootId, NodeId};
use quorate_core::store::Query;
use quorate_protocol::link::SessionId as LinkSessionId;
use quorate_protocol::role::{Event, RoleId};

use super::World;
use crate::network::{Endpoint, Flight, Network, SessionId};
use crate::schedule::Fault;

/// An event in the event queue.
#[derive(Clone, Debug)]
pub(super) enum QueuedEvent {
    /// A flight lands.
    Flight(Flight),
    /// An event for a role of a node.
    Mail {
        node: NodeId,
        boot: BootId,
        role: RoleId,
        event: Box<Event>,
    },
    /// A timer of a role; `set` distinguishes it from its replacements.
    RoleTimer {
        node: NodeId,
        boot: BootId,
        instance: u32,
        timer: u64,
        set: u64,
    },
    /// The timer of a link.
    LinkTimer {
        node: NodeId,
        boot: BootId,
        peer: NodeId,
        set: u64,
    },
    /// Roles have taken what a link delivered.
    Taken {
        node: NodeId,
        boot: BootId,
        peer: NodeId,
        session: LinkSessionId,
        bytes: u64,
        count: u64,
    },
    /// Dial a peer.
    Dial {
        node: NodeId,
        boot: BootId,
        peer: NodeId,
    },
    /// The timeout of a handshake.
    HandshakeDeadline {
        node: NodeId,
        boot: BootId,
        session: SessionId,
    },
    /// A read of the disk completes.
    Read {
        node: NodeId,
        boot: BootId,
        instance: u32,
        token: u64,
        query: Query,
    },
    /// A step of a file task of this owner completes.
    Files { node: NodeId, boot: BootId, owner: u64 },
    /// A commit completes.
    Synced { node: NodeId, boot: BootId },
    /// The timer of a client.
    ClientTimer { client: u32, set: u64 },
    /// A client invokes its next operation.
    Act { client: u32 },
    /// A fault begins or ends.
    Fault(Fault),
}

impl QueuedEvent {
    /// The node that must not be paused to handle the event.
    pub(super) fn node(&self, network: &Network) -> Option<NodeId> {
        match self {
            QueuedEvent::Mail { node, .. }
            | QueuedEvent::RoleTimer { node, .. }
            | QueuedEvent::LinkTimer { node, .. }
            | QueuedEvent::Taken { node, .. }
            | QueuedEvent::Dial { node, .. }
            | QueuedEvent::HandshakeDeadline { node, .. }
            | QueuedEvent::Read { node, .. }
            | QueuedEvent::Files { node, .. }
            | QueuedEvent::Synced { node, .. } => Some(*node),
            QueuedEvent::Flight(flight) => match network.receiver(flight) {
                Some(Endpoint::Node(node)) => Some(node),
                _ => None,
            },
            QueuedEvent::ClientTimer { .. } | QueuedEvent::Act { .. } | QueuedEvent::Fault(_) => None,
        }
    }
}

impl World {
    /// Performs an event.
    pub(super) fn perform_event(&mut self, event: QueuedEvent) {
        match event {
            QueuedEvent::Flight(flight) => self.land(flight),
            QueuedEvent::Mail {
                node,
                boot,
                role,
                event,
            } => {
                if self.is_running(node, boot) {
                    self.deliver(node, role, *event);
                }
            }
            QueuedEvent::RoleTimer {
                node,
                boot,
                instance,
                timer,
                set,
            } => {
                self.role_timer(node, boot, instance, timer, set);
            }
            QueuedEvent::LinkTimer {
                node,
                boot,
                peer,
                set,
            } => self.link_timer(node, boot, peer, set),
            QueuedEvent::Taken {
                node,
                boot,
                peer,
                session,
                bytes,
                count,
            } => {
                self.taken(node, boot, peer, session, bytes, count);
            }
            QueuedEvent::Dial { node, boot, peer } => self.dial(node, boot, peer),
            QueuedEvent::HandshakeDeadline { node, boot, session } => {
                self.handshake_deadline(node, boot, session)
            }
            QueuedEvent::Read {
                node,
                boot,
                instance,
                token,
                query,
            } => self.read_done(node, boot, instance, token, &query),
            QueuedEvent::Files { node, boot, owner } => self.files_step(node, boot, owner),
            QueuedEvent::Synced { node, boot } => self.synced(node, boot),
            QueuedEvent::ClientTimer { client, set } => self.client_timer(client, set),
            QueuedEvent::Act { client } => self.act(client),
            QueuedEvent::Fault(fault) => self.apply(fault),
        }
    }
}
