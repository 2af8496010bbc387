//! A dot identifies one write, forever.
//!
//! All version vectors depend on this: a vector says "seen up to 7", and a second write with the counter 7 would be taken
//! for one that was seen, and dropped. (Preguiça et al., "Dotted version
//! vectors", 2012, section 3: events are identified by globally unique dots. Almeida et al., "Scalable and accurate
//! causality tracking for eventually consistent stores", 2014, section 6, on what a replica that loses its counter does.)

use std::collections::BTreeMap;

use quorate_core::ids::KeyspaceId;
use quorate_versions::{Dot, KeyState, Sibling};

use super::states_sent;
use crate::observation::{Invariant, Observation};
use crate::world::World;

/// All observed siblings, by their dots.
#[derive(Default)]
pub(super) struct DotsUnique {
    seen: BTreeMap<(KeyspaceId, Dot), Sibling>,
}

impl DotsUnique {
    fn check(&mut self, keyspace: KeyspaceId, state: &KeyState) -> Result<(), String> {
        for sibling in state.siblings() {
            let first = self
                .seen
                .entry((keyspace, sibling.dot))
                .or_insert_with(|| sibling.clone());
            if first != sibling {
                return Err(format!(
                    "{:?} identifies two writes: {first:?} and {sibling:?}",
                    sibling.dot
                ));
            }
        }
        Ok(())
    }
}

impl Invariant<World> for DotsUnique {
    fn name(&self) -> &'static str {
        "dots unique"
    }

    fn observe(&mut self, _world: &World, observation: Observation<'_>) -> Result<(), String> {
        let Observation::Handled { effects, .. } = observation else {
            return Ok(());
        };
        states_sent(effects).try_for_each(|(_, keyspace, state)| self.check(keyspace, state))
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        for (keyspace, key) in world.write_model().keys() {
            for node in world.nodes() {
                self.check(*keyspace, &world.durable(node, *keyspace, key))?;
            }
        }
        Ok(())
    }
}
