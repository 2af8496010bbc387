//! The ring, computed without a cluster.

use pyo3::prelude::*;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_ring::{self as ring, HashKind, RingMember, RingSettings};

use crate::documents::Plain;
use crate::errors::exception;

/// A ring of tokens.
#[pyclass(frozen, module = "quorate._quorate", name = "Ring")]
pub(crate) struct Ring(ring::Ring);

#[pymethods]
impl Ring {
    /// The ring of members given as (number, rack, datacenter).
    #[new]
    fn new(py: Python<'_>, members: Vec<(u16, String, String)>, vnodes: i64, hash: &str) -> PyResult<Self> {
        let hash: HashKind = hash.parse().map_err(|error| exception(py, error))?;
        let wrong = |_| Error::invalid(format!("vnodes={vnodes}: use 1 to {}", u16::MAX));
        let vnodes = u16::try_from(vnodes)
            .map_err(wrong)
            .map_err(|error| exception(py, error))?;
        let members: Vec<RingMember> = members
            .into_iter()
            .map(|(node, rack, datacenter)| RingMember {
                node: NodeId(node),
                rack,
                datacenter,
            })
            .collect();
        ring::Ring::build(&RingSettings { vnodes, hash }, &members)
            .map(Ring)
            .map_err(|error| exception(py, error))
    }

    /// Tokens and the numbers of their owners, in ring order.
    #[getter]
    fn tokens(&self) -> Vec<(u64, u16)> {
        self.0
            .tokens()
            .iter()
            .map(|(token, node)| (token.0, node.0))
            .collect()
    }

    /// The token of a key.
    fn token_of(&self, key: &[u8]) -> u64 {
        self.0.token_of(key).0
    }

    /// The preference list of a key, as numbers of nodes.
    fn preference_list(&self, py: Python<'_>, key: &[u8], replicas: i64) -> PyResult<Vec<u16>> {
        let nodes = self
            .0
            .preference_list(self.0.token_of(key), copies(py, replicas)?)
            .map_err(|error| exception(py, error))?;
        Ok(numbers(&nodes))
    }

    /// The different lists of nodes that store some key together.
    fn replica_sets(&self, py: Python<'_>, replicas: i64) -> PyResult<Vec<Vec<u16>>> {
        let table = self
            .0
            .replicas(copies(py, replicas)?)
            .map_err(|error| exception(py, error))?;
        Ok(table.sets().map(numbers).collect())
    }

    /// The balance report.
    fn balance(&self, py: Python<'_>, replicas: i64) -> PyResult<Plain<ring::BalanceReport>> {
        let report = ring::balance(&self.0, copies(py, replicas)?);
        report.map(Plain).map_err(|error| exception(py, error))
    }

    /// The share of all copies that move on a change to another ring.
    fn moved(&self, py: Python<'_>, after: &Ring, replicas: i64) -> PyResult<f64> {
        let movement =
            ring::movement(&self.0, &after.0, copies(py, replicas)?).map_err(|error| exception(py, error))?;
        Ok(movement.moved_share())
    }
}

fn copies(py: Python<'_>, replicas: i64) -> PyResult<u8> {
    u8::try_from(replicas).map_err(|_| {
        exception(
            py,
            Error::invalid(format!("replicas={replicas}: use 1 to {}", u8::MAX)),
        )
    })
}

fn numbers(nodes: &[NodeId]) -> Vec<u16> {
    nodes.iter().map(|node| node.0).collect()
}
