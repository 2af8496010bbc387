//! The merge of shares: for any rows of the nodes, following the cursor returns every live key once, in order.

use proptest::prelude::*;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{ClusterId, ReplicaId};
use quorate_core::time::WallTime;
use quorate_protocol::placement::Placement;
use quorate_protocol::topology::{Member, Topology};
use quorate_ring::RingSettings;
use quorate_versions::{Dot, WriteId};

use super::*;

fn preference(nodes: u16, replicas: u8) -> Preference {
    let member = |number: u16| Member {
        id: NodeId(number),
        peer_address: String::new(),
        client_address: String::new(),
        http_address: String::new(),
        rack: "default".to_owned(),
        datacenter: "default".to_owned(),
    };
    let ring = RingSettings {
        vnodes: 8,
        ..RingSettings::default()
    };
    let topology = Topology::new(ClusterId(7), 1, (1..=nodes).map(member).collect(), ring).unwrap();
    Placement::new(topology).unwrap().preference(replicas).unwrap()
}

fn key(number: u32) -> Key {
    Key::of(format!("key {number:03}")).unwrap()
}

fn state(counter: u64, value: Option<usize>) -> Arc<KeyState> {
    let dot = Dot {
        replica: ReplicaId::new(NodeId(1), 0xd1),
        counter,
    };
    let timestamp = Timestamp {
        wall: WallTime(1),
        logical: 0,
    };
    let write_id = WriteId {
        client: 1,
        sequence: counter,
    };
    let value = value.map(|size| vec![b'x'; size].into());
    Arc::new(
        KeyState::default()
            .put(dot, value, timestamp, write_id, None)
            .unwrap(),
    )
}

type Rows = BTreeMap<Key, Arc<KeyState>>;

/// A node's share after `after`, cut off as its replica would.
fn share(rows: &Rows, after: Option<&Key>, limit: usize) -> (Vec<(Key, Arc<KeyState>)>, bool) {
    let mut wanted = rows
        .iter()
        .filter(|(key, _)| after.is_none_or(|after| *key > after));
    let page: Vec<_> = wanted
        .by_ref()
        .take(limit)
        .map(|(key, state)| (key.clone(), state.clone()))
        .collect();
    (page, wanted.next().is_some())
}

fn page_of(progress: Progress) -> Page {
    match progress {
        Progress::Done(Ok(Response::Page(page))) => page,
        other => panic!("{other:?} is no page"),
    }
}

fn all(nodes: u16) -> BTreeSet<NodeId> {
    (1..=nodes).map(NodeId).collect()
}

/// Follows the cursor to the end.
fn walk(nodes: &BTreeMap<NodeId, Rows>, preference: &Preference, limit: usize) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut after = None;
    for _ in 0..10_000 {
        let mut scan = Scan::new(KeyspaceId(1), NodeId(1), limit, nodes.keys().copied().collect());
        for (node, rows) in nodes {
            let (rows, more) = share(rows, after.as_ref(), limit);
            scan.fetched(*node, rows, more);
        }
        let page = page_of(scan.progress(preference, (1, Level::One), false));
        assert!(page.entries.len() <= limit);
        keys.extend(page.entries.into_iter().map(|(key, _)| key));
        match page.next {
            None => return keys,
            Some(next) => {
                assert!(after.is_none_or(|after| next > after), "the cursor moves on");
                after = Some(next);
            }
        }
    }
    panic!("the scan does not end");
}

