//! Retries of commands in a session, after failovers, snapshots and expiry: each command is executed once, or the retry
//! reports that the outcome is unknown.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_protocol::api::{Committed, GroupState, LogEntry, ReadLevel, Request, Response, Stamp};
use quorate_protocol::faults::{FaultChange, Impairment, LinkFault};
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_protocol::shard_command::Command;
use quorate_protocol::telemetry::TimelineEvent;
use quorate_raft::types::GroupId;
use serde_json::json;

use crate::process::Cluster;
use crate::until;

/// The idle timeout of a session that outlives these tests.
const LONG: u64 = 600_000;

/// A consensus keyspace of one shard on three nodes with fault injection.
struct Shard {
    cluster: Cluster,
    keyspace: KeyspaceId,
    group: GroupId,
}

impl Shard {
    fn start() -> Shard {
        let cluster = Cluster::start_with(3, json!({"allow_faults": true}));
        let settings = KeyspaceSettings {
            snapshot_every: 50,
            ..KeyspaceSettings::consensus("agreed", 3)
        };
        let keyspace = until("the keyspace", || {
            match cluster.nodes[0]
                .client()
                .ask(Request::CreateKeyspace(settings.clone()))
            {
                Ok(Response::Keyspace { keyspace, .. }) => Some(keyspace),
                _ => None,
            }
        });
        Shard {
            group: keyspace.groups[0].id,
            keyspace: keyspace.id,
            cluster,
        }
    }

    /// Sends a request to one node, retrying while there is no leader.
    fn ask(&self, node: NodeId, request: &Request) -> Result<Response, Error> {
        let mut client = self.node(node).client();
        until("an answer", || match client.ask(request.clone()) {
            Err(Error::Unavailable { .. } | Error::OutcomeUnknown { .. } | Error::ReadTimeout { .. }) => None,
            answer => Some(answer),
        })
    }

    fn node(&self, node: NodeId) -> &crate::process::Node {
        let mut nodes = self.cluster.nodes.iter();
        nodes.find(|each| each.id == node.0).expect("a member")
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.cluster.nodes.iter().map(|node| NodeId(node.id))
    }

