//! What a leader sends each follower: appends as far as its window takes them (thesis 10.2 for pipelining), or a
//! snapshot where the log has no longer what the follower lacks.
//!
//! What is known of a follower (probed, replicated to, or sent a snapshot) is its `Progress`; what it answers is heard in
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
        let ground = Ground {
            term: self.hard.term,
            log: &self.log,
            settings: &self.setup.settings,
        };
        let base = self.log.base().index;
        let usable = |kept: &&SnapshotRef| kept.meta.position.index >= base;
        let snapshot = self.kept.as_ref().filter(usable);
        let mut wanted = false;
        for (node, progress) in &mut leader.progress {
            if progress.next <= base && !matches!(progress.state, ProgressState::Snapshot(_)) {
                let Some(kept) = snapshot else {
                    wanted |= !progress.cut_off;
                    continue;
                };
                progress.state = ProgressState::Snapshot(Transfer::new(kept.meta.clone(), turn.now.instant));
            }
            match &mut progress.state {
                ProgressState::Snapshot(transfer) if !progress.cut_off => {
                    transfer.ask(*node, &self.setup.settings, turn.outputs);
                }
                _ => ground.append(*node, progress, turn),
            }
        }
        if wanted {
            self.ask_for_snapshot(turn);
        }
    }
}

/// What appends are made of.
struct Ground<'a> {
    term: Term,
    log: &'a Log,
    settings: &'a Settings,
}

impl Ground<'_> {
    /// Sends a member what it lacks, as far as its window takes it.
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
            turn.outputs.push(Action::Send {
                to,
                message: Message {
                    term: self.term,
                    body,
                },
            });
        }
    }
}