proptest! {
    /// Keys may be missing on some of their replicas, deleted on some, or deleted everywhere.
    #[test]
    fn following_the_cursor_returns_each_live_key_once_and_in_order(
        stored in proptest::collection::btree_map(0..60u32, proptest::array::uniform3(0..4u8), 0..40),
        limit in 1..9usize,
    ) {
        let preference = preference(5, 3);
        let mut nodes: BTreeMap<NodeId, Rows> = all(5).into_iter().map(|node| (node, Rows::new())).collect();
        let mut live = Vec::new();
        for (number, copies) in stored {
            let key = key(number);
            // 0: nothing; 1: the first write; 2, 3: the second one, which may be a delete.
            for (node, copy) in preference.of(&key).iter().zip(copies) {
                let state = match copy {
                    0 => continue,
                    1 => state(1, Some(1)),
                    _ => state(2, (number % 2 == 0).then_some(1)),
                };
                nodes.get_mut(node).unwrap().insert(key.clone(), state);
            }
            let newest = copies.into_iter().map(|copy| copy.min(2)).max().unwrap();
            if newest == 1 || newest == 2 && number % 2 == 0 {
                live.push(key);
            }
        }
        prop_assert_eq!(walk(&nodes, &preference, limit), live);
    }
}

#[test]
fn a_page_ends_before_it_is_too_large_for_a_response() {
    let preference = preference(3, 3);
    let rows: Rows = (0..12)
        .map(|number| (key(number), state(1, Some(1 << 20))))
        .collect();
    let nodes: BTreeMap<NodeId, Rows> = all(3).into_iter().map(|node| (node, rows.clone())).collect();
    let mut scan = Scan::new(KeyspaceId(1), NodeId(1), 100, all(3));
    for (node, rows) in &nodes {
        let (rows, more) = share(rows, None, 100);
        scan.fetched(*node, rows, more);
    }
    let page = page_of(scan.progress(&preference, (2, Level::Two), false));
    assert_eq!(page.entries.len(), MAX_PAGE_BYTES >> 20);
    assert_eq!(page.next.as_ref(), page.entries.last().map(|(key, _)| key));
    assert_eq!(walk(&nodes, &preference, 100).len(), 12);
}

#[test]
fn a_late_response_of_a_failed_node_does_not_complete_the_scan() {
    let preference = preference(3, 2);
    let mut scan = Scan::new(KeyspaceId(1), NodeId(1), 10, all(3));
    scan.fetched(NodeId(1), Vec::new(), false);
    scan.failed(NodeId(2), None);
    scan.fetched(NodeId(2), Vec::new(), false);
    assert_eq!(
        scan.progress(&preference, (2, Level::Two), false),
        Progress::Pending
    );
    scan.fetched(NodeId(3), Vec::new(), false);
    assert_eq!(
        page_of(scan.progress(&preference, (2, Level::Two), false)).next,
        None
    );
}

#[test]
fn without_enough_shares_the_error_names_the_minimum_over_all_keys() {
    let preference = preference(3, 3);
    let mut scan = Scan::new(KeyspaceId(1), NodeId(1), 10, all(3));
    scan.fetched(NodeId(1), Vec::new(), false);
    scan.failed(NodeId(2), None);
    let timeout = Error::ReadTimeout {
        answered: 1,
        required: 2,
    };
    assert_eq!(scan.timed_out(&preference, 2), timeout);
    assert_eq!(
        scan.progress(&preference, (2, Level::Two), true),
        Progress::Pending,
        "n3 is still pending"
    );
    scan.failed(NodeId(3), None);
    let unavailable = Error::unavailable(2, 1);
    assert_eq!(
        scan.progress(&preference, (2, Level::Two), false),
        Progress::Done(Err(unavailable))
    );
    assert!(matches!(
        scan.progress(&preference, (1, Level::One), false),
        Progress::Done(Ok(_))
    ));
}

#[test]
fn after_the_soft_deadline_a_scan_ignores_optional_nodes() {
    let preference = preference(3, 3);
    let mut scan = Scan::new(KeyspaceId(1), NodeId(1), 10, all(3));
    scan.fetched(NodeId(1), Vec::new(), false);
    scan.fetched(NodeId(3), Vec::new(), false);
    assert_eq!(
        scan.progress(&preference, (2, Level::Two), false),
        Progress::Pending
    );
    assert!(matches!(
        scan.progress(&preference, (2, Level::Two), true),
        Progress::Done(Ok(_))
    ));
}
