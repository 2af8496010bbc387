//! The actor around a role: mailbox in, effects out. It owns no protocol logic.
//!
//! A **turn** takes all pending events, passes them to the role one by one, and performs the effects grouped by their
//! destination ([`outbox`]). Reads of single rows and messages of the role to itself are answered within the turn. A turn
//! that lasts too long yields, so that other actors (and heartbeats) can run.
//!
//! A panic of the role ends the node ([`crate::fatal`]): it is never restarted in place.

#[cfg(test)]
mod files_tests;
mod outbox;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::contract::{Input, Rng, Role, rng_from_seed};
use quorate_core::error::Error;
use quorate_core::store::Query;
use quorate_core::time::Now;
use quorate_protocol::message::{Message, PartBody};
use quorate_protocol::role::{Address, Effect, Event, RoleId, Spec};
use quorate_protocol::wire::Envelope;
use quorate_storage::queue::Request as Commit;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::outbox::Outbox;
use self::timers::Timers;
use crate::fatal::FatalError;
use crate::inbox::{Inbox, Mailbox, Receipt, Wake};
use crate::recording::{Recorder, Step, digest};
use crate::role_registry::Owner;
use crate::shell::Shell;

/// How long a turn may last before it yields to other actors.
const TURN: Duration = Duration::from_millis(2);
/// After this many events their effects are performed, although the turn continues, so that disk and network start early.
const FLUSH_EVERY: usize = 64;

/// The arguments of a role's actor.
pub struct RoleArguments<R> {
    /// Which role.
    pub id: RoleId,
    /// Its owner id in the store.
    pub owner: Owner,
    /// The role.
    pub role: R,
    /// The seed of its random source.
    pub seed: u64,
    /// Its pending events.
    pub inbox: Arc<Inbox>,
    /// Performs its effects.
    pub shell: Arc<Shell>,
    /// Its recording, if enabled.
    pub recorder: Option<Recorder>,
}

/// The actor of a role.
pub struct RoleActor<R>(PhantomData<fn() -> R>);

impl<R> Default for RoleActor<R> {
    fn default() -> Self {
        RoleActor(PhantomData)
    }
}

impl<R> Actor for RoleActor<R>
where
    R: Role<Event = Event, Effect = Effect> + Send + Sync + 'static,
{
    type Msg = Wake;
    type State = RoleState<R>;
    type Arguments = RoleArguments<R>;

    async fn pre_start(
        &self,
        myself: ActorRef<Wake>,
        arguments: RoleArguments<R>,
    ) -> Result<RoleState<R>, ActorProcessingErr> {
        let mailbox = Mailbox::new(Arc::clone(&arguments.inbox), myself);
        mailbox.push([Event::Start]);
        Ok(RoleState::new(arguments, mailbox))
    }

    async fn handle(
        &self,
        myself: ActorRef<Wake>,
        _wake: Wake,
        state: &mut RoleState<R>,
    ) -> Result<(), ActorProcessingErr> {
        state.collect();
        loop {
            match catch_unwind(AssertUnwindSafe(|| state.advance())) {
                Ok(Pause::Done) => {
                    if state.dropped {
                        // All its effects have been performed.
                        myself.stop(None);
                    }
                    return Ok(());
                }
                Ok(Pause::TurnOver) => {
                    tokio::task::yield_now().await;
                    state.collect();
                }
                Ok(Pause::Reconcile(specs)) => {
                    // Effects after this one may rely on the instances.
                    let _ended_with_the_node = state.shell.reconciler.reconcile(specs).await;
                }
                Err(panic) => {
                    let reason = panic_text(&*panic);
                    state.shell.fatal.raise(FatalError::Role {
                        role: state.id,
                        reason: reason.clone(),
                    });
                    return Err(reason.into());
                }
            }
        }
    }

    /// Removes its last claim about its group.
    async fn post_stop(
        &self,
        _myself: ActorRef<Wake>,
        state: &mut RoleState<R>,
    ) -> Result<(), ActorProcessingErr> {
        if let RoleId::Shard(group) = state.id {
            state.shell.telemetry.forget_group(group);
        }
        Ok(())
    }
}

