//! What a reader has seen of a key.

use std::ops::Deref;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::{Key, record_key};
use serde::{Deserialize, Serialize};

use super::encoding::{DecodeError, decode, encode};
use crate::vector::VersionVector;

/// The latest format of an encoded context.
const FORMAT: u8 = 1;

/// What a client has seen of one key: returned with a read, and passed to the put that replaces it.
///
/// It is bound to its key. The counters of a vector rise over all keys of a replica: the vector of one key,
/// used for another, would claim to have seen writes that never existed, and future ones. So a coordinator
/// rejects a context of another key. (This protects against mistakes, not against forgery: a client that may
/// write can also replace.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Context {
    /// A hash (xxh3) of the keyspace id and the key.
    bound_to: u64,
    seen: VersionVector,
}

impl Context {
    /// The context of a reader that has seen this much of a key.
    pub fn new(keyspace: KeyspaceId, key: &Key, seen: VersionVector) -> Self {
        Context {
            bound_to: hash(keyspace, key),
            seen,
        }
    }

    /// What was seen, for a put to this key.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is the context of another key, or another keyspace.
    pub fn for_key(&self, keyspace: KeyspaceId, key: &Key) -> Result<&VersionVector, Error> {
        if self.bound_to == hash(keyspace, key) {
            return Ok(&self.seen);
        }
        Err(Error::invalid(format!(
            "this context was read from another key than {key}, or in another keyspace: pass the one that get() returned \
             for this key"
        )))
    }

    /// Whether both are of the same key and this one has seen all that `other` has.
    pub fn dominates(&self, other: &Context) -> bool {
        self.bound_to == other.bound_to && self.seen.dominates(&other.seen)
    }

    /// Encodes the context, for clients.
    pub fn encode(&self) -> Bytes {
        encode(FORMAT, self, 16 + self.seen.len() * 16)
    }

    /// Decodes a context.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode("context", FORMAT, bytes)
    }
}

/// What it has seen.
impl Deref for Context {
    type Target = VersionVector;

    fn deref(&self) -> &VersionVector {
        &self.seen
    }
}

fn hash(keyspace: KeyspaceId, key: &Key) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&record_key(keyspace, key))
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::{NodeId, ReplicaId};

    use super::*;
    use crate::vector::Dot;

    const KEYSPACE: KeyspaceId = KeyspaceId(7);

    fn key(name: &str) -> Key {
        Key::try_from(name).unwrap()
    }

    fn vector(counter: u64) -> VersionVector {
        let replica = ReplicaId::new(NodeId(1), 0xd1);
        [Dot { replica, counter }].into_iter().collect()
    }

    #[test]
    fn a_context_is_valid_for_its_key_only() {
        let context = Context::new(KEYSPACE, &key("k"), vector(5));
        assert_eq!(context.for_key(KEYSPACE, &key("k")), Ok(&vector(5)));
        for (keyspace, name) in [(KEYSPACE, "l"), (KeyspaceId(8), "k")] {
            let error = context.for_key(keyspace, &key(name)).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(text) if text.contains("another key")));
        }
        let later = Context::new(KEYSPACE, &key("k"), vector(6));
        assert!(later.dominates(&context) && !context.dominates(&later));
        let elsewhere = Context::new(KEYSPACE, &key("l"), vector(6));
        assert!(!elsewhere.dominates(&context) && !context.dominates(&elsewhere));
    }

    #[test]
    fn golden_bytes() {
        let context = Context::new(KEYSPACE, &key("k"), vector(5));
        let golden: &[u8] = &[
            1, // format
            152, 215, 242, 215, 154, 135, 245, 156, 229, 1, // the hash
            1, 209, 129, 128, 128, 128, 128, 64, 5, // one replica, n1#d1: 5
        ];
        assert_eq!(context.encode().as_ref(), golden);
        assert_eq!(Context::decode(golden), Ok(context));
        for length in 0..golden.len() {
            assert!(Context::decode(&golden[..length]).is_err());
        }
        assert!(Context::decode(&[golden, &[0]].concat()).is_err());
        assert!(Context::decode(&[&[2], &golden[1..]].concat()).is_err());
        // A vector with a counter of 0.
        let end = golden.len() - 1;
        assert!(Context::decode(&[&golden[..end], &[0]].concat()).is_err());
    }
}
