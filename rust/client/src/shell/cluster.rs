//! Requests for the state of the cluster and its nodes.

use std::collections::BTreeMap;

use quorate_core::error::Error;
use quorate_core::ids::{BootId, NodeId};
use quorate_protocol::api::{GroupClaim, Request, Response, Status};
use quorate_protocol::telemetry::{Occurrence, Span};
use quorate_protocol::topology::Topology;

use super::{Call, Client, reply};
use crate::core::CallOptions;

/// The position of a reader of [`Client::events`]: per node, the boot and the last event seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventCursor {
    seen: BTreeMap<NodeId, (Option<BootId>, u64)>,
}

impl Client {
    /// The members, as a connected node knows them.
    ///
    /// # Errors
    /// Like any call.
    pub async fn topology(&self) -> Result<Topology, Error> {
        let decode = |response| match response {
            Response::Topology(topology) => Some(*topology),
            _ => None,
        };
        Ok(self
            .call_expecting(Request::Topology, CallOptions::default(), decode)
            .await?
            .value)
    }

    /// A node's own view of itself and its peers.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that is not a member, [`Error::ConnectionLost`] for one that is not reachable.
    pub async fn status(&self, node: NodeId) -> Result<Status, Error> {
        let decode = |response| match response {
            Response::Status(status) => Some(*status),
            _ => None,
        };
        let options = CallOptions::default().on(node);
        Ok(self.call_expecting(Request::Status, options, decode).await?.value)
    }

    /// A node's metrics in the Prometheus text format.
    ///
    /// # Errors
    /// Like [`Client::status`].
    pub async fn metrics(&self, node: NodeId) -> Result<String, Error> {
        let decode = |response| match response {
            Response::Metrics(text) => Some(text),
            _ => None,
        };
        let options = CallOptions::default().on(node);
        Ok(self
            .call_expecting(Request::Metrics, options, decode)
            .await?
            .value)
    }

    /// A node's claims about its Raft groups. Claims of other nodes may differ.
    ///
    /// # Errors
    /// Like [`Client::status`].
    pub async fn groups(&self, node: NodeId) -> Result<Vec<GroupClaim>, Error> {
        let decode = |response| match response {
            Response::Groups(claims) => Some(claims),
            _ => None,
        };
        let options = CallOptions::default().on(node);
        Ok(self.call_expecting(Request::Groups, options, decode).await?.value)
    }

    /// Events of all nodes since the cursor's last use, by time. Nodes that are not reachable are left out; a later
    /// call returns their events, unless they were restarted.
    ///
    /// # Errors
    /// If the members cannot be fetched.
    pub async fn events(&self, cursor: &mut EventCursor) -> Result<Vec<Occurrence>, Error> {
        let after = |node: NodeId| cursor.seen.get(&node).map_or(0, |(_, sequence)| *sequence);
        let calls = self
            .call_all(|node| Request::Events { after: after(node) })
            .await?;
        let mut merged = Vec::new();
        for (node, call) in calls {
            let Ok(mut answer) = reply(call.await, occurrences) else {
                continue;
            };
            let (boot, sequence) = cursor.seen.get(&node).copied().unwrap_or_default();
            // Another boot of the node: the numbers of its events start again.
            if answer.boot != boot && sequence > 0 {
                let options = CallOptions::default().on(node);
                let again = self
                    .call_expecting(Request::Events { after: 0 }, options, occurrences)
                    .await;
                match again {
                    Ok(all) => answer = all,
                    Err(_) => continue,
                }
            }
            let last = answer.value.last().map(|occurrence| occurrence.sequence);
            let unchanged = if answer.boot == boot { sequence } else { 0 };
            cursor.seen.insert(node, (answer.boot, last.unwrap_or(unchanged)));
            merged.extend(answer.value);
        }
        merged.sort_by_key(|occurrence| (occurrence.at, occurrence.node, occurrence.sequence));
        Ok(merged)
    }

    /// A whole trace: the spans of this client and of every reachable node, by start.
    ///
    /// # Errors
    /// If the members cannot be fetched.
    pub async fn trace(&self, trace_id: u128) -> Result<Vec<Span>, Error> {
        let mut spans = self.spans(trace_id);
        let decode = |response| match response {
            Response::Spans(spans) => Some(spans),
            _ => None,
        };
        for (_, call) in self.call_all(|_| Request::Spans { trace_id }).await? {
            if let Ok(answer) = reply(call.await, decode) {
                spans.extend(answer.value);
            }
        }
        spans.sort_by_key(|span| (span.start, span.end));
        Ok(spans)
    }

    /// Calls every member, concurrently.
    async fn call_all(&self, request: impl Fn(NodeId) -> Request) -> Result<Vec<(NodeId, Call)>, Error> {
        let topology = self.topology().await?;
        let call = |node: NodeId| (node, self.call(request(node), CallOptions::default().on(node)));
        Ok(topology.ids().map(call).collect())
    }
}

fn occurrences(response: Response) -> Option<Vec<Occurrence>> {
    match response {
        Response::Events(events) => Some(events),
        _ => None,
    }
}
