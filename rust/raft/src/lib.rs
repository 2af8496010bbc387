//! Raft: how a few servers agree on one sequence of commands, although servers crash and messages get lost
//! (Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*, 2014; "section" and "figure"
//! refer to that paper, "thesis" to Ongaro's of the same year).
//!
//! # The idea
//! Each server has a state machine and a **log** of commands for it. If all logs are the same, so are all
//! states. To make them the same, the servers elect a **leader**; only it appends to the log, and the others
//! replicate it. An entry that a majority has on disk is **committed**: it is permanent, and every server may
//! apply it. Any two majorities share a server, so every election involves a voter that has the entry; and no
//! candidate wins whose log is behind that of a voter.
//!
//! Time is divided into **terms**, each with at most one leader. They are Raft's clock: a server that sees a
//! later term adopts it, and messages of an earlier term are rejected.
//!
//! ```text
//!   client ── command ──▶ leader ──┬─ own log, own disk
//!                                  ├─ Append ▶ follower: log, disk ─▶ Accepted ┐
//!                                  ├─ Append ▶ follower: log, disk ─▶ Accepted ┤
//!   client ◀── answer ── state machine ◀── committed: a majority has it ◀──────┘
//! ```
//!
//! # Messages are promises
//! [`message`] defines all sixteen. The most important:
//! * *VoteAnswer, granted*: I have voted for you in this term and will vote for no other, even after a crash;
//!   and I have no entry that is more up to date than your log.
//! * *Append*: these entries follow the previous one in my log. (If you have the previous one, you have my
//!   whole log up to it.)
//! * *Accepted*: I have your log up to here, even after a crash.
//! * *HeartbeatAck*: when I received your heartbeat, I knew of no later leader.
//! * *ProbeAnswer*: everything acknowledged before you sent the probe is in the log up to here.
//!
//! "Even after a crash" is the **durability rule**: votes, and all other messages in a new term, are sent when
//! that term and vote are durable; appends are acknowledged as far as they are durable. The leader is no
//! exception: it sends entries while its own disk still writes them, and counts itself when that is done. The
//! file `stable` holds promises until then.
//!
//! # Invariants
//! Figure 3, asserted or tested after every step of every random run (`properties`):
//! * **Election safety**: at most one leader in a term. One durable vote per server and term.
//! * **Leader append-only**: a leader only appends to its log.
//! * **Log matching**: logs that share one entry (index and term) share everything before it. An append is
//!   accepted only where it fits, and conflicting entries are truncated.
//! * **Leader completeness**: what is committed is in the log of every later leader. Votes go only to
//!   candidates that are at least as up to date; and only entries of the leader's own term are committed by
//!   counting (Figure 8 shows why).
//! * **State machine safety**: no two servers apply different commands at the same index. It follows from the
//!   others.
//!
//! Random runs do not reach everything. So `model` also explores *all* executions of three servers, within
//! bounds: two terms, a command, a crash, messages lost and reordered, and slow disks. Some two million states
//! are checked in each test run; each of four deliberate mistakes violates a property, and a shortest
//! counterexample is printed. `RAFT_MODEL=large` goes further.
//!
//! When a majority is connected, and time passes at about the same rate everywhere, there is also progress. No
//! safety property depends on time.
//!
//! # Where things are
//! | file | what |
//! |---|---|
//! | [`quorum`], [`configuration`] | arithmetic of majorities; voters, learners, joint consensus |
//! | [`types`], [`entry`], [`format`](mod@format) | terms, indexes, entries, and their bytes on disk |
//! | [`log`] | the log in memory and its watermarks: committed, released, durable |
//! | `stable` | pending and completed writes; messages that wait for them |
//! | [`server`] | one server: state, inputs, actions, dispatch of messages |
//! | [`validation`] | checks of a peer's numbers on receipt |
//! | `election` | timeouts, pre-vote, votes, stickiness and the link hint |
//! | `leader`, `replication`, `commit` | what a leader does, what it sends each follower, when an entry is committed |
//! | `follower`, `progress` | a follower's side of replication; what a leader knows of each follower |
//! | `read_index` | linearizable reads, many per round of heartbeats |
//! | `staleness` | the maximum age of a follower's state |
//! | [`snapshot`], `snapshot_store` | compaction, and snapshots in chunks for members that lack compacted entries |
//! | [`sessions`], [`machine`] | the replicated state machine, and retries that execute once |
//! | [`recovery`] | from disk to server |
//! | [`settings`] | timing, windows, snapshot policy |
//! | [`status`] | a server's view of itself |
//! | [`group`], `pending`, [`event`], [`action`] | all of it as a role, and its pending requests |
//!
//! Two layers serve two kinds of state machine: [`Raft`] decides what is committed and requests everything
//! else from its host by [`action::Action`]s; [`RaftGroup`] is such a host for state machines that fit into
//! memory.
//!
//! # On disk
//! A group's log is a stream of the journal ([`types::GroupId::log_stream`]), position = index. Two small
//! records accompany it: the hard state (term, vote), and the start of the log, with the snapshot that covers
//! what was before. What must change together is one persist: a snapshot's record with the truncation of the
//! log that it replaces, an entry with the term in which it arrived.
//!
//! A state machine in memory is made durable by snapshots, every so many entries; [`RaftGroup`] stores them as
//! chunks in a second stream. A host whose state is durable by itself reports its progress
//! ([`Raft::flushed`]), which lets the log be compacted, and takes a snapshot only when a member needs one.
//!
//! # Not implemented
//! * Changing the members of a live group. Configurations are entries, take effect when they are in a log, may
//!   be joint, and are in snapshots; but a leader does not propose any yet.
//! * Leases (reads without a round of heartbeats) and leadership transfer. The place for the first is the
//!   answer to a heartbeat, where a follower would promise not to vote for a while. The second needs a message
//!   to the target (`TimeoutNow` of thesis 3.10), which then campaigns without a pre-vote, a vote that is
//!   exempt from stickiness (`election`), and a leader that rejects proposals until the target has caught up
//!   (`leader`, [`server`]).
//! * Quiescence of idle groups, for thousands of groups on a node.
//! * Sending old entries from the disk: a follower that needs entries that are no longer in memory gets a
//!   snapshot.

pub mod action;
mod commit;
pub mod configuration;
mod election;
pub mod entry;
pub mod event;
mod follower;
pub mod format;
pub mod group;
mod leader;
pub mod log;
pub mod machine;
pub mod message;
pub mod pending;
mod progress;
pub mod quorum;
mod read_index;
pub mod recovery;
mod replication;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod snapshot;
mod snapshot_store;
mod stable;
mod staleness;
pub mod status;
pub mod types;
pub mod validation;

pub use group::RaftGroup;
pub use server::Raft;

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transcripts;
