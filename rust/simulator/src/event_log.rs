//! The events of a run in order: as one hash, and optionally as text.

use std::collections::VecDeque;
use std::fmt::{Debug, Display, Write};

use quorate_core::time::Instant;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

/// The maximum length of a line, in bytes.
const LONGEST_LINE: usize = 600;

/// The event log of a run. Two runs with the same hash had the same events with the same effects, in the same order.
#[derive(Clone)]
pub struct EventLog {
    /// `None` saves the time of encoding all entries.
    digest: Option<Xxh3>,
    entries: u64,
    buffer: Vec<u8>,
    lines: VecDeque<String>,
    /// The number of lines to keep; 0 saves the time of formatting them.
    keep: usize,
}

impl EventLog {
    /// An empty log that hashes all entries if `hashed`, and keeps the last `keep` of them as text.
    pub fn new(hashed: bool, keep: usize) -> Self {
        EventLog {
            digest: hashed.then(Xxh3::new),
            entries: 0,
            buffer: Vec::new(),
            lines: VecDeque::new(),
            keep,
        }
    }

    /// Adds an entry: at `at`, `who` did `kind`, with these details.
    pub fn record(&mut self, at: Instant, who: impl Display, kind: &str, what: &(impl Serialize + Debug)) {
        self.entries += 1;
        if let Some(digest) = &mut self.digest {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.extend_from_slice(&at.0.to_le_bytes());
            write_display(&mut buffer, &who);
            buffer.extend_from_slice(kind.as_bytes());
            self.buffer = postcard::to_extend(what, buffer).expect("plain data in memory always encodes");
            digest.update(&self.buffer);
        }
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let mut line = format!("{:>12.6} {who} {kind} {what:?}", at.0 as f64 / 1e6);
            if line.len() > LONGEST_LINE {
                let end = (0..=LONGEST_LINE)
                    .rev()
                    .find(|end| line.is_char_boundary(*end))
                    .unwrap_or(0);
                line.truncate(end);
                line.push('…');
            }
            self.lines.push_back(line);
        }
    }

    /// The hash over all entries so far, if enabled.
    pub fn hash(&self) -> Option<u64> {
        self.digest.as_ref().map(Xxh3::digest)
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The last entries as text, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

fn write_display(buffer: &mut Vec<u8>, who: &impl Display) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    write!(Bytes(buffer), "{who}").expect("a vector takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_every_part_of_every_entry() {
        let hash = |at, who: &str, kind, what: u32| {
            let mut event_log = EventLog::new(true, 0);
            event_log.record(Instant(1), "n1", "start", &0);
            event_log.record(Instant(at), who, kind, &what);
            event_log.hash().expect("it is hashed")
        };
        let original = hash(2, "n1", "event", 3);
        assert_eq!(original, hash(2, "n1", "event", 3));
        for other in [
            hash(3, "n1", "event", 3),
            hash(2, "n2", "event", 3),
            hash(2, "n1", "effect", 3),
            hash(2, "n1", "event", 4),
        ] {
            assert_ne!(original, other);
        }
    }

    #[test]
    fn only_the_last_lines_are_kept_and_none_by_default() {
        let mut silent = EventLog::new(true, 0);
        let mut event_log = EventLog::new(true, 2);
        for n in 0..5 {
            silent.record(Instant(n), "n1", "event", &n);
            event_log.record(Instant(n), "n1", "event", &n);
        }
        assert_eq!(silent.lines().count(), 0);
        assert!(silent.hash().is_some());
        assert_eq!(silent.hash(), event_log.hash());
        let lines: Vec<&str> = event_log.lines().map(str::trim).collect();
        assert_eq!(lines, ["0.000003 n1 event 3", "0.000004 n1 event 4"]);
        assert_eq!(event_log.entries(), 5);
    }
}
