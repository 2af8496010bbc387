//! The thread that writes the state: it applies journalled and derived rows, and makes changes that bypass the journal in
//! between.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::{ApplyReport, Config, Shared};
use crate::bulk::Bulk;
use crate::error::CommitError;
use crate::store::Applier;
use crate::unflushed::{Flushed, Unflushed};

/// The thread that writes the state.
pub(super) struct StateThread<A> {
    pub(super) applier: A,
    pub(super) unflushed: Arc<Unflushed>,
    pub(super) on_flushed: Box<dyn Fn(Vec<Flushed>) + Send>,
    pub(super) shared: Arc<Shared>,
}

impl<A: Applier> StateThread<A> {
    pub(super) fn run(mut self) {
        // Rounds and bulk changes alternate, so that neither starves.
        let mut bulk_first = false;
        while let Some(due) = wait_until_due(&self.shared, bulk_first) {
            bulk_first = matches!(due, Due::Round);
            let continues = match due {
                Due::Round => self.round(),
                Due::Bulk(change, answer) => self.bulk(&change, &answer),
            };
            if !continues {
                return;
            }
        }
    }

    /// Applies all unapplied rows; `false` if the thread must end.
    fn round(&mut self) -> bool {
        let started = Instant::now();
        let mut steps = 0;
        let no_room = loop {
            steps += 1;
            match self.applier.apply_step(self.shared.config.apply_step_bytes) {
                Ok(true) if self.shared.backlog().stopped => return false,
                Ok(true) => {}
                Ok(false) => break false,
                Err(CommitError::Full) => break true,
                Err(CommitError::Fatal(detail)) => {
                    self.shared.fail(detail);
                    return false;
                }
            }
        };
        if !no_room {
            self.shared.observer.applied(&ApplyReport {
                steps,
                duration: started.elapsed(),
            });
        }
        self.publish(Some(no_room));
        true
    }

    /// Makes one change that bypasses the journal; `false` if the thread must end.
    fn bulk(&mut self, change: &Bulk, answer: &SyncSender<Result<bool, CommitError>>) -> bool {
        let made = self.applier.bulk(change);
        if let Err(CommitError::Fatal(detail)) = made {
            self.shared.fail(detail);
            return false;
        }
        self.publish(None);
        // The waiter may have ended.
        let _gone = answer.send(made);
        true
    }

    /// Publishes flushed runs and the backlog; `no_room` is the result of a round.
    fn publish(&mut self, no_room: Option<bool>) {
        let flushed = self.unflushed.take_flushed(self.applier.flushed());
        if !flushed.is_empty() {
            (self.on_flushed)(flushed);
        }
        let mut backlog = self.shared.backlog();
        backlog.unapplied = self.applier.unapplied_bytes();
        backlog.no_room = no_room.unwrap_or(backlog.no_room);
        self.shared.changed.notify_all();
    }
}

/// Work of the state thread.
enum Due {
    Round,
    Bulk(Bulk, SyncSender<Result<bool, CommitError>>),
}

/// Waits until there is enough to apply, or something to apply and no commit for the idle time, or a bulk change; `None` if
/// the store stops.
fn wait_until_due(shared: &Shared, bulk_first: bool) -> Option<Due> {
    let Config {
        apply_bytes, idle, ..
    } = shared.config;
    let mut backlog = shared.backlog();
    // Space may become free at any time: poll for it.
    let mut earliest = backlog.no_room.then(|| Instant::now() + idle);
    loop {
        if backlog.stopped {
            return None;
        }
        let now = Instant::now();
        let due = match earliest {
            Some(earliest) => Some(earliest),
            None if backlog.unapplied >= apply_bytes => Some(now),
            None if backlog.unapplied > 0 => Some(backlog.last_commit + idle),
            None => None,
        };
        let round_is_due = due.is_some_and(|due| due <= now);
        if (bulk_first || !round_is_due)
            && let Some((change, answer)) = backlog.bulk.pop_front()
        {
            return Some(Due::Bulk(change, answer));
        }
        backlog = match due {
            Some(due) if due <= now => {
                if earliest.take().is_none() || backlog.unapplied > 0 {
                    return Some(Due::Round);
                }
                backlog
            }
            Some(due) => {
                let waited = shared.changed.wait_timeout(backlog, due - now);
                waited.expect("no holder of the backlog panics").0
            }
            None => shared
                .changed
                .wait(backlog)
                .expect("no holder of the backlog panics"),
        };
    }
}
