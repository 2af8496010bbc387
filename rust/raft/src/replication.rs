//! What a leader sends each follower: appends up to the window (thesis 10.2 for pipelining), or a snapshot if
//! the log no longer has the entries that the follower lacks.
//!
//! The state of a follower (probe, replicate, snapshot) is its `Progress`; its answers are handled in
//! `leader`.

use quorate_core::ids::NodeId;

use crate::action::Action;
use crate::log::Log;
use crate::message::{Body, Message};
use crate::progress::{Progress, ProgressState};
use crate::server::{Raft, State, Turn};
use crate::settings::Settings;
use crate::snapshot::{SnapshotRef, Transfer};
use crate::types::{LogPosition, Term};

impl Raft {
    pub(super) fn replicate(&mut self, turn: &mut Turn<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let context = AppendContext {
            term: self.hard.term,
            log: &self.log,
            settings: &self.setup.settings,
        };
        let base = self.log.base().index;
        let usable = |snapshot_ref: &&SnapshotRef| snapshot_ref.meta.position.index >= base;
        let snapshot = self.snapshot_ref.as_ref().filter(usable);
        let mut wanted = false;
        for (node, progress) in &mut leader.progress {
            if progress.next <= base && !matches!(progress.state, ProgressState::Snapshot(_)) {
                let Some(snapshot_ref) = snapshot else {
                    wanted |= !progress.link_down;
                    continue;
                };
                progress.state =
                    ProgressState::Snapshot(Transfer::new(snapshot_ref.meta.clone(), turn.now.instant));
            }
            match &mut progress.state {
                ProgressState::Snapshot(transfer) if !progress.link_down => {
                    transfer.request_chunks(*node, &self.setup.settings, turn.actions);
                }
                _ => context.append(*node, progress, turn),
            }
        }
        if wanted {
            self.request_snapshot(turn);
        }
    }
}

/// What appends are built from.
struct AppendContext<'a> {
    term: Term,
    log: &'a Log,
    settings: &'a Settings,
}

impl AppendContext<'_> {
    /// Sends a member the entries that it lacks, up to the window.
    fn append(&self, to: NodeId, progress: &mut Progress, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let retry = now + self.settings.timing.heartbeat;
        let mut room = progress.room(self.settings.append_window, now);
        let probing = matches!(progress.state, ProgressState::Probe { .. });
        while room > 0 && (progress.next <= self.log.last().index || probing) {
            room -= 1;
            let index = progress.next.previous();
            let previous = LogPosition {
                term: self
                    .log
                    .term_at(index)
                    .expect("entries before the base are in a snapshot"),
                index,
            };
            let entries = self.log.slice(progress.next, self.settings.append_bytes);
            progress.sent(index.plus(entries.len()), now, retry);
            let body = Body::Append {
                previous,
                commit: self.log.commit(),
                entries,
            };
            turn.actions.push(Action::Send {
                to,
                message: Message {
                    term: self.term,
                    body,
                },
            });
        }
    }
}
