//! Operations on many keys: the routing of parts, and the outcome of each key.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use quorate_core::key::MAX_VALUE_BYTES;
use quorate_protocol::api::{Entry, PutItem, Request, Response, Written};
use quorate_versions::WriteId;

use super::super::many::{PART_BYTES, PART_KEYS, PARTS, WINDOW};
use super::super::{CallOptions, ClientEvent, Trace};
use super::harness::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("k{number}")).collect()
}

fn item(text: &str, size: usize) -> PutItem {
    PutItem {
        key: key(text),
        value: Some(Bytes::from(vec![0; size])),
        context: None,
    }
}

/// The keys of a part.
fn keys_of(arrived: &Arrived) -> Vec<String> {
    let keys: Vec<_> = match &arrived.frame.request {
        Request::GetMany { keys, .. } => keys.iter().collect(),
        Request::PutMany { items, .. } => items.iter().map(|item| &item.key).collect(),
        other => panic!("{other:?}"),
    };
    keys.into_iter().map(ToString::to_string).collect()
}

fn found(node: NodeId) -> Entry {
    let Response::Entry(entry) = entry() else {
        panic!("an entry");
    };
    Entry {
        coordinator: node,
        ..entry
    }
}

/// A successful response.
fn served(arrived: &Arrived) -> Response {
    let Response::Written(written) = written() else {
        panic!("a write");
    };
    let written = Written {
        coordinator: arrived.node,
        ..written
    };
    let count = keys_of(arrived).len();
    match arrived.frame.request.is_read() {
        true => Response::Entries(vec![Ok(found(arrived.node)); count]),
        false => Response::WrittenMany(vec![Ok(written); count]),
    }
}

fn entries(cluster: &Harness, op: u64) -> Vec<Result<Entry, Error>> {
    match cluster.outcome(op).result.clone() {
        Ok(Response::Entries(all)) => all,
        other => panic!("{other:?}"),
    }
}

