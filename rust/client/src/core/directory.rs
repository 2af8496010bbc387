//! The client's view of the cluster: members, ring and keyspaces, and from them the replicas of a key.

use std::collections::BTreeMap;

use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_protocol::admission::Need;
use quorate_protocol::api::request::Target;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::placement::{Placement, Preference};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::types::GroupId;

/// Everything here was reported by nodes, and is never replaced by an older version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Directory {
    placement: Option<Placement>,
    /// By number of replicas: one for each that a known keyspace has.
    preferences: BTreeMap<u8, Preference>,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// Whether a node has listed its keyspaces.
    pub(super) listed: bool,
}

impl Directory {
    /// Updates the view from a response. Returns whether the members have changed.
    pub(super) fn learn(&mut self, response: &Response) -> bool {
        match response {
            Response::Topology(topology) => return self.learn_topology(topology),
            Response::Keyspaces(keyspaces) => {
                self.listed = true;
                for keyspace in keyspaces {
                    self.learn_keyspace(keyspace);
                }
            }
            Response::Keyspace { keyspace, .. } => self.learn_keyspace(keyspace),
            _ => {}
        }
        false
    }

    fn learn_topology(&mut self, topology: &Topology) -> bool {
        // A different topology of the same generation: the cluster was restarted on other addresses.
        let news = self.topology().is_none_or(|known| {
            known.generation < topology.generation
                || (known.generation == topology.generation && known != topology)
        });
        if !news {
            return false;
        }
        // A topology without a valid ring is not understood by this version: nodes route requests.
        let Ok(placement) = Placement::new(topology.clone()) else {
            return false;
        };
        self.placement = Some(placement);
        self.preferences.clear();
        let replicas: Vec<u8> = self
            .keyspaces
            .values()
            .map(|keyspace| keyspace.settings.replicas)
            .collect();
        for count in replicas {
            self.prepare(count);
        }
        true
    }

    fn learn_keyspace(&mut self, keyspace: &Keyspace) {
        if self.keyspaces.get(&keyspace.id) != Some(keyspace) {
            self.keyspaces.insert(keyspace.id, keyspace.clone());
        }
        self.prepare(keyspace.settings.replicas);
    }

    fn prepare(&mut self, replicas: u8) {
        if let Some(placement) = &self.placement
            && !self.preferences.contains_key(&replicas)
            && let Ok(preference) = placement.preference(replicas)
        {
            self.preferences.insert(replicas, preference);
        }
    }

    pub(super) fn topology(&self) -> Option<&Topology> {
        self.placement.as_ref().map(|placement| &**placement.topology())
    }

    pub(super) fn members(&self) -> &[Member] {
        self.topology().map_or(&[], |topology| &topology.members)
    }

    pub(super) fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.get(&id)
    }

    /// The nodes that store the request's key, most preferred first; empty if it has no key or too little is known.
    pub(super) fn replicas(&self, request: &Request) -> &[NodeId] {
        let lookup = |(keyspace, key)| self.replicas_of(keyspace, key);
        request.key().map_or(&[], lookup)
    }

    /// The nodes that store a key of a keyspace in quorum mode, likewise.
    pub(super) fn replicas_of(&self, keyspace: KeyspaceId, key: &Key) -> &[NodeId] {
        let replicas = self.keyspaces.get(&keyspace).map(|known| known.settings.replicas);
        let preference = replicas.and_then(|replicas| self.preferences.get(&replicas));
        preference.map_or(&[], |preference| preference.of(key))
    }

    /// The number of acknowledgements or responses that the request requires; 1 if unknown.
    pub(super) fn required(&self, request: &Request) -> u8 {
        let group = |(keyspace, group)| {
            let members = self.members_of(keyspace, group)?;
            u8::try_from(members.len() / 2 + 1).ok()
        };
        match request.target() {
            Target::Group(keyspace, id) => group((keyspace, id)).unwrap_or(1),
            Target::Keyspace(_) | Target::ControlPlane | Target::Node => {
                let known = request.keyspace().and_then(|id| self.keyspaces.get(&id));
                let settings = known.map(|keyspace| &keyspace.settings);
                Need::of(request).required(self.members().len(), settings)
            }
        }
    }

    /// The members of a Raft group, the one that the ring prefers first.
    pub(super) fn members_of(&self, keyspace: KeyspaceId, group: GroupId) -> Option<&[NodeId]> {
        let (_, group) = self.keyspaces.get(&keyspace)?.group(group)?;
        Some(&group.members)
    }
}
