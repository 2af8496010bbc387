//! The actor of toy roles; all ports are replaced by recorders.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_core::files::FileTask;
use quorate_core::ids::NodeId;
use quorate_core::store::{Priority, Rows, Table};
use quorate_core::time::Instant;
use quorate_protocol::api::Response;
use quorate_protocol::message::{Header, Message, Part, PartBody};
use quorate_protocol::role::ClientRef;
use quorate_storage::StateWrite;
use quorate_storage::memory::MemoryStore;
use quorate_storage::store::Store;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::clock::Clock;
use crate::fatal::Fatal;
use crate::readers::ReadPort;
use crate::role_registry::RoleRegistry;
use crate::shell::{Answer, CommitPort, FilePort, PeerPort, Reconciler, ReplyPort};
use crate::telemetry::Telemetry;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

/// Records everything that leaves the actor.
#[derive(Default)]
pub(super) struct Outside {
    sent: Mutex<Vec<Vec<Envelope>>>,
    commits: Mutex<Vec<Vec<Commit>>>,
    answers: Mutex<Vec<Answer>>,
    pub(super) fatal: Mutex<Vec<FatalError>>,
    reconciled: AtomicBool,
    changed: Notify,
}

impl Outside {
    pub(super) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .expect("the condition holds within 10 s");
    }
}

struct Port(Arc<Outside>);

impl PeerPort for Port {
    fn send(&self, to: NodeId, messages: Vec<Envelope>) {
        assert_eq!(to, PEER);
        self.0.sent.lock().unwrap().push(messages);
        self.0.changed.notify_one();
    }
}

impl CommitPort for Port {
    fn submit(&self, requests: Vec<Commit>) {
        self.0.commits.lock().unwrap().push(requests);
        self.0.changed.notify_one();
    }

    fn apply_rows(&self, _owner: Owner, _token: u64, _writes: Vec<StateWrite>) {}

    fn why_full(&self) -> Option<String> {
        Some("in the directory".to_owned())
    }
}

impl FilePort for Port {
    fn perform(&self, token: u64, task: FileTask, _mailbox: Mailbox) {
        panic!("there are no files: {token} {task:?}");
    }
}

impl ReplyPort for Port {
    fn reply(&self, answers: Vec<Answer>) {
        self.0.answers.lock().unwrap().extend(answers);
        self.0.changed.notify_one();
    }
}

impl Reconciler for Port {
    fn reconcile(&self, _specs: Vec<Spec>) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let outside = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            outside.reconciled.store(true, Ordering::SeqCst);
            let _gone = done.send(());
        });
        receiver
    }
}

pub(super) type Behaviour = fn(Event, &mut Vec<Effect>);

/// A role that is one function.
#[derive(Clone)]
struct Toy(Behaviour);

impl Role for Toy {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, _now: Now, _rng: &mut Rng, event: Event, effects: &mut Vec<Effect>) {
        (self.0)(event, effects);
    }
}

pub(super) struct Running {
    pub(super) outside: Arc<Outside>,
    mailbox: Mailbox,
    ended: tokio::task::JoinHandle<()>,
}

async fn run(behaviour: Behaviour, before: impl IntoIterator<Item = Event>) -> Running {
    run_on(behaviour, before, |outside, _| Ports {
        commits: Arc::new(Port(Arc::clone(outside))),
        files: Arc::new(Port(Arc::clone(outside))),
        reader: MemoryStore::new().reader(),
    })
    .await
}

/// The ports to a disk.
pub(super) struct Ports {
    pub(super) commits: Arc<dyn CommitPort>,
    pub(super) files: Arc<dyn FilePort>,
    pub(super) reader: Arc<dyn quorate_storage::Reader>,
}

pub(super) async fn run_on(
    behaviour: Behaviour,
    before: impl IntoIterator<Item = Event>,
    disk: impl FnOnce(&Arc<Outside>, &Fatal) -> Ports,
) -> Running {
    let outside = Arc::<Outside>::default();
    let port = || Arc::new(Port(Arc::clone(&outside)));
    let fatal = {
        let outside = Arc::clone(&outside);
        Fatal::new(move |error| {
            outside.fatal.lock().unwrap().push(error);
            outside.changed.notify_one();
        })
    };
    let clock = Arc::new(Clock::start());
    let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock), ME, 1, 16, 16));
    let Ports {
        commits,
        files,
        reader,
    } = disk(&outside, &fatal);
    let shell = Arc::new(Shell {
        node: ME,
        clock,
        roles: RoleRegistry::default(),
        peers: port(),
        commits,
        reads: ReadPort::start(reader, "data".as_ref(), fatal.clone()),
        files,
        replies: port(),
        reconciler: port(),
        telemetry,
        fatal,
    });
    let inbox = Arc::<Inbox>::default();
    let arguments = RoleArguments {
        id: RoleId::Control,
        owner: Owner(7),
        role: Toy(behaviour),
        seed: 1,
        inbox: Arc::clone(&inbox),
        shell,
        recorder: None,
    };
    // The runtime of a test has one thread: nothing runs before the test waits, so these events are one batch.
    let (actor, ended) = Actor::spawn(None, RoleActor::default(), arguments).await.unwrap();
    let mailbox = Mailbox::new(inbox, actor);
    mailbox.push(before);
    Running {
        outside,
        mailbox,
        ended,
    }
}

