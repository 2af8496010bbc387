//! The configuration as it is written down: every field optional, nothing checked but its type.

use std::path::PathBuf;

use quorate_core::ids::NodeId;
use quorate_protocol::topology::Member;
use serde::Deserialize;

use super::{ConfigError, LogConfig, LogFormat};

/// A node's configuration as written. A name that is not listed here is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The cluster's name. Required. Nodes, data directories and clients of other names are refused.
    pub cluster: Option<String>,
    /// This node's number, 1 to 65535 (or `"n1"`). Required.
    pub node_id: Option<RawNodeId>,
    /// The node's own directory, created if missing. Required.
    pub data_dir: Option<PathBuf>,
    /// Where to listen.
    pub listen: RawListen,
    /// All members, this node included. May be left out with `parent_pipe`: then one line on the standard input has it.
    pub members: Option<Vec<RawMember>>,
    /// Tokens per node on the ring. 150; the same on every node.
    pub vnodes: Option<u16>,
    /// `murmur3` (default), `md5` or `xxh3`; the same on every node, and never changed afterwards.
    pub hash: Option<String>,
    /// Stop when the standard input ends, because the parent that held it has died. False.
    pub parent_pipe: Option<bool>,
    /// The cluster has never been ready: the node begins without what such an attempt has left in its directory, and
    /// creates no keyspace before the parent says that the cluster is formed. Needs `parent_pipe`. False.
    pub forming: Option<bool>,
    /// Milliseconds to wait for another process to let go of the data directory, as one that is ending does. 0.
    pub lock_timeout_ms: Option<u64>,
    /// The log.
    pub log: RawLog,
    /// Accept listening beyond loopback without a secret. False.
    pub insecure: Option<bool>,
    /// Let clients make faults in what this node sends to its peers: block, lose or delay it. False; for laboratories.
    pub allow_faults: Option<bool>,
    /// A secret that peers and clients must know. None.
    pub secret: Option<String>,
    /// Milliseconds between heartbeats on an idle link. 100.
    pub heartbeat_ms: Option<u64>,
    /// Milliseconds of silence after which a link counts as broken; at least twice `heartbeat_ms`. 1000.
    pub idle_ms: Option<u64>,
    /// How soon a Raft group elects another leader: `default` (after 150 to 300 ms of silence, heartbeats every 50 ms),
    /// `conservative` (300 to 600 ms, for slow or busy machines) or `aggressive` (100 to 200 ms). The same on every node.
    pub raft_timing: Option<String>,
    /// How many bytes of rows the node may store: the size of the map of the state environment, of which only what is
    /// used takes disk. At the limit writes are refused. The journal beside it is not counted: it has room of its own,
    /// and needs about 200 MB at times. 64 GiB.
    pub map_size_bytes: Option<u64>,
    /// Record the inputs of every role into files of this directory. None. For debugging: the files grow without bound.
    pub record_dir: Option<PathBuf>,
    /// The generation of the list of members. 1.
    pub generation: Option<u64>,
    /// Threads that run the node's actors. 1: several nodes on one machine would only take turns.
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
    /// [`ConfigError`] with the place of what cannot be read or is not known.
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

/// Addresses to listen on, `host:port`. Each is `127.0.0.1:0` unless given; port 0 takes any free port.
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
    /// A file that is appended to; stderr when left out.
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

/// Levels as they may be written; `off` logs nothing.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A bare word that is no level would be taken for the name of a module whose every word is logged, and all others
/// would fall silent.
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
    /// Where its peers reach it, `host:port`.
    pub peer: String,
    /// Where clients reach it, `host:port`.
    pub client: String,
    /// Where it serves HTTP, `host:port`; may be left out.
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
