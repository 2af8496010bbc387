//! The memtable: rows that are not yet in the state, held in memory for readers. They are durable in the journal, or were
//! derived by their owner from its own log and can be derived again.
//!
//! Two layers, as in an LSM tree: the **active** one receives committed rows; to be applied, it becomes the **frozen** one,
//! which is sorted by key and immutable while it is being written to the state. When the state's commit has returned, the
//! frozen layer is dropped. A key's newest value is in the active layer if present, else in the frozen one, else in the
//! state.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::store::{StateWrite, Table};

use crate::store::{Page, TABLES};

/// Memory of a row beside its bytes: an entry of a B-tree and two handles.
const ROW_OVERHEAD_BYTES: usize = 96;

/// `None` deletes the row.
pub(crate) type Rows = BTreeMap<Bytes, Option<Bytes>>;

/// The newest values of a run of journal positions.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    tables: [Rows; TABLES.len()],
    bytes: usize,
    /// The last journal position in it.
    through: u64,
    /// The last run of derived rows in it; 0 if there are none.
    derived: u64,
    /// Whether a table has derived rows.
    has_derived: [bool; TABLES.len()],
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn table(&self, table: Table) -> &Rows {
        &self.tables[table as usize]
    }

    /// The last run of derived rows in it, if there are any.
    pub(crate) fn derived(&self) -> Option<u64> {
        (self.derived > 0).then_some(self.derived)
    }

    /// Whether it has derived rows of this table.
    pub(crate) fn has_derived(&self, table: Table) -> bool {
        self.has_derived[table as usize]
    }

    /// The tables in the order in which they are applied: those with derived rows first.
    pub(crate) fn order(&self) -> [Table; TABLES.len()] {
        let mut order = TABLES;
        order.sort_by_key(|table| !self.has_derived(*table));
        order
    }

    fn insert(&mut self, writes: Vec<StateWrite>) {
        for StateWrite { table, key, value } in writes {
            let key_bytes = key.len();
            self.bytes += value.as_ref().map_or(0, Bytes::len);
            match self.tables[table as usize].insert(key, value) {
                Some(replaced) => self.bytes -= replaced.map_or(0, |value| value.len()),
                None => self.bytes += ROW_OVERHEAD_BYTES + key_bytes,
            }
        }
    }
}

/// Both layers.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    active: Layer,
    frozen: Option<Arc<Layer>>,
    /// Runs of derived rows so far.
    runs: u64,
}

impl Memtable {
    /// A memtable over a state that has the journal's rows up to a position.
    pub(crate) fn after(position: u64) -> Self {
        let mut memtable = Memtable::default();
        memtable.active.through = position;
        memtable
    }

    /// Inserts the rows of one journal position.
    pub(crate) fn insert(&mut self, writes: Vec<StateWrite>, position: u64) {
        self.active.through = position;
        self.active.insert(writes);
    }

    /// Inserts derived rows, which are flushed together. Returns the number of this run.
    pub(crate) fn apply_rows(&mut self, writes: Vec<StateWrite>) -> u64 {
        self.runs += 1;
        self.active.derived = self.runs;
        for write in &writes {
            self.active.has_derived[write.table as usize] = true;
        }
        self.active.insert(writes);
        self.runs
    }

    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.active.bytes + self.frozen.as_ref().map_or(0, |layer| layer.bytes)
    }

    /// The frozen layer to apply; freezes the active one if there is none.
    pub(crate) fn freeze(&mut self) -> Option<Arc<Layer>> {
        if self.frozen.is_none() && !self.active.is_empty() {
            // A layer without rows of the journal ends at the position of the previous one.
            let next = Layer {
                through: self.active.through,
                ..Layer::default()
            };
            self.frozen = Some(Arc::new(std::mem::replace(&mut self.active, next)));
        }
        self.frozen.clone()
    }

    /// Removes the frozen layer, whose rows are in the state now.
    pub(crate) fn thaw(&mut self) -> Option<Arc<Layer>> {
        self.frozen.take()
    }

    /// The memtable's entry for a row: none, deleted, or its value.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let in_layer = |layer: &Layer| layer.table(table).get(key).cloned();
        in_layer(&self.active).or_else(|| self.frozen.as_deref().and_then(in_layer))
    }

    /// The active layer's rows in the range.
    pub(crate) fn active_rows(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Rows {
        let rows = self.active.table(table).range::<[u8], _>(range);
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The memtable's rows in the range, at most `limit`, and the key before which they are complete (`None`: the whole
    /// range).
    pub(crate) fn range(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> (Rows, Option<Bytes>) {
        let bounds = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let mut rows = Rows::new();
        let mut complete_before: Option<Bytes> = None;
        // The active layer last, as its values are newer.
        for layer in self.frozen.as_deref().into_iter().chain([&self.active]) {
            for (count, (key, value)) in layer.table(table).range::<[u8], _>(bounds).enumerate() {
                if count == limit {
                    if complete_before.as_ref().is_none_or(|before| key < before) {
                        complete_before = Some(key.clone());
                    }
                    break;
                }
                rows.insert(key.clone(), value.clone());
            }
        }
        if let Some(before) = &complete_before {
            rows.split_off(before);
        }
        (rows, complete_before)
    }
}

/// Merges the rows of the memtable over those of the state, both in key order, into a page. `value_of` decodes the value
/// of a state row from its key and the stored bytes; rows that the memtable replaces are not decoded.
///
/// # Errors
/// An error of the state, or that of `value_of` if its row would be the first of the page; a later one ends the page.
pub(crate) fn merge<'s, E>(
    memtable: Rows,
    complete_before: Option<Bytes>,
    mut state: impl Iterator<Item = Result<(&'s [u8], &'s [u8]), E>>,
    value_of: impl Fn(&[u8], &[u8]) -> Result<Bytes, E>,
    limit_rows: usize,
    limit_bytes: usize,
) -> Result<Page, E> {
    let mut page = Page::default();
    let mut bytes = 0;
    let mut memtable = memtable.into_iter();
    let mut over = memtable.next();
    let mut under = state.next().transpose()?;
    loop {
        let order = match (&over, &under) {
            (None, None) => {
                page.next = complete_before;
                return Ok(page);
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((over, _)), Some((under, _))) => over.as_ref().cmp(under),
        };
        let replaced = if order == Ordering::Less {
            None
        } else {
            under.take()
        };
        if replaced.is_some() {
            under = state.next().transpose()?;
        }
        let (key, value) = match (order, replaced) {
            (Ordering::Greater, Some((key, stored))) => match value_of(key, stored) {
                Ok(value) => (Bytes::copy_from_slice(key), Some(value)),
                Err(error) if page.rows.is_empty() => return Err(error),
                Err(_) => {
                    page.next = Some(Bytes::copy_from_slice(key));
                    return Ok(page);
                }
            },
            _ => std::mem::replace(&mut over, memtable.next()).expect("the memtable has the next row"),
        };
        if complete_before.as_ref().is_some_and(|before| key >= *before) {
            page.next = complete_before;
            return Ok(page);
        }
        let Some(value) = value else { continue };
        let row_bytes = key.len() + value.len();
        if !page.rows.is_empty() && (page.rows.len() >= limit_rows || bytes + row_bytes > limit_bytes) {
            page.next = Some(key);
            return Ok(page);
        }
        bytes += row_bytes;
        page.rows.push((key, value));
    }
}
