//! The supervision tree, and the reconciliation of role instances.
//!
//! ```text
//! supervisor (root)
//! ├── role actors: node, control; of each keyspace coordinator and replica, or forwarder and shards
//! │     a failure ends the process, exit status 70: roles are never restarted in place
//! ├── services: client listener, HTTP listener, links to the peers
//! │     stateless: restarted after a pause
//! └── threads of their own: storage (two), readers (two), files (three), the log
//!       a failure of the storage ends the process; the others end with it
//! ```
//!
//! Only the supervisor creates and ends role instances, and only it tracks which peers are up, so that a new instance
//! misses no change: it is created with the current peers and receives every later change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::{BootId, NodeId};
use quorate_protocol::role::{Event, RoleId, Spec, Surroundings};
use quorate_roles::Instance;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::fatal::FatalError;
use crate::inbox::{Inbox, Mailbox};
use crate::recording::{Heading, Recorder};
use crate::role_actor::{RoleActor, RoleArguments};
use crate::role_registry::Owner;
use crate::service::Service;
use crate::shell::{Reconciler, Shell};

/// The pause before a service is restarted.
const SERVICE_PAUSE: Duration = Duration::from_millis(100);

/// The timeout for an actor to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages to the supervisor.
pub enum SupervisorMessage {
    /// Reconcile the role instances with these specs, then notify.
    Reconcile(Vec<Spec>, oneshot::Sender<()>),
    /// The link to a peer came up or went down.
    Peer {
        /// Which peer.
        node: NodeId,
        /// Whether it is reachable.
        up: bool,
    },
    /// Keep this service running.
    Serve(Service),
    /// Stop the services, so that no more requests arrive, then notify. Nothing is restarted from now on.
    StopServices(oneshot::Sender<()>),
    /// Stop the roles, then notify, and stop.
    Stop(oneshot::Sender<()>),
}

impl ractor::Message for SupervisorMessage {}

/// Creates the shell once the supervisor, which is part of it, exists.
pub type MakeShell = Box<dyn FnOnce(Arc<dyn Reconciler>) -> Arc<Shell> + Send>;

/// The arguments of the supervisor.
pub struct SupervisorArguments {
    /// Creates the shell of the roles.
    pub shell: MakeShell,
    /// This node's directory and the members; no peer is up yet.
    pub surroundings: Surroundings,
    /// This boot.
    pub boot: BootId,
    /// The directory for recordings.
    pub record_dir: Option<PathBuf>,
}

/// The root of the tree.
pub struct Supervisor;

/// The state of the supervisor.
pub struct SupervisorState {
    shell: Arc<Shell>,
    surroundings: Surroundings,
    boot: BootId,
    record_dir: Option<PathBuf>,
    specs: Vec<(Spec, Vec<RoleId>)>,
    services: BTreeMap<ActorId, (Service, ActorCell)>,
    last_owner: Owner,
    stopping: bool,
}

struct Reconcile(ActorRef<SupervisorMessage>);

impl Reconciler for Reconcile {
    fn reconcile(&self, specs: Vec<Spec>) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        // If the supervisor has ended, the sender is dropped and the receiver fails.
        let _gone = self.0.cast(SupervisorMessage::Reconcile(specs, done));
        receiver
    }
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(SupervisorState {
            shell: (arguments.shell)(Arc::new(Reconcile(myself))),
            surroundings: arguments.surroundings,
            boot: arguments.boot,
            record_dir: arguments.record_dir,
            specs: Vec::new(),
            services: BTreeMap::new(),
            last_owner: crate::peer_registry::PEER_REGISTRY,
            stopping: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let role = Instance::node(&state.surroundings);
        state.create(&myself, RoleId::Node, None, role).await
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Reconcile(specs, done) => {
                state.reconcile(&myself, specs).await?;
                let _gone = done.send(());
            }
            SupervisorMessage::Peer { node, up } => state.peer(node, up),
            SupervisorMessage::Serve(service) => state.serve(&myself, service).await?,
            SupervisorMessage::StopServices(done) => {
                state.stop_services().await;
                let _gone = done.send(());
            }
            SupervisorMessage::Stop(done) => {
                state.stop_roles().await;
                let _gone = done.send(());
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (who, reason) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who.get_id(), reason.unwrap_or_default()),
            _ => return Ok(()),
        };
        state.ended(&myself, who, reason);
        Ok(())
    }
}

