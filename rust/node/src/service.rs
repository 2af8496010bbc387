//! Stateless services under supervision: a future that should run as long as the node does, started again when it
//! ends.

use std::pin::Pin;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

/// What a service runs.
pub type ServiceFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A service: its name, and how it is started, as often as needed.
#[derive(Clone)]
pub struct Service {
    /// For the log.
    pub name: &'static str,
    /// Starts it.
    pub start: Arc<dyn Fn() -> ServiceFuture + Send + Sync>,
}

/// Said by the task of a service: it has ended.
pub struct Ended(Result<(), String>);

impl ractor::Message for Ended {}

/// The actor of a service. It fails when its service ends; the supervisor then starts another.
pub struct ServiceActor;

impl Actor for ServiceActor {
    type Msg = Ended;
    type State = (&'static str, AbortHandle);
    type Arguments = Service;

    async fn pre_start(
        &self,
        myself: ActorRef<Ended>,
        service: Service,
    ) -> Result<Self::State, ActorProcessingErr> {
        let running = tokio::spawn((service.start)());
        let abort = running.abort_handle();
        tokio::spawn(async move {
            let result = running.await.unwrap_or_else(|panic| Err(panic.to_string()));
            let _stopped = myself.cast(Ended(result));
        });
        Ok((service.name, abort))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Ended>,
        Ended(result): Ended,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let reason = result.err().unwrap_or_else(|| "it returned".to_owned());
        Err(format!("{}: {reason}", state.0).into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Ended>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.1.abort();
        Ok(())
    }
}
