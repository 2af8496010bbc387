//! From a partition key to its token.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::{RingError, Token};

/// The hash that maps a partition key to a [`Token`]. Part of stored topologies: variants are only ever
/// appended, and the hash of a ring never changes, since every key would move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashKind {
    /// MurmurHash3 x64-128 with seed 0, its first 64 bits, as in Cassandra. Fast and even.
    #[default]
    Murmur3,
    /// MD5, its first 8 bytes read big-endian. Slow; for comparison with systems that use it. Not for security.
    Md5,
    /// XXH3-64 with seed 0. The fastest on long keys.
    Xxh3,
}

impl HashKind {
    /// Every hash, in the order of their wire numbers.
    pub const ALL: [HashKind; 3] = [HashKind::Murmur3, HashKind::Md5, HashKind::Xxh3];

    /// The token of a partition key. The same on every platform.
    #[inline]
    pub fn token_of(self, partition_key: &[u8]) -> Token {
        match self {
            // The hash is two 64-bit words, the first in the lower half.
            HashKind::Murmur3 => Token(fastmurmur3::murmur3_x64_128(partition_key, 0) as u64),
            HashKind::Md5 => {
                let digest: [u8; 16] = Md5::digest(partition_key).into();
                Token((u128::from_be_bytes(digest) >> 64) as u64)
            }
            HashKind::Xxh3 => Token(xxhash_rust::xxh3::xxh3_64(partition_key)),
        }
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HashKind::Murmur3 => "murmur3",
            HashKind::Md5 => "md5",
            HashKind::Xxh3 => "xxh3",
        })
    }
}

impl FromStr for HashKind {
    type Err = RingError;

    fn from_str(text: &str) -> Result<Self, RingError> {
        HashKind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| RingError::UnknownHash(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SMHasher's `VerificationTest`: the hash of the hashes of {}, {0}, {0,1}, … with seeds 256, 255, 254, …
    #[test]
    fn murmur3_has_smhashers_verification_value() {
        let keys: Vec<u8> = (0..=255).collect();
        let mut hashes = Vec::new();
        for length in 0..256_usize {
            let hash = fastmurmur3::murmur3_x64_128(&keys[..length], 256 - length as u64);
            hashes.extend_from_slice(&hash.to_le_bytes());
        }
        let verification = fastmurmur3::murmur3_x64_128(&hashes, 0) as u32;
        assert_eq!(verification, 0x6384_ba69);
    }

    #[test]
    fn tokens_of_known_keys() {
        let fox = b"The quick brown fox jumps over the lazy dog".as_slice();
        // MurmurHash3 x64-128 of the sentence is e34bbc7bbc071b6c7a433ca9c49a9347.
        assert_eq!(HashKind::Murmur3.token_of(fox), Token(0xe34b_bc7b_bc07_1b6c));
        assert_eq!(HashKind::Murmur3.token_of(b""), Token(0));
        // RFC 1321: d41d8cd98f00b204e9800998ecf8427e and 900150983cd24fb0d6963f7d28e17f72.
        assert_eq!(HashKind::Md5.token_of(b""), Token(0xd41d_8cd9_8f00_b204));
        assert_eq!(HashKind::Md5.token_of(b"abc"), Token(0x9001_5098_3cd2_4fb0));
        // From the XXH3 reference implementation (XXH3_64bits).
        assert_eq!(HashKind::Xxh3.token_of(b""), Token(0x2d06_8005_38d3_94c2));
        assert_eq!(HashKind::Xxh3.token_of(b"abc"), Token(0x78af_5f94_892f_3950));
    }

    #[test]
    fn names_and_wire_numbers() {
        for (number, kind) in HashKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.to_string().parse::<HashKind>().unwrap(), kind);
            assert_eq!(postcard::to_stdvec(&kind).unwrap(), [number as u8]);
            assert_eq!(
                serde_json::to_string(&kind).unwrap(),
                format!("{:?}", kind.to_string())
            );
        }
        let refused = "sha1".parse::<HashKind>().unwrap_err().to_string();
        assert!(
            refused.contains("sha1") && refused.contains("murmur3"),
            "{refused}"
        );
    }
}
