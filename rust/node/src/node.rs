//! A running node: startup and shutdown of its parts, in order.
//!
//! Startup: store, roles, recovery of the control role; only then the links to the peers and the client listener, so that
//! no request fails with a missing keyspace that has not been recovered yet. Shutdown: the reverse order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::ids::{BootId, ClusterId, ReplicaId};
use quorate_otlp::Exporter;
use quorate_protocol::api::{Request, Response};
use quorate_protocol::link::LinkSettings;
use quorate_protocol::message::Header;
use quorate_protocol::placement::Placement;
use quorate_protocol::role::{RoleId, Surroundings};
use quorate_protocol::telemetry::TimelineEvent;
use quorate_protocol::topology::Topology;
use quorate_storage::datadir::{Claim, DataDir, Formation};
use quorate_storage::error::OpenError;
use quorate_storage::files::FileThreads;
use quorate_storage::lmdb::{LmdbStore, Options};
use quorate_storage::store::Store;
use quorate_storage::thread::{Config as StorageConfig, StorageThread};
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::client_listener::{self, Listener, Replies};
use crate::clock::Clock;
use crate::commit_batcher::CommitBatcher;
use crate::config::{NodeConfig, Secret};
use crate::disk_space::{DiskSpaceObserver, DiskSpacePort};
use crate::fatal::Fatal;
use crate::fault_control::FaultControl;
use crate::files::Files;
use crate::listeners::Listeners;
use crate::local_client::LocalClient;
use crate::node_status::NodeStatus;
use crate::peer_registry::PeerRegistry;
use crate::peers::{Delivery, Peers};
use crate::readers::ReadPort;
use crate::role_registry::RoleRegistry;
use crate::router::{ClientRequest, Router};
use crate::rpc_spans::RpcSpans;
use crate::service::{Service, ServiceFuture};
use crate::shell::{CommitPort, FilePort, ReplyPort, Shell};
use crate::start_error::StartError;
use crate::supervisor::{Supervisor, SupervisorArguments, SupervisorMessage};
use crate::telemetry::Telemetry;
use crate::transport::{LocalIdentity, Transport, TransportConfig};
use crate::{disk, layout};

/// The timeout of the control role's recovery.
const RECOVERY: Duration = Duration::from_secs(60);

/// The pause between attempts to lock a data directory that is in use.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Serves HTTP on the node's HTTP listener. Implemented by the gateway crate.
pub trait HttpServer: Send + Sync {
    /// Accepts connections while the future is polled.
    fn serve(&self, listener: std::net::TcpListener, status: Arc<NodeStatus>) -> ServiceFuture;
}

/// The data directory, locked and claimed, and the store in it.
pub struct Opened {
    dir: DataDir,
    claim: Claim,
    store: LmdbStore,
}

impl Opened {
    /// Opens the data directory of `config`. Blocks on I/O: not for a thread that runs actors.
    ///
    /// # Errors
    /// [`StartError::Open`] when the directory belongs to another node, is in use or damaged.
    pub fn open(config: &NodeConfig) -> Result<Self, StartError> {
        let dir = DataDir::open(&config.data_dir)?;
        let incarnation = random()?;
        let claim = if config.forming {
            dir.reset(config.cluster, config.node, incarnation)?
        } else {
            dir.claim(config.cluster, config.node, incarnation)?
        };
        let page = 4096;
        let map_size = usize::try_from(config.map_size).unwrap_or(usize::MAX) / page * page;
        let store = LmdbStore::open(
            &dir,
            &Options {
                map_size,
                ..Options::default()
            },
        )?;
        Ok(Opened { dir, claim, store })
    }
}

