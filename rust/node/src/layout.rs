//! The layout by which the data were placed, stored beside them.
//!
//! A node started with another hash would look up its keys under other tokens and report that they do not exist.
//! So the first start writes the [`Layout`] into the store, and later starts must match it. The hash and the tokens per
//! node never change. Other members are accepted only in a higher generation, which shows that the operator intends it.

use std::path::Path;

use bytes::Bytes;
use quorate_core::store::{JournalOp, StateWrite, Table};
use quorate_protocol::topology::Topology;
use quorate_protocol::wire::Layout;
use quorate_storage::error::ReadError;
use quorate_storage::store::Store;

use crate::start_error::StartError;

const KEY: &[u8] = b"layout";

/// Compares `topology` with the stored layout, and stores it if it is newer.
///
/// # Errors
/// [`StartError::Layout`] or [`StartError::OldGeneration`] if the data in `directory` were placed differently,
/// [`StartError::Read`] if that cannot be read, and [`StartError::Fatal`] if it cannot be written.
pub fn keep(store: &mut dyn Store, topology: &Topology, directory: &Path) -> Result<(), StartError> {
    let path = || directory.to_owned();
    let unreadable = |source| StartError::Read { path: path(), source };
    let given = topology.generation;
    let ours = Layout::of(topology);
    let row = store.reader().get(Table::Meta, KEY).map_err(unreadable)?;
    if let Some(row) = row {
        let (found, theirs): (u64, Layout) = postcard::from_bytes(&row).map_err(|error| {
            unreadable(ReadError::Failed(format!(
                "malformed layout of the data: {error}"
            )))
        })?;
        if given < found {
            return Err(StartError::OldGeneration {
                path: path(),
                found,
                given,
            });
        }
        if let Some(difference) = theirs.difference(&ours)
            && (given == found || !theirs.same_ring(&ours))
        {
            return Err(StartError::Layout {
                path: path(),
                difference,
            });
        }
        if given == found {
            return Ok(());
        }
    }
    let value = postcard::to_stdvec(&(given, ours)).expect("every layout has a coding");
    let written = store.commit(&[JournalOp::Write(vec![StateWrite {
        table: Table::Meta,
        key: Bytes::from_static(KEY),
        value: Some(value.into()),
    }])]);
    written.map_err(|error| StartError::Fatal(format!("data directory {}: {error}", directory.display())))
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::{ClusterId, NodeId};
    use quorate_protocol::topology::Member;
    use quorate_ring::{HashKind, RingSettings};
    use quorate_storage::memory::MemoryStore;

    use super::*;

    fn topology(generation: u64, nodes: u16, hash: HashKind) -> Topology {
        let members = (1..=nodes).map(|id| Member {
            id: NodeId(id),
            peer_address: String::new(),
            client_address: String::new(),
            http_address: String::new(),
            rack: String::new(),
            datacenter: String::new(),
        });
        let ring = RingSettings {
            hash,
            ..RingSettings::default()
        };
        Topology::new(ClusterId(7), generation, members.collect(), ring).unwrap()
    }

    #[test]
    fn a_start_must_match_the_stored_layout() {
        let mut store = MemoryStore::new();
        let mut start = |generation, nodes, hash| {
            keep(&mut store, &topology(generation, nodes, hash), Path::new("/d"))
                .map_err(|error| error.to_string())
        };
        let murmur3 = HashKind::Murmur3;
        assert_eq!(start(1, 3, murmur3), Ok(()));
        assert_eq!(start(1, 3, murmur3), Ok(()));
        let refused = start(1, 3, HashKind::Md5).unwrap_err();
        assert!(
            refused.contains("laid out with hash=murmur3") && refused.contains("hash=md5"),
            "{refused}"
        );
        assert!(start(1, 4, murmur3).unwrap_err().contains("3 members"));
        // Intended: a higher generation.
        assert_eq!(start(2, 4, murmur3), Ok(()));
        assert!(start(1, 3, murmur3).unwrap_err().contains("generation 2"));
        assert!(start(2, 3, murmur3).unwrap_err().contains("4 members"));
        // The hash never changes.
        assert!(start(3, 4, HashKind::Md5).unwrap_err().contains("hash"));
    }
}
