//! The workload of the process that will crash, and the check of its data afterwards.
//!
//! It submits numbered requests. Each changes a few rows, a log and a hard state, so that the content of the store after
//! any number of them is known: after a crash it must be that after *some* number, which is not less than the acknowledged
//! one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::ids::{ClusterId, NodeId};
use quorate_storage::thread::{Config, Hooks};
use quorate_storage::{
    DataDir, JournalOp, LmdbStore, Options, Outcome, Priority, Reader, Request, StateWrite, StorageThread,
    Store, StreamId, Table,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(1);
pub(crate) const NODE: NodeId = NodeId(1);
const LOG: StreamId = StreamId(7);
const KEYS: u64 = 23;
const KEPT_ENTRIES: u64 = 12;

/// The operations of request `number`.
fn operations(number: u64) -> Vec<JournalOp> {
    let key = Bytes::from(format!("key {:03}", number % KEYS));
    let value = (!number.is_multiple_of(7)).then(|| value(number));
    let mut ops = vec![
        JournalOp::Write(vec![
            StateWrite {
                table: Table::Records,
                key: key.clone(),
                value: value.clone(),
            },
            StateWrite {
                table: Table::TokenIndex,
                key,
                value: value.map(|_| Bytes::new()),
            },
        ]),
        JournalOp::Append {
            stream: LOG,
            position: number,
            bytes: value_of_entry(number),
        },
        JournalOp::PutHard {
            key: "number".into(),
            value: number.to_be_bytes().to_vec().into(),
        },
    ];
    if number.is_multiple_of(5) && number > KEPT_ENTRIES {
        ops.push(JournalOp::Trim {
            stream: LOG,
            through: number - KEPT_ENTRIES,
        });
    }
    ops
}

/// Usually small, sometimes larger than a page.
fn value(number: u64) -> Bytes {
    let length = if number.is_multiple_of(11) {
        9000
    } else {
        40 + number as usize % 300
    };
    format!("{number}:").bytes().cycle().take(length).collect()
}

fn value_of_entry(number: u64) -> Bytes {
    format!("entry {number}").into()
}

/// The content after the requests up to `number`.
fn expected(number: u64) -> (BTreeMap<Bytes, Bytes>, Vec<u64>) {
    let mut rows = BTreeMap::new();
    let mut log = Vec::new();
    for op in (1..=number).flat_map(operations) {
        match op {
            JournalOp::Write(writes) => {
                for write in writes.into_iter().filter(|write| write.table == Table::Records) {
                    match write.value {
                        Some(value) => rows.insert(write.key, value),
                        None => rows.remove(&write.key),
                    };
                }
            }
            JournalOp::Append { position, .. } => log.push(position),
            JournalOp::Trim { through, .. } => log.retain(|position| *position > through),
            _ => {}
        }
    }
    (rows, log)
}

/// Submits `requests` requests, several at a time, and writes the number of each to `acks` when it is durable.
pub(crate) fn run(folder: &Path, requests: u64, without_sync: bool, acks: impl Write + Send + 'static) {
    let dir = DataDir::open(folder).unwrap();
    dir.claim(CLUSTER, NODE, 0).unwrap();
    let options = Options {
        zero_fill: 64 << 10,
        without_sync,
        ..Options::default()
    };
    let store = LmdbStore::open(&dir, &options).unwrap();
    let first = number(&*store.reader()) + 1;
    let (journal, applier) = store.split();
    let (done, credit) = std::sync::mpsc::channel();
    let acks = Mutex::new(acks);
    let hooks = Hooks {
        on_completed: Box::new(move |completions| {
            for completion in completions {
                assert_eq!(completion.outcome, Outcome::Durable);
                for token in &completion.tokens {
                    acks.lock()
                        .unwrap()
                        .write_all(format!("{token}\n").as_bytes())
                        .unwrap();
                }
                done.send(completion.tokens.len()).unwrap();
            }
        }),
        on_flushed: Box::new(|_| {}),
        on_fatal: Box::new(|detail| panic!("{detail}")),
        observer: Arc::new(()),
    };
    // Applies continuously, in small transactions.
    let config = Config {
        apply_bytes: 3000,
        apply_step_bytes: 1500,
        idle: Duration::from_millis(1),
        ..Config::default()
    };
    let thread = StorageThread::start(journal, applier, config, hooks).unwrap();
    let mut in_flight = 0;
    for number in first..first + requests {
        let request = Request {
            owner: 0,
            token: number,
            priority: Priority::Normal,
            ops: operations(number),
        };
        thread.handle().submit(request).unwrap();
        in_flight += 1;
        while in_flight > number as usize % 4 {
            in_flight -= credit.recv().unwrap();
        }
    }
    thread.shutdown();
}

fn number(reader: &dyn Reader) -> u64 {
    let stored = reader.get_hard(b"number").unwrap();
    stored.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

/// Opens the store after a crash and checks its content. Requests up to `acknowledged` must be present.
pub(crate) fn check(folder: &Path, acknowledged: u64, options: &Options) -> Result<(), String> {
    let dir = DataDir::open(folder).map_err(|error| error.to_string())?;
    dir.claim(CLUSTER, NODE, 1).map_err(|error| error.to_string())?;
    let mut store = LmdbStore::open(&dir, options).map_err(|error| error.to_string())?;
    check_content(&*store.reader(), acknowledged)?;
    // A recovered store is fully usable: it accepts the next request and applies all rows.
    let next = number(&*store.reader()) + 1;
    store
        .commit(&operations(next))
        .map_err(|error| error.to_string())?;
    while store.unapplied_bytes() > 0 {
        store.apply_step(usize::MAX).map_err(|error| error.to_string())?;
    }
    check_content(&*store.reader(), next)
}

fn check_content(reader: &dyn Reader, acknowledged: u64) -> Result<(), String> {
    let number = number(reader);
    if number < acknowledged {
        return Err(format!(
            "request {acknowledged} was acknowledged, {number} is the last one there"
        ));
    }
    let (rows, log) = expected(number);
    let fail = |what: &str| Err(format!("{what} is not that of {number} requests"));
    let page = reader
        .range(Table::Records, b"", None, 1000, usize::MAX)
        .map_err(|error| error.to_string())?;
    if page.rows.iter().ne(rows
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<Vec<_>>()
        .iter())
    {
        return fail("the content of the records");
    }
    let index = reader
        .range(Table::TokenIndex, b"", None, 1000, usize::MAX)
        .map_err(|error| error.to_string())?;
    if index.rows.iter().map(|(key, _)| key).ne(rows.keys()) {
        return fail("the index");
    }
    let entries = reader
        .log(LOG, 0, 1000, usize::MAX)
        .map_err(|error| error.to_string())?;
    if entries.iter().map(|(position, _)| position).ne(&log) {
        return fail("the log");
    }
    if entries
        .iter()
        .any(|(position, entry)| *entry != value_of_entry(*position))
    {
        return fail("an entry of the log");
    }
    Ok(())
}
