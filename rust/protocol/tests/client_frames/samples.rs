//! One sample of every variant of the client protocol. The `match`es without wildcard make sure that a new variant
//! does not compile before it has a sample.

use bytes::Bytes;
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::WallTime;
use quorate_protocol::api::*;
use quorate_protocol::faults::{FaultChange, Impairment, LinkFault};
use quorate_protocol::keyspace::{Keyspace, KeyspaceChange, KeyspaceSettings, ReadRepair};
use quorate_protocol::shard_command::{Command, Condition, Write};
use quorate_protocol::telemetry::{Occurrence, Span, TimelineEvent, TraceContext};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::types::GroupId;
use quorate_ring::{HashKind, RingSettings};
use quorate_versions::{Context, Dot, WriteId};

fn key(text: &'static str) -> Key {
    Key::try_from(text).unwrap()
}

fn dot() -> Dot {
    Dot {
        replica: ReplicaId::new(NodeId(2), 0xabcdef),
        counter: 300,
    }
}

fn context() -> Context {
    Context::new(KeyspaceId(7), &key("k"), [dot()].into_iter().collect())
}

fn timestamp() -> Timestamp {
    Timestamp {
        wall: WallTime(1_700_000_000_000_000),
        logical: 3,
    }
}

fn written() -> Written {
    Written {
        dot: dot(),
        context: context(),
        timestamp: timestamp(),
        acked: vec![NodeId(2)],
        coordinator: NodeId(2),
        level: Level::One,
    }
}

fn entry() -> Entry {
    Entry {
        versions: vec![Version {
            dot: dot(),
            value: Bytes::from_static(b"value"),
            timestamp: timestamp(),
        }],
        context: context(),
        answered: vec![NodeId(1), NodeId(2)],
        coordinator: NodeId(1),
        level: Level::Quorum,
    }
}

fn write_id() -> WriteId {
    WriteId {
        client: u64::MAX,
        sequence: 1,
    }
}

fn record() -> Record {
    Record {
        version: 300,
        time: WallTime(1_700_000_000_000_000),
        value: Bytes::from_static(b"value"),
    }
}

fn link_fault() -> LinkFault {
    LinkFault {
        id: 300,
        groups: vec![vec![NodeId(1), NodeId(2)], vec![NodeId(3)]],
        one_way: true,
        impairment: Impairment {
            block: true,
            loss_ppm: 25_000,
            delay_micros: 50_000,
            jitter_micros: 5_000,
        },
    }
}

fn view() -> View {
    View {
        node: NodeId(1),
        leader: Some(NodeId(2)),
        applied: 301,
        staleness_micros: Some(1500),
    }
}

fn keyspace() -> Keyspace {
    Keyspace {
        id: KeyspaceId(7),
        settings: KeyspaceSettings::quorum("users", 3),
        groups: Vec::new(),
    }
}

pub(crate) fn client_hello() -> ClientHello {
    ClientHello {
        version_min: 1,
        version_max: 2,
        features: 5,
        cluster: Some(ClusterId(0x0123_4567_89ab_cdef)),
        credentials: Bytes::from_static(b"secret"),
    }
}

pub(crate) fn server_hellos() -> Vec<(&'static str, ServerHello)> {
    let all = vec![
        ServerHello::Welcome {
            version: 1,
            features: 5,
            cluster: ClusterId(9),
            node: NodeId(3),
            boot: BootId(77),
        },
        ServerHello::Refused(Error::Refused("another cluster".to_owned())),
    ];
    all.into_iter()
        .map(|hello| match hello {
            ServerHello::Welcome { .. } => ("hello.welcome", hello),
            ServerHello::Refused(_) => ("hello.refused", hello),
        })
        .collect()
}

