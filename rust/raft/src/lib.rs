//! Raft: how a few servers agree on one sequence of commands, although some of them crash and messages get
//! lost (Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*, 2014; "section" and
//! "figure" mean that paper, "thesis" Ongaro's of the same year).
//!
//! # The idea
//! Each server has a state machine and a **log** of commands for it. If all logs are the same, so are all
//! states. To make them the same, the servers elect a **leader**; only it adds to the log, and the others
//! follow. An entry that a majority has on disk is **committed**: it is there for good, and every server may
//! apply it. Any two majorities share a server, so whoever is elected next, by a majority, hears from
//! somebody who has the entry; and nobody is elected whom a voter is ahead of.
//!
//! Time is divided into **terms**, each with at most one leader. They are Raft's clock: whoever hears of a
//! later term follows, whoever speaks in an earlier one is not heard.
//!
//! ```text
//!   client ── command ──▶ leader ──┬─ own log, own disk
//!                                  ├─ Append ▶ follower: log, disk ─▶ Accepted ┐
//!                                  ├─ Append ▶ follower: log, disk ─▶ Accepted ┤
//!   client ◀── answer ── state machine ◀── committed: a majority has it ◀──────┘
//! ```
//!
//! # The messages are promises
//! [`message`] has them, sixteen. Those that count:
//! * *VoteAnswer, granted*: I have voted for you in this term and shall vote for no other, whatever happens
//!   to me; and I have nothing that is more up to date than your log.
//! * *Append*: behind this entry, my log goes on with these. (If you have that entry, you have my whole log
//!   up to it.)
//! * *Accepted*: I have your log up to here, whatever happens to me.
//! * *HeartbeatAck*: when I got your heartbeat, I knew of nobody after you.
//! * *Fresh*: what anybody was told before you asked is in the log up to here.
//!
//! "Whatever happens to me" is the **durability rule**: votes, and everything else in a new term, leave when
//! the disk has that term and vote; appends are acknowledged up to where the disk has them. The leader is no
//! exception: it sends entries while its own disk still works, and counts itself when that is done. The file
//! `stable` is where promises wait.
//!
//! # What is always true
//! Figure 3, asserted or tested after every step of every random run (`properties`):
//! * **Election safety**: at most one leader in a term. One durable vote per server and term.
//! * **Leader append-only**: a leader never changes its log but by adding to it.
//! * **Log matching**: logs that have one entry in common (index and term) have everything before it in
//!   common. An append is taken only where it fits, and what conflicts with it goes.
//! * **Leader completeness**: what is committed is in the log of every later leader. Votes go only to
//!   candidates that are at least as up to date; and only entries of the leader's own term are committed by
//!   counting (Figure 8 shows why).
//! * **State machine safety**: no two servers apply different commands at the same index. It follows from the
//!   others.
//!
//! Random runs reach far but not everywhere. So `model` also explores *everything* that can happen to three servers, within
//! bounds: two terms, a command, a crash, messages lost and reordered, and disks that are slow. Some two million states are
//! checked in each test run; with each of four deliberate mistakes a property breaks, and the shortest way there is printed.
//! `RAFT_MODEL=large` goes further.
//!
//! When there is a majority that can talk, and time passes at about the same rate everywhere, there is also
//! progress. No safety depends on time.
//!
//! # Where things are
//! | file | what |
//! |---|---|
//! | [`quorum`], [`configuration`] | arithmetic of majorities; voters, learners, joint consensus |
//! | [`types`], [`entry`], [`format`](mod@format) | terms, indexes, entries, and their bytes on disk |
//! | [`log`] | the log in memory and its watermarks: committed, released, durable |
//! | `stable` | what the disk was asked for and has done; messages that wait for it |
//! | [`server`] | one server: state, the way in and out, which message goes where |
//! | [`validation`] | what a message may claim: a peer's numbers are checked where they enter |
//! | `election` | timeouts, pre-vote, votes, stickiness and the hint of a broken link |
//! | `leader`, `replication`, `commit` | what a leader does, what it sends each follower, when an entry is committed |
//! | `follower`, `progress` | replication at the other end; what a leader knows of each follower |
//! | `read_index` | linearizable reads with one round of heartbeats for many |
//! | `staleness` | how old a follower's state may be |
//! | [`snapshot`], `snapshot_store` | compaction, and snapshots in chunks for those who lag too far behind |
//! | [`sessions`], [`machine`] | the replicated state machine, and retries that execute once |
//! | [`recovery`] | from disk to server |
//! | [`settings`] | timing, windows, when snapshots are made |
//! | [`status`] | what a server says about itself |
//! | [`group`], `pending`, [`event`], [`action`] | all of it as a role, and who waits for what |
//!
//! Two layers, for two kinds of state machine: [`Raft`] decides what is committed and leaves everything else
//! to a host, which it asks by [`action::Action`]s; [`RaftGroup`] is such a host for state machines that fit
//! into memory.
//!
//! # On disk
//! A group's log is a stream of the journal ([`types::GroupId::log_stream`]), position = index. Two small records stand
//! beside it: the hard state (term, vote), and where the log begins, with the snapshot that stands for what was before.
//! Whatever must be true together is one persist: a snapshot's record with the cut of the log that it replaces, an
//! entry with the term that it came in.
//!
//! A state machine in memory is made durable by snapshots, every so many entries; [`RaftGroup`] keeps them as chunks in
//! a second stream. A host whose state is durable by itself says how far it is ([`Raft::flushed`]), which lets the log
//! go, and makes a snapshot only when a member needs one.
//!
//! # Left out, for now
//! * Changing the members of a live group. Configurations are entries, take effect when they are in a log, may be
//!   joint, and are in snapshots; a leader only does not propose any yet.
//! * Leases (reads without the round of heartbeats) and leadership transfer. The place for the first is the answer to a
//!   heartbeat, where a follower would promise not to vote for a while. The second needs a message to the target
//!   (`TimeoutNow` of thesis 3.10), which then campaigns without a pre-vote, a vote that is exempt from stickiness
//!   (`election`), and a leader that takes no proposals until the target has caught up (`leader`, [`server`]).
//! * Telling an idle group's followers not to expect heartbeats, for thousands of groups on a node.
//! * Sending old entries from the disk: a follower that needs what is not in memory any more gets a snapshot.

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