fn writes(cluster: &Harness, op: u64) -> Vec<Result<Written, Error>> {
    match cluster.outcome(op).result.clone() {
        Ok(Response::WrittenMany(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_key_is_asked_of_the_node_that_it_prefers() {
    let mut cluster = Harness::ready(5);
    let names = names(60);
    let op = cluster.submit(get_many(&names));
    let parts = std::mem::take(&mut cluster.arrived);
    assert_eq!(parts.len(), 5, "one for each node");
    let mut asked = BTreeMap::new();
    for part in &parts {
        for name in keys_of(part) {
            assert_eq!(cluster.replicas(&name)[0], part.node, "{name}");
            asked.insert(name, part.node);
        }
    }
    assert_eq!(asked.len(), 60);
    for part in parts.iter().rev() {
        assert!(cluster.completed.is_empty());
        cluster.reply(part, Ok(served(part)));
    }
    for (name, entry) in names.iter().zip(entries(&cluster, op)) {
        assert_eq!(
            entry.unwrap().coordinator,
            asked[name],
            "in the order of the keys"
        );
    }
    assert_eq!((cluster.outcome(op).node, cluster.core.in_flight()), (None, 0));
}

#[test]
fn a_node_that_does_not_answer_is_left_to_its_successors() {
    let mut cluster = Harness::ready(5);
    let down = cluster.replicas("k0")[0];
    cluster.behaviour.insert(address(down.0), Behaviour::Refusing);
    cluster.cut(down.0, u64::MAX);
    cluster.submit(get_many(&names(60)));
    let parts = std::mem::take(&mut cluster.arrived);
    assert_eq!(parts.len(), 4);
    for part in &parts {
        for name in keys_of(part) {
            let replicas = cluster.replicas(&name);
            let first = replicas.iter().find(|node| **node != down);
            assert_eq!(first, Some(&part.node), "{name} of {replicas:?}");
        }
    }
}

#[test]
fn parts_are_bounded_and_so_are_those_under_way() {
    let mut cluster = Harness::ready(1);
    let count = PART_KEYS * (WINDOW + 2) + 1;
    let op = cluster.submit(get_many(&names(count)));
    let mut sizes = Vec::new();
    while let Some(part) = cluster.arrived.pop() {
        assert!(cluster.arrived.len() < WINDOW);
        sizes.push(keys_of(&part).len());
        cluster.reply(&part, Ok(served(&part)));
    }
    assert_eq!(sizes.len(), WINDOW + 3);
    assert!(sizes.iter().all(|size| *size <= PART_KEYS));
    assert_eq!(entries(&cluster, op).len(), count);

    let items = vec![
        item("a", PART_BYTES / 2),
        item("b", PART_BYTES / 4),
        item("c", PART_BYTES / 2),
        item("d", PART_BYTES * 2),
        item("e", 1),
    ];
    let op = cluster.submit(put_many(items));
    let parts = std::mem::take(&mut cluster.arrived);
    let keys: Vec<Vec<String>> = parts.iter().map(keys_of).collect();
    assert_eq!(keys, [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]);
    for part in &parts {
        cluster.reply(part, Ok(served(part)));
    }
    assert!(writes(&cluster, op).iter().all(Result::is_ok));
}

#[test]
fn every_write_has_an_id_of_its_own() {
    let mut cluster = Harness::ready(3);
    let items = names(40).iter().map(|name| item(name, 10)).collect();
    cluster.submit(put("first"));
    cluster.submit(put_many(items));
    cluster.submit(put("last"));
    let mut ids: Vec<WriteId> = Vec::new();
    for arrived in &mut cluster.arrived {
        let count = arrived.frame.request.count();
        let first = *arrived.frame.request.write_id().expect("writes have ids");
        ids.extend((0..count).map(|place| first.nth(place)));
    }
    ids.sort_unstable();
    let expected: Vec<u64> = (1..=42).collect();
    let sequences: Vec<u64> = ids.iter().map(|id| id.sequence).collect();
    assert_eq!(sequences, expected);
}

#[test]
fn what_fails_as_a_whole_fails_for_each_of_its_keys() {
    let mut cluster = Harness::ready(3);
    let names = names(20);
    let op = cluster.submit(put_many(names.iter().map(|name| item(name, 10)).collect()));
    let lost = cluster.arrived[0].node;
    for part in std::mem::take(&mut cluster.arrived) {
        if part.node == lost {
            cluster.cut(lost.0, u64::MAX);
        } else {
            cluster.reply(&part, Ok(served(&part)));
        }
    }
    for (name, result) in names.iter().zip(writes(&cluster, op)) {
        let unknown = matches!(result, Err(Error::OutcomeUnknown { .. }));
        assert_eq!(unknown, cluster.replicas(name)[0] == lost, "{name}: {result:?}");
        assert_eq!(result.is_ok(), !unknown);
    }
}

#[test]
fn a_key_has_its_own_error_and_what_did_not_fit_is_read_again() {
    let mut cluster = Harness::ready(1);
    let op = cluster.submit(get_many(&names(4)));
    let part = cluster.take();
    let too_large = Err(Error::LimitExceeded {
        what: "the answer".to_owned(),
        size: 2,
        limit: 1,
        remedy: "read it by itself".to_owned(),
    });
    let corrupt = Err(Error::CorruptRecord("k1".to_owned()));
    let all = vec![
        Ok(found(NodeId(1))),
        corrupt.clone(),
        too_large.clone(),
        too_large.clone(),
    ];
    cluster.reply(&part, Ok(Response::Entries(all)));
    let again = std::mem::take(&mut cluster.arrived);
    let keys: Vec<Vec<String>> = again.iter().map(keys_of).collect();
    assert_eq!(keys, [["k2"], ["k3"]], "each by itself");
    cluster.reply(&again[0], Ok(served(&again[0])));
    cluster.reply(&again[1], Ok(Response::Entries(vec![too_large.clone()])));
    let results = entries(&cluster, op);
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!((&results[1], &results[3]), (&corrupt, &too_large));
}

#[test]
fn a_value_that_is_too_large_costs_the_others_nothing() {
    let mut cluster = Harness::ready(1);
    let items = vec![item("a", 1), item("b", MAX_VALUE_BYTES + 1), item("c", 1)];
    let op = cluster.submit(put_many(items));
    let part = cluster.take();
    assert_eq!(keys_of(&part), ["a", "c"]);
    cluster.reply(&part, Ok(served(&part)));
    let results = writes(&cluster, op);
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(Error::LimitExceeded { .. })));
    let none = cluster.submit(put_many(Vec::new()));
    assert_eq!(writes(&cluster, none), []);
}

#[test]
fn an_answer_with_another_number_of_results_is_none() {
    let mut cluster = Harness::ready(1);
    let op = cluster.submit(get_many(&names(2)));
    let part = cluster.take();
    cluster.reply(&part, Ok(Response::Entries(vec![Ok(found(NodeId(1)))])));
    for result in entries(&cluster, op) {
        assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
    }
}

#[test]
fn closing_leaves_no_key_without_an_answer() {
    let mut cluster = Harness::ready(1);
    let count = PART_KEYS * (WINDOW + 1);
    let items = names(count).iter().map(|name| item(name, 1)).collect();
    let op = cluster.submit(put_many(items));
    cluster.event(ClientEvent::Close);
    let results = writes(&cluster, op);
    let sent = PART_KEYS * WINDOW;
    for (place, result) in results.iter().enumerate() {
        let unknown = matches!(result, Err(Error::OutcomeUnknown { .. }));
        assert_eq!(unknown, place < sent, "{place}: {result:?}");
        assert!(unknown || matches!(result, Err(Error::Closed(_))));
    }
}

#[test]
fn its_parts_are_spans_of_one_trace() {
    let mut cluster = Harness::ready(3);
    let options = CallOptions {
        trace: Trace::New,
        ..CallOptions::timeout(Duration::from_secs(2))
    };
    let op = cluster.submit_with(get_many(&names(30)), options);
    let mut traces = Vec::new();
    for part in std::mem::take(&mut cluster.arrived) {
        traces.extend(part.frame.trace.map(|trace| trace.trace_id));
        cluster.reply(&part, Ok(served(&part)));
    }
    let trace_id = cluster.outcome(op).trace_id.expect("it is traced");
    assert_eq!(traces, [trace_id; 3], "nodes get the trace");
    let whole = cluster.spans.last().expect("the span of the whole").clone();
    assert_eq!((whole.name.as_str(), whole.parent_id), ("get_many users", 0));
    assert_eq!(cluster.spans.len(), 4);
    for span in &cluster.spans[..3] {
        assert_eq!((span.trace_id, span.parent_id), (trace_id, whole.span_id));
    }
}

#[test]
fn ids_of_parts_are_not_those_of_operations() {
    let mut cluster = Harness::ready(1);
    cluster.submit(get_many(&names(1)));
    let parts: Vec<(u64, u64, Vec<usize>)> = cluster
        .core
        .parts()
        .map(|(id, many, places)| (id, many, places.to_vec()))
        .collect();
    assert_eq!(parts, [(PARTS + 1, 1, vec![0])]);
}
