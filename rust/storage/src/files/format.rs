//! The format of a file of rows.
//!
//! ```text
//! size  field
//!    7  "quorate"
//!    1  format version (1)
//!    1  tag of the table
//!       then for each row, in key order:
//!    1  1
//!    2  length of the key, little endian
//!    4  length of the frame, little endian
//!    -  key
//!    -  value, framed as in the state (see `frame`): the checksum covers the key, too
//!       and at the end:
//!    1  0
//!    8  number of rows, little endian
//!    4  CRC-32C of the nine bytes before, little endian
//! ```
//!
//! Rows are copied from the state to a file and back without re-encoding. Nothing may follow the end. The sender of a file
//! also sends its size and XXH3; the checksums in the file detect later corruption.

use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::Bytes;
use quorate_core::store::Table;
use xxhash_rust::xxh3::Xxh3;

use crate::frame::{self, HEADER_BYTES, Kind, RecordError};
use crate::limits::MAX_KEY_BYTES;

/// The version that this program writes and reads.
pub const FORMAT_VERSION: u8 = 1;

const MAGIC: &[u8; 7] = b"quorate";
const ROW: u8 = 1;
const END: u8 = 0;
const END_BYTES: usize = 13;

/// Bytes per write.
const BUFFER_BYTES: usize = 256 << 10;

/// The overhead of a row beside its key and frame, in bytes.
const ROW_WEIGHT: usize = 64;

/// Size and checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The size in bytes.
    pub size: u64,
    /// XXH3, 64 bits, of the content.
    pub checksum: u64,
}

/// Reads to the end; returns size and checksum.
///
/// # Errors
/// The errors of the reader.
pub fn sum(mut from: impl Read) -> io::Result<Sum> {
    let mut hash = Xxh3::new();
    let mut size = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
    let checksum = hash.digest();
    Ok(Sum { size, checksum })
}

/// Writes a file of rows.
pub struct RowWriter<W> {
    to: W,
    buffer: Vec<u8>,
    hash: Xxh3,
    size: u64,
    rows: u64,
}

impl<W: Write> RowWriter<W> {
    /// Starts a file of rows of this table.
    pub fn new(to: W, table: Table) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 4);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&[FORMAT_VERSION, table as u8]);
        RowWriter {
            to,
            buffer,
            hash: Xxh3::new(),
            size: 0,
            rows: 0,
        }
    }

    /// Appends a row; `framed` is its framed value.
    ///
    /// # Errors
    /// The errors of the writer.
    ///
    /// # Panics
    /// If the key is longer than the store's limit, or the value has 4 GiB or more.
    pub fn row(&mut self, key: &[u8], framed: &[u8]) -> io::Result<()> {
        let key_bytes = u16::try_from(key.len()).expect("the contract bounds keys");
        let framed_bytes = u32::try_from(framed.len()).expect("a value is shorter than 4 GiB");
        self.rows += 1;
        self.buffer.push(ROW);
        self.buffer.extend_from_slice(&key_bytes.to_le_bytes());
        self.buffer.extend_from_slice(&framed_bytes.to_le_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(framed);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Finishes the file; returns the underlying writer.
    ///
    /// # Errors
    /// The errors of the writer.
    pub fn finish(mut self) -> io::Result<(W, Sum)> {
        let mut end = [END; END_BYTES];
        end[1..9].copy_from_slice(&self.rows.to_le_bytes());
        let crc = crc32c::crc32c(&end[..9]);
        end[9..].copy_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(&end);
        self.flush()?;
        let sum = Sum {
            size: self.size,
            checksum: self.hash.digest(),
        };
        Ok((self.to, sum))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Framed rows in key order, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    bytes: Bytes,
    /// Where each key and its frame end.
    ends: Vec<(usize, usize)>,
}

impl Slice {
    /// One row.
    pub fn single(key: &[u8], framed: &[u8]) -> Self {
        Slice {
            bytes: [key, framed].concat().into(),
            ends: vec![(key.len(), key.len() + framed.len())],
        }
    }

    /// Key and framed value of each row.
    pub fn rows(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.places()
            .map(|(key, framed)| (self.bytes.slice(key), self.bytes.slice(framed)))
    }

    /// The same, borrowed.
    pub fn borrowed(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places()
            .map(|(key, framed)| (&self.bytes[key], &self.bytes[framed]))
    }

    /// Bytes of keys and framed values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut start = 0;
        self.ends.iter().map(move |(key, frame)| {
            let begin = std::mem::replace(&mut start, *frame);
            (begin..*key, *key..*frame)
        })
    }
}

/// Why a file cannot be read.
#[derive(Debug)]
pub enum Damage {
    /// The file is malformed or corrupt.
    Content(String),
    /// I/O failed.
    Io(io::Error),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Damage::Content("it is truncated".to_owned())
        } else {
            Damage::Io(error)
        }
    }
}

fn content<T>(why: impl Into<String>) -> Result<T, Damage> {
    Err(Damage::Content(why.into()))
}

