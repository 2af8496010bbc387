//! Between two kinds of events and effects: a group's ([`quorate_raft::event`]) and those of a node's roles ([`quorate_protocol::role`]).

use std::time::Duration;

use quorate_core::contract::{Rng, Role};
use quorate_core::ids::NodeId;
use quorate_core::time::Now;
use quorate_protocol::message::{Header, Message};
use quorate_protocol::role::{Address, Effect, Event, RoleId};
use quorate_raft::RaftGroup;
use quorate_raft::event::{Effect as GroupEffect, Event as GroupEvent};
use quorate_raft::machine::Machine;
use quorate_raft::settings::Setup;
use quorate_raft::types::GroupId;

/// A message that has not left by then is not worth sending: the next heartbeat says more.
const MESSAGE_LIFE: Duration = Duration::from_secs(1);

/// A group inside a role. Its timers have the numbers below [`Adapter::TIMERS`], its reads the token [`Adapter::READ`], its
/// persists tokens below [`Adapter::TOKENS`]; the role's own have others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Adapter<M> {
    group: RaftGroup<M>,
    id: GroupId,
    /// The role that the group's other servers live in.
    role: RoleId,
}

impl<M: Machine> Adapter<M> {
    pub(super) const TIMERS: u64 = 16;
    pub(super) const READ: u64 = 1;
    pub(super) const TOKENS: u64 = 1 << 62;

    pub(super) fn new(setup: Setup, role: RoleId) -> Self {
        Adapter {
            id: setup.group,
            group: RaftGroup::new(setup),
            role,
        }
    }

    pub(super) fn group(&self) -> &RaftGroup<M> {
        &self.group
    }

    /// What an event of the role is to the group; `None` for one that is none of its business.
    pub(super) fn translate(&self, event: &Event) -> Option<GroupEvent> {
        Some(match event {
            Event::Start => GroupEvent::Start,
            Event::Message {
                from,
                message: Message::Raft { group, message },
                ..
            } if *group == self.id => GroupEvent::Message {
                from: from.node,
                message: message.clone(),
            },
            Event::Timer { id } if *id < Self::TIMERS => GroupEvent::Timer { id: *id },
            Event::Persisted { tokens } => {
                let tokens = tokens.iter().copied().filter(|token| *token < Self::TOKENS);
                let tokens: Vec<u64> = tokens.collect();
                if tokens.is_empty() {
                    return None;
                }
                GroupEvent::Persisted { tokens }
            }
            Event::PersistRefused { token } if *token < Self::TOKENS => {
                GroupEvent::PersistRefused { token: *token }
            }
            Event::Read {
                token: Self::READ,
                result,
            } => GroupEvent::Read {
                result: result.clone(),
            },
            Event::Peer { node, up } => GroupEvent::Peer { node: *node, up: *up },
            _ => return None,
        })
    }

    /// Gives the group an event. What the shell can do goes to `effects`, what the role must see is returned.
    pub(super) fn handle(
        &mut self,
        now: Now,
        rng: &mut Rng,
        event: GroupEvent,
        generation: u64,
        effects: &mut Vec<Effect>,
    ) -> Vec<GroupEffect> {
        let mut wanted = Vec::new();
        self.group.handle(now, rng, event, &mut wanted);
        let mut rest = Vec::new();
        for effect in wanted {
            match effect {
                GroupEffect::Send { to, message } => {
                    let message = Message::Raft {
                        group: self.id,
                        message,
                    };
                    effects.push(self.send(to, generation, now, message));
                }
                GroupEffect::Persist { token, priority, ops } => {
                    assert!(token < Self::TOKENS, "a group counts its persists from 1");
                    effects.push(Effect::Persist { token, priority, ops });
                }
                GroupEffect::Read(query) => effects.push(Effect::Read {
                    token: Self::READ,
                    query,
                }),
                GroupEffect::SetTimer { id, at } => effects.push(Effect::SetTimer { id, at }),
                rest_of_it => rest.push(rest_of_it),
            }
        }
        rest
    }

    fn send(&self, to: NodeId, generation: u64, now: Now, message: Message) -> Effect {
        Effect::Send {
            to: Address {
                node: to,
                role: self.role,
            },
            header: Header {
                generation,
                request: 0,
                deadline: now.instant + MESSAGE_LIFE,
                trace: None,
            },
            message,
        }
    }
}
