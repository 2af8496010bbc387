//! One client connection: reads requests, writes responses, and times out slow clients.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use quorate_core::error::Error;
use quorate_protocol::api::{MAX_CLIENT_FRAME, RequestFrame};
use quorate_protocol::frame::{Decoder, FrameError, MAX_REQUEST_FRAME};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Interval, MissedTickBehavior};

use super::outbox::{Outbox, Standing};
use super::{Replies, Router, Shared};

/// Bytes per read.
const READ_BYTES: usize = 32 << 10;
/// A request larger than this waits for room among the partial requests.
const LARGE_REQUEST: usize = 64 << 10;
/// An empty buffer with more capacity than this is released.
const KEPT_BUFFER: usize = 256 << 10;
/// The interval of the timeout checks.
const WATCH: Duration = Duration::from_millis(250);

/// Serves a connection after its handshake until either side closes it.
///
/// # Errors
/// The reason why it was closed.
pub(super) async fn run(
    outbox: &Outbox,
    stream: &mut TcpStream,
    mut decoder: Decoder,
    replies: &Replies,
    router: &dyn Router,
) -> Result<(), String> {
    decoder.set_limit(MAX_REQUEST_FRAME);
    let (input, output) = stream.split();
    let mut session = Session {
        input,
        output,
        decoder,
        writing: BytesMut::new(),
        partial_since: None,
        turn: Turn::NotNeeded,
        blocked_since: None,
        shared: &replies.shared,
        outbox,
        router,
    };
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    session.decode()?;
    while session.step(&mut watch).await? {}
    Ok(())
}

/// Waits until the requests of a closed connection are answered: they are still being executed.
pub(super) async fn drain(outbox: &Outbox, replies: &Replies, router: &dyn Router) {
    let mut watch = tokio::time::interval(WATCH);
    while outbox.standing().in_flight > 0 {
        tokio::select! {
            () = outbox.woken() => {}
            _ = watch.tick() => outbox.sweep(router, &replies.shared.load),
        }
    }
}

/// Reserved room for the rest of a large request.
struct Place {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.load.partial.give_back(self.bytes);
        self.shared.load.room.notify_waiters();
    }
}

/// Whether the partial request may be read.
enum Turn {
    /// It is small, or there is no partial request.
    NotNeeded,
    Waiting(Pin<Box<dyn Future<Output = Place> + Send>>),
    Has {
        _place: Place,
    },
}

impl Turn {
    /// Waits for the place; pending forever if none is awaited.
    async fn place(&mut self) -> Place {
        match self {
            Turn::Waiting(place) => place.await,
            Turn::NotNeeded | Turn::Has { .. } => std::future::pending().await,
        }
    }
}

async fn wait_for_place(shared: Arc<Shared>, bytes: usize, limit: usize) -> Place {
    loop {
        // Registered before the check, so that no notification is missed.
        let room = shared.load.room.notified();
        if shared.load.partial.try_take(bytes, limit) {
            drop(room);
            return Place { shared, bytes };
        }
        room.await;
    }
}

struct Session<'a> {
    input: ReadHalf<'a>,
    output: WriteHalf<'a>,
    decoder: Decoder,
    /// Bytes taken from the outbox and not written yet.
    writing: BytesMut,
    /// When the partial request began to arrive.
    partial_since: Option<Instant>,
    turn: Turn,
    /// Since when writes have been blocked.
    blocked_since: Option<Instant>,
    shared: &'a Arc<Shared>,
    outbox: &'a Outbox,
    router: &'a dyn Router,
}

