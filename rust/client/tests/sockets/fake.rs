//! Fake nodes: real sockets and frames, a map instead of replicas. All nodes of a cluster share the map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use quorate_core::error::Error;
use quorate_core::hlc::Timestamp;
use quorate_core::ids::{BootId, ClusterId, KeyspaceId, NodeId, ReplicaId};
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_core::time::WallTime;
use quorate_protocol::api::*;
use quorate_protocol::frame::{Decoder, encode};
use quorate_protocol::keyspace::Keyspace;
use quorate_protocol::telemetry::{Occurrence, Span, TimelineEvent};
use quorate_protocol::topology::{Member, Topology};
use quorate_ring::RingSettings;
use quorate_versions::{Context, Dot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The shared state of the nodes.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) data: Mutex<BTreeMap<Key, Bytes>>,
    pub(crate) keyspaces: Mutex<Vec<Keyspace>>,
    pub(crate) spans: Mutex<Vec<Span>>,
    counter: AtomicU64,
    /// Requests are accepted without a response.
    pub(crate) mute: AtomicBool,
    /// The number of requests to each node; a request for many keys counts each key.
    pub(crate) requests: Mutex<BTreeMap<NodeId, u64>>,
}

pub(crate) struct Cluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) topology: Topology,
    nodes: BTreeMap<NodeId, JoinSet<()>>,
}

impl Cluster {
    pub(crate) async fn start(nodes: u16) -> Cluster {
        let mut listeners = Vec::new();
        for number in 1..=nodes {
            listeners.push((NodeId(number), TcpListener::bind("127.0.0.1:0").await.unwrap()));
        }
        let member = |(id, listener): &(NodeId, TcpListener)| Member {
            id: *id,
            peer_address: String::new(),
            client_address: listener.local_addr().unwrap().to_string(),
            http_address: String::new(),
            rack: "r".to_owned(),
            datacenter: "d".to_owned(),
        };
        let members = listeners.iter().map(member).collect();
        let topology = Topology::new(ClusterId(5), 1, members, RingSettings::default()).unwrap();
        let mut cluster = Cluster {
            shared: Arc::default(),
            topology,
            nodes: BTreeMap::new(),
        };
        for (id, listener) in listeners {
            cluster.run(id, listener);
        }
        cluster
    }

    fn run(&mut self, id: NodeId, listener: TcpListener) {
        let (shared, topology) = (Arc::clone(&self.shared), self.topology.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, id, Arc::clone(&shared), topology.clone()));
            }
        });
        self.nodes.insert(id, tasks);
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.topology
            .members
            .iter()
            .map(|member| member.client_address.clone())
            .collect()
    }

    /// Its sockets are closed when this returns.
    pub(crate) async fn kill(&mut self, node: NodeId) {
        if let Some(mut tasks) = self.nodes.remove(&node) {
            tasks.shutdown().await;
        }
    }

    pub(crate) async fn restart(&mut self, node: NodeId) {
        let address = self.topology.member(node).unwrap().client_address.clone();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        self.run(node, socket.listen(64).unwrap());
    }
}

async fn serve(mut stream: TcpStream, node: NodeId, shared: Arc<Shared>, topology: Topology) {
    let mut decoder = Decoder::new(MAX_CLIENT_FRAME);
    let (mut magic, mut greeted) = (false, false);
    let mut out = BytesMut::new();
    let mut held = Vec::new();
    loop {
        match stream.read_buf(decoder.buffer_mut()).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if !magic {
            magic = decoder.magic().expect("a client");
            if !magic {
                continue;
            }
        }
        if !greeted {
            let Some(hello) = decoder.decode::<ClientHello>().unwrap() else {
                continue;
            };
            greeted = true;
            let answer = match hello.cluster {
                Some(other) if other != topology.cluster => {
                    ServerHello::Refused(Error::Refused("this is cluster 5".to_owned()))
                }
                _ => ServerHello::Welcome {
                    version: 1,
                    features: 0,
                    cluster: topology.cluster,
                    node,
                    boot: BootId(u64::from(node.0)),
                },
            };
            encode(&answer, MAX_CLIENT_FRAME, &mut out).unwrap();
        }
        while let Some(frame) = decoder.decode::<RequestFrame>().unwrap() {
            let own = matches!(frame.request, Request::Topology | Request::ListKeyspaces);
            if !own {
                *shared.requests.lock().unwrap().entry(node).or_default() += frame.request.count() as u64;
            }
            if !own && shared.mute.load(Ordering::Relaxed) {
                held.push(frame);
                continue;
            }
            let response = ResponseFrame {
                id: frame.id,
                response: answer(node, &shared, &topology, frame.request),
            };
            encode(&response, MAX_CLIENT_FRAME, &mut out).unwrap();
        }
        if stream.write_all_buf(&mut out).await.is_err() {
            return;
        }
    }
}

fn entry(node: NodeId, value: Option<&Bytes>) -> Entry {
    let dot = Dot {
        replica: ReplicaId::new(node, 1),
        counter: 1,
    };
    Entry {
        versions: value
            .map(|value| Version {
                dot,
                value: value.clone(),
                timestamp: Timestamp::default(),
            })
            .into_iter()
            .collect(),
        context: Context::default(),
        answered: vec![node],
        coordinator: node,
        level: Level::One,
    }
}

