//! Inspects a data directory, for a program that starts several nodes.

use std::path::Path;

use quorate_storage::datadir;
use serde::Serialize;

use crate::start_error::StartError;

/// The identity of a directory, as JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Inspection {
    /// Claimed by a node.
    Claimed {
        node: String,
        /// The cluster, if it is formed.
        formation: Option<Formation>,
    },
    /// The identity cannot be read; as on the start-up line of a node that rejects the directory.
    Unreadable { error: &'static str, message: String },
}

#[derive(Debug, Serialize)]
struct Formation {
    cluster: String,
    nodes: u16,
    vnodes: u16,
    hash: String,
}

/// The identity in a data directory, as JSON; `None` if it has none. Takes no lock: the directory may be in use.
///
/// `{"node":"n1","formation":{"cluster":"ranking","nodes":3,"vnodes":150,"hash":"murmur3"}}`, where the formation is `null`
/// until the cluster is formed, or `{"error":NAME,"message":...}`.
pub fn inspect(directory: &Path) -> Option<String> {
    let inspection = match datadir::inspect(directory) {
        Ok(None) => return None,
        Ok(Some((identity, formation))) => Inspection::Claimed {
            node: identity.node.to_string(),
            formation: formation.map(|formation| Formation {
                cluster: formation.name,
                nodes: formation.nodes,
                vnodes: formation.ring.vnodes,
                hash: formation.ring.hash.to_string(),
            }),
        },
        Err(error) => {
            let error = StartError::Open(error);
            Inspection::Unreadable {
                error: error.name(),
                message: error.to_string(),
            }
        }
    };
    Some(serde_json::to_string(&inspection).expect("an inspection is always valid JSON"))
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::{ClusterId, NodeId};
    use quorate_ring::RingSettings;
    use quorate_storage::DataDir;

    use super::*;

    #[test]
    fn inspecting_a_directory_returns_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n3");
        assert_eq!(inspect(&path), None);
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(inspect(&path), None);
        dir.claim(ClusterId(7), NodeId(3), 1).unwrap();
        assert_eq!(
            inspect(&path).as_deref(),
            Some(r#"{"node":"n3","formation":null}"#)
        );
        dir.set_formed(datadir::Formation {
            name: "rank\"ing".to_owned(),
            nodes: 5,
            ring: RingSettings::default(),
        })
        .unwrap();
        assert_eq!(
            inspect(&path).as_deref(),
            Some(
                r#"{"node":"n3","formation":{"cluster":"rank\"ing","nodes":5,"vnodes":150,"hash":"murmur3"}}"#
            )
        );
        std::fs::write(path.join("identity"), "quorate-identity 1\n").unwrap();
        let error = inspect(&path).unwrap();
        assert!(
            error.starts_with(r#"{"error":"FormatTooOld","message":"#),
            "{error}"
        );
    }
}
