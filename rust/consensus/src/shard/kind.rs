//! The log entry of a request, and the metrics of a finished one.

use quorate_core::error::Error;
use quorate_core::time::Instant;
use quorate_protocol::api::{Request, Response, Stamp};
use quorate_protocol::role::Effect;
use quorate_protocol::shard_command::Command;
use quorate_protocol::telemetry::Measurement;
use quorate_raft::sessions::{MAX_IDLE_MS, Request as LogRequest, SessionId};

/// The log entry of a request; `None` for a read.
pub(super) fn log_request(request: &Request) -> Result<Option<LogRequest<Command>>, Error> {
    Ok(Some(match request {
        Request::Propose { command, session, .. } => {
            command.validate()?;
            if let Some(Stamp {
                sequence,
                acknowledged,
                ..
            }) = session
                && acknowledged >= sequence
            {
                return Err(Error::invalid(format!(
                    "command {sequence} of a session is out of order: its client has acknowledged all answers up to {acknowledged}: \
                     number commands from 1 on, and acknowledge only those before the first without an answer"
                )));
            }
            let command = Command::clone(command);
            match session {
                None => LogRequest::Plain(command),
                Some(stamp) => LogRequest::InSession {
                    session: SessionId(stamp.session),
                    sequence: stamp.sequence,
                    acknowledged: stamp.acknowledged,
                    command,
                },
            }
        }
        Request::OpenSession { idle_ms: 0, .. } => {
            return Err(Error::invalid(
                "a session must last at least 1 ms: give a greater idle_ms",
            ));
        }
        Request::OpenSession { idle_ms, .. } if *idle_ms > MAX_IDLE_MS => {
            return Err(Error::invalid(format!(
                "idle_ms={idle_ms}: the maximum is {MAX_IDLE_MS} ms"
            )));
        }
        Request::OpenSession { idle_ms, .. } => LogRequest::Open { idle_ms: *idle_ms },
        Request::CloseSession { session, .. } => LogRequest::Close(SessionId(*session)),
        other => {
            assert!(other.is_read(), "not a command of a group: {other:?}");
            return Ok(None);
        }
    }))
}

/// The metrics of a finished request.
pub(super) fn measure(
    request: &Request,
    started: Instant,
    now: Instant,
    result: &Result<Response, Error>,
) -> Option<Effect> {
    Some(Effect::Measure(Measurement {
        operation: request.operation()?,
        consistency: request.group_consistency(),
        outcome: result.as_ref().err().map_or("ok", Error::name).to_owned(),
        micros: now.0.saturating_sub(started.0),
        siblings: 0,
    }))
}
