//! The sequence of changes that loads the rows of a file in place of existing ones.

use std::io::Read;

use bytes::Bytes;
use quorate_core::store::Table;

use super::format::{Damage, RowReader};
use crate::bulk::Bulk;

/// Produces the changes of the state, step by step.
pub(super) struct Loader<R> {
    rows: RowReader<R>,
    table: Table,
    prefix: Bytes,
    marker: Bytes,
    slice_bytes: usize,
    next: Step,
}

enum Step {
    /// Earlier derived rows would otherwise overwrite those of the file.
    Flush,
    Clear,
    Put,
    Marker,
    Done,
}

impl<R: Read> Loader<R> {
    /// Starts to load the file that `from` reads.
    pub(super) fn new(
        from: R,
        table: Table,
        prefix: Bytes,
        marker: Bytes,
        slice_bytes: usize,
    ) -> Result<Self, Damage> {
        Ok(Loader {
            rows: RowReader::new(from, table, prefix.clone(), marker.clone())?,
            table,
            prefix,
            marker,
            slice_bytes,
            next: Step::Flush,
        })
    }

    /// The next change, to be made before the next call; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Bulk>, Damage> {
        loop {
            match self.next {
                Step::Flush => {
                    self.next = Step::Clear;
                    return Ok(Some(Bulk::Flush));
                }
                Step::Clear => {
                    self.next = Step::Put;
                    return Ok(Some(Bulk::Clear {
                        table: self.table,
                        prefix: self.prefix.clone(),
                        marker: self.marker.clone(),
                        budget: self.slice_bytes,
                    }));
                }
                Step::Put => match self.rows.slice(self.slice_bytes)? {
                    Some(rows) => return Ok(Some(self.put(rows))),
                    None => self.next = Step::Marker,
                },
                Step::Marker => {
                    self.next = Step::Done;
                    if let Some(row) = self.rows.apart() {
                        return Ok(Some(self.put(row)));
                    }
                }
                Step::Done => return Ok(None),
            }
        }
    }

    fn put(&self, rows: super::Slice) -> Bulk {
        Bulk::Put {
            table: self.table,
            rows,
        }
    }
}

/// Reads a file to its end and checks it.
pub(super) fn verify(
    from: impl Read,
    table: Table,
    prefix: Bytes,
    marker: Bytes,
    slice_bytes: usize,
) -> Result<(), Damage> {
    let mut rows = RowReader::new(from, table, prefix, marker)?;
    while rows.slice(slice_bytes)?.is_some() {}
    Ok(())
}
