//! Counters of dots: recovered at the start, reserved in blocks, waited for when a block is used up.

use super::{COUNTER_BLOCK, Persist, Replica};
use crate::error::Error;
use crate::role::{Effect, Rows};
use crate::store::{JournalOp, Priority, StateWrite, Table};
use crate::time::Now;
use crate::versions::DotCounter;

impl Replica {
    pub(super) fn recover_counter(
        &mut self,
        result: Result<Rows, Error>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let rows = result.unwrap_or_else(|error| panic!("the reserved counter cannot be read: {error}"));
        let mark = rows.rows.first().map_or(0, |(_, value)| {
            let bytes: [u8; 8] = value
                .as_ref()
                .try_into()
                .expect("a reserved counter has eight bytes");
            u64::from_le_bytes(bytes)
        });
        let mark = if self.surroundings.bugs.counter_restarts {
            0
        } else {
            mark
        };
        self.counter = Some(DotCounter::recover(
            self.surroundings.replica,
            mark,
            COUNTER_BLOCK,
        ));
        self.reserve(effects);
        self.resume_stalled(now, effects);
    }

    pub(super) fn reserve(&mut self, effects: &mut Vec<Effect>) {
        let Some(mark) = self.counter.as_mut().and_then(DotCounter::reservation) else {
            return;
        };
        let token = self.token();
        self.persists.insert(token, Persist::Counter(mark));
        let write = StateWrite {
            table: Table::Meta,
            key: self.counter_row(),
            value: Some(mark.to_le_bytes().to_vec().into()),
        };
        effects.push(Effect::Persist {
            token,
            priority: Priority::Urgent,
            ops: vec![JournalOp::Write(vec![write])],
        });
    }

    pub(super) fn resume_stalled(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (key, work) in std::mem::take(&mut self.stalled) {
            self.admit(key, work, now, effects);
        }
    }
}
