//! Committed entries are in the logs of all later leaders.
//!
//! (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014, figure 3 and section 5.4.)

use std::collections::{BTreeMap, BTreeSet};

use quorate_checker::figure3::{self, Commit, Committed};
use quorate_raft::entry::Entry;
use quorate_raft::types::{GroupId, Term};

use super::{Server, raft_server};
use crate::observation::{Invariant, Observation};
use crate::servers::Seen;
use crate::world::World;

/// The committed entries of a group, by index.
#[derive(Default)]
struct Positions(BTreeMap<u64, Commit>);

impl Committed<Entry> for Positions {
    /// Different committed entries of two servers violate state machine safety instead.
    fn note(&mut self, commit: Commit, _entry: &Entry) -> Option<String> {
        let known = self.0.entry(commit.index).or_insert(commit);
        known.committed_in = known.committed_in.min(commit.committed_in);
        None
    }

    fn commits(&self, from: u64) -> impl Iterator<Item = Commit> {
        self.0.range(from..).map(|(_, commit)| *commit)
    }
}

/// The committed entries, and the checked leaders.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    committed: BTreeMap<GroupId, Positions>,
    /// The last recorded commit index of each server.
    noted: BTreeMap<Server, u64>,
    leaders: BTreeSet<(Server, Term)>,
}

impl Invariant<World> for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn observe(&mut self, world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Some((server, raft)) = raft_server(world, observation) else {
            return Ok(());
        };
        let seen = Seen(server.node, raft);
        let committed = self.committed.entry(server.group).or_default();
        if raft.is_leader() && self.leaders.insert((server, raft.term())) {
            server.in_group(figure3::leader_completeness(&seen, committed))?;
        }
        let noted = self.noted.entry(server).or_default();
        figure3::state_machine_safety(&seen, *noted + 1, committed)?;
        *noted = (*noted).max(raft.log().commit().0);
        Ok(())
    }

    fn finish(&mut self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}
