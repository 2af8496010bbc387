//! The latest claims of this node's servers of Raft groups.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use quorate_core::time::Instant;
use quorate_protocol::api::GroupClaim;
use quorate_raft::types::GroupId;

/// The latest claim of each server, and when it was made. A server sends a claim when its leader or term changes, and
/// with every tick of its timer.
#[derive(Default)]
pub(super) struct Claims {
    table: Mutex<BTreeMap<GroupId, (GroupClaim, Instant)>>,
}

impl Claims {
    pub(super) fn set(&self, claim: GroupClaim, now: Instant) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(claim.group, (claim, now));
    }

    /// Removes a server that has ended; returns its last claim.
    pub(super) fn forget(&self, group: GroupId) -> Option<GroupClaim> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&group).map(|(claim, _)| claim)
    }

    /// All claims, with the time since the leader was heard advanced to `now`.
    pub(super) fn all(&self, now: Instant) -> Vec<GroupClaim> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let aged = |(claim, at): &(GroupClaim, Instant)| {
            let leads = claim.leader == Some(claim.node);
            let since = if leads {
                0
            } else {
                now.since(*at).as_micros() as u64
            };
            GroupClaim {
                heard_micros: claim.heard_micros.map(|heard| heard + since),
                ..claim.clone()
            }
        };
        table.values().map(aged).collect()
    }
}
