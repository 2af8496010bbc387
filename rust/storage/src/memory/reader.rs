//! Reads of a store in memory.

use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use quorate_core::store::{StreamId, Table};

use super::{Durable, unreadable};
use crate::error::ReadError;
use crate::store::{Bounds, Page, Reader, assert_stream};

pub(super) struct MemoryReader {
    pub(super) durable: Arc<RwLock<Durable>>,
}

impl MemoryReader {
    fn durable(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().expect("no holder of the contents panics")
    }
}

impl Reader for MemoryReader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let durable = self.durable();
        let found = durable.contents.get(table, &Bytes::copy_from_slice(key));
        found.map_err(unreadable)
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Page, ReadError> {
        let durable = self.durable();
        let found = durable.contents.range(table, start, end, limit_rows, limit_bytes);
        let (rows, next) = found.map_err(unreadable)?;
        Ok(Page { rows, next })
    }

    fn get_hard(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.durable().contents.hard(key))
    }

    fn log(
        &self,
        stream: StreamId,
        from: u64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        assert_stream(stream);
        let durable = self.durable();
        Ok(durable.contents.log(stream, from, limit_rows, limit_bytes))
    }

    fn log_bounds(&self, stream: StreamId) -> Result<Option<Bounds>, ReadError> {
        assert_stream(stream);
        let bounds = self.durable().contents.log_bounds(stream);
        Ok(bounds.map(|(first, last)| Bounds { first, last }))
    }
}
