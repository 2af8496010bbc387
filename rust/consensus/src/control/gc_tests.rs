//! Whatever comes in between, each part of everything that is gone is looked at, behind all that was under way.

use quorate_core::contract::rng_from_seed;
use quorate_core::ids::KeyspaceId;
use quorate_core::time::Instant;
use rand_core::Rng as _;

use super::*;

const GONE: [Gone; 6] = [
    Gone::Group(GroupId(2)),
    Gone::Group(GroupId(3)),
    Gone::Group(GroupId(9)),
    Gone::Keyspace(KeyspaceId(1)),
    Gone::Keyspace(KeyspaceId(2)),
    Gone::Keyspace(KeyspaceId(7)),
];

/// What was asked for, as a name and whose it is.
fn asked(effect: &Effect) -> Option<(&'static str, u32)> {
    let number = |start: &Bytes| u32::from_be_bytes(start[..4].try_into().expect("four bytes"));
    match effect {
        Effect::Files {
            task: FileTask::Retain { owner, number: None },
            ..
        } => Some(("files", *owner as u32)),
        Effect::Read {
            query: Query::Range { table, start, .. },
            ..
        } => Some((
            match table {
                Table::Groups => "groups",
                Table::Records => "records",
                _ => "tokens",
            },
            number(start),
        )),
        Effect::Read {
            query: Query::Log { stream, .. },
            ..
        } => (1..20)
            .find(|id| GroupId(*id).log_stream() == *stream)
            .map(|id| ("log", id)),
        Effect::Read {
            query: Query::Hard { key },
            ..
        } => (1..20).find_map(|id| {
            let group = GroupId(id);
            match [group.hard_state_key(), group.log_start_key()]
                .iter()
                .position(|own| own == key)?
            {
                0 => Some(("vote", id)),
                _ => Some(("log_start", id)),
            }
        }),
        Effect::Read {
            query: Query::Get {
                table: Table::Meta,
                key,
            },
            ..
        } => (1..20)
            .find(|id| counter_row(KeyspaceId(*id)) == *key)
            .map(|id| ("numbers", id)),
        _ => None,
    }
}

/// The answer to something that was asked for; rows are found now and then.
fn answer(gc: &mut GarbageCollector, effect: Effect, chance: u64, effects: &mut Vec<Effect>) {
    match effect {
        Effect::Files { .. } => gc.files_gone(effects),
        Effect::Read { .. } => {
            let row = (Bytes::from_static(b"row"), Bytes::new());
            let rows = if chance.is_multiple_of(3) {
                vec![row]
            } else {
                Vec::new()
            };
            gc.read(Ok(Rows { rows, more: false }), effects);
        }
        Effect::Persist { token, .. } if chance.is_multiple_of(5) => {
            gc.refused(token, Instant(0), effects);
        }
        Effect::Persist { token, .. } => gc.persisted(token, effects),
        Effect::SetTimer { .. } => gc.rested(effects),
        other => panic!("garbage collection does not ask for {other:?}"),
    }
}

/// What has been asked for, and what may be.
#[derive(Default)]
struct Watch {
    /// The fences that were asked for since this is gone, and came back.
    fences: BTreeMap<Gone, BTreeSet<u64>>,
    /// What was gone when a fence was asked for.
    asked: BTreeMap<u64, Vec<Gone>>,
    seen: BTreeSet<(&'static str, u32)>,
    waiting: Vec<Effect>,
}

impl Watch {
    fn take(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            if let Effect::Persist { token, ops, .. } = &effect
                && ops.is_empty()
            {
                self.asked.insert(*token, self.fences.keys().copied().collect());
            }
            if let Some((what, id)) = asked(&effect) {
                let gone = match what {
                    "records" | "tokens" | "numbers" => Gone::Keyspace(KeyspaceId(id)),
                    _ => Gone::Group(GroupId(id)),
                };
                assert_eq!(self.fences[&gone].len(), FENCES.len(), "{what} of {gone:?}");
                self.seen.insert((what, id));
            }
            self.waiting.push(effect);
        }
    }

    fn came_back(&mut self, effect: &Effect) {
        if let Effect::Persist { token, ops, .. } = effect
            && ops.is_empty()
        {
            for gone in &self.asked[token] {
                self.fences.entry(*gone).or_default().insert(*token);
            }
        }
    }
}

#[test]
fn everything_is_looked_at_whatever_comes_in_between() {
    for seed in 0..200 {
        let mut rng = rng_from_seed(seed);
        let (mut gc, mut watch) = (GarbageCollector::default(), Watch::default());
        let mut effects = Vec::new();
        for _ in 0..2_000 {
            if rng.next_u64().is_multiple_of(8) {
                let gone = GONE[rng.next_u64() as usize % GONE.len()];
                watch.fences.entry(gone).or_default();
                gc.sweep([gone].into_iter(), &mut effects);
                watch.take(&mut effects);
            }
            if !watch.waiting.is_empty() {
                let place = rng.next_u64() as usize % watch.waiting.len();
                let effect = watch.waiting.swap_remove(place);
                watch.came_back(&effect);
                answer(&mut gc, effect, rng.next_u64(), &mut effects);
                watch.take(&mut effects);
            }
        }
        let groups = [2, 3, 9]
            .into_iter()
            .flat_map(|id| ["files", "groups", "log", "vote", "log_start"].map(|what| (what, id)));
        let keyspaces = [1, 2, 7]
            .into_iter()
            .flat_map(|id| ["records", "tokens", "numbers"].map(|what| (what, id)));
        assert_eq!(watch.seen, groups.chain(keyspaces).collect(), "seed {seed}");
        assert_eq!(gc.swept, GONE.into(), "seed {seed}");
        assert_eq!(gc.awaited, Awaited::Nothing, "seed {seed}");
    }
}
