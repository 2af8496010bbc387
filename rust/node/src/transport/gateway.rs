//! The gateway: the only actor of this node that peers can send to.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::link::session_of_batch;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef, Message};

use super::{Core, count};

/// A batch of one link for its counterpart. The gateway does not parse it: any bytes make a frame, and the receiving link
/// closes its session if they are not a valid batch.
pub(super) struct PeerFrame(pub(super) Vec<u8>);

impl Message for PeerFrame {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(cast(self.0))
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } | SerializedMessage::Call { args, .. } => {
                Ok(PeerFrame(args))
            }
            SerializedMessage::CallReply(..) => Err(BoxedDowncastErr),
        }
    }
}

/// The message that casts a batch to a remote gateway.
pub(super) fn cast(batch: Vec<u8>) -> SerializedMessage {
    SerializedMessage::Cast {
        variant: String::new(),
        args: batch,
        metadata: None,
    }
}

/// Passes each batch to the link of its session.
pub(super) struct Gateway;

impl Actor for Gateway {
    type Msg = PeerFrame;
    type State = Arc<Core>;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _: ActorRef<PeerFrame>,
        core: Arc<Core>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(core)
    }

    async fn handle(
        &self,
        _: ActorRef<PeerFrame>,
        PeerFrame(bytes): PeerFrame,
        core: &mut Arc<Core>,
    ) -> Result<(), ActorProcessingErr> {
        let session = session_of_batch(&bytes).ok().and_then(|id| core.sessions.get(id));
        match session {
            Some(session) => session.peer.received(session.id, Bytes::from(bytes)),
            // Of a session that has just ended, or of a faulty peer, whose own session shows the gap.
            None => count(&core.counters.stray_batches),
        }
        Ok(())
    }
}
