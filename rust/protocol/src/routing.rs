//! Routing: which role of a node receives a request.
//!
//! One function for all sources of requests: a node's listener, a node's own requests, the simulator.

use crate::api::Request;
use crate::api::request::Target;
use crate::role::RoleId;

/// The recipient of a request on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// This role of the node.
    Role(RoleId),
    /// The node itself, which reports its status.
    Node,
}

/// Routes a request on a node that has the roles for which `is_here` returns true.
///
/// The group's own server is preferred, since it may lead; without one, the keyspace's forwarder finds the leader. A request
/// for a keyspace of the other mode is routed to its role, which rejects it. An unknown keyspace may have been created
/// recently on another node: the control role, which always exists, finds out.
pub fn route(request: &Request, is_here: impl Fn(RoleId) -> bool) -> Route {
    let first = |roles: &[RoleId]| {
        let mut here = roles.iter().filter(|role| is_here(**role));
        Route::Role(here.next().copied().unwrap_or(RoleId::Control))
    };
    match request.target() {
        Target::Node => Route::Node,
        Target::ControlPlane => Route::Role(RoleId::Control),
        Target::Keyspace(keyspace) => first(&[RoleId::Coordinator(keyspace), RoleId::Forwarder(keyspace)]),
        Target::Group(keyspace, group) => first(&[
            RoleId::Shard(group),
            RoleId::Forwarder(keyspace),
            RoleId::Coordinator(keyspace),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::KeyspaceId;
    use quorate_raft::types::GroupId;

    use super::*;
    use crate::api::ReadLevel;

    const KEYSPACE: KeyspaceId = KeyspaceId(1);
    const GROUP: GroupId = GroupId(2);

    fn get() -> Request {
        Request::Get {
            keyspace: KEYSPACE,
            key: "k".try_into().expect("a key"),
            level: None,
        }
    }

    fn read() -> Request {
        Request::Read {
            keyspace: KEYSPACE,
            group: GROUP,
            keys: Vec::new(),
            level: ReadLevel::Linearizable,
        }
    }

    #[test]
    fn the_nearest_role_receives_a_request() {
        let (coordinator, forwarder) = (RoleId::Coordinator(KEYSPACE), RoleId::Forwarder(KEYSPACE));
        let shard = RoleId::Shard(GROUP);
        for (request, here, taken) in [
            (get(), vec![coordinator], coordinator),
            // A keyspace of the other mode: its forwarder rejects the request.
            (get(), vec![forwarder, shard], forwarder),
            (get(), vec![], RoleId::Control),
            (read(), vec![shard, forwarder], shard),
            (read(), vec![forwarder], forwarder),
            (read(), vec![RoleId::Shard(GroupId(3)), forwarder], forwarder),
            (read(), vec![coordinator], coordinator),
            (read(), vec![], RoleId::Control),
            (
                Request::ListKeyspaces,
                vec![coordinator, forwarder],
                RoleId::Control,
            ),
        ] {
            let route = route(&request, |role| here.contains(&role));
            assert_eq!(route, Route::Role(taken), "{request:?} where {here:?} are");
        }
        assert_eq!(route(&Request::Groups, |_| true), Route::Node);
    }
}
