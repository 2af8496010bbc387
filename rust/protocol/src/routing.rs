//! Which role of a node takes a request that has come to it.
//!
//! One function for everybody who takes requests of clients in: a node's listener, a node's own questions, the simulator.

use crate::api::Request;
use crate::api::request::Target;
use crate::role::RoleId;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To this role, which is here.
    Role(RoleId),
    /// The node answers by itself, of itself.
    Node,
}

/// Where a request goes on a node that has the roles of which `is_here` tells.
///
/// A group's own server is asked first: where it leads, nothing is nearer. Where it is not, the keyspace's forwarder finds the
/// leader. A request for a keyspace of the other mode goes to whoever serves it, who says so. A keyspace that is not known
/// here may have been created elsewhere, a moment ago: the control role, which is always here, finds out.
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
    fn whoever_is_nearest_takes_it() {
        let (coordinator, forwarder) = (RoleId::Coordinator(KEYSPACE), RoleId::Forwarder(KEYSPACE));
        let shard = RoleId::Shard(GROUP);
        for (request, here, taken) in [
            (get(), vec![coordinator], coordinator),
            // A keyspace of the other mode: its forwarder says so.
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
