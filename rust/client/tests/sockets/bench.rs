//! The load generator.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_client::bench::{self, Operation, Options, Run};
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::level::Level;

use super::fake::Cluster;
use super::{PATIENCE, users};

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
        "arrivals",
        "batch",
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
        "rate",
        "rate_held",
        "read_percent",
        "secs",
        "unstarted",
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
async fn an_open_loop_keeps_to_its_rate_however_fast_the_cluster_is() {
    let cluster = Cluster::start(1).await;
    let (_client, _users) = users(&cluster).await;
    for (arrivals, most) in [("even", 200.0), ("poisson", 400.0)] {
        let run = format!(
            r#"{{"keyspace": 1, "operation": "mixed", "batch": 5, "rate": 200, "arrivals": "{arrivals}", "duration": 0.5,
                "warmup": 0, "keys": 10}}"#
        );
        let before = cluster.shared.requests.lock().unwrap().values().sum::<u64>();
        let report = bench::run(cluster.endpoints(), options(&run)).await.unwrap();
        let requests = cluster.shared.requests.lock().unwrap().values().sum::<u64>() - before;
        assert_eq!((report.rate, report.rate_held), (Some(200.0), Some(true)));
        assert!(
            report.errors == 0 && report.ops_per_s > 20.0 && report.ops_per_s <= most,
            "{report:?}"
        );
        // A batch is one operation of many requests.
        assert!(
            requests >= (report.ops_per_s * report.secs * 5.0) as u64 && requests % 5 == 0,
            "{requests}"
        );
    }
}

#[tokio::test]
async fn what_waits_for_a_cluster_that_does_not_answer_counts_from_its_scheduled_start() {
    let cluster = Cluster::start(1).await;
    let (_client, _users) = users(&cluster).await;
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let run = options(
        r#"{"keyspace": 1, "operation": "write", "rate": 100, "concurrency": 4, "duration": 0.3, "warmup": 0,
            "timeout": 0.2}"#,
    );
    let report = bench::run(cluster.endpoints(), run).await.unwrap();
    // Four are in flight, and when their time is up four others: the rest never gets its turn.
    assert!(report.unstarted >= 20 && report.errors >= 4, "{report:?}");
    assert_eq!(report.errors + report.unstarted, 30);
    assert_eq!((report.ops_per_s, report.rate_held), (0.0, Some(false)));
    assert!(
        report.p999_us > 100_000,
        "what waits longest was due early: {report:?}"
    );
}

#[tokio::test]
async fn a_run_can_be_watched_and_stopped() {
    let cluster = Cluster::start(1).await;
    let (client, users) = users(&cluster).await;
    let endless = options(r#"{"keyspace": 1, "operation": "write", "duration": 3600, "warmup": 0}"#);
    let mut run = Run::start(cluster.endpoints(), endless).unwrap();
    let begun = tokio::time::Instant::now();
    let counted = || cluster.shared.requests.lock().unwrap().values().sum::<u64>();
    while run.progress() == 0.0 || counted() < 100 {
        assert!(begun.elapsed() < PATIENCE);
        let waiting = tokio::time::timeout(Duration::from_millis(5), run.report()).await;
        assert!(waiting.is_err(), "it is still running: {waiting:?}");
    }
    assert!(run.progress() < 1.0);
    run.stop();
    assert!(matches!(run.report().await, Err(Error::Closed(_))));
    // What was sent before it was stopped may still arrive; then nothing comes any more.
    let mut last = u64::MAX;
    while last != counted() {
        assert!(begun.elapsed() < PATIENCE);
        last = counted();
        for _ in 0..100 {
            client.keyspaces().await.unwrap();
        }
    }
    assert_eq!(users.definition().id.0, 1);
}

#[tokio::test]
async fn entries_cannot_be_appended_to_a_quorum_keyspace() {
    let cluster = Cluster::start(1).await;
    let (_client, _users) = users(&cluster).await;
    let run = Options::new(KeyspaceId(1), Operation::Append);
    let refused = bench::run(cluster.endpoints(), run).await.unwrap_err();
    assert!(
        refused.to_string().contains("only keyspaces in consensus mode"),
        "{refused}"
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