pub(crate) fn requests() -> Vec<(&'static str, RequestFrame)> {
    let all = vec![
        Request::Put {
            keyspace: KeyspaceId(7),
            key: Key::new("web", Some(Bytes::from_static(b"12:00"))).unwrap(),
            value: Some(Bytes::from_static(b"value")),
            context: Some(context()),
            level: Some(Level::Count(2)),
            write_id: write_id(),
        },
        Request::Get {
            keyspace: KeyspaceId(7),
            key: key("user-1"),
            level: None,
        },
        Request::Scan {
            keyspace: KeyspaceId(7),
            start: Some(key("a")),
            end: None,
            after_start: true,
            limit: 1000,
            level: Some(Level::One),
        },
        Request::CreateKeyspace(keyspace().settings),
        Request::ListKeyspaces,
        Request::Topology,
        Request::Status,
        Request::Events { after: 40 },
        Request::Spans { trace_id: 1 << 100 },
        Request::Metrics,
        Request::AlterKeyspace {
            name: "users".to_owned(),
            change: KeyspaceChange {
                read_level: Some(Level::One),
                write_level: None,
                read_repair: Some(ReadRepair::Off),
            },
            write_id: write_id(),
        },
        Request::DropKeyspace {
            name: "users".to_owned(),
            write_id: write_id(),
        },
        Request::Groups,
        Request::Propose {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            command: Command::Write(vec![
                Write {
                    key: key("user-123"),
                    value: Some(Bytes::from_static(b"value")),
                    condition: Condition::Version(300),
                },
                Write {
                    key: key("gone"),
                    value: None,
                    condition: Condition::Absent,
                },
            ]),
            session: Some(Stamp {
                session: 300,
                sequence: 5,
                acknowledged: 4,
            }),
        },
        Request::OpenSession {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            idle_ms: 60_000,
        },
        Request::CloseSession {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            session: 300,
        },
        Request::Read {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            keys: vec![key("user-123")],
            level: ReadLevel::Linearizable,
        },
        Request::ReadRange {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            start: Some(key("user-123")),
            end: None,
            after_start: true,
            limit: 100,
            level: ReadLevel::Stale,
        },
        Request::ReadLog {
            keyspace: KeyspaceId(7),
            group: GroupId(3),
            after: 300,
            limit: 100,
            level: ReadLevel::Stale,
        },
        Request::Faults,
        Request::ChangeFaults(FaultChange::Add(vec![link_fault()])),
        Request::ChangeFaults(FaultChange::Heal(vec![300])),
        Request::ChangeFaults(FaultChange::Replace(vec![link_fault()])),
        Request::Membership,
        Request::PutMany {
            keyspace: KeyspaceId(7),
            items: vec![
                PutItem {
                    key: key("user-1"),
                    value: Some(Bytes::from_static(b"value")),
                    context: None,
                },
                PutItem {
                    key: key("gone"),
                    value: None,
                    context: Some(context()),
                },
            ],
            level: Some(Level::Quorum),
            write_id: write_id(),
        },
        Request::GetMany {
            keyspace: KeyspaceId(7),
            keys: vec![key("user-1"), key("user-123")],
            level: None,
        },
    ];
    let trace = TraceContext {
        trace_id: 0xf00d << 64,
        span_id: 0xbeef,
        sampled: true,
    };
    all.into_iter()
        .map(|request| {
            let name = match request {
                Request::Put { .. } => "request.put",
                Request::Get { .. } => "request.get",
                Request::PutMany { .. } => "request.put_many",
                Request::GetMany { .. } => "request.get_many",
                Request::Scan { .. } => "request.scan",
                Request::CreateKeyspace(_) => "request.create_keyspace",
                Request::ListKeyspaces => "request.list_keyspaces",
                Request::Topology => "request.topology",
                Request::Status => "request.status",
                Request::Events { .. } => "request.events",
                Request::Spans { .. } => "request.spans",
                Request::Metrics => "request.metrics",
                Request::AlterKeyspace { .. } => "request.alter_keyspace",
                Request::DropKeyspace { .. } => "request.drop_keyspace",
                Request::Groups => "request.groups",
                Request::Propose { .. } => "request.propose",
                Request::OpenSession { .. } => "request.open_session",
                Request::CloseSession { .. } => "request.close_session",
                Request::Read { .. } => "request.read",
                Request::ReadRange { .. } => "request.read_range",
                Request::ReadLog { .. } => "request.read_log",
                Request::Faults => "request.faults",
                Request::ChangeFaults(FaultChange::Add(_)) => "request.change_faults.add",
                Request::ChangeFaults(FaultChange::Heal(_)) => "request.change_faults.heal",
                Request::ChangeFaults(FaultChange::Replace(_)) => "request.change_faults.replace",
                Request::Membership => "request.membership",
            };
            let frame = RequestFrame {
                id: 1000,
                deadline_ms: 2000,
                trace: name.ends_with("put").then_some(trace),
                request,
            };
            (name, frame)
        })
        .collect()
}

