//! The line to the process that started this one: JSON lines out, the members in, and the end of the pipe.

use std::io::{self, BufRead, Write};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::listeners::Bound;
use crate::start_error::StartError;

/// Lines of the parent that may wait to be read.
const UNREAD_LINES: usize = 4;

/// What the parent says once its cluster is ready: `{"formed":true}`.
#[derive(Debug, Deserialize)]
struct Formed {
    formed: bool,
}

/// Whether the parent says in this line that the cluster is formed.
pub fn says_formed(line: &str) -> bool {
    serde_json::from_str(line).is_ok_and(|Formed { formed }| formed)
}

/// A line on the standard output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Line<'a> {
    /// The ports are bound.
    Bound {
        /// `false`.
        ready: bool,
        /// Where.
        bound: Bound,
    },
    /// The node serves requests.
    Ready {
        /// `true`.
        ready: bool,
        /// Its number.
        node: u16,
        /// Its boot, in hexadecimal.
        boot: &'a str,
    },
    /// The cluster is formed, and the node has written that down.
    Formed {
        /// `true`.
        formed: bool,
    },
    /// The node cannot start.
    Error {
        /// The error's name.
        error: &'a str,
        /// What it says.
        message: &'a str,
    },
}

impl Line<'_> {
    /// Writes the line. A parent that does not listen is no reason to fail.
    pub fn print(&self) {
        let text = serde_json::to_string(self).expect("a line is always valid JSON");
        let mut out = io::stdout().lock();
        let _nobody_listens = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Says on both streams why the node cannot start.
    pub fn print_error(error: &StartError) {
        let (report, complaint) = Line::of_error(error.name(), &error.to_string());
        let mut out = io::stdout().lock();
        let _nobody_listens = out.write_all(report.as_bytes()).and_then(|()| out.flush());
        eprint!("{complaint}");
    }

    /// Why the node cannot start, as a line for the standard output and as one for stderr.
    pub fn of_error(error: &str, message: &str) -> (String, String) {
        // One line, whatever is in it.
        let message = message.replace('\n', " ");
        let line = Line::Error {
            error,
            message: &message,
        };
        let report = serde_json::to_string(&line).expect("a line is always valid JSON");
        (format!("{report}\n"), complaint(&message))
    }
}

/// A line for stderr: why the node ends.
pub fn complaint(message: &str) -> String {
    format!("quorate node: {}\n", message.replace('\n', " "))
}

/// The standard input, read by a thread of its own: it may block for as long as the node lives.
pub struct ParentPipe {
    lines: mpsc::Receiver<String>,
}

impl ParentPipe {
    /// Starts to read.
    ///
    /// # Errors
    /// [`StartError::System`] when no thread can be started.
    pub fn open() -> Result<Self, StartError> {
        let (sender, lines) = mpsc::channel(UNREAD_LINES);
        let read = move || {
            let mut input = io::stdin().lock();
            let mut line = String::new();
            // An error reading is an end too: the parent cannot be heard any more.
            while matches!(input.read_line(&mut line), Ok(1..)) {
                let line = std::mem::take(&mut line);
                if !line.trim().is_empty() {
                    // A parent sends two lines; of one that goes on without being heard, the rest is not kept.
                    let _full = sender.try_send(line);
                }
            }
        };
        let name = "parent-pipe".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn(read)
            .map_err(StartError::system("start a thread"))?;
        Ok(ParentPipe { lines })
    }

    /// The line with the members.
    ///
    /// # Errors
    /// [`StartError::NoMembers`] when the input ends before it.
    pub async fn members(&mut self) -> Result<String, StartError> {
        self.line().await.ok_or(StartError::NoMembers)
    }

    /// The next line; `None` when the parent has closed the pipe, as by dying.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_parents_read() {
        let address = "127.0.0.1:7400".parse().unwrap();
        let bound = Bound {
            peer: address,
            client: address,
            http: address,
        };
        for (line, text) in [
            (
                Line::Bound { ready: false, bound },
                r#"{"ready":false,"bound":{"peer":"127.0.0.1:7400","client":"127.0.0.1:7400","http":"127.0.0.1:7400"}}"#,
            ),
            (
                Line::Ready {
                    ready: true,
                    node: 1,
                    boot: "00ff",
                },
                r#"{"ready":true,"node":1,"boot":"00ff"}"#,
            ),
            (Line::Formed { formed: true }, r#"{"formed":true}"#),
            (
                Line::Error {
                    error: "AddressInUse",
                    message: "m",
                },
                r#"{"error":"AddressInUse","message":"m"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
        }
    }
}
