//! The mailboxes of this node's roles.
//!
//! Read for every batch of messages, changed when a keyspace is created or dropped: readers share an immutable table.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::ids::KeyspaceId;
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_protocol::role::RoleId;
use tokio::sync::watch;

use crate::inbox::Mailbox;

/// The id under which a role instance submits to the store. It is never reused within a process, so that a completion
/// for an ended instance is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub u32);

/// An immutable snapshot of the registry.
#[derive(Clone, Default)]
pub struct Table {
    roles: BTreeMap<RoleId, (Owner, Mailbox)>,
    owners: BTreeMap<Owner, RoleId>,
    keyspaces: BTreeMap<KeyspaceId, KeyspaceSettings>,
}

impl Table {
    /// The mailbox of a role; `None` if it does not exist.
    pub fn role(&self, role: RoleId) -> Option<&Mailbox> {
        self.roles.get(&role).map(|(_, mailbox)| mailbox)
    }

    /// The mailbox of the instance with this owner id.
    pub fn owner(&self, owner: Owner) -> Option<&Mailbox> {
        self.owners.get(&owner).and_then(|role| self.role(*role))
    }

    /// All roles.
    pub fn roles(&self) -> impl Iterator<Item = (RoleId, &Mailbox)> {
        self.roles.iter().map(|(role, (_, mailbox))| (*role, mailbox))
    }

    /// The served keyspaces.
    pub fn keyspaces(&self) -> &BTreeMap<KeyspaceId, KeyspaceSettings> {
        &self.keyspaces
    }
}

/// The mailboxes of this node's roles; clones share them.
#[derive(Clone, Default)]
pub struct RoleRegistry {
    table: watch::Sender<Arc<Table>>,
}

impl RoleRegistry {
    /// The current roles.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.borrow())
    }

    /// Waits until the roles satisfy a condition.
    pub async fn until(&self, condition: impl Fn(&Table) -> bool) {
        let mut changes = self.table.subscribe();
        // This registry holds the sender: it cannot close.
        let _never_closed = changes.wait_for(|table| condition(table)).await;
    }

    /// Adds a role.
    ///
    /// # Panics
    /// If it exists already, or its owner id was used: two instances of one role would both answer for it.
    pub fn insert(&self, role: RoleId, owner: Owner, mailbox: Mailbox) {
        self.change(|table| {
            assert!(
                table.roles.insert(role, (owner, mailbox)).is_none(),
                "{role:?} exists already"
            );
            assert!(
                table.owners.insert(owner, role).is_none(),
                "{owner:?} was used already"
            );
        });
    }

    /// Removes a role.
    pub fn remove(&self, role: RoleId) -> Option<Mailbox> {
        let mut removed = None;
        self.change(|table| {
            if let Some((owner, mailbox)) = table.roles.remove(&role) {
                table.owners.remove(&owner);
                removed = Some(mailbox);
            }
        });
        removed
    }

    /// Sets the served keyspaces, after all of their roles were inserted.
    pub fn serve(&self, keyspaces: BTreeMap<KeyspaceId, KeyspaceSettings>) {
        self.change(|table| table.keyspaces = keyspaces);
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        self.table.send_modify(|table| change(Arc::make_mut(table)));
    }
}