fn header(request: u64) -> Header {
    Header {
        generation: 1,
        request,
        deadline: Instant::NEVER,
        trace: None,
    }
}

fn send(node: NodeId, role: RoleId, request: u64) -> Effect {
    Effect::Send {
        to: Address { node, role },
        header: header(request),
        message: Message::Stored,
    }
}

pub(super) fn reply(request: u64) -> Effect {
    let client = ClientRef {
        connection: 1,
        request,
    };
    Effect::Reply {
        client,
        response: Ok(Response::Keyspaces(Vec::new())),
    }
}

fn timer(id: u64) -> Event {
    Event::Timer { id }
}

pub(super) fn requests(outside: &Outside) -> Vec<u64> {
    outside
        .answers
        .lock()
        .unwrap()
        .iter()
        .map(|(client, _)| client.request)
        .collect()
}

#[tokio::test]
async fn effects_of_one_batch_are_performed_in_one_batch() {
    let behaviour: Behaviour = |event, effects| {
        if let Event::Timer { id } = event {
            effects.push(send(PEER, RoleId::Control, id));
            effects.push(Effect::Persist {
                token: id,
                priority: Priority::Normal,
                ops: Vec::new(),
            });
        }
    };
    let running = run(behaviour, (0..60).map(timer)).await;
    running
        .outside
        .until(|outside| !outside.sent.lock().unwrap().is_empty())
        .await;
    let sent = running.outside.sent.lock().unwrap();
    assert_eq!(sent.len(), 1, "one batch to the peer");
    assert!(sent[0].iter().map(|message| message.header.request).eq(0..60));
    let commits = running.outside.commits.lock().unwrap();
    assert_eq!(commits.len(), 1, "one batch to the disk");
    assert!(commits[0].iter().all(|request| request.owner == 7));
}

/// `Dropped` is delivered before all pending events, and its effects are performed before the actor ends.
#[tokio::test]
async fn a_dropped_role_answers_before_its_actor_ends() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Dropped => effects.push(reply(1_000)),
        Event::Timer { id } => effects.push(reply(id)),
        _ => {}
    };
    let running = run(behaviour, (0..3).map(timer)).await;
    running.mailbox.end();
    tokio::time::timeout(Duration::from_secs(10), running.ended)
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(requests(&running.outside), [1_000, 0, 1, 2]);
}

#[tokio::test]
async fn rows_and_messages_to_itself_are_answered_in_the_turn() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Timer { id } => {
            let key = Bytes::from_static(b"absent");
            effects.push(Effect::Read {
                token: id,
                query: Query::Get {
                    table: Table::Meta,
                    key,
                },
            });
        }
        Event::Read { token, result } => {
            assert_eq!(result, Ok(Rows::default()));
            effects.push(send(ME, RoleId::Control, token));
        }
        Event::Message { from, header, .. } => {
            assert_eq!(
                from,
                Address {
                    node: ME,
                    role: RoleId::Control
                }
            );
            effects.push(reply(header.request));
        }
        _ => {}
    };
    let running = run(behaviour, [timer(5), timer(6)]).await;
    running
        .outside
        .until(|outside| outside.answers.lock().unwrap().len() == 2)
        .await;
    assert_eq!(requests(&running.outside), [5, 6]);
}

#[tokio::test]
async fn ranges_are_answered_asynchronously() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Start => {
            let (start, end) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
            let query = Query::Range {
                table: Table::Meta,
                start,
                end,
                limit_rows: 9,
                limit_bytes: 99,
            };
            effects.push(Effect::Read { token: 3, query });
        }
        Event::Read { token, result } => {
            assert_eq!(result, Ok(Rows::default()));
            effects.push(reply(token));
        }
        _ => {}
    };
    let running = run(behaviour, []).await;
    running.outside.until(|outside| requests(outside) == [3]).await;
}

