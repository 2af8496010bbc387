//! The configuration as written: every field is optional and only its type is checked.

use std::path::PathBuf;

use quorate_core::ids::NodeId;
use quorate_protocol::topology::Member;
use serde::Deserialize;

use super::{ConfigError, LogConfig, LogFormat};

/// A node's configuration as written. Unknown names are rejected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The cluster's name. Required. Nodes, data directories and clients of other clusters are rejected.
    pub cluster: Option<String>,
    /// This node's number, 1 to 65535 (or `"n1"`). Required.
    pub node_id: Option<RawNodeId>,
    /// The node's own directory, created if missing. Required.
    pub data_dir: Option<PathBuf>,
    /// Where to listen.
    pub listen: RawListen,
    /// All members, including this node. Optional with `parent_pipe`: then one line on the standard input carries the list.
    pub members: Option<Vec<RawMember>>,
    /// Tokens per node on the ring. 150. Must be the same on every node.
    pub vnodes: Option<u16>,
    /// `murmur3` (default), `md5` or `xxh3`. Must be the same on every node, and can never be changed.
    pub hash: Option<String>,
    /// Stop when the standard input closes, which means that the parent has died. False.
    pub parent_pipe: Option<bool>,
    /// The cluster has never been ready: the node discards what an earlier attempt left in its directory, and
    /// rejects the creation of keyspaces until the parent reports that the cluster is formed. Requires `parent_pipe`. False.
    pub forming: Option<bool>,
    /// Milliseconds to wait for another process to release the data directory. 0.
    pub lock_timeout_ms: Option<u64>,
    /// The log.
    pub log: RawLog,
    /// Allow listening beyond loopback without a secret. False.
    pub insecure: Option<bool>,
    /// Allow clients to inject faults into what this node sends to its peers: block, drop or delay it. For testing. False.
    pub allow_faults: Option<bool>,
    /// A secret that peers and clients must present. None.
    pub secret: Option<String>,
    /// Milliseconds between heartbeats on an idle link. 100.
    pub heartbeat_ms: Option<u64>,
    /// Idle timeout in milliseconds after which a link is considered down; at least twice `heartbeat_ms`. 1000.
    pub idle_ms: Option<u64>,
    /// Election timeout of Raft groups: `default` (150 to 300 ms, heartbeats every 50 ms),
    /// `conservative` (300 to 600 ms, for slow or busy machines) or `aggressive` (100 to 200 ms). Must be the same on every
    /// node.
    pub raft_timing: Option<String>,
    /// Maximum size of the LMDB map of the state environment, and so of the rows that the node can store. Only what is
    /// used takes disk. At the limit writes are rejected. The journal is not counted: it has a map of its own,
    /// and takes up to about 200 MB. 64 GiB.
    pub map_size_bytes: Option<u64>,
    /// Record the inputs of every role in this directory. For debugging: the files grow without bound. None.
    pub record_dir: Option<PathBuf>,
    /// The generation of the list of members. 1.
    pub generation: Option<u64>,
    /// Threads that run the node's actors. 1, for several nodes on one machine.
    pub worker_threads: Option<u64>,
    /// Timeline events kept in memory. 4096.
    pub timeline_events: Option<u64>,
    /// Spans of sampled traces kept in memory. 16384.
    pub spans: Option<u64>,
}

impl RawConfig {
    /// Reads a JSON object, or a TOML document where the text does not begin with `{`.
    ///
    /// # Errors
    /// [`ConfigError`] with the position of what cannot be parsed or is unknown.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|error| ConfigError(format!("the configuration is not valid: {error}")))
        } else {
            toml::from_str(text)
                .map_err(|error| ConfigError(format!("the configuration is not valid: {error}")))
        }
    }
}

/// Addresses to listen on, `host:port`. Default `127.0.0.1:0`; port 0 selects a free port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// For the other nodes.
    pub peer: Option<String>,
    /// For clients.
    pub client: Option<String>,
    /// For `/metrics`, `/livez` and `/readyz`.
    pub http: Option<String>,
}

/// Where the log goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// The file to append to. Default: stderr.
    pub file: Option<PathBuf>,
    /// `error`, `warn`, `info` (default), `debug` or `trace`, or directives such as `info,quorate_node=debug`.
    pub level: Option<String>,
    /// `text` (default) or `json`.
    pub format: Option<String>,
}

impl RawLog {
    pub(super) fn resolve(self) -> Result<LogConfig, ConfigError> {
        let level = self.level.unwrap_or_else(|| "info".to_owned());
        check_level(&level)?;
        let format = match self.format.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => return Err(ConfigError(format!("log.format={other:?}: use text or json"))),
        };
        Ok(LogConfig {
            file: self.file,
            level,
            format,
        })
    }
}

/// Valid levels; `off` logs nothing.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A bare word that is not a level would be parsed as the name of a module to log at every level, and all other
/// modules would be silenced.
fn check_level(level: &str) -> Result<(), ConfigError> {
    let known = |part: &str| LEVELS.iter().any(|level| part.trim().eq_ignore_ascii_case(level));
    let understood = level
        .split(',')
        .all(|part| part.contains(['=', '[']) || known(part))
        && tracing_subscriber::EnvFilter::builder().parse(level).is_ok();
    if understood {
        return Ok(());
    }
    Err(ConfigError(format!(
        "log.level={level:?} is not a level: use {}, or directives such as info,quorate_node=debug",
        LEVELS.join(", ")
    )))
}

/// A node id: `1` or `"n1"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum RawNodeId {
    /// `1`
    Number(i64),
    /// `"n1"`
    Name(String),
}

impl RawNodeId {
    pub(super) fn resolve(self, setting: &str) -> Result<NodeId, ConfigError> {
        match self {
            RawNodeId::Number(number) => u16::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .map(NodeId)
                .ok_or_else(|| ConfigError(format!("{setting}={number}: use 1 to 65535"))),
            RawNodeId::Name(name) => name
                .parse()
                .map_err(|error| ConfigError(format!("{setting}: {error}"))),
        }
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMember {
    /// Its number.
    pub id: RawNodeId,
    /// The address for peers, `host:port`.
    pub peer: String,
    /// The address for clients, `host:port`.
    pub client: String,
    /// The address for HTTP, `host:port`; optional.
    #[serde(default)]
    pub http: String,
    /// For placement over racks; empty is a rack of its own name.
    #[serde(default)]
    pub rack: String,
    /// For placement over datacenters.
    #[serde(default)]
    pub datacenter: String,
}

impl RawMember {
    pub(super) fn resolve(self) -> Result<Member, ConfigError> {
        let id = self.id.resolve("members[].id")?;
        for (name, address) in [("peer", &self.peer), ("client", &self.client)] {
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(ConfigError(format!(
                    "members: {id} has {name}={address:?}: write host:port with the port it really listens on"
                )));
            }
        }
        Ok(Member {
            id,
            peer_address: self.peer,
            client_address: self.client,
            http_address: self.http,
            rack: self.rack,
            datacenter: self.datacenter,
        })
    }
}
