//! Applying committed entries.

use std::collections::BTreeSet;

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, Table};
use quorate_protocol::role::Effect;
use quorate_raft::sessions::SessionId;

use crate::host::Host;
use crate::host::machine::Machine;
use crate::turn::Turn;

impl<M: Machine> Host<M> {
    /// Applies what is possible, unless the rows must not change.
    pub(super) fn apply_entries(&mut self, hold: bool, turn: &mut Turn<'_>) {
        if !hold {
            self.write_rows(turn);
        }
        while self.broken.is_none()
            && !self.pipeline.is_restoring()
            && self.pipeline.lookups.is_empty()
            && !hold
        {
            if let Some(count) = self.pipeline.looking_up.take() {
                self.execute(count, turn);
                continue;
            }
            let count = self.pipeline.batch_size(self.raft.log().stable());
            if count == 0 {
                break;
            }
            let unknown = self.pipeline.unknown(count);
            if unknown.is_empty() {
                self.execute(count, turn);
                continue;
            }
            self.pipeline.looking_up = Some(count);
            for row in unknown {
                let token = self.token();
                self.pipeline.lookups.insert(token, row.clone());
                turn.push(Effect::Read {
                    token,
                    query: Query::Get {
                        table: Table::Groups,
                        key: row,
                    },
                });
            }
        }
    }

    /// Whether there are entries to apply.
    pub(crate) fn has_more(&self) -> bool {
        self.pipeline.batch_size(self.raft.log().stable()) > 0
    }

    /// Takes the result of a lookup; returns it if it is not one. When all lookups are complete,
    /// [`apply`](Self::apply) continues.
    ///
    /// If the row cannot be read, this server stops: it would diverge without it. Other roles of the node
    /// continue: they have rows of their own.
    pub(super) fn looked_up(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
    ) -> Option<Result<Rows, Error>> {
        let Some(row) = self.pipeline.lookups.remove(&token) else {
            return Some(result);
        };
        let machine = self.pipeline.state.machine_mut();
        let learned = result.and_then(|rows| machine.learn(row, rows.rows.first().map(|(_, value)| value)));
        if let Err(error) = learned {
            self.broken = Some(format!(
                "a row that a condition needs cannot be read ({error}): check the disk; the group stays available while a \
                 majority of its other members is up"
            ));
        }
        None
    }

    /// Applies this many entries: all rows that their conditions need are known.
    fn execute(&mut self, count: usize, turn: &mut Turn<'_>) {
        let pipeline = &mut self.pipeline;
        let mut touched: BTreeSet<SessionId> = BTreeSet::new();
        let mut resolved = Vec::new();
        for entry in pipeline.queue.drain(..count) {
            let position = entry.position;
            let execute = |machine: &mut M, time, command| machine.execute(position, time, command);
            let answer = match entry.logged {
                Some(logged) => Some(pipeline.state.apply_read(position, logged, &mut touched, execute)),
                None => {
                    pipeline.state.skip(position);
                    None
                }
            };
            self.pending.committed(position, answer.as_ref(), &mut resolved);
            pipeline.applied = position;
        }
        pipeline.write(&touched);
        self.write_rows(turn);
        self.resolve(resolved);
    }

    /// Writes the rows of entries that are durable here.
    fn write_rows(&mut self, turn: &mut Turn<'_>) {
        let stable = self.raft.log().stable();
        while let Some((through, writes)) = self.pipeline.take_durable(stable) {
            turn.push(Effect::ApplyRows {
                token: through.0,
                writes,
            });
        }
    }
}