/// Why a turn has paused.
enum Pause {
    /// No event is pending.
    Done,
    /// Other actors must run first.
    TurnOver,
    /// The instances must be reconciled before the turn continues.
    Reconcile(Vec<Spec>),
}

/// The state of a role's actor.
pub struct RoleState<R> {
    id: RoleId,
    owner: Owner,
    role: R,
    rng: Rng,
    mailbox: Mailbox,
    inbox: Arc<Inbox>,
    shell: Arc<Shell>,
    recorder: Option<Recorder>,
    timers: Timers,
    outbox: Outbox,
    /// Taken from the inbox, or results of effects performed within the turn.
    events: VecDeque<Event>,
    /// The receipts of `events`.
    receipts: Vec<Receipt>,
    /// Effects that are not performed yet.
    effects: Vec<Effect>,
    /// Whether [`Event::Dropped`] was delivered, or is next.
    dropped: bool,
}

impl<R> RoleState<R>
where
    R: Role<Event = Event, Effect = Effect>,
{
    fn new(arguments: RoleArguments<R>, mailbox: Mailbox) -> Self {
        RoleState {
            id: arguments.id,
            owner: arguments.owner,
            role: arguments.role,
            rng: rng_from_seed(arguments.seed),
            mailbox,
            inbox: arguments.inbox,
            shell: arguments.shell,
            recorder: arguments.recorder,
            timers: Timers::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            receipts: Vec::new(),
            effects: Vec::new(),
            dropped: false,
        }
    }

    /// Takes the pending events and the due timers.
    fn collect(&mut self) {
        let mut batch = self.inbox.take();
        if let Some(Event::Dropped) = batch.events.first() {
            // Ahead of all events pending here, too: they fail instead of being executed.
            self.dropped = true;
            self.events.extend(batch.events.drain(1..));
            self.events.push_front(Event::Dropped);
        } else {
            self.events.extend(batch.events);
        }
        self.receipts.extend(batch.receipts);
        let now = self.shell.clock.instant();
        while let Some(id) = self.timers.due(now) {
            self.events.push_back(Event::Timer { id });
        }
    }

    /// Handles events and performs effects until no event is left, the turn is over, or the instances must be reconciled.
    fn advance(&mut self) -> Pause {
        let started = self.shell.clock.instant();
        let mut unflushed = 0;
        loop {
            if let Some(specs) = self.perform() {
                self.outbox.flush(&self.shell);
                return Pause::Reconcile(specs);
            }
            if unflushed >= FLUSH_EVERY {
                unflushed = 0;
                self.outbox.flush(&self.shell);
                if !self.events.is_empty() && self.shell.clock.instant().since(started) > TURN {
                    return Pause::TurnOver;
                }
            }
            let Some(event) = self.events.pop_front() else {
                break;
            };
            let now = self.shell.clock.now();
            self.step(now, event);
            unflushed += 1;
        }
        self.receipts.clear();
        self.outbox.flush(&self.shell);
        self.timers.arm(&self.shell.clock, &self.mailbox);
        self.flush_recording();
        Pause::Done
    }

    fn step(&mut self, now: Now, event: Event) {
        assert!(
            self.effects.is_empty(),
            "effects are performed before the next event"
        );
        let Some(recorder) = &mut self.recorder else {
            return self.role.handle(now, &mut self.rng, event, &mut self.effects);
        };
        let input = Input {
            now,
            event: event.clone(),
        };
        self.role.handle(now, &mut self.rng, event, &mut self.effects);
        if let Err(error) = recorder.step(&Step {
            input,
            effects: digest(&self.effects),
        }) {
            tracing::warn!(role = ?self.id, %error, "the recording failed and ends here");
            self.recorder = None;
        }
    }

    /// Performs effects up to a reconciliation, and returns its specs; the remaining effects wait for it.
    fn perform(&mut self) -> Option<Vec<Spec>> {
        let mut effects = std::mem::take(&mut self.effects);
        let mut specs = None;
        let mut drain = effects.drain(..);
        for effect in drain.by_ref() {
            if let Effect::Reconcile(wanted) = effect {
                specs = Some(wanted);
                break;
            }
            self.perform_one(effect);
        }
        self.effects.extend(drain);
        if self.effects.is_empty() {
            // Keep the larger buffer.
            self.effects = effects;
        }
        specs
    }

    fn perform_one(&mut self, mut effect: Effect) {
        if let Effect::Send { message, .. } = &mut effect {
            self.say_why_full(message);
        }
        match effect {
            Effect::Send { to, header, message } if to.node == self.shell.node => {
                let from = Address {
                    node: self.shell.node,
                    role: self.id,
                };
                let event = Event::Message {
                    from,
                    header,
                    message,
                };
                if to.role == self.id {
                    self.events.push_back(event);
                } else {
                    self.outbox.local(to.role, event);
                }
            }
            Effect::Send { to, header, message } => {
                self.outbox.remote(
                    to.node,
                    Envelope {
                        from: self.id,
                        to: to.role,
                        header,
                        message,
                    },
                );
            }
            Effect::SendLocal { to, header, message } => {
                let event = Event::Local {
                    from: self.id,
                    header,
                    message,
                };
                self.outbox.local(to, event);
            }
            Effect::EndTurn => self.events.push_back(Event::TurnEnded),
            Effect::Reply { client, response } => self.outbox.answer((client, response)),
            Effect::Persist { token, priority, ops } => {
                self.outbox.commit(Commit {
                    owner: self.owner.0,
                    token,
                    priority,
                    ops,
                });
            }
            Effect::ApplyRows { token, writes } => self.shell.commits.apply_rows(self.owner, token, writes),
            Effect::Read {
                token,
                query: query @ (Query::Get { .. } | Query::Hard { .. }),
            } => {
                let result = self.shell.reads.now(&query);
                self.events.push_back(Event::Read { token, result });
            }
            Effect::Read { token, query } => self.shell.reads.later(token, query, self.mailbox.clone()),
            Effect::Files { token, task } => self.shell.files.perform(token, task, self.mailbox.clone()),
            Effect::SetTimer { id, at } => self.timers.set(id, at),
            Effect::Emit(event) => self.shell.telemetry.emit(event),
            Effect::Span(span) => self.outbox.span(*span),
            Effect::Measure(measurement) => self.shell.telemetry.measure(&measurement),
            Effect::Relay {
                to,
                client,
                header,
                request,
            } => self.outbox.local(
                to,
                Event::Request {
                    client,
                    header,
                    request,
                },
            ),
            Effect::Group(claim) => self.shell.telemetry.group(*claim),
            Effect::Reconcile(_) => unreachable!("held back by perform"),
        }
    }

    /// The role knows no directories.
    fn say_why_full(&self, message: &mut Message) {
        let errors: &mut dyn Iterator<Item = &mut Error> = match message {
            Message::Failed(error) => &mut std::iter::once(error),
            Message::Parts(parts) => &mut parts.iter_mut().filter_map(|part| match &mut part.body {
                PartBody::Failed(error) => Some(error),
                _ => None,
            }),
            _ => return,
        };
        for error in errors {
            if let Error::StorageFull(text) = error
                && let Some(why) = self.shell.commits.why_full()
            {
                *text = format!("{text} ({why})");
            }
        }
    }

    fn flush_recording(&mut self) {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.flush()
        {
            tracing::warn!(role = ?self.id, %error, "the recording failed and ends here");
            self.recorder = None;
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
