//! Reads of a store in memory.

use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use quorate_protocol::store::{StreamId, Table};

use super::Contents;
use crate::error::ReadError;
use crate::store::{Bounds, Page, Reader, assert_stream};

pub(super) struct MemoryReader {
    pub(super) durable: Arc<RwLock<Contents>>,
}

impl MemoryReader {
    fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.durable.read().expect("no holder of the contents panics")
    }
}

impl Reader for MemoryReader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let contents = self.contents();
        let row = contents.tables[table as usize].get_key_value(key);
        row.map(|(key, value)| contents.value(table, key, value))
            .transpose()
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError> {
        let mut page = Page::default();
        if end.is_some_and(|end| end <= start) {
            return Ok(page);
        }
        let contents = self.contents();
        let bounds = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let mut bytes = 0;
        for (key, value) in contents.tables[table as usize].range::<[u8], _>(bounds) {
            let value = match contents.value(table, key, value) {
                Ok(value) => value,
                Err(error) if page.rows.is_empty() => return Err(error),
                Err(_) => {
                    page.next = Some(key.clone());
                    break;
                }
            };
            let row_bytes = key.len() + value.len();
            if !page.rows.is_empty() && (page.rows.len() >= limit_rows || bytes + row_bytes > limit_bytes) {
                page.next = Some(key.clone());
                break;
            }
            bytes += row_bytes;
            page.rows.push((key.clone(), value));
        }
        Ok(page)
    }

    fn get_hard(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.contents().hard.get(key).cloned())
    }

    fn log(
        &self,
        stream: StreamId,
        from: u64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        assert_stream(stream);
        let contents = self.contents();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (position, entry) in contents
            .streams
            .get(&stream)
            .into_iter()
            .flat_map(|log| log.range(from..))
        {
            if !entries.is_empty() && (entries.len() >= limit_rows || bytes + entry.len() > limit_bytes) {
                break;
            }
            bytes += entry.len();
            entries.push((*position, entry.clone()));
        }
        Ok(entries)
    }

    fn log_bounds(&self, stream: StreamId) -> Result<Option<Bounds>, ReadError> {
        assert_stream(stream);
        let contents = self.contents();
        let Some(log) = contents.streams.get(&stream) else {
            return Ok(None);
        };
        let (Some((first, _)), Some((last, _))) = (log.first_key_value(), log.last_key_value()) else {
            return Ok(None);
        };
        Ok(Some(Bounds {
            first: *first,
            last: *last,
        }))
    }
}
