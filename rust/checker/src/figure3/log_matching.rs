//! Logs that share an entry, the same index with the same term, are equal up to there. (Section 5.3.)

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{Server, Verdict};

/// Compares the logs of all servers, entry by entry.
///
/// # Errors
/// Two logs share an entry and differ before it.
pub fn log_matching<S: Server>(servers: &[S]) -> Verdict {
    for (place, one) in servers.iter().enumerate() {
        for other in &servers[place + 1..] {
            let first = one.base().max(other.base()) + 1;
            let mut same = false;
            for index in (first..=one.last().min(other.last())).rev() {
                same |= one.term_at(index) == other.term_at(index);
                if same && one.entry(index) != other.entry(index) {
                    return Err(format!(
                        "log matching: {} and {} differ at {index}, before an entry that they share",
                        one.node(),
                        other.node()
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Every entry that was ever in a log of the group, by index and term, with the term of the one before it.
///
/// By induction it suffices that an index and a term identify one entry and its predecessor.
#[derive(Clone, Debug)]
pub struct LogMatching<E> {
    seen: BTreeMap<(u64, u64), (E, Option<u64>)>,
}

impl<E> Default for LogMatching<E> {
    fn default() -> Self {
        LogMatching {
            seen: BTreeMap::new(),
        }
    }
}

impl<E: Clone + PartialEq + Debug> LogMatching<E> {
    /// Checks from the end of a log to the first known entry: earlier ones were compared when that became
    /// known.
    ///
    /// # Errors
    /// An entry differs from another server's, or has another predecessor.
    pub fn check(&mut self, server: &impl Server<Entry = E>) -> Verdict {
        let mut index = server.last();
        while let (Some(entry), Some(term)) = (server.entry(index), server.term_at(index)) {
            let before = server.term_at(index - 1);
            match self.seen.get(&(index, term)) {
                None => {
                    self.seen.insert((index, term), (entry.clone(), before));
                }
                Some((known, previous)) if known == entry && *previous == before => return Ok(()),
                Some((known, previous)) => {
                    return Err(format!(
                        "log matching: {} has {entry:?} after {before:?}, another server has {known:?} after {previous:?}",
                        server.node()
                    ));
                }
            }
            index -= 1;
        }
        Ok(())
    }
}
