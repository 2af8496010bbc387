//! The peer registry: the data directory that each peer had when this node first met it.
//!
//! A node whose directory was lost must not return under its old id: what it acknowledged is gone, and its counters
//! would restart. So the first session with a peer waits until the pair of node and replica id is durable here, and a
//! later session with another replica id is rejected, on both sides, until an operator removes the old node from the
//! topology.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{NodeId, ReplicaId};
use quorate_core::store::{JournalOp, Priority, StateWrite, Table};
use quorate_storage::error::ReadError;
use quorate_storage::queue::{Outcome, Request};
use quorate_storage::store::Reader;
use tokio::sync::oneshot;

use crate::role_registry::Owner;
use crate::shell::CommitPort;

/// The owner of the registry's requests to the store.
pub const PEER_REGISTRY: Owner = Owner(0);

const PREFIX: &[u8] = b"peer/";
const PREFIX_END: &[u8] = b"peer0";

#[derive(Default)]
struct State {
    known: BTreeMap<NodeId, ReplicaId>,
    writing: BTreeMap<u64, oneshot::Sender<Outcome>>,
    last_token: u64,
}

/// The peers that this node has met.
#[derive(Default)]
pub struct PeerRegistry {
    state: Mutex<State>,
}

impl PeerRegistry {
    /// Loads the registry from the store.
    ///
    /// # Errors
    /// When a row is malformed.
    pub fn load(reader: &dyn Reader) -> Result<Self, ReadError> {
        let mut known = BTreeMap::new();
        let mut start = Bytes::from_static(PREFIX);
        loop {
            let page = reader.range(Table::Meta, &start, Some(PREFIX_END), 1_000, 1 << 20)?;
            for (key, value) in page.rows {
                let node = key[PREFIX.len()..].try_into().map(u16::from_be_bytes);
                let replica = value.as_ref().try_into().map(u64::from_be_bytes);
                let (Ok(node), Ok(replica)) = (node, replica) else {
                    return Err(ReadError::Failed(format!(
                        "malformed row of the peer registry under {key:?}"
                    )));
                };
                known.insert(NodeId(node), ReplicaId(replica));
            }
            match page.next {
                Some(next) => start = next,
                None => break,
            }
        }
        Ok(PeerRegistry {
            state: Mutex::new(State {
                known,
                ..State::default()
            }),
        })
    }

    /// The replica id with which `node` was registered.
    pub fn replica_of(&self, node: NodeId) -> Option<ReplicaId> {
        self.state
            .lock()
            .expect("peer registry")
            .known
            .get(&node)
            .copied()
    }

    /// Admits a session with `node` if its directory `replica` is the registered one. Registers a new node.
    ///
    /// # Errors
    /// [`Error::Refused`] when the node is registered with another directory; [`Error::StorageFull`] or
    /// [`Error::Closed`] when it cannot be registered.
    pub async fn admit(
        &self,
        node: NodeId,
        replica: ReplicaId,
        commits: &dyn CommitPort,
    ) -> Result<(), Error> {
        if replica.node() != node {
            return Err(Error::Refused(format!(
                "{node} presented the data directory {replica} of another node: start it with its own"
            )));
        }
        let Some(written) = self.begin(node, replica, commits)? else {
            return Ok(());
        };
        match written.await {
            Ok(Outcome::Durable) => self.finish(node, replica),
            Ok(Outcome::Full) => Err(Error::StorageFull(format!(
                "{node} cannot be registered as a peer: {}",
                commits
                    .why_full()
                    .unwrap_or_else(|| "the disk is full".to_owned())
            ))),
            Err(_) => Err(Error::Closed("the node is stopping".to_owned())),
        }
    }

    /// Completes the registry's requests to the store.
    pub fn completed(&self, tokens: &[u64], outcome: Outcome) {
        let mut state = self.state.lock().expect("peer registry");
        for token in tokens {
            if let Some(waiting) = state.writing.remove(token) {
                // The handshake may have been cancelled.
                let _gone = waiting.send(outcome);
            }
        }
    }

