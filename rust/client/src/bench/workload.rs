//! The requests of an operation: random keys, the mix of reads and writes, batches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{ReadLevel, Request};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_versions::WriteId;

use super::options::{Operation, Options, Reads};
use super::random::Xorshift;
use crate::shell::Consensus;

/// The number of sources of appended entries.
const SOURCES: u64 = 1_000;
/// The keys of a batch in one shard are found by trying: the number of tries for each key and shard.
const TRIES: usize = 8;

/// The operations of a run.
pub(super) struct Workload {
    operation: Operation,
    read_percent: u8,
    batch: usize,
    keys: u64,
    value: Bytes,
    keyspace: KeyspaceId,
    level: Option<Level>,
    reads: ReadLevel,
    /// The keyspace, if it is in consensus mode.
    consensus: Option<Consensus>,
    /// The next key of a load.
    next: AtomicU64,
}

/// The kind of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Append,
}

impl Workload {
    pub(super) fn new(options: &Options, consensus: Option<Consensus>) -> Self {
        Workload {
            operation: options.operation,
            read_percent: options.read_percent,
            batch: options.batch(),
            keys: options.keys,
            value: value(options.value_size),
            keyspace: options.keyspace,
            level: options.level,
            reads: match options.reads {
                Reads::Linearizable => ReadLevel::Linearizable,
                Reads::Stale => ReadLevel::Stale,
            },
            consensus,
            next: AtomicU64::new(0),
        }
    }

    /// The progress of a load, from 0 to 1.
    pub(super) fn loaded(&self) -> f64 {
        (self.next.load(Ordering::Relaxed) as f64 / self.keys as f64).min(1.0)
    }

    /// The requests of the next operation, to be sent together; `None` when a load is complete.
    pub(super) fn next(&self, random: &mut Xorshift) -> Option<Vec<Request>> {
        if self.operation == Operation::Load {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            return (number < self.keys).then(|| vec![self.one(Kind::Write, number)]);
        }
        let kind = self.kind(random);
        Some(match (kind, &self.consensus, self.batch) {
            (Kind::Append, Some(consensus), count) => {
                (0..count).map(|_| self.append(consensus, random)).collect()
            }
            (_, Some(consensus), count) if count > 1 => vec![self.shard_batch(kind, consensus, random)],
            (_, _, count) => (0..count)
                .map(|_| self.one(kind, random.below(self.keys)))
                .collect(),
        })
    }

    fn kind(&self, random: &mut Xorshift) -> Kind {
        match self.operation {
            Operation::Write | Operation::Load => Kind::Write,
            Operation::Read => Kind::Read,
            Operation::Append => Kind::Append,
            Operation::Mixed if random.below(100) < u64::from(self.read_percent) => Kind::Read,
            Operation::Mixed => Kind::Write,
        }
    }

    fn one(&self, kind: Kind, number: u64) -> Request {
        let key = key(number);
        match (&self.consensus, kind) {
            (Some(consensus), Kind::Read) => consensus.get_request(key, self.reads),
            (Some(consensus), _) => consensus.put_request(key, self.value.clone()),
            (None, Kind::Read) => Request::Get {
                keyspace: self.keyspace,
                key,
                level: self.level,
            },
            (None, _) => Request::Put {
                keyspace: self.keyspace,
                key,
                value: Some(self.value.clone()),
                context: None,
                level: self.level,
                write_id: WriteId::default(),
            },
        }
    }

    fn append(&self, consensus: &Consensus, random: &mut Xorshift) -> Request {
        let source = format!("s{:03}", random.below(SOURCES));
        let shard = consensus.shard_of_source(&source);
        let data = self.value.clone();
        self.propose(consensus, shard, Command::Append { source, data })
    }

