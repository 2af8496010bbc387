//! Supervised stateless services: actors, or futures that run as long as the node. They are restarted when they end.

use std::pin::Pin;
use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::task::AbortHandle;

/// The future of a service without its own actor.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

type Spawning = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// A service that can be restarted.
#[derive(Clone)]
pub struct Service {
    name: &'static str,
    start: Arc<dyn Fn(ActorCell) -> Spawning + Send + Sync>,
}

impl Service {
    /// A service that is an actor; `make` creates the actor and its arguments.
    pub fn actor<A: Actor>(
        name: &'static str,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let start = move |supervisor| -> Spawning {
            let (actor, arguments) = make();
            Box::pin(async move {
                let (actor, _task) = Actor::spawn_linked(None, actor, arguments, supervisor).await?;
                Ok(actor.get_cell())
            })
        };
        Service {
            name,
            start: Arc::new(start),
        }
    }

    /// A service that is a future; `make` creates the future.
    pub fn future(name: &'static str, make: impl Fn() -> ServiceFuture + Send + Sync + 'static) -> Self {
        Service::actor(name, move || (FutureActor, make()))
    }

    /// Its name, for the log.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts it as a child of `supervisor`.
    ///
    /// # Errors
    /// When its actor does not start.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        (self.start)(supervisor).await
    }
}

/// Message from the task of a future: it has ended.
struct Ended(Result<(), String>);

impl ractor::Message for Ended {}

/// The actor around a future. It fails when the future ends.
struct FutureActor;

impl Actor for FutureActor {
    type Msg = Ended;
    type State = AbortHandle;
    type Arguments = ServiceFuture;

    async fn pre_start(
        &self,
        myself: ActorRef<Ended>,
        future: ServiceFuture,
    ) -> Result<AbortHandle, ActorProcessingErr> {
        let running = tokio::spawn(future);
        let abort = running.abort_handle();
        tokio::spawn(async move {
            let result = running.await.unwrap_or_else(|panic| Err(panic.to_string()));
            // The actor may have been stopped, which ends the future.
            let _stopped = myself.cast(Ended(result));
        });
        Ok(abort)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Ended>,
        Ended(result): Ended,
        _running: &mut AbortHandle,
    ) -> Result<(), ActorProcessingErr> {
        Err(result
            .err()
            .unwrap_or_else(|| "the service returned".to_owned())
            .into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Ended>,
        running: &mut AbortHandle,
    ) -> Result<(), ActorProcessingErr> {
        running.abort();
        Ok(())
    }
}
