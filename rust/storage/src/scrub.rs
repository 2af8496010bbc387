//! The scrubber: reads every row, in small steps, so that corruption is detected before the last good copy is lost.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_core::store::Table;

use crate::error::ReadError;
use crate::frame::RecordError;
use crate::store::{Reader, TABLES};

/// The most rows per step.
const STEP_ROWS: usize = 1024;

/// A corrupt row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRow {
    /// The table.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
    /// The details.
    pub why: RecordError,
}

/// The result of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Valid rows that were read.
    pub rows: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
    /// A corrupt row: the step ends there, the next continues after it.
    pub corrupt: Option<CorruptRow>,
    /// Whether the step reached the end of the last table. The next starts over.
    pub finished: bool,
}

/// A position in the scan of all rows of all tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubber {
    table: usize,
    next: Bytes,
}

impl Scrubber {
    /// Starts at the first row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads about `budget` bytes, within one table.
    ///
    /// # Errors
    /// [`ReadError::Failed`] if the store cannot be read; the next step retries.
    pub fn step(&mut self, reader: &dyn Reader, budget: usize) -> Result<Found, ReadError> {
        let table = TABLES[self.table];
        let mut found = Found::default();
        match reader.range(table, &self.next, None, STEP_ROWS, budget) {
            Ok(page) => {
                found.rows = page.rows.len();
                found.bytes = page.rows.iter().map(|(key, value)| key.len() + value.len()).sum();
                match page.next {
                    Some(next) => self.next = next,
                    None => found.finished = self.enter_next_table(),
                }
            }
            Err(ReadError::Corrupt { table, key, why }) => {
                self.next = after(&key);
                found.corrupt = Some(CorruptRow { table, key, why });
            }
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Moves to the next table, cyclically; returns whether it was the last.
    fn enter_next_table(&mut self) -> bool {
        self.next = Bytes::new();
        self.table = (self.table + 1) % TABLES.len();
        self.table == 0
    }
}

/// The first key after `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