fn topology() -> Topology {
    Topology {
        cluster: ClusterId(9),
        generation: 2,
        members: vec![Member {
            id: NodeId(1),
            peer_address: "h:1".to_owned(),
            client_address: "h:2".to_owned(),
            http_address: "h:3".to_owned(),
            rack: "r".to_owned(),
            datacenter: "d".to_owned(),
        }],
        ring: RingSettings {
            vnodes: 150,
            hash: HashKind::Murmur3,
        },
    }
}

fn answers() -> Vec<Response> {
    vec![
        Response::Written(written()),
        Response::Entry(entry()),
        Response::Page(Page {
            entries: vec![(key("user-1"), entry())],
            next: Some(key("user-1")),
        }),
        Response::Keyspace {
            keyspace: keyspace(),
            created: true,
        },
        Response::Keyspaces(vec![keyspace()]),
        Response::Topology(Box::new(topology())),
        Response::Status(Box::new(Status {
            node: NodeId(1),
            boot: BootId(77),
            uptime_seconds: 60,
            version: "0.1.0".to_owned(),
            generation: 2,
            peers: vec![PeerStatus {
                node: NodeId(2),
                up: true,
                round_trip_micros: 150,
                queued_bytes: 0,
            }],
            keyspaces: vec!["users".to_owned()],
            data_directory: "/data".to_owned(),
            stored_bytes: 4096,
            in_flight: 1,
            storage: StorageStatus {
                full: Some("free disk space".to_owned()),
                available_bytes: 1_000,
                environments: vec![EnvironmentStatus {
                    name: "state".to_owned(),
                    used_bytes: 8_192,
                    limit_bytes: 16 << 20,
                }],
            },
        })),
        Response::Events(vec![Occurrence {
            sequence: 41,
            at: WallTime(1_700_000_000_000_000),
            node: NodeId(1),
            generation: 2,
            event: TimelineEvent::PeerDown {
                peer: NodeId(2),
                reason: "reset".to_owned(),
            },
        }]),
        Response::Spans(vec![Span {
            trace_id: 1 << 100,
            span_id: 5,
            parent_id: 4,
            name: "quorum.write".to_owned(),
            node: Some(NodeId(1)),
            start: WallTime(10),
            end: WallTime(20),
            attributes: vec![("level".to_owned(), "ONE".to_owned())],
            error: None,
        }]),
        Response::Metrics("up 1\n".to_owned()),
        Response::Groups(vec![GroupClaim {
            group: GroupId(1),
            name: "control".to_owned(),
            node: NodeId(3),
            state: GroupState::Leader,
            term: 4,
            leader: Some(NodeId(3)),
            heard_micros: Some(0),
            commit: 300,
            applied: 299,
            last: 301,
            snapshot: 200,
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: vec![NodeId(4)],
            lag: vec![(NodeId(1), 1), (NodeId(2), 0), (NodeId(4), 101)],
            elections: 2,
            problem: None,
            activity: quorate_raft::status::Activity {
                heartbeats_sent: 1000,
                heartbeats_answered: 990,
                commands: 300,
                elections_won: 2,
                election_micros: 5000,
            },
        }]),
        Response::Done,
        Response::Committed(Committed {
            index: 300,
            term: 4,
            leader: NodeId(2),
        }),
        Response::SessionOpened {
            session: 300,
            leader: NodeId(2),
        },
        Response::Records {
            records: vec![Some(record()), None],
            view: view(),
        },
        Response::RecordPage {
            entries: vec![(key("user-123"), record())],
            next: Some(key("user-123")),
            view: view(),
        },
        Response::LogPage {
            entries: vec![LogEntry {
                id: 301,
                term: 4,
                time: WallTime(1_700_000_000_000_000),
                source: "web".to_owned(),
                data: Bytes::from_static(b"line"),
            }],
            next: Some(301),
            view: view(),
        },
        Response::Faults(vec![link_fault()]),
        Response::Membership(Box::new(Membership {
            topology: topology(),
            version: 1,
            voters: vec![NodeId(1), NodeId(2)],
            learners: vec![NodeId(3)],
        })),
        Response::WrittenMany(vec![Ok(written()), Err(Error::unavailable(2, 1))]),
        Response::Entries(vec![Ok(entry()), Err(Error::NotFound("no such".to_owned()))]),
    ]
}

