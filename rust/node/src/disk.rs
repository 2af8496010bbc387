//! The store's threads, wired to the roles: requests in, completions to the role that submitted them.

use std::sync::Arc;

use quorate_protocol::role::Event;
use quorate_storage::queue::{Completion, Outcome, Request};
use quorate_storage::thread::{CommitReport, Hooks, Observer, StorageHandle};
use quorate_storage::{Flushed, StateWrite};

use crate::fatal::{Fatal, FatalError};
use crate::peer_registry::{PEER_REGISTRY, PeerRegistry};
use crate::role_registry::{Owner, RoleRegistry};
use crate::shell::CommitPort;
use crate::telemetry::Telemetry;

impl CommitPort for StorageHandle {
    fn submit(&self, requests: Vec<Request>) {
        for request in requests {
            // The threads end only with the node, when no answer is awaited.
            let _stopped = StorageHandle::submit(self, request);
        }
    }

    fn apply_rows(&self, owner: Owner, token: u64, writes: Vec<StateWrite>) {
        StorageHandle::apply_rows(self, owner.0, token, writes);
    }
}

/// The callbacks of the store's threads: they deliver to the owners' mailboxes, update metrics, and end the node.
pub fn hooks(
    roles: RoleRegistry,
    registry: Arc<PeerRegistry>,
    telemetry: Arc<Telemetry>,
    fatal: Fatal,
) -> Hooks {
    let completions = Completions {
        roles: roles.clone(),
        registry,
    };
    Hooks {
        on_flushed: Box::new(move |flushed| deliver_flushed(&roles, flushed)),
        on_completed: Box::new(move |ended| completions.deliver(ended)),
        on_fatal: Box::new(move |detail| fatal.raise(FatalError::Storage(detail))),
        observer: Arc::new(Watch(telemetry)),
    }
}

fn deliver_flushed(roles: &RoleRegistry, flushed: Vec<Flushed>) {
    let table = roles.table();
    for Flushed { owner, tokens } in flushed {
        if let Some(mailbox) = table.owner(Owner(owner)) {
            mailbox.push([Event::Flushed { tokens }]);
        }
    }
}

struct Completions {
    roles: RoleRegistry,
    registry: Arc<PeerRegistry>,
}

impl Completions {
    fn deliver(&self, completions: Vec<Completion>) {
        let table = self.roles.table();
        for Completion {
            owner,
            tokens,
            outcome,
        } in completions
        {
            let owner = Owner(owner);
            if owner == PEER_REGISTRY {
                self.registry.completed(&tokens, outcome);
                continue;
            }
            let Some(mailbox) = table.owner(owner) else {
                continue;
            };
            match outcome {
                Outcome::Durable => mailbox.push([Event::Persisted { tokens }]),
                Outcome::Full => {
                    mailbox.push(tokens.into_iter().map(|token| Event::PersistRefused { token }))
                }
            }
        }
    }
}

struct Watch(Arc<Telemetry>);

impl Observer for Watch {
    fn committed(&self, report: &CommitReport) {
        self.0
            .metrics()
            .commit(report.requests, report.bytes, report.duration);
    }
}
