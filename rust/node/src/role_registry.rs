//! Who is where: the mailboxes of this node's roles.
//!
//! Read for every batch of messages, changed when a keyspace comes or goes: readers share an immutable table.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::ids::KeyspaceId;
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_protocol::role::RoleId;
use tokio::sync::watch;

use crate::inbox::Mailbox;

/// The number under which a role instance asks the store: never given to another instance in this process, so that
/// an answer to one that is gone reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub u32);

/// One moment's view.
#[derive(Clone, Default)]
pub struct Table {
    roles: BTreeMap<RoleId, (Owner, Mailbox)>,
    owners: BTreeMap<Owner, RoleId>,
    keyspaces: BTreeMap<KeyspaceId, KeyspaceSettings>,
}

impl Table {
    /// The mailbox of a role, `None` when there is no such instance.
    pub fn role(&self, role: RoleId) -> Option<&Mailbox> {
        self.roles.get(&role).map(|(_, mailbox)| mailbox)
    }

    /// The mailbox of the instance that asked the store under this number.
    pub fn owner(&self, owner: Owner) -> Option<&Mailbox> {
        self.owners.get(&owner).and_then(|role| self.role(*role))
    }

    /// All roles.
    pub fn roles(&self) -> impl Iterator<Item = (RoleId, &Mailbox)> {
        self.roles.iter().map(|(role, (_, mailbox))| (*role, mailbox))
    }

    /// The keyspaces that are served.
    pub fn keyspaces(&self) -> &BTreeMap<KeyspaceId, KeyspaceSettings> {
        &self.keyspaces
    }
}

/// The mailboxes of this node's roles, shared by everything that delivers to them.
#[derive(Clone, Default)]
pub struct RoleRegistry {
    table: watch::Sender<Arc<Table>>,
}

impl RoleRegistry {
    /// The roles as they are now.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.borrow())
    }

    /// Waits until the roles are as wanted.
    pub async fn until(&self, wanted: impl Fn(&Table) -> bool) {
        let mut changes = self.table.subscribe();
        // This registry holds the sender: it cannot close.
        let _never_closed = changes.wait_for(|table| wanted(table)).await;
    }

    /// Adds a role.
    ///
    /// # Panics
    /// If it is there already, or another one had its number: two instances of one role would both answer for it.
    pub fn insert(&self, role: RoleId, owner: Owner, mailbox: Mailbox) {
        self.change(|table| {
            assert!(
                table.roles.insert(role, (owner, mailbox)).is_none(),
                "{role:?} exists twice"
            );
            assert!(
                table.owners.insert(owner, role).is_none(),
                "{owner:?} was given twice"
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

    /// Says which keyspaces are served, all of their roles being there.
    pub fn serve(&self, keyspaces: BTreeMap<KeyspaceId, KeyspaceSettings>) {
        self.change(|table| table.keyspaces = keyspaces);
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        self.table.send_modify(|table| change(Arc::make_mut(table)));
    }
}