fn answer(node: NodeId, shared: &Shared, topology: &Topology, request: Request) -> Result<Response, Error> {
    let mut data = shared.data.lock().unwrap();
    let mut write = |key, value| {
        match value {
            Some(value) => data.insert(key, value),
            None => data.remove(&key),
        };
        Written {
            dot: Dot {
                replica: ReplicaId::new(node, 1),
                counter: 1 + shared.counter.fetch_add(1, Ordering::Relaxed),
            },
            context: Context::default(),
            timestamp: Timestamp::default(),
            acked: vec![node],
            coordinator: node,
            level: Level::One,
        }
    };
    Ok(match request {
        Request::Put { key, value, .. } => Response::Written(write(key, value)),
        Request::PutMany { items, .. } => Response::WrittenMany(
            items
                .into_iter()
                .map(|item| Ok(write(item.key, item.value)))
                .collect(),
        ),
        Request::GetMany { keys, .. } => {
            let mut bytes = 0;
            let found = keys.iter().map(|key| {
                let before = bytes;
                bytes += data.get(key).map_or(0, Bytes::len);
                match before == 0 || bytes <= MAX_MANY_BYTES {
                    true => Ok(entry(node, data.get(key))),
                    false => Err(Error::LimitExceeded {
                        what: "the answer".to_owned(),
                        size: bytes as u64,
                        limit: MAX_MANY_BYTES as u64,
                        remedy: "read it by itself".to_owned(),
                    }),
                }
            });
            Response::Entries(found.collect())
        }
        Request::Get { key, .. } => Response::Entry(entry(node, data.get(&key))),
        Request::Scan {
            start,
            end,
            after_start,
            limit,
            ..
        } => {
            let from = |key: &&Key| match &start {
                None => true,
                Some(start) if after_start => *key > start,
                Some(start) => *key >= start,
            };
            let keys: Vec<Key> = data
                .keys()
                .filter(from)
                .filter(|key| end.as_ref().is_none_or(|end| *key < end))
                .take(limit as usize + 1)
                .cloned()
                .collect();
            let more = keys.len() > limit as usize;
            let entries: Vec<(Key, Entry)> = keys
                .into_iter()
                .take(limit as usize)
                .map(|key| (key.clone(), entry(node, data.get(&key))))
                .collect();
            let next = more.then(|| entries.last().unwrap().0.clone());
            Response::Page(Page { entries, next })
        }
        Request::CreateKeyspace(settings) => {
            settings.validate(topology.members.len())?;
            let mut keyspaces = shared.keyspaces.lock().unwrap();
            let id = KeyspaceId(keyspaces.len() as u32 + 1);
            let known = keyspaces
                .iter()
                .find(|known| known.settings.name == settings.name);
            match known.cloned() {
                Some(known) if known.settings == settings => Response::Keyspace {
                    keyspace: known,
                    created: false,
                },
                Some(_) => return Err(Error::KeyspaceExists("it has other settings".to_owned())),
                None => {
                    let keyspace = Keyspace {
                        id,
                        settings,
                        groups: Vec::new(),
                    };
                    keyspaces.push(keyspace.clone());
                    Response::Keyspace {
                        keyspace,
                        created: true,
                    }
                }
            }
        }
        Request::ListKeyspaces => Response::Keyspaces(shared.keyspaces.lock().unwrap().clone()),
        Request::Topology => Response::Topology(Box::new(topology.clone())),
        Request::Membership => Response::Membership(Box::new(Membership {
            topology: topology.clone(),
            version: 1,
            voters: topology.ids().collect(),
            learners: Vec::new(),
        })),
        Request::Status => Response::Status(Box::new(Status {
            node,
            boot: BootId(u64::from(node.0)),
            uptime_seconds: 1,
            version: "test".to_owned(),
            generation: 1,
            peers: Vec::new(),
            keyspaces: Vec::new(),
            data_directory: String::new(),
            stored_bytes: 0,
            in_flight: 0,
            storage: StorageStatus::default(),
        })),
        Request::Events { after } => {
            let occurrence = |sequence| Occurrence {
                sequence,
                at: WallTime(sequence * 10 + u64::from(node.0)),
                node,
                generation: 1,
                event: TimelineEvent::NodeStarted,
            };
            Response::Events((after + 1..=2).map(occurrence).collect())
        }
        Request::Spans { trace_id } => {
            let spans = shared.spans.lock().unwrap();
            Response::Spans(
                spans
                    .iter()
                    .filter(|span| span.trace_id == trace_id)
                    .cloned()
                    .collect(),
            )
        }
        Request::Metrics => Response::Metrics(format!("node {node}\n")),
        Request::Groups => Response::Groups(Vec::new()),
        Request::Faults => Response::Faults(Vec::new()),
        Request::ChangeFaults(_) => return Err(Error::PermissionDenied("not these nodes".to_owned())),
        Request::Propose { .. }
        | Request::OpenSession { .. }
        | Request::CloseSession { .. }
        | Request::Read { .. }
        | Request::ReadRange { .. }
        | Request::ReadLog { .. } => return Err(Error::NotFound("these nodes have no groups".to_owned())),
        Request::AlterKeyspace { name, change, .. } => {
            let mut keyspaces = shared.keyspaces.lock().unwrap();
            let known = keyspaces.iter_mut().find(|known| known.settings.name == name);
            let known = known.ok_or(Error::NotFound(name))?;
            change.apply(&mut known.settings)?;
            Response::Keyspace {
                keyspace: known.clone(),
                created: false,
            }
        }
        Request::DropKeyspace { name, .. } => {
            let mut keyspaces = shared.keyspaces.lock().unwrap();
            let place = keyspaces.iter().position(|known| known.settings.name == name);
            let keyspace = keyspaces.remove(place.ok_or(Error::NotFound(name))?);
            Response::Keyspace {
                keyspace,
                created: false,
            }
        }
    })
}
