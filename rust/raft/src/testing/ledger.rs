//! The state machine of the tests: named values, and a count of how often each command was executed.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::format::{self, FormatError};
use crate::machine::{Machine, StateMachine};
use crate::types::LogPosition;

/// Commands are `put NAME VALUE` (answered with the value) and `add NAME NUMBER` (answered with the sum); a
/// query is a NAME. Whatever comes after `//` in a command only makes it different from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Ledger {
    values: BTreeMap<String, String>,
    executed: BTreeMap<Bytes, u32>,
}

impl Ledger {
    /// Commands that were executed more than once.
    pub(crate) fn repeated(&self) -> impl Iterator<Item = &Bytes> {
        self.executed
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(command, _)| command)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter()
    }
}

impl StateMachine for Ledger {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, _position: LogPosition, _time: WallTime, command: Bytes) -> Bytes {
        *self.executed.entry(command.clone()).or_default() += 1;
        let text = String::from_utf8_lossy(&command);
        let words: Vec<&str> = text
            .split("//")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let [verb, name, value] = words[..] else {
            return "?".into();
        };
        let old: i64 = self
            .values
            .get(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        let new = match verb {
            "add" => (old + value.parse::<i64>().unwrap_or(0)).to_string(),
            _ => value.to_owned(),
        };
        self.values.insert(name.to_owned(), new.clone());
        new.into()
    }
}

impl Machine for Ledger {
    fn query(&self, query: &Bytes) -> Bytes {
        let value = self.values.get(&*String::from_utf8_lossy(query));
        value.cloned().unwrap_or_else(|| "-".to_owned()).into()
    }

    fn save(&self) -> Bytes {
        format::encode(self)
    }

    fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        format::decode("ledger", bytes)
    }
}
