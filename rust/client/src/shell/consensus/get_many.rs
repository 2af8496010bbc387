//! Many keys of a consensus keyspace: requests of as many keys as one response can have, pipelined.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use quorate_core::error::Error;
use quorate_core::key::{Key, MAX_VALUE_BYTES};
use quorate_protocol::api::{ReadLevel, Record};

use super::{Consensus, RecordRead, records, too_few_results};
use crate::core::CallOptions;
use crate::shell::Reply;

/// Keys of one read: as many of the largest values as fit into one response.
const KEYS_AT_ONCE: usize = 24;
/// The same where values are known to be small, and how many bytes of them one response should have at most.
const MOST_KEYS_AT_ONCE: usize = 512;
const RESPONSE_BYTES: usize = 1 << 20;

/// The keys of each shard, with their places in the result.
type Wanted = BTreeMap<usize, Vec<(usize, Key)>>;

impl Consensus {
    /// Reads many keys; each has its own outcome, in the order of the keys.
    pub async fn get_many(
        &self,
        keys: Vec<Key>,
        level: ReadLevel,
        options: CallOptions,
    ) -> Vec<Result<Reply<RecordRead>, Error>> {
        let count = keys.len();
        let mut shards: Wanted = BTreeMap::new();
        for (place, key) in keys.into_iter().enumerate() {
            shards.entry(self.shard_of(&key)).or_default().push((place, key));
        }
        let mut outcomes: Vec<Option<Result<Reply<RecordRead>, Error>>> = vec![None; count];
        let at_once = self.keys_at_once();
        let too_large = self
            .read_parts(shards, at_once, level, options, &mut outcomes)
            .await;
        if !too_large.is_empty() {
            self.read_parts(too_large, KEYS_AT_ONCE, level, options, &mut outcomes)
                .await;
        }
        let outcome = |outcome: Option<_>| outcome.unwrap_or_else(|| Err(too_few_results()));
        outcomes.into_iter().map(outcome).collect()
    }

    /// Reads keys, at most this many per request. Returns those whose values are too large for one response, if they
    /// may fit into several.
    async fn read_parts(
        &self,
        shards: Wanted,
        at_once: usize,
        level: ReadLevel,
        options: CallOptions,
        outcomes: &mut [Option<Result<Reply<RecordRead>, Error>>],
    ) -> Wanted {
        let mut parts = Vec::new();
        for (shard, wanted) in &shards {
            parts.extend(wanted.chunks(at_once).map(|part| (*shard, part)));
        }
        let request = |(shard, part): &(usize, &[(usize, Key)])| {
            let keys = part.iter().map(|(_, key)| key.clone()).collect();
            self.read(*shard, keys, level)
        };
        let answers = self
            .client
            .call_each_expecting(parts.iter().map(request), options, records)
            .await;
        let mut too_large: Wanted = BTreeMap::new();
        for ((shard, part), answer) in parts.into_iter().zip(answers) {
            if part.len() > KEYS_AT_ONCE && matches!(answer, Err(Error::LimitExceeded { .. })) {
                self.largest.fetch_max(MAX_VALUE_BYTES, Ordering::Relaxed);
                too_large.entry(shard).or_default().extend_from_slice(part);
                continue;
            }
            if let Ok(answer) = &answer {
                self.note_sizes(&answer.value.0);
            }
            for (index, (place, _)) in part.iter().enumerate() {
                outcomes[*place] = Some(answer.as_ref().map_err(Error::clone).and_then(|answer| {
                    let (records, view) = &answer.value;
                    let record = records.get(index).cloned().ok_or_else(too_few_results)?;
                    Ok(answer.with((record, *view)))
                }));
            }
        }
        too_large
    }

    /// The number of keys in one request: their values should fit into a response, by what was read before.
    fn keys_at_once(&self) -> usize {
        match self.largest.load(Ordering::Relaxed) {
            // No value is known.
            0 => KEYS_AT_ONCE,
            largest => (RESPONSE_BYTES / largest).clamp(KEYS_AT_ONCE, MOST_KEYS_AT_ONCE),
        }
    }

    fn note_sizes(&self, records: &[Option<Record>]) {
        let sizes = records.iter().flatten().map(|record| record.value.len());
        if let Some(largest) = sizes.max() {
            self.largest.fetch_max(largest.max(1), Ordering::Relaxed);
        }
    }
}
