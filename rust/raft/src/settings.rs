//! The settings of a group.

use std::str::FromStr;
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::types::GroupId;

/// Timing of elections and heartbeats.
///
/// A follower that hears nothing for an election timeout, drawn at random each time from
/// `election_min..election_max`, starts an election. The spread avoids split votes; `heartbeat` must be well
/// below `election_min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// The minimum election timeout. For this long after it has heard from a leader, a voter ignores other
    /// candidates.
    pub election_min: Duration,
    /// The maximum election timeout. A leader without contact to a quorum for this long steps down.
    pub election_max: Duration,
    /// The interval of a leader's heartbeats.
    pub heartbeat: Duration,
    /// After its link to the leader goes down, a voter starts an election after a random part of this.
    pub stagger: Duration,
}

impl Timing {
    /// Elections after 150-300 ms, heartbeats every 50 ms.
    pub const DEFAULT: Timing = Timing::of_millis(150, 300, 50, 10);
    /// Elections after 300-600 ms, heartbeats every 100 ms: for slow or busy machines.
    pub const CONSERVATIVE: Timing = Timing::of_millis(300, 600, 100, 20);
    /// Elections after 100-200 ms, heartbeats every 25 ms: for quiet machines close together.
    pub const AGGRESSIVE: Timing = Timing::of_millis(100, 200, 25, 5);

    const fn of_millis(election_min: u64, election_max: u64, heartbeat: u64, stagger: u64) -> Timing {
        Timing {
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            heartbeat: Duration::from_millis(heartbeat),
            stagger: Duration::from_millis(stagger),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Timing::DEFAULT
    }
}

/// A preset by its name: `default`, `conservative` or `aggressive`.
impl FromStr for Timing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "default" => Ok(Timing::DEFAULT),
            "conservative" => Ok(Timing::CONSERVATIVE),
            "aggressive" => Ok(Timing::AGGRESSIVE),
            _ => Err(Error::invalid(format!(
                "raft_timing={name:?}: use default, conservative or aggressive"
            ))),
        }
    }
}

/// When a group takes snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Snapshots {
    /// After enough entries: for a state machine in memory, which nothing else makes durable.
    Periodic,
    /// When a member needs one: for a host whose state is durable by itself, and which reports up to which
    /// entry ([`Raft::flushed`](super::Raft::flushed)).
    OnDemand,
}

/// The settings of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Timing of elections and heartbeats.
    pub timing: Timing,
    /// Approximate size of the entries in one append; a single larger entry is sent alone.
    pub append_bytes: usize,
    /// Maximum number of appends in flight to a follower. While all are, new entries accumulate for the next
    /// one.
    pub append_window: usize,
    /// Maximum size of uncommitted entries; beyond it a leader rejects proposals.
    pub uncommitted_bytes: usize,
    /// When snapshots are made.
    pub snapshots: Snapshots,
    /// A snapshot is due after this many applied entries; with snapshots on demand, the log is compacted in
    /// steps of this many.
    pub snapshot_every: u64,
    /// A snapshot is also due when the entries since the last one have this size.
    pub snapshot_bytes: usize,
    /// The number of entries before a snapshot that stay in the log, for followers that are only a little
    /// behind.
    pub retained_entries: u64,
    /// Their maximum size.
    pub retained_bytes: usize,
    /// The size of a snapshot chunk.
    pub chunk_bytes: u32,
    /// Maximum number of chunks in flight to a follower.
    pub chunk_window: u32,
    /// How long a server with a full disk waits before it retries.
    pub full_pause: Duration,
    /// Whether servers track the age of their state, with a few more messages per heartbeat interval: for a
    /// host that serves stale reads.
    pub track_staleness: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            timing: Timing::DEFAULT,
            append_bytes: 256 << 10,
            append_window: 8,
            uncommitted_bytes: 64 << 20,
            snapshots: Snapshots::Periodic,
            snapshot_every: 10_000,
            snapshot_bytes: 64 << 20,
            retained_entries: 5_000,
            retained_bytes: 16 << 20,
            chunk_bytes: 64 << 10,
            chunk_window: 8,
            full_pause: Duration::from_millis(500),
            track_staleness: false,
        }
    }
}

/// The parameters of a server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// This server.
    pub me: NodeId,
    /// Its group.
    pub group: GroupId,
    /// The initial members of the group: the same for all of them. Empty for a server that joins later and
    /// learns them from the log or a snapshot.
    pub initial: Configuration,
    /// The settings.
    pub settings: Settings,
    /// Deliberate mistakes, for tests of the tests.
    pub bugs: Bugs,
}

impl Setup {
    /// A server of the group with id 1, with the default settings; `nodes` are its voters.
    pub fn of_voters(me: NodeId, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Setup {
            me,
            group: GroupId(1),
            initial: Configuration::of_voters(nodes),
            settings: Settings::default(),
            bugs: Bugs::none(),
        }
    }
}
