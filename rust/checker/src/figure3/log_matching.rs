//! Logs that have an entry in common, the same index with the same term, are the same up to there. (Section 5.3.)

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{Server, Verdict};

/// Compares the logs of all servers, entry by entry.
///
/// # Errors
/// Two logs have an entry in common and differ before it.
pub fn log_matching<S: Server>(servers: &[S]) -> Verdict {
    for (place, one) in servers.iter().enumerate() {
        for other in &servers[place + 1..] {
            let first = one.base().max(other.base()) + 1;
            let mut same = false;
            for index in (first..=one.last().min(other.last())).rev() {
                same |= one.term_at(index) == other.term_at(index);
                if same && one.entry(index) != other.entry(index) {
                    return Err(format!(
                        "log matching: {} and {} differ at {index}, before an entry that they have in common",
                        one.node(),
                        other.node()
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Every entry that ever stood in a log of the group, by index and term, with the term of the one before it.
///
/// By induction it is enough that an index and a term name one entry and the one before it.
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
    /// From the end of a log to the first entry that is known: what is before that was compared when it became known.
    ///
    /// # Errors
    /// An entry is not what it was elsewhere, or stands behind another one.
    pub fn look(&mut self, server: &impl Server<Entry = E>) -> Verdict {
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
                        "log matching: {} has {entry:?} behind {before:?}, elsewhere there is {known:?} behind {previous:?}",
                        server.node()
                    ));
                }
            }
            index -= 1;
        }
        Ok(())
    }
}
