use std::io::Cursor;

use proptest::prelude::*;

use super::*;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

const TABLE: Table = Table::Groups;

fn file(rows: &Rows) -> Vec<u8> {
    let mut writer = RowWriter::new(Vec::new(), TABLE);
    for (key, value) in rows {
        let mut framed = Vec::new();
        frame::encode(&mut framed, Kind::Row, TABLE as u8, key, value);
        writer.row(key, &framed).unwrap();
    }
    let (bytes, found) = writer.finish().unwrap();
    assert_eq!(found, sum(&bytes[..]).unwrap());
    bytes
}

fn some_rows() -> Rows {
    (0..9u8).map(|i| (vec![b'p', i], vec![i; 30])).collect()
}

fn read(bytes: &[u8], prefix: &'static [u8], budget: usize) -> Result<(Rows, Option<Slice>), Damage> {
    let apart = Bytes::from_static(b"p\x04");
    let mut reader = RowReader::new(Cursor::new(bytes), TABLE, Bytes::from_static(prefix), apart)?;
    let mut rows = Rows::new();
    while let Some(slice) = reader.slice(budget)? {
        for (key, framed) in slice.borrowed() {
            rows.push((key.to_vec(), framed[HEADER_BYTES..].to_vec()));
        }
    }
    Ok((rows, reader.apart()))
}

#[test]
fn golden_bytes() {
    let mut expected = b"quorate\x01\x03".to_vec();
    expected.extend_from_slice(&[1, 3, 0, 15, 0, 0, 0]);
    expected.extend_from_slice(b"key");
    let mut framed = Vec::new();
    frame::encode(&mut framed, Kind::Row, 3, b"key", b"value");
    expected.extend_from_slice(&framed);
    expected.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let crc = crc32c::crc32c(&[0, 1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(file(&vec![(b"key".to_vec(), b"value".to_vec())]), expected);
}

#[test]
fn one_row_is_kept_apart() {
    let (rows, apart) = read(&file(&some_rows()), b"p", 100).unwrap();
    let mut expected = some_rows();
    let (key, value) = expected.remove(4);
    assert_eq!(rows, expected);
    let apart = apart.unwrap();
    let (found, framed) = apart.rows().next().unwrap();
    assert_eq!((&found[..], &framed[HEADER_BYTES..]), (&key[..], &value[..]));
}

#[test]
fn rows_of_another_group_or_format_are_detected() {
    let damage = |bytes: &[u8], prefix: &'static [u8]| match read(bytes, prefix, 100) {
        Err(Damage::Content(why)) => why,
        other => panic!("{other:?}"),
    };
    let whole = file(&some_rows());
    assert!(damage(&whole, b"q").contains("another group's"));
    assert!(damage(&[&whole[..], b"!"].concat(), b"p").contains("after its end"));
    assert!(damage(b"hello, world", b"p").contains("not a file of rows"));
    let mut later = whole.clone();
    later[7] = 2;
    assert!(damage(&later, b"p").contains("format version 2"));
    later = whole;
    later[8] = 1;
    assert!(damage(&later, b"p").contains("table 1"));
    let mut rows = some_rows();
    rows.swap(1, 2);
    assert!(damage(&file(&rows), b"p").contains("order"));
    rows[2] = rows[1].clone();
    assert!(damage(&file(&rows), b"p").contains("order"));
}

fn any_rows() -> impl Strategy<Value = Rows> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let key = prop::collection::vec(any::<u8>(), 0..20).prop_map(|key| [b"p", &key[..]].concat());
    prop::collection::btree_map(key, value, 0..30).prop_map(|rows| rows.into_iter().collect())
}

proptest! {
    #[test]
    fn rows_are_read_in_slices_of_any_size(rows in any_rows(), budget in 0..2000usize) {
        let (found, apart) = read(&file(&rows), b"p", budget).unwrap();
        prop_assert_eq!(found.len() + usize::from(apart.is_some()), rows.len());
        prop_assert!(found.iter().all(|row| rows.contains(row)));
    }

    #[test]
    fn every_flipped_bit_is_detected(rows in any_rows(), at: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = file(&rows);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes, b"p", 500).is_err());
    }

    #[test]
    fn every_truncation_is_detected(rows in any_rows(), at: prop::sample::Index) {
        let bytes = file(&rows);
        prop_assert!(read(&bytes[..at.index(bytes.len())], b"p", 500).is_err());
    }
}
