//! Recovery of a server: its log from the journal, and its rows from the store.

use std::marker::PhantomData;

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, Table};
use quorate_protocol::role::Effect;
use quorate_raft::format;
use quorate_raft::recovery::{Done, Recovery};
use quorate_raft::sessions::{SessionId, Sessions};
use quorate_raft::types::GroupId;

use crate::host::machine::Machine;
use crate::rows::{self, InitialKey, Marker};
use crate::turn::Turn;

/// The token of log reads.
const LOG: u64 = 1;
/// The token of row reads.
const ROWS: u64 = 2;
const PAGE_ROWS: u32 = 4096;
const PAGE_BYTES: u32 = 1 << 20;

/// The rows that a server starts with: its marker, the state in memory, and sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InitialRows<M> {
    marker: Option<Marker>,
    machine: Option<bytes::Bytes>,
    sessions: Vec<(SessionId, bytes::Bytes)>,
    /// The state machine.
    kind: PhantomData<M>,
}

impl<M> Default for InitialRows<M> {
    fn default() -> Self {
        InitialRows {
            marker: None,
            machine: None,
            sessions: Vec::new(),
            kind: PhantomData,
        }
    }
}

impl<M: Machine> InitialRows<M> {
    /// The read of all of them, or of those after a row.
    pub(super) fn query(group: GroupId, after: Option<bytes::Bytes>) -> Query {
        let range = rows::initial_rows(group);
        let start = after.map_or(range.start, |row| {
            let mut next = row.to_vec();
            next.push(0);
            next.into()
        });
        Query::Range {
            table: Table::Groups,
            start,
            end: range.end,
            limit_rows: PAGE_ROWS,
            limit_bytes: PAGE_BYTES,
        }
    }

    /// Takes a page; returns the row after which the next page starts, if any.
    pub(super) fn take(&mut self, page: Rows) -> Result<Option<bytes::Bytes>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let last = page.rows.last().map(|(row, _)| row.clone());
        for (row, value) in page.rows {
            match rows::decode_initial_key(&row).map_err(|error| text(&error))? {
                InitialKey::Session(session) => self.sessions.push((session, value)),
                InitialKey::Machine => self.machine = Some(value),
                InitialKey::Marker => {
                    let marker = format::decode("marker", &value).map_err(|error| text(&error))?;
                    self.marker = Some(marker);
                }
            }
        }
        Ok(last.filter(|_| page.more))
    }

    /// A deliberate mistake: drops the sessions.
    pub(super) fn without_sessions(self) -> Self {
        InitialRows {
            sessions: Vec::new(),
            ..self
        }
    }

    /// The state of these rows, and the position of its last entry.
    pub(super) fn state(self, group: GroupId) -> Result<(Sessions<M>, Marker), String> {
        let marker = self.marker.unwrap_or_default();
        let state = Sessions::resume(
            M::resume(group, self.machine.as_ref())?,
            marker.applied.index,
            marker.clock,
            self.sessions,
        );
        Ok((state.map_err(|error| error.to_string())?, marker))
    }
}

/// The progress of recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupRecovery<M> {
    group: GroupId,
    recovery: Recovery,
    log: Option<Done>,
    initial_rows: InitialRows<M>,
}

/// The recovered state.
pub(crate) struct Recovered<M> {
    pub(super) log: Done,
    pub(super) initial_rows: InitialRows<M>,
}

impl<M: Machine> GroupRecovery<M> {
    pub(crate) fn new(group: GroupId) -> Self {
        GroupRecovery {
            group,
            recovery: Recovery::without_snapshot(group),
            log: None,
            initial_rows: InitialRows::default(),
        }
    }

    pub(crate) fn start(&self, turn: &mut Turn<'_>) {
        turn.push(Effect::Read {
            token: LOG,
            query: self.recovery.query(),
        });
    }

    /// Takes the result of a read; returns the recovered state after the last one.
    pub(crate) fn read(
        &mut self,
        token: u64,
        result: Result<Rows, Error>,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Recovered<M>>, String> {
        let page = result.map_err(|error| error.to_string())?;
        let next = match token {
            LOG => match self.recovery.read(page).map_err(|error| error.to_string())? {
                None => {
                    self.start(turn);
                    return Ok(None);
                }
                Some(done) => {
                    self.log = Some(done);
                    None
                }
            },
            _ => match self.initial_rows.take(page)? {
                Some(row) => Some(row),
                None => {
                    let log = self.log.take().expect("the log is read before the rows");
                    let initial_rows = std::mem::take(&mut self.initial_rows);
                    return Ok(Some(Recovered { log, initial_rows }));
                }
            },
        };
        turn.push(Effect::Read {
            token: ROWS,
            query: InitialRows::<M>::query(self.group, next),
        });
        Ok(None)
    }
}