    /// One request for many keys, which must be of one shard.
    fn shard_batch(&self, kind: Kind, consensus: &Consensus, random: &mut Xorshift) -> Request {
        let shards = consensus.shards();
        let shard = consensus.shard_of(&key(random.below(self.keys)));
        let in_shard = |number: &u64| shards == 1 || consensus.shard_of(&key(*number)) == shard;
        let keys = distinct(self.batch, self.keys, TRIES * shards, random, in_shard);
        let keys = keys.into_iter().map(key);
        if kind == Kind::Read {
            return Request::Read {
                keyspace: self.keyspace,
                group: consensus.definition().groups[shard].id,
                keys: keys.collect(),
                level: self.reads,
            };
        }
        let write = |key| Write {
            key,
            value: Some(self.value.clone()),
            condition: Condition::Any,
        };
        self.propose(consensus, shard, Command::Write(keys.map(write).collect()))
    }

    fn propose(&self, consensus: &Consensus, shard: usize, command: Command) -> Request {
        Request::Propose {
            keyspace: self.keyspace,
            group: consensus.definition().groups[shard].id,
            command,
            session: None,
        }
    }
}

/// At most `count` different random numbers below a bound that fit; at least one, and fewer if `tries` for each do not
/// find more.
fn distinct(
    count: usize,
    bound: u64,
    tries: usize,
    random: &mut Xorshift,
    fits: impl Fn(&u64) -> bool,
) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut left = count.saturating_mul(tries);
    while found.len() < count && (left > 0 || found.is_empty()) {
        left = left.saturating_sub(1);
        found.extend(Some(random.below(bound)).filter(&fits));
    }
    found
}

fn key(number: u64) -> Key {
    Key::of(format!("k{number:08}")).expect("a short key is a key")
}

/// Printable bytes that do not compress to nothing; the same for every run.
fn value(size: usize) -> Bytes {
    let mut random = Xorshift::seeded(0);
    (0..size).map(|_| b'!' + random.below(90) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(operation: Operation, read_percent: u8, batch: usize) -> Workload {
        let options = Options {
            read_percent,
            batch,
            keys: 50,
            ..Options::new(KeyspaceId(1), operation)
        };
        Workload::new(&options, None)
    }

    fn is_read(request: &Request) -> bool {
        matches!(request, Request::Get { .. })
    }

    #[test]
    fn a_mix_has_the_share_of_reads_that_was_asked_for() {
        for percent in [0, 20, 67, 100] {
            let workload = workload(Operation::Mixed, percent, 1);
            let mut random = Xorshift::seeded(5);
            let reads = (0..10_000)
                .filter(|_| is_read(&workload.next(&mut random).unwrap()[0]))
                .count();
            let expected = usize::from(percent) * 100;
            // Five standard deviations of a binomial distribution are at most 250.
            assert!(
                reads.abs_diff(expected) <= if matches!(percent, 0 | 100) { 0 } else { 250 },
                "{percent}: {reads}"
            );
        }
    }

    #[test]
    fn one_seed_gives_one_sequence_of_operations() {
        let of_seed = |seed| {
            let workload = workload(Operation::Mixed, 50, 3);
            let mut random = Xorshift::seeded(seed);
            (0..20)
                .map(|_| workload.next(&mut random).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(of_seed(9), of_seed(9));
        assert_ne!(of_seed(9), of_seed(10));
        // An operation reads all its keys, or writes them all.
        for requests in of_seed(9) {
            assert_eq!(requests.len(), 3);
            assert!(
                requests
                    .iter()
                    .all(|request| is_read(request) == is_read(&requests[0]))
            );
        }
    }

    #[test]
    fn a_load_puts_every_key_once() {
        let workload = workload(Operation::Load, 50, 3);
        let mut random = Xorshift::seeded(1);
        let mut keys = BTreeSet::new();
        while let Some(requests) = workload.next(&mut random) {
            let [Request::Put { key, .. }] = &requests[..] else {
                panic!("not a put: {requests:?}");
            };
            assert!(keys.insert(key.clone()), "{key} twice");
        }
        assert_eq!((keys.len(), workload.loaded()), (50, 1.0));
    }

    #[test]
    fn a_batch_has_no_key_twice_and_only_those_that_fit() {
        let mut random = Xorshift::seeded(2);
        let even = |number: &u64| number.is_multiple_of(2);
        let found = distinct(10, 50, 16, &mut random, even);
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(even));
        // There are only five: it ends, with what there is.
        assert!((1..=5).contains(&distinct(10, 10, 16, &mut random, even).len()));
    }
}
