//! All roles of a node behind one type, for the node program and the simulator.

use quorate_core::contract::{Rng, Role};
use quorate_core::error::Error;
use quorate_core::time::Now;
use quorate_protocol::node::NodeRole;
use quorate_protocol::role::{Effect, Event, RoleId, Spec, Surroundings};

/// A role instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instance {
    /// Decides which other instances exist.
    Node(NodeRole),
    /// A role of a quorum keyspace.
    Quorum(quorate_quorum::Instance),
    /// A role of a consensus keyspace, or the control role.
    Consensus(quorate_consensus::Instance),
}

impl Instance {
    /// The node role, with which every node starts.
    pub fn node(surroundings: &Surroundings) -> Self {
        Instance::Node(NodeRole::new(surroundings))
    }

    /// The instances of a spec. The first event of each must be [`Event::Start`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the keyspace does not fit the topology (more replicas than nodes).
    pub fn create(spec: &Spec, surroundings: &Surroundings) -> Result<Vec<(RoleId, Instance)>, Error> {
        let consensus = |(role, instance)| (role, Instance::Consensus(instance));
        Ok(match spec {
            Spec::Control => vec![consensus(quorate_consensus::Instance::control(surroundings))],
            Spec::Quorum(keyspace) => quorate_quorum::Instance::create(keyspace, surroundings)?
                .map(|(role, instance)| (role, Instance::Quorum(instance)))
                .into(),
            Spec::Consensus(keyspace) => quorate_consensus::Instance::create(keyspace, surroundings)
                .into_iter()
                .map(consensus)
                .collect(),
        })
    }
}

impl Role for Instance {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        match self {
            Instance::Node(role) => role.handle(now, rng, event, effects),
            Instance::Quorum(role) => role.handle(now, rng, event, effects),
            Instance::Consensus(role) => role.handle(now, rng, event, effects),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use quorate_core::bugs::Bugs;
    use quorate_core::contract::rng_from_seed;
    use quorate_core::ids::{ClusterId, KeyspaceId, NodeId, ReplicaId};
    use quorate_core::level::Level;
    use quorate_core::time::Instant;
    use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
    use quorate_protocol::local::LocalMessage;
    use quorate_protocol::message::{Header, Message};
    use quorate_protocol::placement::Placement;
    use quorate_protocol::role::Address;
    use quorate_protocol::topology::{Member, Topology};
    use quorate_raft::settings::Timing;
    use quorate_ring::RingSettings;

    use super::*;

    fn surroundings(nodes: u16, generation: u64) -> Surroundings {
        let member = |number: u16| Member {
            id: NodeId(number),
            peer_address: String::new(),
            client_address: String::new(),
            http_address: String::new(),
            rack: "default".to_owned(),
            datacenter: "default".to_owned(),
        };
        let ring = RingSettings {
            vnodes: 4,
            ..RingSettings::default()
        };
        let members = (1..=nodes).map(member).collect();
        let topology = Topology::new(ClusterId(7), generation, members, ring).unwrap();
        Surroundings {
            replica: ReplicaId::new(NodeId(1), 0xd1),
            placement: Placement::new(topology).unwrap(),
            alive: (1..=nodes).map(NodeId).collect(),
            raft: Timing::default(),
            bugs: Bugs::none(),
        }
    }

    fn keyspace(id: u32, replicas: u8) -> Keyspace {
        Keyspace {
            id: KeyspaceId(id),
            settings: KeyspaceSettings::quorum(&format!("ks{id}"), replicas),
            groups: Vec::new(),
        }
    }

    fn hash(value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }

    fn handle(role: &mut Instance, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        role.handle(Now::default(), &mut rng_from_seed(1), event, &mut effects);
        effects
    }

    #[test]
    fn a_keyspace_needs_as_many_nodes_as_replicas() {
        let surroundings = surroundings(2, 1);
        let created = Instance::create(&Spec::Quorum(keyspace(1, 2)), &surroundings).unwrap();
        let roles: Vec<RoleId> = created.into_iter().map(|(role, _)| role).collect();
        let id = KeyspaceId(1);
        assert_eq!(roles, [RoleId::Replica(id), RoleId::Coordinator(id)]);
        let error = Instance::create(&Spec::Quorum(keyspace(1, 3)), &surroundings).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    }

    #[test]
    fn instances_from_equal_inputs_are_equal() {
        let instances = |surroundings: &Surroundings, replicas| {
            let spec = Spec::Quorum(keyspace(1, replicas));
            Instance::create(&spec, surroundings).unwrap()
        };
        let same = instances(&surroundings(3, 1), 2);
        assert_eq!(same, instances(&surroundings(3, 1), 2));
        assert_eq!(hash(&same), hash(&instances(&surroundings(3, 1), 2)));
        assert_ne!(same, instances(&surroundings(3, 1), 3));
        assert_ne!(same, instances(&surroundings(3, 2), 2));
        assert_ne!(same, instances(&surroundings(4, 1), 2));
    }

    #[test]
    fn preference_lists_of_other_lengths_are_not_equal() {
        let placement = surroundings(3, 1).placement;
        let two = placement.preference(2).unwrap();
        assert_eq!(two, placement.preference(2).unwrap());
        assert_ne!(two, placement.preference(3).unwrap());
    }

    /// The node role connects the control role at once, and each keyspace once the control role knows it;
    /// then it reports that.
    #[test]
    fn keyspaces_are_served_before_the_control_role_is_notified() {
        let mut node = Instance::node(&surroundings(2, 1));
        assert_eq!(
            handle(&mut node, Event::Start),
            [Effect::Reconcile(vec![Spec::Control])]
        );
        let at = |role| Address {
            node: NodeId(1),
            role,
        };
        let header = Header {
            generation: 1,
            request: 9,
            deadline: Instant::NEVER,
            trace: None,
        };
        let known = |keyspaces: &[Keyspace]| Event::Local {
            from: RoleId::Control,
            header,
            message: LocalMessage::Keyspaces(keyspaces.to_vec()),
        };
        let send = |role, message| Effect::Send {
            to: at(role),
            header,
            message,
        };
        let served = send(RoleId::Control, Message::Defined);
        let specs = |keyspaces: &[Keyspace]| {
            let keyspaces = keyspaces.iter().cloned().map(Spec::Quorum);
            Effect::Reconcile(std::iter::once(Spec::Control).chain(keyspaces).collect())
        };
        let (one, two) = (keyspace(1, 1), keyspace(2, 1));
        let mut altered = two.clone();
        altered.settings.read_level = Level::One;
        let both = [one.clone(), two.clone()];
        assert_eq!(handle(&mut node, known(&both)), [specs(&both), served.clone()]);
        assert_eq!(
            handle(&mut node, known(&both)),
            std::slice::from_ref(&served),
            "nothing changes"
        );
        let both = [one, altered.clone()];
        let told = Effect::SendLocal {
            to: RoleId::Coordinator(KeyspaceId(2)),
            header,
            message: LocalMessage::Keyspaces(vec![altered.clone()]),
        };
        assert_eq!(
            handle(&mut node, known(&both)),
            [specs(&both), told, served.clone()]
        );
        assert!(Spec::Quorum(two.clone()).is_same(&Spec::Quorum(altered.clone())));
        let one_is_gone = [altered];
        assert_eq!(
            handle(&mut node, known(&one_is_gone)),
            [specs(&one_is_gone), served]
        );
        assert!(!Spec::Quorum(two).is_same(&Spec::Quorum(keyspace(2, 2))));
    }
}