impl Opened {
    /// [`open`](Self::open) on a blocking thread, retried for up to `lock_timeout` while another process uses the directory;
    /// `None` once it is not `wanted` any more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_retries(
        config: &Arc<NodeConfig>,
        clock: &Clock,
        wanted: impl Fn() -> bool,
    ) -> Result<Option<Self>, StartError> {
        let deadline = clock.instant() + config.lock_timeout;
        let mut logged = false;
        while wanted() {
            let config = Arc::clone(config);
            let opened = tokio::task::spawn_blocking(move || Opened::open(&config)).await;
            let opened =
                opened.map_err(|panic| StartError::Fatal(format!("opening the store panicked: {panic}")))?;
            match opened {
                Err(StartError::Open(OpenError::DirectoryInUse { path })) if clock.instant() < deadline => {
                    if !std::mem::replace(&mut logged, true) {
                        let path = path.display();
                        tracing::info!(%path, "waiting for another process to release the data directory");
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                outcome => return outcome.map(Some),
            }
        }
        Ok(None)
    }
}

/// The arguments of a node.
pub struct NodeArguments {
    /// Its configuration.
    pub config: Arc<NodeConfig>,
    /// The members, including this node.
    pub topology: Topology,
    /// Its data.
    pub opened: Opened,
    /// Its sockets.
    pub listeners: Listeners,
    /// Its clock.
    pub clock: Arc<Clock>,
    /// Its boot.
    pub boot: BootId,
    /// Its HTTP server.
    pub http: Arc<dyn HttpServer>,
    /// Ends the node on a fatal error.
    pub fatal: Fatal,
    /// Exports finished spans, if the environment configures a collector.
    pub exporter: Option<Exporter>,
}

/// A node that serves requests.
pub struct Node {
    dir: DataDir,
    formation: Formation,
    status: Arc<NodeStatus>,
    supervisor: ActorRef<SupervisorMessage>,
    storage: StorageThread,
    batcher: Arc<CommitBatcher>,
    router: Router,
    peers: Arc<Peers>,
}

/// A random number from the operating system.
///
/// # Errors
/// [`StartError::System`] when it provides none.
pub fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::system("read random bits")(error.into()))
}

/// Starts to record durably, on a blocking thread, that the cluster is formed.
fn write_formation(
    dir: &DataDir,
    formation: &Formation,
) -> impl Future<Output = Result<(), StartError>> + use<> {
    let (dir, formation) = (dir.clone(), formation.clone());
    let writing = tokio::task::spawn_blocking(move || dir.set_formed(formation));
    async move {
        let written = writing.await;
        written.map_err(|panic| StartError::Fatal(format!("writing the identity panicked: {panic}")))??;
        Ok(())
    }
}

