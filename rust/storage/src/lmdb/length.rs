//! Checks that a data file is not truncated. Reading a memory map past the end of its file kills the process with SIGBUS,
//! so the length is checked before LMDB maps the file.
//!
//! LMDB's two meta pages record the last page in use. A valid file may be shorter than that: pages that were allocated and
//! freed within one transaction are never written, only entered in the free list. So a short file is intact if the free
//! list contains every missing page.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::datadir::io_error;
use crate::error::OpenError;

const MAGIC: u32 = 0xBEEF_C0DE;
const PAGE_HEADER: usize = 16;
const META_BYTES: usize = 152;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const BIG_DATA: u16 = 0x01;
const NO_ROOT: u64 = u64::MAX;
/// More than the depth of any tree of 2^63 pages.
const MAX_DEPTH: usize = 64;

/// Whether there is a data file; otherwise LMDB creates one.
///
/// # Errors
/// [`OpenError::Truncated`] if pages are missing at its end, [`OpenError::Corrupt`] if it is not an LMDB file.
pub(super) fn check(path: &Path) -> Result<bool, OpenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let length = file.metadata().map_err(io_error("inspect", path))?.len();
    if length == 0 {
        return Ok(false);
    }
    let pages = Pages { file, path, length };
    let first = pages.meta(0)?;
    let second = pages.meta(first.page_size)?;
    let newest = if first.transaction < second.transaction {
        second
    } else {
        first
    };
    let expected = (newest.last_page + 1).saturating_mul(newest.page_size);
    if length >= expected {
        return Ok(true);
    }
    let mut missing: BTreeSet<u64> = (length / newest.page_size..=newest.last_page).collect();
    pages.remove_free(newest.free_root, newest.page_size, &mut missing, 0)?;
    match missing.last() {
        None => Ok(true),
        Some(last) => Err(pages.truncated((last + 1) * newest.page_size)),
    }
}

#[derive(Clone, Copy)]
struct Meta {
    page_size: u64,
    free_root: u64,
    last_page: u64,
    transaction: u64,
}

struct Pages<'a> {
    file: File,
    path: &'a Path,
    length: u64,
}

impl Pages<'_> {
    fn truncated(&self, expected: u64) -> OpenError {
        OpenError::Truncated {
            path: self.path.to_owned(),
            expected,
            found: self.length,
        }
    }

    fn corrupt(&self, detail: &str) -> OpenError {
        OpenError::Corrupt {
            path: self.path.to_owned(),
            detail: detail.to_owned(),
        }
    }

    fn read(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, OpenError> {
        let end = offset.saturating_add(bytes as u64);
        if end > self.length {
            return Err(self.truncated(end));
        }
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, offset)
            .map_err(io_error("read", self.path))?;
        Ok(buffer)
    }

    fn meta(&self, offset: u64) -> Result<Meta, OpenError> {
        let page = self.read(offset, META_BYTES)?;
        let meta = (|| {
            let page_size = u64::from(u32_at(&page, 40)?);
            let valid = u32_at(&page, 16)? == MAGIC
                && page_size.is_power_of_two()
                && (256..=65536).contains(&page_size);
            valid.then_some(Meta {
                page_size,
                free_root: u64_at(&page, 80)?,
                last_page: u64_at(&page, 136)?,
                transaction: u64_at(&page, 144)?,
            })
        })();
        meta.ok_or_else(|| self.corrupt("malformed meta pages"))
    }

    /// Removes the pages in the free list below `root` from `missing`.
    fn remove_free(
        &self,
        root: u64,
        page_size: u64,
        missing: &mut BTreeSet<u64>,
        depth: usize,
    ) -> Result<(), OpenError> {
        if root == NO_ROOT {
            return Ok(());
        }
        let malformed = || self.corrupt("malformed free list");
        if depth > MAX_DEPTH {
            return Err(malformed());
        }
        let page = self.read(root.saturating_mul(page_size), page_size as usize)?;
        let flags = u16_at(&page, 10).ok_or_else(malformed)?;
        let nodes = usize::from(u16_at(&page, 12).ok_or_else(malformed)?).saturating_sub(PAGE_HEADER) / 2;
        for index in 0..nodes {
            let at = usize::from(u16_at(&page, PAGE_HEADER + 2 * index).ok_or_else(malformed)?);
            let node = Node::read(&page, at).ok_or_else(malformed)?;
            if flags & BRANCH != 0 {
                self.remove_free(node.child, page_size, missing, depth + 1)?;
            } else if flags & LEAF != 0 {
                let listed = if node.flags & BIG_DATA != 0 {
                    let page = u64_at(&page, node.data_at).ok_or_else(malformed)?;
                    let offset = page.saturating_mul(page_size).saturating_add(PAGE_HEADER as u64);
                    self.read(offset, node.data_bytes)?
                } else {
                    page.get(node.data_at..node.data_at + node.data_bytes)
                        .ok_or_else(malformed)?
                        .to_vec()
                };
                // The first word counts the page numbers that follow it.
                for word in listed.chunks_exact(8).skip(1) {
                    missing.remove(&u64_at(word, 0).ok_or_else(malformed)?);
                }
            } else {
                return Err(malformed());
            }
        }
        Ok(())
    }
}

/// An entry of a page of a tree.
struct Node {
    flags: u16,
    /// On a branch page: the page below.
    child: u64,
    /// On a leaf page: the offset of the data in the page, and their length.
    data_at: usize,
    data_bytes: usize,
}

impl Node {
    fn read(page: &[u8], at: usize) -> Option<Node> {
        let low = u16_at(page, at)?;
        let high = u16_at(page, at + 2)?;
        let flags = u16_at(page, at + 4)?;
        let key_bytes = usize::from(u16_at(page, at + 6)?);
        let word = u64::from(low) | u64::from(high) << 16;
        Some(Node {
            flags,
            child: word | u64::from(flags) << 32,
            data_at: at + 8 + key_bytes,
            data_bytes: word as usize,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "length_tests.rs"]
mod tests;
