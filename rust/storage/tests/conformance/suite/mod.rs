//! One function for each property of the contract.

mod derived;
mod files;
mod logs;
mod model;
mod room;
mod rows;

use bytes::Bytes;
use quorate_storage::{JournalOp, Reader, StateWrite, Store, StreamId, Table};

pub(crate) use self::derived::*;
pub(crate) use self::files::*;
pub(crate) use self::logs::*;
pub(crate) use self::model::*;
pub(crate) use self::room::*;
pub(crate) use self::rows::*;

pub(crate) const A: StreamId = StreamId(1);
pub(crate) const B: StreamId = StreamId(256);

pub(crate) fn put(table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> StateWrite {
    StateWrite {
        table,
        key: key.into(),
        value: Some(value.into()),
    }
}

pub(crate) fn delete(table: Table, key: impl Into<Bytes>) -> StateWrite {
    StateWrite {
        table,
        key: key.into(),
        value: None,
    }
}

pub(crate) fn write(store: &mut dyn Store, writes: impl IntoIterator<Item = StateWrite>) {
    store
        .commit(&[JournalOp::Write(writes.into_iter().collect())])
        .unwrap();
}

pub(crate) fn append(stream: StreamId, position: u64, bytes: impl Into<Bytes>) -> JournalOp {
    JournalOp::Append {
        stream,
        position,
        bytes: bytes.into(),
    }
}

pub(crate) fn get(store: &mut dyn Store, table: Table, key: &str) -> Option<Bytes> {
    store.reader().get(table, key.as_bytes()).unwrap()
}

pub(crate) fn apply_all(store: &mut dyn Store) {
    while store.unapplied_bytes() > 0 {
        while store.apply_step(1000).unwrap() {}
    }
}

/// All rows of the range, page by page.
pub(crate) fn scan(
    reader: &dyn Reader,
    table: Table,
    start: &[u8],
    end: Option<&[u8]>,
    rows: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut all = Vec::new();
    let mut next = Some(Bytes::copy_from_slice(start));
    while let Some(start) = next {
        let page = reader.range(table, &start, end, rows, usize::MAX).unwrap();
        assert!(page.rows.len() <= rows);
        assert!(
            page.next
                .as_ref()
                .is_none_or(|next| *next > start || !page.rows.is_empty())
        );
        all.extend(page.rows);
        next = page.next;
    }
    all
}

pub(crate) fn positions(reader: &dyn Reader, stream: StreamId) -> Vec<u64> {
    let entries = reader.log(stream, 0, usize::MAX, usize::MAX).unwrap();
    entries.into_iter().map(|(position, _)| position).collect()
}
