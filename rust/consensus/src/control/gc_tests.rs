//! Each part of each dropped id is scanned after all earlier writes, under every interleaving.

use quorate_core::contract::rng_from_seed;
use quorate_core::ids::KeyspaceId;
use quorate_core::time::Instant;
use rand_core::Rng as _;

use super::*;

const DROPPED: [DroppedId; 6] = [
    DroppedId::Group(GroupId(2)),
    DroppedId::Group(GroupId(3)),
    DroppedId::Group(GroupId(9)),
    DroppedId::Keyspace(KeyspaceId(1)),
    DroppedId::Keyspace(KeyspaceId(2)),
    DroppedId::Keyspace(KeyspaceId(7)),
];

/// The kind of a request, and its id.
fn requested(effect: &Effect) -> Option<(&'static str, u32)> {
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

/// The result of a request; scans sometimes find rows.
fn answer(gc: &mut GarbageCollector, effect: Effect, chance: u64, effects: &mut Vec<Effect>) {
    match effect {
        Effect::Files { .. } => gc.files_removed(effects),
        Effect::Read { query, .. } => {
            let key = match query {
                Query::Range { start, .. } => start,
                _ => Bytes::from_static(b"row"),
            };
            let row = (key, Bytes::new());
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
        Effect::SetTimer { .. } => gc.resume(effects),
        other => panic!("unexpected effect of garbage collection: {other:?}"),
    }
}

/// The requests so far, and the permitted ones.
#[derive(Default)]
struct Watch {
    /// The fences requested since an id was dropped, and completed.
    fences: BTreeMap<DroppedId, BTreeSet<u64>>,
    /// The ids that were dropped when a fence was requested.
    requested: BTreeMap<u64, Vec<DroppedId>>,
    seen: BTreeSet<(&'static str, u32)>,
    waiting: Vec<Effect>,
}

impl Watch {
    fn take(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            if let Effect::Persist { token, ops, .. } = &effect
                && ops.is_empty()
            {
                self.requested
                    .insert(*token, self.fences.keys().copied().collect());
            }
            if let Some((what, id)) = requested(&effect) {
                let dropped = match what {
                    "records" | "tokens" | "numbers" => DroppedId::Keyspace(KeyspaceId(id)),
                    _ => DroppedId::Group(GroupId(id)),
                };
                assert_eq!(self.fences[&dropped].len(), FENCES.len(), "{what} of {dropped:?}");
                self.seen.insert((what, id));
            }
            self.waiting.push(effect);
        }
    }

    fn came_back(&mut self, effect: &Effect) {
        if let Effect::Persist { token, ops, .. } = effect
            && ops.is_empty()
        {
            for dropped in &self.requested[token] {
                self.fences.entry(*dropped).or_default().insert(*token);
            }
        }
    }
}

#[test]
fn every_part_is_scanned_under_all_interleavings() {
    for seed in 0..200 {
        let mut rng = rng_from_seed(seed);
        let (mut gc, mut watch) = (GarbageCollector::default(), Watch::default());
        let mut effects = Vec::new();
        for _ in 0..2_000 {
            if rng.next_u64().is_multiple_of(8) {
                let dropped = DROPPED[rng.next_u64() as usize % DROPPED.len()];
                watch.fences.entry(dropped).or_default();
                gc.collect([dropped].into_iter(), &mut effects);
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
        assert_eq!(gc.collected, DROPPED.into(), "seed {seed}");
        assert_eq!(gc.pending, Pending::Nothing, "seed {seed}");
    }
}

/// Reading over the rows deleted before would take quadratic time.
#[test]
fn a_slice_begins_where_the_previous_one_has_ended() {
    let dropped = DroppedId::Keyspace(KeyspaceId(7));
    let first = dropped.range().0;
    let key = |number: u8| Bytes::from([&first[..], &[number]].concat());
    let (mut gc, mut effects) = (GarbageCollector::default(), Vec::new());
    gc.collect([dropped].into_iter(), &mut effects);
    for (token, _) in FENCES {
        gc.persisted(token, &mut effects);
    }
    let slice = |gc: &mut GarbageCollector, keys: &[u8], refused: bool| {
        let mut effects = Vec::new();
        let rows = keys.iter().map(|number| (key(*number), Bytes::new())).collect();
        gc.read(Ok(Rows { rows, more: true }), &mut effects);
        match (keys, refused) {
            ([], _) => {}
            (_, false) => gc.persisted(GC_PERSIST, &mut effects),
            (_, true) => {
                gc.refused(GC_PERSIST, Instant(0), &mut effects);
                gc.resume(&mut effects);
            }
        }
        match effects.pop() {
            Some(Effect::Read {
                query: Query::Range { table, start, .. },
                ..
            }) => (table, start),
            other => panic!("a slice is read next, not {other:?}"),
        }
    };
    assert_eq!(slice(&mut gc, &[1, 2], true), (Table::Records, first.clone()));
    assert_eq!(slice(&mut gc, &[1, 2], false), (Table::Records, key(2)));
    assert_eq!(slice(&mut gc, &[3], true), (Table::Records, key(2)));
    assert_eq!(slice(&mut gc, &[3], false), (Table::Records, key(3)));
    assert_eq!(slice(&mut gc, &[], false), (Table::TokenIndex, first.clone()));
}
