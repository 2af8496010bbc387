//! The pipe to the parent process: JSON lines out, the members in, and the parent's exit.

use std::io::{self, BufRead, Write};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::listeners::Bound;
use crate::start_error::StartError;

/// The most unread lines from the parent.
const UNREAD_LINES: usize = 4;

/// The parent sends this once its cluster is ready: `{"formed":true}`.
#[derive(Debug, Deserialize)]
struct Formed {
    formed: bool,
}

/// Whether this line of the parent reports that the cluster is formed.
pub fn reports_formed(line: &str) -> bool {
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
        /// The bound addresses.
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
    /// The cluster is formed, and the node has made that durable.
    Formed {
        /// `true`.
        formed: bool,
    },
    /// The node cannot start.
    Error {
        /// The error's name.
        error: &'a str,
        /// The error's text.
        message: &'a str,
    },
}

impl Line<'_> {
    /// Writes the line. A closed pipe is not an error.
    pub fn print(&self) {
        let text = serde_json::to_string(self).expect("a line is always valid JSON");
        let mut out = io::stdout().lock();
        let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Writes the reason why the node cannot start to both streams.
    pub fn print_error(error: &StartError) {
        let (report, stderr_line) = Line::of_error(error.name(), &error.to_string());
        let mut out = io::stdout().lock();
        let _closed = out.write_all(report.as_bytes()).and_then(|()| out.flush());
        eprint!("{stderr_line}");
    }

    /// The reason why the node cannot start, as a line for the standard output and one for stderr.
    pub fn of_error(error: &str, message: &str) -> (String, String) {
        // A single line.
        let message = message.replace('\n', " ");
        let line = Line::Error {
            error,
            message: &message,
        };
        let report = serde_json::to_string(&line).expect("a line is always valid JSON");
        (format!("{report}\n"), stderr_line(&message))
    }
}

/// The line for stderr: why the node ends.
pub fn stderr_line(message: &str) -> String {
    format!("quorate node: {}\n", message.replace('\n', " "))
}

/// The standard input, read by its own thread, which may block for the lifetime of the node.
pub struct ParentPipe {
    lines: mpsc::Receiver<String>,
}

impl ParentPipe {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StartError::System`] when no thread can be started.
    pub fn open() -> Result<Self, StartError> {
        let (sender, lines) = mpsc::channel(UNREAD_LINES);
        let read = move || {
            let mut input = io::stdin().lock();
            let mut line = String::new();
            // A read error ends the pipe too.
            while matches!(input.read_line(&mut line), Ok(1..)) {
                let line = std::mem::take(&mut line);
                if !line.trim().is_empty() {
                    // A parent sends two lines; lines beyond the bound are dropped.
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

    /// Reads the line with the members.
    ///
    /// # Errors
    /// [`StartError::NoMembers`] when the input ends first.
    pub async fn members(&mut self) -> Result<String, StartError> {
        self.line().await.ok_or(StartError::NoMembers)
    }

    /// The next line; `None` when the parent has closed the pipe or died.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_format() {
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
