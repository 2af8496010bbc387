//! Driving by blocking threads and by event loops other than Tokio's.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use quorate_client::shell::EventLoop;
use quorate_client::{Call, CallOptions, Client, ConnectOptions, OperationOptions};
use quorate_core::error::Error;
use quorate_protocol::api::Request;
use quorate_protocol::keyspace::KeyspaceSettings;
use rustix::event::{PollFd, PollFlags, poll};

use crate::fake::Cluster;
use crate::{PATIENCE, key};

fn block_on<F: Future>(client: &Client, future: F) -> F::Output {
    let answer = client.driver().block_on(pin!(future), Some(PATIENCE));
    answer.expect("the answer comes in time")
}

fn open(endpoints: Vec<String>) -> Result<Client, Error> {
    let opening = Client::open(endpoints, ConnectOptions::default())?;
    let driver = opening.driver().clone();
    driver
        .block_on(pin!(opening), Some(PATIENCE))
        .expect("it connects in time")
}

/// Waits until the loop is ready; returns whether it is.
fn readable(event_loop: &EventLoop) -> bool {
    let mut descriptors = [PollFd::from_borrowed_fd(event_loop.as_fd(), PollFlags::IN)];
    let second = rustix::event::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    poll(&mut descriptors, Some(&second)).unwrap() > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_block_share_a_client() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let work = move || {
        let client = open(endpoints).unwrap();
        let users = block_on(
            &client,
            client.create_keyspace(KeyspaceSettings::quorum("users", 3)),
        );
        let users = users.unwrap();
        thread::scope(|scope| {
            for worker in 0..8 {
                let (client, users) = (&client, &users);
                scope.spawn(move || {
                    for number in 0..100 {
                        let key = key(worker * 100 + number);
                        let value = number.to_string();
                        block_on(
                            client,
                            users.put(key.clone(), value.clone(), &OperationOptions::default()),
                        )
                        .unwrap();
                        let entry = block_on(client, users.get(key, &OperationOptions::default()))
                            .unwrap()
                            .value;
                        assert_eq!(entry.versions[0].value, value.as_bytes());
                    }
                });
            }
        });
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_wakes_threads_that_block() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let client = tokio::task::spawn_blocking(|| open(endpoints).unwrap())
        .await
        .unwrap();
    cluster.shared.mute.store(true, Ordering::Relaxed);
    let options = CallOptions::timeout(Duration::from_secs(3600));
    let blocked: Vec<_> = (0..3)
        .map(|_| {
            let (client, call) = (client.clone(), client.call(Request::Status, options));
            thread::spawn(move || client.driver().block_on(pin!(call), None))
        })
        .collect();
    client.close();
    for thread in blocked {
        let outcome = tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap();
        assert!(matches!(outcome.unwrap().result, Err(Error::Closed(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_ends_a_wait_and_the_next_one_finds_the_answer() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let shared = std::sync::Arc::clone(&cluster.shared);
    let work = move || {
        let client = open(endpoints).unwrap();
        shared.mute.store(true, Ordering::Relaxed);
        let mut call = pin!(client.call(Request::Status, CallOptions::timeout(Duration::from_millis(300))));
        let early = client
            .driver()
            .block_on(call.as_mut(), Some(Duration::from_millis(1)));
        assert!(early.is_none());
        let late = client.driver().block_on(call, Some(PATIENCE)).unwrap();
        assert!(matches!(late.result, Err(Error::ReadTimeout { .. })));
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_loop_completes_its_calls_by_itself() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let work = move || {
        let client = open(endpoints).unwrap();
        let event_loop = EventLoop::new().unwrap();
        event_loop.attach(client.driver()).unwrap();
        let mut calls: Vec<Option<Call>> = (0..100)
            .map(|_| Some(client.call(Request::Status, CallOptions::default())))
            .collect();
        let mut woken: Vec<u64> = (0..100).collect();
        let deadline = Instant::now() + PATIENCE;
        while calls.iter().any(Option::is_some) {
            for number in woken {
                let Some(call) = &mut calls[number as usize] else {
                    continue;
                };
                let waker = event_loop.waker(number);
                if let Poll::Ready(outcome) = pin!(call).poll(&mut Context::from_waker(&waker)) {
                    outcome.result.unwrap();
                    calls[number as usize] = None;
                }
            }
            woken = event_loop.turn();
            assert!(Instant::now() < deadline);
            if woken.is_empty() && calls.iter().any(Option::is_some) {
                assert!(readable(&event_loop), "the loop is notified");
            }
        }
        // A client that is closed leaves the loop.
        client.close();
        event_loop.turn();
        assert!(!readable(&event_loop));
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_blocks_is_woken_when_an_event_loop_takes_its_answer() {
    let cluster = Cluster::start(1).await;
    let endpoints = cluster.endpoints();
    let work = move || {
        let client = open(endpoints).unwrap();
        let event_loop = EventLoop::new().unwrap();
        event_loop.attach(client.driver()).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let call = client.call(Request::Status, CallOptions::default());
                    // Without patience, only an interruption ends the wait.
                    let outcome = client.driver().block_on(pin!(call), None);
                    outcome.unwrap().result.unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                event_loop.turn();
            }
        });
        // An interruption that came too late does not keep the loop busy.
        let busy = (0..100).all(|_| {
            let readable = readable(&event_loop);
            event_loop.turn();
            readable
        });
        assert!(!busy, "an idle loop always has something to do");
    };
    let ended = tokio::task::spawn_blocking(work);
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_resolved_and_addresses_tried_one_after_the_other() {
    let cluster = Cluster::start(1).await;
    let (_, port) = cluster.endpoints()[0]
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .unwrap();
    let work = move || {
        // If this name has an IPv6 address, it refuses connections.
        let client = open(vec![format!("localhost:{port}")]).unwrap();
        let outcome = block_on(&client, client.call(Request::Status, CallOptions::default()));
        outcome.result.unwrap();
        let unknown = open(vec!["no-such-host.invalid:7400".to_owned()]).err().unwrap();
        assert!(
            matches!(&unknown, Error::ConnectionLost(text) if text.contains("no-such-host.invalid")),
            "{unknown}"
        );
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}