impl SupervisorState {
    /// Ends instances that are not wanted and creates missing ones.
    ///
    /// An instance that ends receives a last event, to fail its pending requests. Servers and replicas end before forwarders and
    /// coordinators, which still receive what the former reject; those of one kind end concurrently. No write of an instance is
    /// pending in the store when the control role learns that it has ended, and garbage-collects its data.
    async fn reconcile(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        wanted: Vec<Spec>,
    ) -> Result<(), ActorProcessingErr> {
        let (kept, gone): (Vec<_>, Vec<(Spec, Vec<RoleId>)>) = std::mem::take(&mut self.specs)
            .into_iter()
            .partition(|(spec, _)| wanted.iter().any(|wanted| wanted.is_same(spec)));
        self.specs = kept;
        let (first, then): (Vec<RoleId>, Vec<RoleId>) = gone
            .into_iter()
            .flat_map(|(_, roles)| roles)
            .partition(|role| matches!(role, RoleId::Shard(_) | RoleId::Replica(_)));
        for roles in [first, then] {
            self.end(myself, roles).await;
        }
        for spec in wanted {
            if let Some((existing, _)) = self
                .specs
                .iter_mut()
                .find(|(existing, _)| existing.is_same(&spec))
            {
                *existing = spec;
                continue;
            }
            let instances = match Instance::create(&spec, &self.surroundings) {
                Ok(instances) => instances,
                Err(error) => {
                    let reason = format!("{} cannot serve {}: {error}", self.shell.node, describe(&spec));
                    self.shell.fatal.raise(FatalError::Wiring(reason.clone()));
                    return Err(reason.into());
                }
            };
            let roles = instances.iter().map(|(role, _)| *role).collect();
            for (role, instance) in instances {
                self.create(myself, role, Some(spec.clone()), instance).await?;
            }
            self.specs.push((spec, roles));
        }
        let served = self.specs.iter().filter_map(|(spec, _)| match spec {
            Spec::Quorum(keyspace) | Spec::Consensus(keyspace) => {
                Some((keyspace.id, keyspace.settings.clone()))
            }
            Spec::Control => None,
        });
        self.shell.roles.serve(served.collect());
        Ok(())
    }

    /// Ends instances concurrently.
    async fn end(&self, myself: &ActorRef<SupervisorMessage>, roles: Vec<RoleId>) {
        let mut ending = JoinSet::new();
        for role in roles {
            if let Some(mailbox) = self.shell.roles.remove(role) {
                mailbox.actor().unlink(myself.get_cell());
                mailbox.end();
                let actor = mailbox.actor().clone();
                ending.spawn(async move {
                    if actor.wait(Some(STOP_TIMEOUT)).await.is_err() {
                        tracing::warn!(?role, "the role did not stop in time");
                        actor.stop(None);
                    }
                });
            }
        }
        while ending.join_next().await.is_some() {}
    }

    async fn create(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        id: RoleId,
        spec: Option<Spec>,
        role: Instance,
    ) -> Result<(), ActorProcessingErr> {
        self.last_owner = Owner(self.last_owner.0 + 1);
        let owner = self.last_owner;
        let seed = getrandom::u64()?;
        let recorder = self.recorder(id, spec, seed, owner)?;
        let inbox = Arc::<Inbox>::default();
        let arguments = RoleArguments {
            id,
            owner,
            role,
            seed,
            inbox: Arc::clone(&inbox),
            shell: Arc::clone(&self.shell),
            recorder,
        };
        let actor = RoleActor::<Instance>::default();
        let (actor, _task) = Actor::spawn_linked(None, actor, arguments, myself.get_cell()).await?;
        self.shell.roles.insert(id, owner, Mailbox::new(inbox, actor));
        Ok(())
    }

