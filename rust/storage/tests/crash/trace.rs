//! Reads the trace of the shim.

use std::path::{Path, PathBuf};

/// An operation of the process on its files, in the order in which operations began.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create(PathBuf),
    MakeDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Write {
        id: u64,
        path: PathBuf,
        offset: u64,
        data: Vec<u8>,
    },
    Truncate {
        id: u64,
        path: PathBuf,
        length: u64,
    },
    Sync {
        id: u64,
        path: PathBuf,
    },
    /// A sync, or a write that syncs itself, has returned.
    End(u64),
    /// The process acknowledged that this is durable: not a file's content, but a message in the trace.
    Acknowledged(u64),
}

/// Reads a trace. The file `acks` has numbers, one per line.
pub(crate) fn read(trace: &Path) -> Vec<Event> {
    let bytes = std::fs::read(trace).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let kind = rest[0];
        let id = u64_at(rest, 1);
        let offset = u64_at(rest, 9);
        let path_length = u32_at(rest, 17);
        let data_length = u32_at(rest, 21);
        let (path, after) = rest[25..].split_at(path_length);
        let (data, after) = after.split_at(data_length);
        rest = after;
        let path = PathBuf::from(std::str::from_utf8(path).unwrap());
        let text = || std::str::from_utf8(data).unwrap();
        events.push(match kind {
            1 => Event::Create(path),
            2 => Event::MakeDir(path),
            3 => Event::Rename(path, PathBuf::from(text())),
            4 if path.ends_with("acks") => {
                events.extend(
                    text()
                        .lines()
                        .map(|line| Event::Acknowledged(line.parse().unwrap())),
                );
                continue;
            }
            4 => Event::Write {
                id,
                path,
                offset,
                data: data.to_vec(),
            },
            5 => Event::Sync { id, path },
            6 => Event::End(id),
            7 => Event::Truncate {
                id,
                path,
                length: offset,
            },
            other => panic!("a record of kind {other}"),
        });
    }
    events
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