impl Node {
    /// Starts the node, and returns when it serves requests.
    ///
    /// # Errors
    /// [`StartError`], with the cause and the remedy.
    pub async fn start(arguments: NodeArguments) -> Result<Self, StartError> {
        let NodeArguments {
            config,
            topology,
            opened,
            listeners,
            clock,
            boot,
            http,
            fatal,
            exporter,
        } = arguments;
        let Opened {
            dir,
            claim,
            mut store,
        } = opened;
        layout::keep(&mut store, &topology, dir.path())?;
        let formation = Formation {
            name: config.cluster_name.clone(),
            nodes: u16::try_from(topology.members.len()).expect("ids of members have 16 bits"),
            ring: topology.ring,
        };
        // Written while the rest starts, before clients are served.
        let writing = (!config.forming).then(|| write_formation(&dir, &formation));
        let reader = store.reader();
        let registry = PeerRegistry::load(&*reader).map_err(|source| StartError::Read {
            path: dir.path().to_owned(),
            source,
        })?;
        let registry = Arc::new(registry);
        let telemetry = Arc::new(Telemetry::new(
            Arc::clone(&clock),
            config.node,
            topology.generation,
            config.timeline_events,
            config.spans,
        ));
        if let Some(exporter) = exporter {
            telemetry.add_sink(Arc::new(exporter));
        }
        let roles = RoleRegistry::default();
        let mut hooks = disk::hooks(
            roles.clone(),
            Arc::clone(&registry),
            Arc::clone(&telemetry),
            fatal.clone(),
        );
        let gauge = store.gauge();
        hooks.observer = Arc::new(DiskSpaceObserver::new(
            hooks.observer,
            gauge.clone(),
            Arc::clone(&telemetry),
        ));
        let files = store.files();
        let (journal, applier) = store.split();
        let storage = StorageThread::start(journal, applier, StorageConfig::default(), hooks)
            .map_err(StartError::system("start the storage threads"))?;
        let files = FileThreads::start(files, &storage.handle())
            .map_err(StartError::system("start the threads of the files"))?;
        let files: Arc<dyn FilePort> = Arc::new(Files::new(files, dir.path(), fatal.clone()));
        let placement = Placement::new(topology)?;
        let rpc_spans = Arc::new(RpcSpans::new(
            config.node,
            Arc::clone(&clock),
            Arc::clone(&telemetry),
        ));
        let peers = Arc::new(Peers::new(Arc::clone(&rpc_spans)));
        let clients = Replies::default();
        let status = Arc::new(NodeStatus {
            node: config.node,
            boot,
            clock: Arc::clone(&clock),
            topology: Arc::clone(placement.topology()),
            roles: roles.clone(),
            telemetry: Arc::clone(&telemetry),
            storage: gauge.clone(),
            data_dir: dir.path().to_owned(),
            links: Arc::clone(&peers) as _,
            faults: FaultControl::new(
                config.node,
                config.allow_faults,
                placement.topology(),
                Arc::clone(&peers) as _,
                Arc::clone(&telemetry),
            ),
            admission: Arc::new(clients.clone()),
            ready: AtomicBool::new(false),
            forming: AtomicBool::new(config.forming),
        });
        status.register_gauges();
        let local_client = Arc::new(LocalClient::new(Arc::new(clients.clone())));
        let replies: Arc<dyn ReplyPort> = Arc::clone(&local_client) as _;
        let batcher = Arc::new(CommitBatcher::new(storage.handle()));
        let commits: Arc<dyn CommitPort> = Arc::new(DiskSpacePort {
            to: Arc::clone(&batcher) as _,
            gauge,
        });
        let ending = fatal.clone();
        let shell = {
            let (status, replies, peers) = (Arc::clone(&status), Arc::clone(&replies), Arc::clone(&peers));
            let reads = ReadPort::start(reader, &status.data_dir, fatal.clone());
            let commits = Arc::clone(&commits);
            move |reconciler| {
                Arc::new(Shell {
                    node: status.node,
                    clock: Arc::clone(&status.clock),
                    roles: status.roles.clone(),
                    peers,
                    commits,
                    reads,
                    files,
                    replies,
                    reconciler,
                    telemetry: Arc::clone(&status.telemetry),
                    fatal,
                })
            }
        };
        let surroundings = Surroundings {
            replica: claim.identity.replica,
            placement,
            alive: [config.node].into(),
            raft: config.raft_timing,
            bugs: Bugs::none(),
        };
        let supervisor = SupervisorArguments {
            shell: Box::new(shell),
            surroundings,
            boot,
            record_dir: config.record_dir.clone(),
        };
        let (supervisor, _task) = Actor::spawn(None, Supervisor, supervisor)
            .await
            .map_err(|error| StartError::Fatal(format!("the supervisor did not start: {error}")))?;
        let router = Router::new(Arc::clone(&status), replies);
        let node = Node {
            dir,
            formation,
            status,
            supervisor,
            storage,
            batcher,
            router,
            peers,
        };
        node.serve_http(listeners.http, http);
        node.recover(&local_client).await?;
        let delivery = Delivery {
            roles,
            supervisor: node.supervisor.clone(),
            registry,
            commits,
            telemetry,
            rpc_spans,
            fatal: ending,
        };
        node.join(&config, claim.identity.replica, listeners.peer, delivery)
            .await?;
        if let Some(written) = writing {
            written.await?;
        }
        node.serve_clients(config.cluster, config.secret.clone(), listeners.client, clients);
        node.status.ready.store(true, Ordering::Release);
        node.status.telemetry.emit(TimelineEvent::NodeStarted);
        Ok(node)
    }

    /// Starts the links to the peers.
    async fn join(
        &self,
        config: &NodeConfig,
        replica: ReplicaId,
        listener: std::net::TcpListener,
        delivery: Delivery,
    ) -> Result<(), StartError> {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(StartError::system("use the peers' socket"))?;
        let transport = TransportConfig {
            link: LinkSettings {
                heartbeat: config.heartbeat,
                idle: config.idle,
                ..LinkSettings::default()
            },
            secret: config.secret.as_ref().map(|secret| secret.0.clone()),
            supervisor: Some(self.supervisor.get_cell()),
            ..TransportConfig::default()
        };
        let identity = LocalIdentity {
            cluster: config.cluster,
            node: config.node,
            replica,
            boot: self.status.boot,
        };
        let clock = Arc::clone(&self.status.clock);
        let topology = &self.status.topology;
        let transport = Transport::start(transport, listener, topology, identity, clock, Arc::new(delivery))
            .await
            .map_err(|error| StartError::Fatal(error.to_string()))?;
        self.peers.open(Arc::new(transport));
        Ok(())
    }

