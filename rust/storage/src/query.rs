//! Answers a role's [`Query`] with a [`Reader`], both in a node and in the simulator.

use bytes::Bytes;
use quorate_core::store::{Query, Rows, StreamId, Table};

use crate::error::ReadError;
use crate::store::Reader;

/// Answers a query. May fault pages in; only [`Query::Get`] and [`Query::Hard`] are quick.
///
/// # Errors
/// [`ReadError`], if the first row is corrupt or the store cannot be read.
pub fn answer(reader: &dyn Reader, query: &Query) -> Result<Rows, ReadError> {
    match query {
        Query::Get { table, key } => Ok(single(key, reader.get(*table, key)?)),
        Query::Hard { key } => Ok(single(key, reader.get_hard(key)?)),
        Query::Range {
            table,
            start,
            end,
            limit_rows,
            limit_bytes,
        } => range(reader, *table, (start, end), (*limit_rows, *limit_bytes)),
        Query::Log {
            stream,
            from,
            limit_rows,
            limit_bytes,
        } => log(reader, *stream, *from, (*limit_rows, *limit_bytes)),
    }
}

fn single(key: &Bytes, value: Option<Bytes>) -> Rows {
    Rows {
        rows: value.map(|value| (key.clone(), value)).into_iter().collect(),
        more: false,
    }
}

/// One page, which is a consistent snapshot.
fn range(
    reader: &dyn Reader,
    table: Table,
    (start, end): (&Bytes, &Bytes),
    (rows, bytes): (u32, u32),
) -> Result<Rows, ReadError> {
    let page = reader.range(table, start, Some(end), rows as usize, bytes as usize)?;
    Ok(Rows {
        rows: page.rows,
        more: page.next.is_some(),
    })
}

fn log(
    reader: &dyn Reader,
    stream: StreamId,
    from: u64,
    (rows, bytes): (u32, u32),
) -> Result<Rows, ReadError> {
    let entries = reader.log(stream, from, rows as usize, bytes as usize)?;
    let last = entries.last().map(|(position, _)| *position);
    let end = reader.log_bounds(stream)?.map(|bounds| bounds.last);
    let rows = entries
        .into_iter()
        .map(|(position, entry)| (Bytes::copy_from_slice(&position.to_be_bytes()), entry));
    Ok(Rows {
        rows: rows.collect(),
        // A corrupt entry ends the page early: a query from there reports it.
        more: last.is_some() && last < end,
    })
}

#[cfg(test)]
mod tests {
    use quorate_core::store::{JournalOp, StateWrite};

    use super::*;
    use crate::memory::MemoryStore;
    use crate::store::Store;

    const LOG: StreamId = StreamId(7);

    fn store() -> MemoryStore {
        let mut store = MemoryStore::new();
        let mut ops: Vec<JournalOp> = (3..=6)
            .map(|position| JournalOp::Append {
                stream: LOG,
                position,
                bytes: format!("entry {position}").into(),
            })
            .collect();
        ops.push(JournalOp::PutHard {
            key: "vote".into(),
            value: "n2".into(),
        });
        ops.push(JournalOp::Write(vec![StateWrite {
            table: Table::Meta,
            key: "row".into(),
            value: Some("value".into()),
        }]));
        store.commit(&ops).unwrap();
        store
    }

    fn entries(from: u64, limit_rows: u32) -> (Vec<u64>, bool) {
        let query = Query::Log {
            stream: LOG,
            from,
            limit_rows,
            limit_bytes: 1000,
        };
        let rows = answer(&*store().reader(), &query).unwrap();
        let position = |key: &Bytes| u64::from_be_bytes(key.as_ref().try_into().unwrap());
        (
            rows.rows.iter().map(|(key, _)| position(key)).collect(),
            rows.more,
        )
    }

    #[test]
    fn a_log_page_reports_whether_there_is_more() {
        assert_eq!(entries(0, 2), (vec![3, 4], true));
        assert_eq!(entries(5, 2), (vec![5, 6], false));
        assert_eq!(entries(0, 9), (vec![3, 4, 5, 6], false));
        assert_eq!(entries(7, 9), (vec![], false));
    }

    #[test]
    fn a_single_row_exists_or_not() {
        let store = store();
        let hard = |key: &'static str| {
            answer(&*store.reader(), &Query::Hard { key: key.into() })
                .unwrap()
                .rows
        };
        assert_eq!(hard("vote"), [("vote".into(), "n2".into())]);
        assert_eq!(hard("term"), []);
        let table = Table::Meta;
        let key = Bytes::from_static(b"row");
        let rows = answer(
            &*store.reader(),
            &Query::Get {
                table,
                key: key.clone(),
            },
        )
        .unwrap();
        assert_eq!(rows.rows, [(key, "value".into())]);
    }
}