#[tokio::test]
async fn timers_fire_in_order() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Start => {
            effects.push(Effect::SetTimer {
                id: 2,
                at: Instant(2_000),
            });
            effects.push(Effect::SetTimer {
                id: 1,
                at: Instant(1_000),
            });
        }
        Event::Timer { id } => effects.push(reply(id)),
        _ => {}
    };
    let running = run(behaviour, []).await;
    running
        .outside
        .until(|outside| outside.answers.lock().unwrap().len() == 2)
        .await;
    assert_eq!(requests(&running.outside), [1, 2]);
}

#[tokio::test]
async fn effects_after_a_reconciliation_wait_for_it() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Start => effects.extend([reply(1), Effect::Reconcile(Vec::new()), reply(2)]),
        Event::Timer { id } => effects.push(reply(id)),
        _ => {}
    };
    let running = run(behaviour, [timer(3)]).await;
    running
        .outside
        .until(|outside| !requests(outside).is_empty())
        .await;
    let reconciled = running.outside.reconciled.load(Ordering::SeqCst);
    assert!(
        reconciled || requests(&running.outside) == [1],
        "{:?}",
        requests(&running.outside)
    );
    running
        .outside
        .until(|outside| outside.answers.lock().unwrap().len() == 3)
        .await;
    assert!(running.outside.reconciled.load(Ordering::SeqCst));
    assert_eq!(requests(&running.outside), [1, 2, 3]);
}

#[tokio::test]
async fn a_receipt_is_held_until_its_events_are_taken() {
    struct Returned(Arc<AtomicUsize>);
    impl Drop for Returned {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let behaviour: Behaviour = |event, effects| {
        if let Event::Timer { id } = event {
            effects.push(reply(id));
        }
    };
    let running = run(behaviour, []).await;
    let returned = Arc::new(AtomicUsize::new(0));
    running
        .mailbox
        .deliver([timer(1)], [Arc::new(Returned(Arc::clone(&returned))) as Receipt]);
    assert_eq!(returned.load(Ordering::SeqCst), 0, "nothing has run yet");
    running.outside.until(|outside| requests(outside) == [1]).await;
    assert_eq!(returned.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_role_that_panics_ends_the_node_and_is_not_restarted() {
    let behaviour: Behaviour = |event, effects| match event {
        Event::Timer { id: 2 } => panic!("the counter ran backwards"),
        Event::Timer { id } => effects.push(reply(id)),
        _ => {}
    };
    let running = run(behaviour, [timer(1), timer(2), timer(3)]).await;
    running.ended.await.unwrap();
    let reason = "the counter ran backwards".to_owned();
    assert_eq!(
        *running.outside.fatal.lock().unwrap(),
        [FatalError::Role {
            role: RoleId::Control,
            reason
        }]
    );
    assert_eq!(
        requests(&running.outside),
        [0u64; 0],
        "a broken role answers no request"
    );
}

#[tokio::test]
async fn a_long_turn_yields_to_others() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let behaviour: Behaviour = |event, _| {
        if matches!(event, Event::Timer { .. }) {
            let until = std::time::Instant::now() + Duration::from_micros(200);
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
            TAKEN.fetch_add(1, Ordering::SeqCst);
        }
    };
    let _running = run(behaviour, (0..1_000).map(timer)).await;
    tokio::task::yield_now().await;
    let taken = TAKEN.load(Ordering::SeqCst);
    assert!(taken < 1_000, "{taken} events in one turn");
    while TAKEN.load(Ordering::SeqCst) < 1_000 {
        tokio::task::yield_now().await;
    }
}

/// A role knows no directories. Whoever is told that its disk is full is told which, be it one of many parts.
#[tokio::test]
async fn a_full_disk_has_a_directory() {
    let running = run(
        |event, effects| {
            if let Event::TurnEnded = event {
                let full = || Error::StorageFull("full".to_owned());
                let part = |body| Part {
                    request: 1,
                    earlier_ms: 0,
                    body,
                };
                let parts = vec![part(PartBody::Stored), part(PartBody::Failed(full()))];
                for message in [Message::Failed(full()), Message::Parts(parts)] {
                    effects.push(Effect::Send {
                        to: Address {
                            node: PEER,
                            role: RoleId::Control,
                        },
                        header: header(1),
                        message,
                    });
                }
            }
        },
        [Event::TurnEnded],
    )
    .await;
    running
        .outside
        .until(|outside| !outside.sent.lock().unwrap().is_empty())
        .await;
    let sent = running.outside.sent.lock().unwrap().concat();
    let told = |error: &Error| *error == Error::StorageFull("full (in the directory)".to_owned());
    assert!(
        matches!(&sent[0].message, Message::Failed(error) if told(error)),
        "{sent:?}"
    );
    let Message::Parts(parts) = &sent[1].message else {
        panic!("{sent:?}");
    };
    assert!(
        matches!(&parts[1].body, PartBody::Failed(error) if told(error)),
        "{sent:?}"
    );
}