    fn begin(
        &self,
        node: NodeId,
        replica: ReplicaId,
        commits: &dyn CommitPort,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Error> {
        let mut state = self.state.lock().expect("peer registry");
        if let Some(known) = state.known.get(&node) {
            return check(node, *known, replica).map(|()| None);
        }
        state.last_token += 1;
        let token = state.last_token;
        let (done, written) = oneshot::channel();
        state.writing.insert(token, done);
        drop(state);
        let key = [PREFIX, &node.0.to_be_bytes()].concat().into();
        let value = Some(Bytes::copy_from_slice(&replica.0.to_be_bytes()));
        let ops = vec![JournalOp::Write(vec![StateWrite {
            table: Table::Meta,
            key,
            value,
        }])];
        commits.submit(vec![Request {
            owner: PEER_REGISTRY.0,
            token,
            priority: Priority::Urgent,
            ops,
        }]);
        Ok(Some(written))
    }

    /// Two sessions may have met a new node concurrently: the first to be durable wins.
    fn finish(&self, node: NodeId, replica: ReplicaId) -> Result<(), Error> {
        let mut state = self.state.lock().expect("peer registry");
        let known = *state.known.entry(node).or_insert(replica);
        check(node, known, replica)
    }
}

fn check(node: NodeId, known: ReplicaId, presented: ReplicaId) -> Result<(), Error> {
    if known == presented {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{node} presented the data directory {presented} but is registered with {known}: its directory was lost or replaced; \
         restore the old one, or give the node a new id and remove {node}"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quorate_storage::StateWrite;
    use quorate_storage::memory::MemoryStore;
    use quorate_storage::store::Store;

    use super::*;

    #[derive(Default)]
    struct Submitted(Mutex<Vec<Request>>);

    impl CommitPort for Submitted {
        fn submit(&self, requests: Vec<Request>) {
            self.0.lock().unwrap().extend(requests);
        }

        fn apply_rows(&self, _owner: Owner, _token: u64, _writes: Vec<StateWrite>) {}
    }

    #[tokio::test]
    async fn a_node_is_registered_before_its_first_session_and_bound_to_its_directory() {
        let (one, other) = (ReplicaId::new(NodeId(2), 5), ReplicaId::new(NodeId(2), 6));
        let mut store = MemoryStore::new();
        let registry = PeerRegistry::load(&*store.reader()).unwrap();
        let disk = Submitted::default();
        {
            let first = registry.admit(NodeId(2), one, &disk);
            tokio::pin!(first);
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), &mut first).await;
            assert!(waiting.is_err(), "admitted before it was durable");
            let request = disk.0.lock().unwrap().pop().unwrap();
            store.commit(&request.ops).unwrap();
            registry.completed(&[request.token], Outcome::Durable);
            assert_eq!(first.await, Ok(()));
        }
        assert_eq!(registry.admit(NodeId(2), one, &disk).await, Ok(()));
        assert!(matches!(
            registry.admit(NodeId(2), other, &disk).await,
            Err(Error::Refused(_))
        ));
        assert!(matches!(
            registry.admit(NodeId(3), one, &disk).await,
            Err(Error::Refused(_))
        ));
        assert!(disk.0.lock().unwrap().is_empty());

        let reopened = PeerRegistry::load(&*store.reader()).unwrap();
        assert_eq!(reopened.replica_of(NodeId(2)), Some(one));
        assert!(matches!(
            reopened.admit(NodeId(2), other, &disk).await,
            Err(Error::Refused(_))
        ));
    }

    #[tokio::test]
    async fn a_full_disk_admits_no_new_peer() {
        let registry = PeerRegistry::default();
        let disk = Submitted::default();
        let admission = registry.admit(NodeId(2), ReplicaId::new(NodeId(2), 1), &disk);
        let outcome = async {
            let token = loop {
                if let Some(request) = disk.0.lock().unwrap().pop() {
                    break request.token;
                }
                tokio::task::yield_now().await;
            };
            registry.completed(&[token], Outcome::Full);
        };
        let (result, ()) = tokio::join!(admission, outcome);
        assert!(matches!(result, Err(Error::StorageFull(_))));
        assert_eq!(registry.replica_of(NodeId(2)), None);
    }
}
