//! A server that starts: what the journal has of its log, and what the store has of its rows.

use std::marker::PhantomData;

use quorate_core::error::Error;
use quorate_core::store::{Query, Rows, Table};
use quorate_protocol::role::Effect;
use quorate_raft::format;
use quorate_raft::recovery::{Done, Recovery};
use quorate_raft::sessions::{SessionId, Sessions};
use quorate_raft::types::GroupId;

use crate::host::machine::Machine;
use crate::rows::{self, BeginningKey, Marker};
use crate::turn::Turn;

/// The reads of the log.
const LOG: u64 = 1;
/// The reads of the rows.
const ROWS: u64 = 2;
const PAGE_ROWS: u32 = 4096;
const PAGE_BYTES: u32 = 1 << 20;

/// The rows that a server begins with: its marker, the state that is kept in memory, and sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Beginning<M> {
    marker: Option<Marker>,
    machine: Option<bytes::Bytes>,
    sessions: Vec<(SessionId, bytes::Bytes)>,
    /// What is made of them.
    kind: PhantomData<M>,
}

impl<M> Default for Beginning<M> {
    fn default() -> Self {
        Beginning {
            marker: None,
            machine: None,
            sessions: Vec::new(),
            kind: PhantomData,
        }
    }
}

impl<M: Machine> Beginning<M> {
    /// The read of all of them, or of those behind a row.
    pub(super) fn query(group: GroupId, after: Option<bytes::Bytes>) -> Query {
        let range = rows::beginning(group);
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

    /// Takes a page; gives the row behind which it goes on, if it does.
    pub(super) fn take(&mut self, page: Rows) -> Result<Option<bytes::Bytes>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let last = page.rows.last().map(|(row, _)| row.clone());
        for (row, value) in page.rows {
            match rows::decode_beginning_key(&row).map_err(|error| text(&error))? {
                BeginningKey::Session(session) => self.sessions.push((session, value)),
                BeginningKey::Machine => self.machine = Some(value),
                BeginningKey::Marker => {
                    let marker = format::decode("marker", &value).map_err(|error| text(&error))?;
                    self.marker = Some(marker);
                }
            }
        }
        Ok(last.filter(|_| page.more))
    }

    /// A deliberate mistake: what the clients' sessions know is left out.
    pub(super) fn without_sessions(self) -> Self {
        Beginning {
            sessions: Vec::new(),
            ..self
        }
    }

    /// The state that these rows are of; the position of its last entry.
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

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupRecovery<M> {
    group: GroupId,
    recovery: Recovery,
    log: Option<Done>,
    beginning: Beginning<M>,
}

/// All that it has found.
pub(crate) struct Recovered<M> {
    pub(super) log: Done,
    pub(super) beginning: Beginning<M>,
}

impl<M: Machine> GroupRecovery<M> {
    pub(crate) fn new(group: GroupId) -> Self {
        GroupRecovery {
            group,
            recovery: Recovery::without_snapshot(group),
            log: None,
            beginning: Beginning::default(),
        }
    }

    pub(crate) fn start(&self, turn: &mut Turn<'_>) {
        turn.push(Effect::Read {
            token: LOG,
            query: self.recovery.query(),
        });
    }

    /// Takes what was read; everything, when that was the last.
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
            _ => match self.beginning.take(page)? {
                Some(row) => Some(row),
                None => {
                    let log = self.log.take().expect("it is read first");
                    let beginning = std::mem::take(&mut self.beginning);
                    return Ok(Some(Recovered { log, beginning }));
                }
            },
        };
        turn.push(Effect::Read {
            token: ROWS,
            query: Beginning::<M>::query(self.group, next),
        });
        Ok(None)
    }
}
