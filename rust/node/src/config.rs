//! The configuration of a node: [`RawConfig`] as written, [`NodeConfig`] as resolved.
//!
//! The raw form is a JSON object or a TOML document with the same names, in which nearly every setting is
//! optional. Resolving it fills in the defaults and rejects settings that conflict; each error names the settings, their
//! values and the remedy. Only the members may be missing after that: a parent that binds every port as `:0` receives
//! the ports first and sends the list afterwards (see [`crate::run`]).

mod raw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use quorate_core::ids::{ClusterId, NodeId};
use quorate_protocol::topology::{Member, Topology};
use quorate_raft::settings::Timing;
use quorate_ring::{HashKind, RingSettings};

pub use raw::{RawConfig, RawListen, RawLog, RawMember};

/// An invalid setting, or two that conflict. The text names them and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        ConfigError(message.into())
    }
}

/// The listening addresses. Port 0 selects a free port, which the start-up line reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For the other nodes.
    pub peer: SocketAddr,
    /// For clients.
    pub client: SocketAddr,
    /// For `/metrics` and probes.
    pub http: SocketAddr,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The file to append to; `None` logs to stderr.
    pub file: Option<PathBuf>,
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,quorate_node=debug`.
    pub level: String,
    /// The format of each line.
    pub format: LogFormat,
}

/// A shared secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Secret {
    /// Whether `other` is equal, compared in constant time.
    pub fn matches(&self, other: &[u8]) -> bool {
        let differing = self
            .0
            .iter()
            .zip(other)
            .fold(0, |bits, (mine, theirs)| bits | (mine ^ theirs));
        self.0.len() == other.len() && differing == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A node's resolved and checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its data directory, created if it is missing.
    pub data_dir: PathBuf,
    /// Its listening addresses.
    pub listen: Listen,
    /// The members; `None` when the parent sends them.
    pub members: Option<Vec<Member>>,
    /// The generation of that list.
    pub generation: u64,
    /// How keys become tokens, and how many tokens a node has.
    pub ring: RingSettings,
    /// Whether the node stops when its standard input closes, which means that the parent has died.
    pub parent_pipe: bool,
    /// Whether the cluster is not yet formed: existing data are discarded, and no keyspace can be created until the
    /// parent reports that the cluster is formed.
    pub forming: bool,
    /// How long to wait for another process to release the data directory.
    pub lock_timeout: Duration,
    /// The log.
    pub log: LogConfig,
    /// The cluster's secret, if any: peers and clients must present it.
    pub secret: Option<Secret>,
    /// Whether listening beyond loopback without a secret is allowed.
    pub insecure: bool,
    /// Whether clients may inject faults into what the node sends to its peers.
    pub allow_faults: bool,
    /// The interval between heartbeats on an idle link.
    pub heartbeat: Duration,
    /// The idle timeout after which a link is considered down.
    pub idle: Duration,
    /// The timeouts of Raft groups.
    pub raft_timing: Timing,
    /// The maximum size of the LMDB map of the state, in bytes; see [`RawConfig::map_size_bytes`].
    pub map_size: u64,
    /// The directory for recordings of the roles' inputs; `None` disables recording.
    pub record_dir: Option<PathBuf>,
    /// Threads that run the actors.
    pub worker_threads: usize,
    /// Timeline events kept in memory.
    pub timeline_events: usize,
    /// Spans kept in memory.
    pub spans: usize,
}

impl NodeConfig {
    /// Reads a JSON object or a TOML document and resolves it.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting and the remedy.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        RawConfig::parse(text)?.resolve()
    }

    /// Builds the topology of these members.
    ///
    /// # Errors
    /// [`ConfigError`] when the list is not a valid cluster that includes this node.
    pub fn topology(&self, members: Vec<Member>) -> Result<Topology, ConfigError> {
        let topology = Topology::new(self.cluster, self.generation, members, self.ring)
            .map_err(|error| ConfigError::new(error.to_string()))?;
        if topology.member(self.node).is_none() {
            let listed: Vec<String> = topology.ids().map(|id| id.to_string()).collect();
            return Err(ConfigError::new(format!(
                "node_id={} is not among the members ({}): list this node too, or start it under one of these ids",
                self.node,
                listed.join(", ")
            )));
        }
        self.ring
            .validate(topology.members.len())
            .map_err(|error| ConfigError::new(error.to_string()))?;
        Ok(topology)
    }

    /// Parses the list of members that a parent sends: a JSON array of objects as in the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when the line is not a valid list.
    pub fn parse_members(line: &str) -> Result<Vec<Member>, ConfigError> {
        let raw: Vec<RawMember> = serde_json::from_str(line)
            .map_err(|error| ConfigError::new(format!("the list of members is not valid JSON: {error}")))?;
        raw.into_iter().map(RawMember::resolve).collect()
    }
}

impl RawConfig {
    /// Fills in the defaults and validates all settings.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting and the remedy.
    pub fn resolve(self) -> Result<NodeConfig, ConfigError> {
        let node = self
            .node_id
            .ok_or_else(|| ConfigError::new("node_id is missing: give the node its number, 1 to 65535"))?;
        let node = node.resolve("node_id")?;
        let data_dir = required(
            "data_dir",
            self.data_dir,
            "name a directory that belongs to this node alone",
        )?;
        let cluster_name = required("cluster", self.cluster, "name the cluster")?;
        if cluster_name.is_empty() {
            return Err(ConfigError::new("cluster=\"\": give the cluster a name"));
        }
        let listen = Listen {
            peer: address("listen.peer", self.listen.peer)?,
            client: address("listen.client", self.listen.client)?,
            http: address("listen.http", self.listen.http)?,
        };
        let secret = match self.secret {
            Some(secret) if secret.is_empty() => {
                return Err(ConfigError::new(
                    "secret is empty: leave it out, or give it a value",
                ));
            }
            secret => secret.map(|secret| Secret(secret.into_bytes())),
        };
        let insecure = self.insecure.unwrap_or(false);
        listen.reject_insecure_addresses(secret.is_some(), insecure)?;
        let heartbeat = millis("heartbeat_ms", self.heartbeat_ms.unwrap_or(100))?;
        let idle = millis("idle_ms", self.idle_ms.unwrap_or(1_000))?;
        if idle < heartbeat * 2 {
            return Err(ConfigError::new(format!(
                "idle_ms={} but heartbeat_ms={}: a link would time out between two heartbeats; make idle_ms at least twice \
                 heartbeat_ms",
                idle.as_millis(),
                heartbeat.as_millis()
            )));
        }
        let members = match self.members {
            Some(members) => Some(
                members
                    .into_iter()
                    .map(RawMember::resolve)
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            None => None,
        };
        let parent_pipe = self.parent_pipe.unwrap_or(false);
        if members.is_none() && !parent_pipe {
            return Err(ConfigError::new(
                "members is missing and parent_pipe=false: list the members, or let a parent send them",
            ));
        }
        let forming = self.forming.unwrap_or(false);
        if forming && !parent_pipe {
            return Err(ConfigError::new(
                "forming=true requires parent_pipe=true: only a parent can report that the cluster is formed; leave forming out",
            ));
        }
        let config = NodeConfig {
            cluster: ClusterId::from_name(&cluster_name),
            cluster_name,
            node,
            data_dir,
            listen,
            generation: self.generation.unwrap_or(1),
            ring: RingSettings {
                vnodes: self.vnodes.unwrap_or(RingSettings::default().vnodes),
                hash: hash(self.hash.as_deref())?,
            },
            parent_pipe,
            forming,
            lock_timeout: Duration::from_millis(self.lock_timeout_ms.unwrap_or(0)),
            log: self.log.resolve()?,
            secret,
            insecure,
            allow_faults: self.allow_faults.unwrap_or(false),
            heartbeat,
            idle,
            raft_timing: raft_timing(self.raft_timing.as_deref())?,
            map_size: at_least(
                "map_size_bytes",
                self.map_size_bytes.unwrap_or(64 << 30),
                16 << 20,
            )?,
            record_dir: self.record_dir,
            worker_threads: at_least("worker_threads", self.worker_threads.unwrap_or(1), 1)? as usize,
            timeline_events: at_least("timeline_events", self.timeline_events.unwrap_or(4_096), 1)? as usize,
            spans: at_least("spans", self.spans.unwrap_or(16_384), 1)? as usize,
            members: None,
        };
        if let Some(members) = &members {
            config.topology(members.clone())?;
        }
        Ok(NodeConfig { members, ..config })
    }
}

impl Listen {
    fn reject_insecure_addresses(&self, secret: bool, insecure: bool) -> Result<(), ConfigError> {
        let addresses = [
            ("listen.peer", self.peer),
            ("listen.client", self.client),
            ("listen.http", self.http),
        ];
        for (name, address) in addresses {
            if !address.ip().is_loopback() && !secret && !insecure {
                return Err(ConfigError::new(format!(
                    "{name}={address} is reachable from other machines and there is no secret: set a secret, listen on \
                     127.0.0.1, or set insecure=true on a network that you trust"
                )));
            }
        }
        let ports = addresses.map(|(name, address)| (name, address.ip(), address.port()));
        for (index, (name, ip, port)) in ports.iter().enumerate() {
            let clash = |other: &&(&str, IpAddr, u16)| *port != 0 && other.1 == *ip && other.2 == *port;
            if let Some((other, _, _)) = ports[..index].iter().find(clash) {
                return Err(ConfigError::new(format!(
                    "{other} and {name} are both {ip}:{port}: give each its own port"
                )));
            }
        }
        Ok(())
    }
}

fn required<T>(name: &str, value: Option<T>, remedy: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::new(format!("{name} is missing: {remedy}")))
}

fn address(name: &str, value: Option<String>) -> Result<SocketAddr, ConfigError> {
    let text = value.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut found = text.to_socket_addrs().map_err(|error| {
        ConfigError::new(format!(
            "{name}={text:?} is not an address ({error}): write host:port"
        ))
    })?;
    found
        .next()
        .ok_or_else(|| ConfigError::new(format!("{name}={text:?} has no address: write host:port")))
}

fn hash(name: Option<&str>) -> Result<HashKind, ConfigError> {
    name.map_or(Ok(HashKind::default()), |name| {
        name.parse().map_err(|error| ConfigError::new(format!("{error}")))
    })
}

fn raft_timing(name: Option<&str>) -> Result<Timing, ConfigError> {
    name.map_or(Ok(Timing::default()), |name| {
        name.parse().map_err(|error| ConfigError::new(format!("{error}")))
    })
}

fn millis(name: &str, value: u64) -> Result<Duration, ConfigError> {
    at_least(name, value, 1).map(Duration::from_millis)
}

fn at_least(name: &str, value: u64, least: u64) -> Result<u64, ConfigError> {
    if value < least {
        return Err(ConfigError::new(format!(
            "{name}={value} is too small: use {least} or more"
        )));
    }
    Ok(value)
}
