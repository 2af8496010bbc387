//! What can be set about a group, and what it is created with.

use std::str::FromStr;
use std::time::Duration;

use quorate_core::bugs::Bugs;
use quorate_core::error::Error;
use quorate_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::types::GroupId;

/// How long things take.
///
/// A follower that hears nothing for an election timeout, drawn anew each time from
/// `election_min..election_max`, calls for an election. The spread keeps two from doing it at once;
/// `heartbeat` must be well below `election_min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// The shortest election timeout. For so long after it has heard from a leader, a voter helps nobody to
    /// another.
    pub election_min: Duration,
    /// The longest election timeout. A leader that has not heard from a quorum for so long steps down.
    pub election_max: Duration,
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// When its link to the leader breaks, a voter calls for an election after a random part of this.
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

/// When a group's snapshots are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Snapshots {
    /// When enough has been applied: for a state machine in memory, which nothing else makes durable.
    Periodic,
    /// When a member needs one: for a host whose state is durable by itself, and which says up to where
    /// ([`Raft::flushed`](super::Raft::flushed)).
    OnDemand,
}

/// The settings of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long things take.
    pub timing: Timing,
    /// About how many bytes of entries one append carries; a single larger entry goes alone.
    pub append_bytes: usize,
    /// How many appends may be on their way to a follower. While all are, new entries gather for the next
    /// one.
    pub append_window: usize,
    /// With so many bytes of entries that are not committed yet, a leader refuses more.
    pub uncommitted_bytes: usize,
    /// When snapshots are made.
    pub snapshots: Snapshots,
    /// A snapshot is due when so many entries have been applied since the last one; with snapshots on demand,
    /// the log is compacted by so many entries at once.
    pub snapshot_every: u64,
    /// Or when the entries since the last one take so many bytes.
    pub snapshot_bytes: usize,
    /// So many entries before a snapshot stay in the log, for followers that are only a little behind.
    pub kept_entries: u64,
    /// But no more than so many bytes of them.
    pub kept_bytes: usize,
    /// How large a chunk of a snapshot is.
    pub chunk_bytes: u32,
    /// How many chunks may be on their way to a follower.
    pub chunk_window: u32,
    /// How long a server whose disk was full waits before it tries again.
    pub full_pause: Duration,
    /// Whether servers find out how old their state may be, by a few more messages with each period of heartbeats: for a
    /// host that answers stale reads.
    pub ages: bool,
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
            kept_entries: 5_000,
            kept_bytes: 16 << 20,
            chunk_bytes: 64 << 10,
            chunk_window: 8,
            full_pause: Duration::from_millis(500),
            ages: false,
        }
    }
}

/// What a server of a group is created with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// This server.
    pub me: NodeId,
    /// Which group.
    pub group: GroupId,
    /// The members that the group began with: the same for all that began with it. Empty for a server that
    /// joins later and learns them from the log or a snapshot.
    pub initial: Configuration,
    /// How it behaves.
    pub settings: Settings,
    /// Deliberate mistakes, for tests of the tests.
    pub bugs: Bugs,
}

impl Setup {
    /// The first group's server on a node, with the usual settings; `nodes` are its voters.
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