impl Session<'_> {
    /// Writes pending bytes, waits for an event, and reads what has arrived. Returns whether the connection continues.
    async fn step(&mut self, watch: &mut Interval) -> Result<bool, String> {
        self.write().map_err(|error| error.to_string())?;
        let standing = self.outbox.standing();
        if self.is_over(standing)? {
            return Ok(false);
        }
        let limits = self.outbox.limits();
        let blocked = !self.writing.is_empty();
        let waiting = matches!(self.turn, Turn::Waiting(_));
        let reading = !waiting && standing.unread <= limits.unread_bytes / 4;
        let watching = blocked || standing.in_flight > 0 || self.partial_since.is_some();
        if reading {
            self.decoder.buffer_mut().reserve(READ_BYTES);
        }
        tokio::select! {
            biased;
            () = self.outbox.woken() => {}
            place = self.turn.place(), if waiting => self.turn = Turn::Has { _place: place },
            writable = self.output.writable(), if blocked => writable.map_err(|error| error.to_string())?,
            read = self.input.read_buf(self.decoder.buffer_mut()), if reading => {
                match read.map_err(|error| error.to_string())? {
                    0 => return Ok(false),
                    _ => self.decode()?,
                }
            }
            _ = watch.tick(), if watching => self.check_timeouts()?,
        }
        Ok(true)
    }

    /// Whether the connection is to be closed.
    fn is_over(&self, standing: Standing) -> Result<bool, String> {
        if let Some(reason) = standing.ended {
            return Err(reason.to_owned());
        }
        Ok(self.shared.is_closing() && standing.in_flight == 0 && standing.unread == 0)
    }

    /// Writes as much as the socket takes.
    fn write(&mut self) -> io::Result<()> {
        loop {
            if self.writing.is_empty() {
                self.blocked_since = None;
                if self.writing.capacity() > KEPT_BUFFER {
                    self.writing = BytesMut::new();
                }
                self.outbox.take(&mut self.writing);
                if self.writing.is_empty() {
                    return Ok(());
                }
            }
            match self.output.try_write(&self.writing) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.writing.advance(written);
                    self.outbox.written(written, &self.shared.load);
                    self.blocked_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Decodes all complete requests and dispatches the admitted ones to the router, together.
    fn decode(&mut self) -> Result<(), String> {
        let mut frames = Vec::new();
        let mut progress = false;
        loop {
            match self.decoder.decode_sized::<RequestFrame>() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(FrameError::TooLarge { size, limit }) if size <= MAX_CLIENT_FRAME => {
                    if !self.refuse(size, limit)? {
                        break;
                    }
                    progress = true;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        if progress || !frames.is_empty() {
            self.partial_since = None;
            self.turn = Turn::NotNeeded;
        }
        if !frames.is_empty() {
            let admitted =
                self.outbox
                    .admit(frames, self.shared.is_closing(), self.router, &self.shared.load);
            let batch = admitted.map_err(|repeated| {
                format!(
                    "duplicate request id {}: a request with it is in flight",
                    repeated.0
                )
            })?;
            if !batch.is_empty() {
                self.router.dispatch(batch);
            }
        }
        if self.decoder.is_within_frame() {
            self.partial_since.get_or_insert_with(Instant::now);
            self.wait_for_room();
        } else {
            self.partial_since = None;
        }
        Ok(())
    }

    /// Rejects a request that is too large for a node but not for the protocol, and drops its bytes as they arrive; `false`
    /// until its id has arrived.
    fn refuse(&mut self, size: usize, limit: usize) -> Result<bool, String> {
        // A request begins with its id.
        let Some(id) = self.decoder.skip::<u64>().map_err(|error| error.to_string())? else {
            return Ok(false);
        };
        let error = Error::LimitExceeded {
            what: "the request in bytes".to_owned(),
            size: size as u64,
            limit: limit as u64,
            remedy: "split the value into several keys, or put a merged value in place of the key's siblings"
                .to_owned(),
        };
        let refused = self.outbox.refuse(id, error, &self.shared.load);
        refused.map_err(|repeated| {
            format!(
                "duplicate request id {}: a request with it is in flight",
                repeated.0
            )
        })?;
        Ok(true)
    }

    /// A request has begun to arrive: a large one waits for room.
    fn wait_for_room(&mut self) {
        let large = self.decoder.partial_frame().filter(|size| *size > LARGE_REQUEST);
        if let Some(size) = large
            && matches!(self.turn, Turn::NotNeeded)
        {
            let limit = self.outbox.limits().partial_bytes.max(size);
            self.turn = Turn::Waiting(Box::pin(wait_for_place(Arc::clone(self.shared), size, limit)));
        }
    }

    fn check_timeouts(&mut self) -> Result<(), String> {
        let now = Instant::now();
        self.outbox.sweep(self.router, &self.shared.load);
        let limits = self.outbox.limits();
        let over = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| since + limit <= now);
        if over(self.blocked_since, limits.stall) {
            return Err("the client does not read its responses".to_owned());
        }
        if over(self.partial_since, limits.frame) {
            if matches!(self.turn, Turn::Waiting(_)) {
                // The client is not slow: the request waits for room.
                self.partial_since = Some(now);
            } else {
                return Err("timed out waiting for the rest of a request".to_owned());
            }
        }
        Ok(())
    }
}