/// Reads and checks a file of rows.
pub struct RowReader<R> {
    from: R,
    table: Table,
    prefix: Bytes,
    /// The last key.
    last: Vec<u8>,
    rows: u64,
    ended: bool,
    /// The key of the row that is kept apart, and its framed value.
    apart: (Bytes, Option<Bytes>),
}

impl<R: Read> RowReader<R> {
    /// Starts to read a file of rows of this table with this prefix. The row `apart` is not among the
    /// [slices](Self::slice) but [kept apart](Self::apart). `from` is read in small pieces.
    ///
    /// # Errors
    /// [`Damage`], also if it was saved from another table or by a later version.
    pub fn new(mut from: R, table: Table, prefix: Bytes, apart: Bytes) -> Result<Self, Damage> {
        let mut header = [0; MAGIC.len() + 2];
        from.read_exact(&mut header)?;
        let (magic, [version, tag]) = header
            .split_last_chunk::<2>()
            .expect("the header is longer than two bytes");
        if magic != MAGIC {
            return content("it is not a file of rows");
        }
        if *version != FORMAT_VERSION {
            return content(format!(
                "format version {version} is unknown to this program, which knows version {FORMAT_VERSION}"
            ));
        }
        if *tag != table as u8 {
            return content(format!("its rows are of table {tag}, not of {table:?}"));
        }
        Ok(RowReader {
            from,
            table,
            prefix,
            last: Vec::new(),
            rows: 0,
            ended: false,
            apart: (apart, None),
        })
    }

    /// The next rows, about `budget` bytes of them and at least one; `None` at the end of the file.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn slice(&mut self, budget: usize) -> Result<Option<Slice>, Damage> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        while !self.ended && bytes.len() + ends.len() * ROW_WEIGHT < budget.max(1) {
            let start = bytes.len();
            let Some(key_bytes) = self.row(&mut bytes)? else {
                break;
            };
            let (key, framed) = bytes[start..].split_at(key_bytes);
            if *key == self.apart.0 {
                self.apart.1 = Some(Bytes::copy_from_slice(framed));
                bytes.truncate(start);
            } else {
                ends.push((start + key_bytes, bytes.len()));
            }
        }
        Ok((!ends.is_empty()).then(|| Slice {
            bytes: bytes.into(),
            ends,
        }))
    }

    /// The framed value of the row that is kept apart; available at the end of the file.
    pub fn apart(&self) -> Option<Slice> {
        let (key, framed) = &self.apart;
        Some(Slice::single(key, framed.as_ref()?))
    }

    /// Appends key and frame of the next row to `to`; returns the length of the key, or `None` at the end of the file.
    fn row(&mut self, to: &mut Vec<u8>) -> Result<Option<usize>, Damage> {
        let mut kind = [0];
        self.from.read_exact(&mut kind)?;
        match kind[0] {
            ROW => {}
            END => {
                self.end()?;
                return Ok(None);
            }
            other => return content(format!("after {} rows there is one of kind {other}", self.rows)),
        }
        let mut lengths = [0; 6];
        self.from.read_exact(&mut lengths)?;
        let key_bytes = usize::from(u16::from_le_bytes([lengths[0], lengths[1]]));
        let framed_bytes = u32::from_le_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        if !(1..=MAX_KEY_BYTES).contains(&key_bytes) || framed_bytes < HEADER_BYTES {
            return content(format!("the row after {} rows has an invalid length", self.rows));
        }
        let start = to.len();
        // The stated length is trusted only as far as the file has bytes.
        let row_bytes = key_bytes + framed_bytes;
        if self.from.by_ref().take(row_bytes as u64).read_to_end(to)? < row_bytes {
            return content("it is truncated");
        }
        let (key, framed) = to[start..].split_at(key_bytes);
        self.check(key, framed)
            .map_err(|why| Damage::Content(format!("its row {}: {why}", self.rows + 1)))?;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.rows += 1;
        Ok(Some(key_bytes))
    }

    fn check(&self, key: &[u8], framed: &[u8]) -> Result<(), String> {
        frame::decode(Kind::Row, self.table as u8, key, framed)
            .map_err(|why: RecordError| why.to_string())?;
        if key <= &self.last[..] {
            return Err("the rows are not in key order".to_owned());
        }
        if !key.starts_with(&self.prefix) {
            return Err(format!(
                "its key does not have the prefix {:?}: the file is another group's",
                self.prefix
            ));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Damage> {
        let mut end = [END; END_BYTES];
        self.from.read_exact(&mut end[1..])?;
        let (covered, crc) = end.split_at(9);
        if crc != crc32c::crc32c(covered).to_le_bytes() {
            return content("the checksum of its end does not match");
        }
        if covered[1..] != self.rows.to_le_bytes() {
            return content(format!("it has {} rows, its end says otherwise", self.rows));
        }
        if self.from.read(&mut [0])? > 0 {
            return content("there are bytes after its end");
        }
        self.ended = true;
        Ok(())
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
