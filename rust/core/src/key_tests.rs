use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// LMDB's limit with `longer-keys`.
const LMDB_MAX_KEY: usize = 1982;

/// Parts made of runs, so that zeros, their neighbours and prefixes of one another are common.
fn part() -> impl Strategy<Value = Bytes> {
    let run = (
        prop_oneof![
            Just(0u8),
            Just(1),
            Just(0x7f),
            Just(0x80),
            Just(0xff),
            any::<u8>()
        ],
        { prop_oneof![4 => 1..4usize, 1 => 120..140usize, 1 => 250..260usize] },
    );
    vec(run, 0..6).prop_map(|runs| {
        let mut bytes: Vec<u8> = runs
            .into_iter()
            .flat_map(|(byte, count)| std::iter::repeat_n(byte, count))
            .collect();
        bytes.truncate(MAX_KEY / 2);
        Bytes::from(bytes)
    })
}

fn key() -> impl Strategy<Value = Key> {
    (part(), proptest::option::of(part())).prop_filter_map("empty partition", |(partition, sort)| {
        Key::new(partition, sort).ok()
    })
}

/// Two keys that share a prefix of the partition, or all of it, more often than random ones.
fn neighbours() -> impl Strategy<Value = (Key, Key)> {
    (key(), key(), 0..MAX_KEY, any::<bool>()).prop_map(|(a, b, cut, same_partition)| {
        let shared = a.partition.slice(..cut.min(a.partition.len()));
        let partition = if same_partition {
            a.partition.clone()
        } else {
            let mut joined = shared.to_vec();
            joined.extend_from_slice(&b.partition);
            joined.truncate(MAX_KEY / 2);
            Bytes::from(joined)
        };
        let b = Key::new(partition, b.sort).unwrap();
        (a, b)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn encoded_order_is_key_order((a, b) in neighbours()) {
        prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b), "{:?} {:?}", a, b);
    }

    #[test]
    fn keys_round_trip(key in key(), keyspace: u32, token: u64) {
        let keyspace = KeyspaceId(keyspace);
        prop_assert_eq!(Key::decode(&key.encode()).unwrap(), key.clone());
        prop_assert_eq!(decode_record_key(&record_key(keyspace, &key)).unwrap(), (keyspace, key.clone()));
        prop_assert_eq!(decode_index_key(&index_key(keyspace, token, &key)).unwrap(), (keyspace, token, key));
    }

    #[test]
    fn no_encoding_is_a_prefix_of_another((a, b) in neighbours()) {
        prop_assert!(a == b || !b.encode().starts_with(&a.encode()));
    }

    /// Bytes close to an encoding, to reach the later parts of the decoder.
    #[test]
    fn every_key_has_one_encoding(key in key(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = key.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1).max(at));
        if let Ok(decoded) = Key::decode(&bytes) {
            prop_assert_eq!(&decoded.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn no_encoding_exceeds_the_maximum(bytes in vec(0..2u8, 1..=MAX_KEY), split: prop::sample::Index) {
        let bytes = Bytes::from(bytes);
        let split = split.index(bytes.len()) + 1;
        let key = Key::new(bytes.slice(..split), Some(bytes.slice(split..))).unwrap();
        prop_assert!(key.encode().len() <= MAX_ENCODED_KEY);
    }

    #[test]
    fn a_range_holds_exactly_the_keys_between(keyspace in 0..3u32, key in key(), start in key(), end in key()) {
        let row = |keyspace: u32| record_key(KeyspaceId(keyspace), &key);
        let all = record_range(KeyspaceId(1), None, None);
        prop_assert_eq!(all.contains(&row(keyspace)), keyspace == 1);
        let some = record_range(KeyspaceId(1), Some(&start), Some(&end));
        prop_assert_eq!(some.contains(&row(keyspace)), keyspace == 1 && start <= key && key < end);
        prop_assert!(record_range(KeyspaceId(u32::MAX), None, None).contains(&row(u32::MAX)));
    }
}

/// Every pair of the strings over {0, 1, ff} of up to six bytes, and of zero runs around the run byte's limits.
#[test]
fn small_parts_and_long_runs_of_zeros_are_ordered_exhaustively() {
    let mut parts: Vec<Vec<u8>> = vec![vec![]];
    let mut longest = parts.clone();
    for _ in 0..6 {
        longest = longest
            .iter()
            .flat_map(|part| [0u8, 1, 0xff].map(|byte| [&part[..], &[byte]].concat()))
            .collect();
        parts.extend(longest.iter().cloned());
    }
    for zeros in (1..300).chain([511, 512, 513, 1022, 1023]) {
        for end in [&[][..], &[1], &[0xff]] {
            parts.push([&vec![0; zeros], end].concat());
        }
    }
    parts.sort();
    parts.dedup();
    let encoded: Vec<Bytes> = parts
        .iter()
        .map(|part| {
            let mut out = BytesMut::new();
            encode_part(part, &mut out);
            out.freeze()
        })
        .collect();
    assert!(encoded.windows(2).all(|pair| pair[0] < pair[1]));
    for (part, encoded) in parts.iter().zip(&encoded) {
        assert_eq!(
            decode_part(encoded).unwrap(),
            (Bytes::copy_from_slice(part), &[][..])
        );
    }
}

#[test]
fn the_longest_keys_fit_into_lmdb() {
    let zeros = Bytes::from(vec![0; MAX_KEY]);
    let all_zeros = Key::of(zeros.clone()).unwrap();
    assert_eq!(all_zeros.encode().len(), 2 * MAX_KEY / LONGEST_RUN + END + 1);
    let split = Key::new(zeros.slice(..512), Some(zeros.slice(512..))).unwrap();
    let alternating = Key::of(Bytes::from([0, 1].repeat(MAX_KEY / 2))).unwrap();
    for key in [all_zeros, split, alternating] {
        assert!(key.encode().len() <= MAX_ENCODED_KEY);
        assert!(index_key(KeyspaceId(0), 0, &key).len() <= LMDB_MAX_KEY);
        assert!(record_key(KeyspaceId(0), &key).len() <= LMDB_MAX_KEY);
    }
    const { assert!(4 + 8 + MAX_ENCODED_KEY <= LMDB_MAX_KEY) }
}

#[test]
fn golden_bytes() {
    let key = |partition: &'static [u8], sort: Option<&'static [u8]>| {
        Key::new(Bytes::from_static(partition), sort.map(Bytes::from_static)).unwrap()
    };
    for (key, golden) in [
        (key(b"a", None), "61000000"),
        (key(b"a", Some(b"")), "610000010000"),
        (key(b"web", Some(b"12")), "77656200000131320000"),
        (key(b"\0", None), "000100"),
        (key(b"a\0\0b", None), "6100fe62000000"),
        (key(&[0; 130], None), "0080000200"),
    ] {
        assert_eq!(hexadecimal(&key.encode()), golden, "{key:?}");
    }
    assert_eq!(
        hexadecimal(&record_key(KeyspaceId(7), &key(b"a", None))),
        "0000000761000000"
    );
    assert_eq!(
        hexadecimal(&index_key(KeyspaceId(7), 0x0102, &key(b"a", None))),
        "00000007000000000000010261000000"
    );
}

#[test]
fn empty_and_long_keys_are_rejected_with_the_size_and_the_limit() {
    assert_eq!(Key::of(Bytes::new()), Err(KeyError::EmptyPartition));
    let long = Key::new(vec![b'x'; MAX_KEY], Some(Bytes::from_static(b"y"))).unwrap_err();
    assert_eq!(
        long,
        KeyError::TooLong {
            size: 1025,
            limit: 1024
        }
    );
    assert!(long.to_string().contains("1025") && long.to_string().contains("1024"));
    assert!(matches!(
        Error::from(long),
        Error::LimitExceeded {
            size: 1025,
            limit: 1024,
            ..
        }
    ));
    assert!(Key::new(vec![b'x'; MAX_KEY], None).is_ok());
}

#[test]
fn a_received_key_is_checked() {
    let good = Key::new("p", Some(Bytes::from_static(b"s"))).unwrap();
    let bytes = postcard::to_stdvec(&good).unwrap();
    assert_eq!(postcard::from_bytes::<Key>(&bytes).unwrap(), good);
    let empty = postcard::to_stdvec(&(Bytes::new(), None::<Bytes>)).unwrap();
    assert!(postcard::from_bytes::<Key>(&empty).is_err());
    let long = postcard::to_stdvec(&(Bytes::from(vec![1; MAX_KEY + 1]), None::<Bytes>)).unwrap();
    assert!(postcard::from_bytes::<Key>(&long).is_err());
}

#[test]
fn malformed_bytes_are_reported() {
    for (bytes, reason) in [
        (&b""[..], "no end"),
        (b"abc", "no end"),
        (b"abc\0", "within a run"),
        (b"abc\0\0", "after the partition"),
        (b"abc\0\0\x07", "unknown mark"),
        (b"abc\0\0\0x", "follow"),
        (b"abc\0\xff", "not encoded"),
        (b"abc\0\xff\0\0\0", "not encoded"),
    ] {
        let error = Key::decode(bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(
        Key::decode(&[0, 0x80].repeat(100))
            .unwrap_err()
            .to_string()
            .contains("longer")
    );
    assert!(decode_record_key(b"abc").is_err());
    assert!(decode_index_key(b"abcdefghijk").is_err());
}

#[test]
fn keys_are_shown_as_text_where_they_are_text() {
    assert_eq!(Key::try_from("user-1").unwrap().to_string(), "user-1");
    let log = Key::new("web", Some(Bytes::from_static(b"12:00\n"))).unwrap();
    assert_eq!(format!("{log:?}"), "Key(web/12:00\\n)");
    assert_eq!(Key::of(vec![0xff, 0]).unwrap().to_string(), "0xff00");
}
