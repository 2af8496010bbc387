//! Between the alphabets: a group's ([`crate::raft::alphabet`]) and that of the data plane's roles ([`crate::role`]).

use std::time::Duration;

use crate::error::Error;
use crate::ids::NodeId;
use crate::message::{Header, Message};
use crate::raft::RaftGroup;
use crate::raft::alphabet::{Effect as GroupEffect, Event as GroupEvent};
use crate::raft::machine::Machine;
use crate::raft::recovery::{Source, Stored};
use crate::raft::settings::Setup;
use crate::raft::types::GroupId;
use crate::role::{Address, Effect, Event, Query, Rng, Role, RoleId, Rows};
use crate::time::Now;

/// A message that has not left by then is not worth sending: the next heartbeat says more.
const MESSAGE_LIFE: Duration = Duration::from_secs(1);

/// A group inside a role. Its timers have the numbers below [`Bridge::TIMERS`], its reads the token [`Bridge::READ`], its
/// persists tokens below [`Bridge::TOKENS`]; the role's own have others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bridge<M> {
    group: RaftGroup<M>,
    id: GroupId,
    /// The role that the group's other servers live in.
    role: RoleId,
    /// What was asked for and not answered yet.
    reading: Option<Source>,
}

impl<M: Machine> Bridge<M> {
    pub(super) const TIMERS: u64 = 16;
    pub(super) const READ: u64 = 1;
    pub(super) const TOKENS: u64 = 1 << 62;

    pub(super) fn new(setup: Setup, role: RoleId) -> Self {
        Bridge {
            id: setup.group,
            group: RaftGroup::new(setup),
            role,
            reading: None,
        }
    }

    pub(super) fn group(&self) -> &RaftGroup<M> {
        &self.group
    }

    /// What an event of the role is to the group; `None` for one that is none of its business.
    pub(super) fn translate(&mut self, event: &Event) -> Option<GroupEvent> {
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
            } => {
                let source = self.reading.take()?;
                GroupEvent::Read {
                    result: stored(&source, result),
                }
            }
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
                GroupEffect::Read(source) => {
                    effects.push(Effect::Read {
                        token: Self::READ,
                        query: query(&source),
                    });
                    self.reading = Some(source);
                }
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

fn query(source: &Source) -> Query {
    match source {
        Source::Hard(key) => Query::Hard { key: key.clone() },
        Source::Stream {
            stream,
            from,
            limit_bytes,
        } => Query::Log {
            stream: *stream,
            from: *from,
            limit_rows: u32::MAX,
            limit_bytes: *limit_bytes,
        },
    }
}

fn stored(source: &Source, result: &Result<Rows, Error>) -> Result<Stored, String> {
    let rows = result.as_ref().map_err(ToString::to_string)?;
    match source {
        Source::Hard(_) => Ok(Stored::Hard(rows.rows.first().map(|(_, value)| value.clone()))),
        Source::Stream { .. } => {
            let entry = |(key, value): &(bytes::Bytes, bytes::Bytes)| {
                let position = <[u8; 8]>::try_from(key.as_ref());
                position
                    .map(|position| (u64::from_be_bytes(position), value.clone()))
                    .map_err(|_| "an entry of the journal has no position".to_owned())
            };
            rows.rows
                .iter()
                .map(entry)
                .collect::<Result<_, _>>()
                .map(Stored::Stream)
        }
    }
}