    fn serve_clients(
        &self,
        cluster: ClusterId,
        secret: Option<Secret>,
        socket: std::net::TcpListener,
        replies: Replies,
    ) {
        let arguments = client_listener::Arguments {
            socket: Arc::new(socket),
            identity: client_listener::Identity {
                cluster,
                node: self.status.node,
                boot: self.status.boot,
                secret,
            },
            limits: client_listener::Limits::default(),
            router: Arc::new(self.router.clone()),
            replies,
        };
        self.serve(Service::actor("clients", move || (Listener, arguments.clone())));
    }

    /// Records durably that the cluster is formed: its data are kept from now on, and keyspaces can be created.
    ///
    /// # Errors
    /// [`StartError::Open`] when the record cannot be written.
    pub async fn form(&self) -> Result<(), StartError> {
        write_formation(&self.dir, &self.formation).await?;
        self.status.forming.store(false, Ordering::Release);
        Ok(())
    }

    /// The node's status.
    pub fn status(&self) -> &Arc<NodeStatus> {
        &self.status
    }

    /// The router of requests.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Waits until every known keyspace is served.
    async fn recover(&self, local_client: &LocalClient) -> Result<(), StartError> {
        self.status
            .roles
            .until(|table| table.role(RoleId::Control).is_some())
            .await;
        let (client, answer) = local_client.expect();
        let deadline = self.status.clock.instant() + RECOVERY;
        let header = Header {
            generation: self.status.topology.generation,
            request: 0,
            deadline,
            trace: None,
        };
        self.router.route(vec![ClientRequest {
            client,
            header,
            request: Request::ListKeyspaces,
        }]);
        let late =
            || StartError::Fatal("timed out reading the keyspace definitions: the disk is too slow".into());
        let recovery = async {
            let Ok(Ok(Response::Keyspaces(keyspaces))) = answer.await else {
                return Err(late());
            };
            let served = |table: &crate::role_registry::Table| {
                keyspaces
                    .iter()
                    .all(|keyspace| table.keyspaces().contains_key(&keyspace.id))
            };
            self.status.roles.until(served).await;
            Ok(())
        };
        tokio::time::timeout(RECOVERY, recovery)
            .await
            .map_err(|_| late())?
    }

    fn serve_http(&self, listener: std::net::TcpListener, http: Arc<dyn HttpServer>) {
        let status = Arc::clone(&self.status);
        let start = move || -> ServiceFuture {
            match listener.try_clone() {
                Ok(listener) => http.serve(listener, Arc::clone(&status)),
                Err(error) => Box::pin(async move { Err(format!("share the socket: {error}")) }),
            }
        };
        self.serve(Service::future("http", start));
    }

    fn serve(&self, service: Service) {
        // If the supervisor has ended, so has the node.
        let _gone = self.supervisor.cast(SupervisorMessage::Serve(service));
    }

    /// Rejects new requests, ends the roles, and makes their submitted writes durable.
    pub async fn stop(self) {
        self.status.ready.store(false, Ordering::Release);
        self.status.telemetry.emit(TimelineEvent::NodeStopping);
        self.call_supervisor(SupervisorMessage::StopServices).await;
        if let Some(transport) = self.peers.transport() {
            transport.stop().await;
        }
        self.call_supervisor(SupervisorMessage::Stop).await;
        self.status.telemetry.flush();
        self.batcher.close();
        let storage = self.storage;
        let _panicked = tokio::task::spawn_blocking(move || storage.shutdown()).await;
    }

    async fn call_supervisor(&self, message: impl FnOnce(oneshot::Sender<()>) -> SupervisorMessage) {
        let (done, finished) = oneshot::channel();
        if self.supervisor.cast(message(done)).is_ok() {
            let _gone = finished.await;
        }
    }
}