fn errors() -> Vec<Error> {
    vec![
        Error::unavailable(2, 1),
        Error::Overloaded("busy".to_owned()),
        Error::OutcomeUnknown {
            acked: 1,
            required: 2,
            reason: Some("the disk of n2 is full".to_owned()),
        },
        Error::ReadTimeout {
            answered: 1,
            required: 2,
        },
        Error::InvalidArgument("bad".to_owned()),
        Error::LimitExceeded {
            what: "value".to_owned(),
            size: 2_000_000,
            limit: 1_048_576,
            remedy: "split it".to_owned(),
        },
        Error::NotFound("no such".to_owned()),
        Error::KeyspaceExists("other".to_owned()),
        Error::StorageFull("full".to_owned()),
        Error::CorruptRecord("crc".to_owned()),
        Error::ConnectionLost("reset".to_owned()),
        Error::Refused("version".to_owned()),
        Error::Closed("stopping".to_owned()),
        Error::ConditionFailed {
            key: "users/1".to_owned(),
            current: Some(300),
        },
        Error::SessionExpired("the session has expired".to_owned()),
        Error::PermissionDenied("allow_faults is off".to_owned()),
        Error::ConnectionRefused("nobody listens".to_owned()),
    ]
}

pub(crate) fn responses() -> Vec<(String, ResponseFrame)> {
    let results = answers().into_iter().map(Ok).chain(errors().into_iter().map(Err));
    results
        .map(|response| {
            let name = match &response {
                Ok(Response::Written(_)) => "response.written".to_owned(),
                Ok(Response::Entry(_)) => "response.entry".to_owned(),
                Ok(Response::Page(_)) => "response.page".to_owned(),
                Ok(Response::Keyspace { .. }) => "response.keyspace".to_owned(),
                Ok(Response::Keyspaces(_)) => "response.keyspaces".to_owned(),
                Ok(Response::Topology(_)) => "response.topology".to_owned(),
                Ok(Response::Status(_)) => "response.status".to_owned(),
                Ok(Response::Events(_)) => "response.events".to_owned(),
                Ok(Response::Spans(_)) => "response.spans".to_owned(),
                Ok(Response::Metrics(_)) => "response.metrics".to_owned(),
                Ok(Response::Groups(_)) => "response.groups".to_owned(),
                Ok(Response::Done) => "response.done".to_owned(),
                Ok(Response::Committed(_)) => "response.committed".to_owned(),
                Ok(Response::SessionOpened { .. }) => "response.session_opened".to_owned(),
                Ok(Response::Records { .. }) => "response.records".to_owned(),
                Ok(Response::RecordPage { .. }) => "response.record_page".to_owned(),
                Ok(Response::LogPage { .. }) => "response.log_page".to_owned(),
                Ok(Response::Faults(_)) => "response.faults".to_owned(),
                Ok(Response::Membership(_)) => "response.membership".to_owned(),
                Ok(Response::WrittenMany(_)) => "response.written_many".to_owned(),
                Ok(Response::Entries(_)) => "response.entries".to_owned(),
                Err(error) => format!("error.{}", error.name()),
            };
            (name, ResponseFrame { id: 1000, response })
        })
        .collect()
}
