//! The load generator.

use std::sync::atomic::Ordering;

use quorate_client::bench::{self, Operation, Options};
use quorate_core::error::Error;
use quorate_core::level::Level;

use super::fake::Cluster;
use super::users;

fn options(json: &str) -> Options {
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn a_run_is_reported_in_the_peers_fields() {
    let cluster = Cluster::start(3).await;
    let (_client, users) = users(&cluster).await;
    assert_eq!(users.definition().id.0, 1);
    let load = options(r#"{"keyspace": 1, "operation": "load", "keys": 500, "value_size": 10}"#);
    let report = bench::run(cluster.endpoints(), load).await.unwrap();
    assert_eq!(
        (report.errors, cluster.shared.data.lock().unwrap().len()),
        (0, 500)
    );
    assert!(
        cluster
            .shared
            .data
            .lock()
            .unwrap()
            .values()
            .all(|value| value.len() == 10)
    );

    let read = options(
        r#"{"keyspace": 1, "operation": "read", "keys": 1000, "concurrency": 8, "level": "ONE",
            "duration": 0.2, "warmup": 0.05, "connections": 2}"#,
    );
    assert_eq!(read.level, Some(Level::One));
    let report = bench::run(cluster.endpoints(), read).await.unwrap();
    assert!(report.ops_per_s > 0.0 && report.errors == 0, "{report:?}");
    assert!(report.misses > 0 && (report.misses as f64) < report.ops_per_s * report.secs);
    assert!(report.p50_us > 0 && report.p50_us <= report.p99_us && report.p99_us <= report.p999_us);
    let line = serde_json::to_value(&report).unwrap();
    let fields: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "client_cores",
        "concurrency",
        "conns",
        "durability",
        "errors",
        "level",
        "misses",
        "op",
        "ops_per_s",
        "p50_us",
        "p999_us",
        "p99_us",
        "peer",
        "secs",
        "value_bytes",
    ];
    let mut fields = fields;
    fields.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!(
        (line["op"].as_str(), line["conns"].as_u64()),
        (Some("read"), Some(2))
    );
}

#[tokio::test]
async fn failures_are_counted_and_the_first_is_told() {
    let cluster = Cluster::start(1).await;
    let (_client, _users) = users(&cluster).await;
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let run = options(
        r#"{"keyspace": 1, "operation": "mixed", "concurrency": 2, "duration": 0.3, "warmup": 0, "timeout": 0.05}"#,
    );
    let report = bench::run(cluster.endpoints(), run).await.unwrap();
    assert!(report.errors >= 2 && report.ops_per_s == 0.0, "{report:?}");
    assert!(report.first_error.unwrap().contains("timed out"));
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let mut run = options(r#"{"keyspace": 1, "operation": "write"}"#);
    assert_eq!(
        (run.operation, run.concurrency, run.keys),
        (Operation::Write, 64, 100_000)
    );
    run.concurrency = 0;
    let refused = bench::run(vec!["127.0.0.1:1".to_owned()], run).await.unwrap_err();
    assert_eq!(refused, Error::invalid("concurrency=0: give at least 1"));
    let unknown =
        serde_json::from_str::<Options>(r#"{"keyspace": 1, "operation": "write", "level": "MOST"}"#);
    assert!(unknown.unwrap_err().to_string().contains("use ONE, TWO"));
}