    fn open(&self, idle_ms: u64) -> u64 {
        let request = Request::OpenSession {
            keyspace: self.keyspace,
            group: self.group,
            idle_ms,
        };
        match self.ask(NodeId(1), &request) {
            Ok(Response::SessionOpened { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    fn append(&self, text: &str, session: Option<(u64, u64)>) -> Request {
        Request::Propose {
            keyspace: self.keyspace,
            group: self.group,
            command: Command::Append {
                source: "s".to_owned(),
                data: Bytes::copy_from_slice(text.as_bytes()),
            },
            session: session.map(|(session, sequence)| Stamp {
                session,
                sequence,
                acknowledged: 0,
            }),
        }
    }

    fn committed(&self, node: NodeId, request: &Request) -> Committed {
        match self.ask(node, request) {
            Ok(Response::Committed(committed)) => committed,
            other => panic!("{other:?}"),
        }
    }

    /// All current entries.
    fn entries(&self, node: NodeId) -> Vec<LogEntry> {
        let (mut found, mut after) = (Vec::new(), Some(0));
        while let Some(last) = after {
            let request = Request::ReadLog {
                keyspace: self.keyspace,
                group: self.group,
                after: last,
                limit: 1000,
                level: ReadLevel::Linearizable,
            };
            match self.ask(node, &request) {
                Ok(Response::LogPage { entries, next, .. }) => {
                    found.extend(entries);
                    after = next;
                }
                other => panic!("{other:?}"),
            }
        }
        found
    }

    fn count(&self, node: NodeId, text: &str) -> usize {
        let entries = self.entries(node).into_iter();
        entries.filter(|entry| entry.data == text).count()
    }

    /// The leader of the latest term, once it is known.
    fn leader(&self) -> NodeId {
        until("a leader", || {
            let claims = self
                .nodes()
                .flat_map(|node| match self.node(node).client().ask(Request::Groups) {
                    Ok(Response::Groups(claims)) => claims,
                    other => panic!("{other:?}"),
                });
            let of_group = claims.filter(|claim| claim.group == self.group);
            let newest = of_group.max_by_key(|claim| (claim.term, claim.state == GroupState::Leader))?;
            (newest.state == GroupState::Leader).then_some(newest.node)
        })
    }

    fn change_faults(&self, change: &FaultChange) {
        for node in self.nodes() {
            let answer = self
                .node(node)
                .client()
                .ask(Request::ChangeFaults(change.clone()));
            assert!(matches!(answer, Ok(Response::Faults(_))), "{answer:?}");
        }
    }

    /// Partitions a node from the others.
    fn isolate(&self, node: NodeId) {
        self.change_faults(&FaultChange::Add(vec![LinkFault {
            id: 1,
            groups: vec![vec![node], self.nodes().filter(|other| *other != node).collect()],
            one_way: false,
            impairment: Impairment {
                block: true,
                ..Impairment::default()
            },
        }]));
    }

    fn heal(&self) {
        self.change_faults(&FaultChange::Replace(Vec::new()));
        self.cluster.await_links();
    }

    /// Waits until another node, which is not partitioned, leads; returns it.
    fn depose(&self, leader: NodeId) -> NodeId {
        self.isolate(leader);
        until("another leader", || {
            Some(self.leader()).filter(|other| *other != leader)
        })
    }

    /// The bytes of a node's flushed rows.
    fn applied_bytes(&self, node: NodeId) -> u64 {
        let Ok(Response::Metrics(text)) = self.node(node).client().ask(Request::Metrics) else {
            panic!("no metrics");
        };
        let used = |line: &&str| {
            line.starts_with("quorate_storage_used_bytes") && line.contains("environment=\"state\"")
        };
        let line = text.lines().find(used).expect("the metric");
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    }

    /// Isolates a node until it needs a snapshot to catch up, then heals it.
    fn overtake(&self, behind: NodeId) {
        until("a snapshot that is installed", || {
            self.isolate(behind);
            let leader = until("a leader elsewhere", || {
                Some(self.leader()).filter(|leader| *leader != behind)
            });
            let before = self.applied_bytes(leader);
            let filler = self.append(&"x".repeat(1000), None);
            for _ in 0..200 {
                self.committed(leader, &filler);
            }
            // The log is compacted only once the rows are flushed.
            until("rows", || (self.applied_bytes(leader) > before).then_some(()));
            let last = self.committed(leader, &filler).index;
            self.heal();
            until("its following", || {
                let Ok(Response::Groups(claims)) = self.node(behind).client().ask(Request::Groups) else {
                    panic!("no claims");
                };
                let mut of_group = claims.iter().filter(|claim| claim.group == self.group);
                of_group.next().filter(|claim| claim.applied >= last).map(drop)
            });
            let events = self.node(behind).client().events();
            let mut installed = events
                .iter()
                .filter(|each| matches!(&each.event, TimelineEvent::SnapshotInstalled { group, .. } if *group == self.group));
            installed.next().map(drop)
        });
    }
}

#[test]
fn a_retry_after_a_failover_returns_the_original_result() {
    let shard = Shard::start();
    let session = shard.open(LONG);
    let command = shard.append("once", Some((session, 1)));
    let first = shard.committed(NodeId(1), &command);
    let new = shard.depose(first.leader);
    for node in shard.nodes().filter(|node| *node != first.leader) {
        let again = shard.committed(node, &command);
        assert_eq!((again.index, again.term), (first.index, first.term));
        assert_eq!(again.leader, new);
    }
    assert_eq!(shard.count(new, "once"), 1);
}

#[test]
fn a_retry_at_a_leader_restored_from_a_snapshot_returns_the_original_result() {
    let shard = Shard::start();
    let session = shard.open(LONG);
    let command = shard.append("once", Some((session, 1)));
    let first = shard.committed(NodeId(1), &command);
    let behind = shard.nodes().find(|node| *node != first.leader).unwrap();
    shard.overtake(behind);
    // Its log begins after the command: only the snapshot records that it was executed.
    let mut leader = shard.leader();
    while leader != behind {
        leader = shard.depose(leader);
        shard.heal();
    }
    let again = shard.committed(behind, &command);
    assert_eq!((again.index, again.term), (first.index, first.term));
    assert_eq!(shard.count(behind, "once"), 1);
    let next = shard.committed(behind, &shard.append("twice", Some((session, 2))));
    assert!(next.index > first.index);
}

#[test]
fn a_retry_in_an_expired_session_fails_and_is_not_executed() {
    let shard = Shard::start();
    let idle_ms = 200;
    let session = shard.open(idle_ms);
    let command = shard.append("once", Some((session, 1)));
    let first = shard.committed(NodeId(1), &command);
    assert_eq!(
        shard.committed(NodeId(2), &command).index,
        first.index,
        "the session is alive"
    );
    // Logged time advances with the entries of others.
    let begun = shard.entries(NodeId(1)).last().expect("the entry").time;
    until("logged time beyond the session's", || {
        shard.committed(NodeId(1), &shard.append("tick", None));
        let now = shard.entries(NodeId(1)).last().expect("the tick").time;
        (now.0 > begun.0 + 2 * 1000 * idle_ms).then_some(())
    });
    let expired = |node| {
        for sequence in [1, 2] {
            let command = shard.append("once", Some((session, sequence)));
            let answer = shard.ask(node, &command);
            assert!(matches!(answer, Err(Error::SessionExpired(_))), "{answer:?}");
        }
        assert_eq!(shard.count(node, "once"), 1);
    };
    expired(NodeId(1));
    // All servers have expired it at the same entry.
    let new = shard.depose(shard.leader());
    expired(new);
}
