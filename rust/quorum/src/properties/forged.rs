//! No context that a client forges makes a key reject plain puts.

use std::time::Duration;

use proptest::prelude::*;
use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::ids::{KeyspaceId, NodeId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::keyspace::KeyspaceSettings;
use quorate_role_testing::Output;
use quorate_versions::{Context, Dot, VersionVector, WriteId};

use crate::testing::{Cluster, Keyspaces as _, Setup, TraceEvent};

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const NODES: u16 = 3;
const TIMEOUT: Duration = Duration::from_secs(1);

struct Play {
    cluster: Cluster,
    key: Key,
}

impl Play {
    fn new() -> Self {
        let setup = Setup {
            nodes: NODES,
            seed: 1,
            bugs: Bugs::none(),
            scrambled: false,
        };
        let mut cluster = setup.started();
        cluster.create_keyspace(KeyspaceSettings::quorum("ks", 3));
        let key = Key::try_from("k").unwrap();
        Play { cluster, key }
    }

    fn submit(&mut self, node: u16, request: Request) -> Result<Response, Error> {
        self.cluster.trace.clear();
        self.cluster.submit(NodeId(node), KEYSPACE, request, TIMEOUT);
        self.cluster.run();
        let answers = std::mem::take(&mut self.cluster.trace).into_iter();
        let mut answers = answers.filter_map(|event| match event {
            TraceEvent::Output(_, Output::Reply(_, response)) => Some(response),
            _ => None,
        });
        answers.next().expect("every request gets a response")
    }

    fn put(&mut self, node: u16, seen: Option<VersionVector>) -> Result<Response, Error> {
        let request = Request::Put {
            keyspace: KEYSPACE,
            key: self.key.clone(),
            value: Some("v".into()),
            context: seen.map(|seen| Context::new(KEYSPACE, &self.key, seen)),
            level: Some(Level::All),
            write_id: WriteId {
                client: 1,
                sequence: self.cluster.operations,
            },
        };
        self.submit(node, request)
    }

    /// All dots that a reader has seen.
    fn seen(&mut self) -> Vec<Dot> {
        let (keyspace, key, level) = (KEYSPACE, self.key.clone(), Some(Level::All));
        match self.submit(1, Request::Get { keyspace, key, level }) {
            Ok(Response::Entry(entry)) => entry.context.iter().collect(),
            other => panic!("the key can be read, not {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn contexts_do_not_block_plain_puts(forgeries in proptest::collection::vec(
        (1..=NODES, any::<prop::sample::Index>(), prop_oneof![1..9u64, Just(u64::MAX)]),
        1..8,
    )) {
        let mut play = Play::new();
        for node in 1..=NODES {
            play.put(node, None).unwrap();
        }
        for (node, which, ahead) in forgeries {
            let dot = *which.get(&play.seen());
            let counter = dot.counter.saturating_add(ahead);
            // The replica whose dots it contains may reject it.
            let _ = play.put(node, Some([Dot { counter, ..dot }].into_iter().collect()));
            for node in 1..=NODES {
                let plain = play.put(node, None);
                prop_assert!(matches!(plain, Ok(Response::Written(_))), "{plain:?}");
            }
        }
    }
}