    fn recorder(
        &self,
        role: RoleId,
        spec: Option<Spec>,
        seed: u64,
        owner: Owner,
    ) -> Result<Option<Recorder>, ActorProcessingErr> {
        let Some(directory) = &self.record_dir else {
            return Ok(None);
        };
        let heading = Heading::new(role, spec, &self.surroundings, seed);
        let name = format!("{}-{:016x}-{:03}", self.shell.node, self.boot.0, owner.0);
        Ok(Some(Recorder::create(directory, &name, &heading)?))
    }

    fn peer(&mut self, node: NodeId, up: bool) {
        let alive = &mut self.surroundings.alive;
        let changed = if up {
            alive.insert(node)
        } else {
            alive.remove(&node)
        };
        if !changed {
            return;
        }
        for (role, mailbox) in self.shell.roles.table().roles() {
            if !matches!(role, RoleId::Replica(_)) {
                mailbox.push([Event::Peer { node, up }]);
            }
        }
    }

    async fn serve(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        service: Service,
    ) -> Result<(), ActorProcessingErr> {
        if self.stopping {
            return Ok(());
        }
        let actor = service.start(myself.get_cell()).await?;
        self.services.insert(actor.get_id(), (service, actor));
        Ok(())
    }

    /// A child has ended: a service is restarted after a pause, any other actor ends the node.
    fn ended(&mut self, myself: &ActorRef<SupervisorMessage>, who: ActorId, reason: String) {
        if self.stopping {
            return;
        }
        match self.services.remove(&who) {
            Some((service, _)) => {
                tracing::warn!(
                    service = service.name(),
                    reason,
                    "a service ended and is restarted"
                );
                let _timer = myself.send_after(SERVICE_PAUSE, move || SupervisorMessage::Serve(service));
            }
            None => self.shell.fatal.raise(FatalError::Actor(reason)),
        }
    }

    async fn stop_services(&mut self) {
        self.stopping = true;
        let services = std::mem::take(&mut self.services);
        stop_all(services.into_values().map(|(_, actor)| actor)).await;
    }

    async fn stop_roles(&mut self) {
        self.stopping = true;
        let table = self.shell.roles.table();
        stop_all(table.roles().map(|(_, mailbox)| mailbox.actor().get_cell())).await;
        for (role, _) in table.roles() {
            self.shell.roles.remove(role);
        }
    }
}

/// Stops actors concurrently and waits until they have ended or timed out.
async fn stop_all(actors: impl Iterator<Item = ActorCell>) {
    let mut ending = JoinSet::new();
    for actor in actors {
        ending.spawn(async move {
            let _slow = actor.stop_and_wait(None, Some(STOP_TIMEOUT)).await;
        });
    }
    while ending.join_next().await.is_some() {}
}

fn describe(spec: &Spec) -> String {
    match spec {
        Spec::Control => "the control plane".to_owned(),
        Spec::Quorum(keyspace) | Spec::Consensus(keyspace) => {
            format!("keyspace {:?}", keyspace.settings.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// An actor that stops slowly.
    struct Slow;

    impl Actor for Slow {
        type Msg = crate::inbox::Wake;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn post_stop(&self, _: ActorRef<Self::Msg>, (): &mut ()) -> Result<(), ActorProcessingErr> {
            tokio::time::sleep(STOP_TIMEOUT / 4).await;
            Ok(())
        }
    }

    /// A keyspace may have hundreds of servers.
    #[tokio::test]
    async fn actors_are_stopped_concurrently() {
        let mut actors = Vec::new();
        for _ in 0..32 {
            let (actor, _task) = Actor::spawn(None, Slow, ()).await.expect("it starts");
            actors.push(actor.get_cell());
        }
        let begun = Instant::now();
        stop_all(actors.into_iter()).await;
        assert!(
            begun.elapsed() < 4 * STOP_TIMEOUT,
            "stopping one after the other takes eight timeouts"
        );
    }
}
