//! Our own stream under a ractor_cluster session.
//!
//! ractor_cluster hands everything that it is given to the stream and reads everything that arrives, with queues of
//! any length in between. The stream is where that is put right:
//! * the writer says when a batch has been taken by the kernel; only then does the link make the next one;
//! * the reader stops while too many batches that it has read are still on their way to the link;
//! * either can be blocked, and bytes can be made late: the faults of the laboratory;
//! * anybody who holds the [`StreamControl`] can end the stream, whatever ractor_cluster is waiting for.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::PeerFaults;
use super::meter::FrameMeter;

/// ractor_cluster reads eight bytes, then pieces of 8 KiB; the kernel is asked for this much at a time.
const READ_BUFFER: usize = 64 << 10;

/// Batches that were read and that the link has not handled: reading stops here ...
const MAX_UNHANDLED: i64 = 128;
/// ... and goes on here.
const RESUME_UNHANDLED: i64 = MAX_UNHANDLED / 2;

/// Bytes that a delay holds back, at most.
const MAX_DELAYED: usize = 4 << 20;

/// How often a delayed writer looks whether it is still blocked.
const BLOCKED_POLL: Duration = Duration::from_millis(10);

/// Is called when a batch has been taken by the kernel.
type OnSent = Box<dyn Fn() + Send + Sync>;

/// The handle of one stream.
pub(super) struct StreamControl {
    faults: Arc<PeerFaults>,
    on_sent: OnSent,
    /// A second handle of the socket, to end it with. Dropped with the rest of this.
    socket: std::net::TcpStream,
    closed: AtomicBool,
    /// Wakes the task that waits for delayed bytes to be due: it must not outlive the stream until then.
    ended: Notify,
    reason: OnceLock<String>,
    unhandled: AtomicI64,
    parked: Mutex<Parked>,
}

/// Who waits for a fault to pass, or for batches to be handled.
#[derive(Default)]
struct Parked {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamControl {
    /// Ends the stream, in both directions. The first reason counts.
    pub(super) fn close(&self, reason: &str) {
        let _later = self.reason.set(reason.to_owned());
        self.closed.store(true, Ordering::Release);
        // It may have ended by itself.
        let _ended = self.socket.shutdown(Shutdown::Both);
        self.ended.notify_one();
        self.unpark();
    }

    /// Why it was closed from this side, if it was.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A batch that was read has been handled.
    pub(super) fn handled(&self) {
        if self.unhandled.fetch_sub(1, Ordering::AcqRel) == RESUME_UNHANDLED + 1 {
            self.unpark();
        }
    }

    /// Lets whoever waits look again.
    pub(super) fn unpark(&self) {
        let mut parked = self.parked.lock().expect("parked");
        let wakers = [parked.reader.take(), parked.writer.take()];
        drop(parked);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Whether `holds` still does, the waker being in its place.
    fn park(
        &self,
        context: &Context<'_>,
        place: fn(&mut Parked) -> &mut Option<Waker>,
        holds: impl Fn() -> bool,
    ) -> bool {
        if !holds() {
            return false;
        }
        *place(&mut self.parked.lock().expect("parked")) = Some(context.waker().clone());
        holds()
    }
}

/// A connection on which both have said hello.
pub(super) struct PeerStream {
    label: String,
    reader: PeerReader,
    writer: PeerWriter,
}

impl PeerStream {
    /// Prepares `stream`; `label` is what the node server's events will call it.
    pub(super) fn new(
        stream: TcpStream,
        label: String,
        faults: Arc<PeerFaults>,
        on_sent: OnSent,
    ) -> io::Result<(PeerStream, Arc<StreamControl>)> {
        let standard = stream.into_std()?;
        let socket = standard.try_clone()?;
        let (reader, writer) = TcpStream::from_std(standard)?.into_split();
        let control = Arc::new(StreamControl {
            faults,
            on_sent,
            socket,
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            reason: OnceLock::new(),
            unhandled: AtomicI64::new(0),
            parked: Mutex::default(),
        });
        let stream = PeerStream {
            label,
            reader: PeerReader {
                half: reader,
                meter: FrameMeter::default(),
                control: control.clone(),
            },
            writer: PeerWriter {
                side: Arc::new(Mutex::new(WriteSide {
                    half: writer,
                    delayed: VecDeque::new(),
                    delayed_bytes: 0,
                    flushing: false,
                })),
                meter: FrameMeter::default(),
                control: control.clone(),
            },
        };
        Ok((stream, control))
    }
}

impl ClusterBidiStream for PeerStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (
            Box::new(BufReader::with_capacity(READ_BUFFER, self.reader)),
            Box::new(self.writer),
        )
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

struct PeerReader {
    half: OwnedReadHalf,
    meter: FrameMeter,
    control: Arc<StreamControl>,
}

impl AsyncRead for PeerReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let control = &this.control;
        let must_wait = || control.unhandled.load(Ordering::Acquire) >= MAX_UNHANDLED && !control.closed();
        if control.park(context, |parked| &mut parked.reader, must_wait) {
            return Poll::Pending;
        }
        if control.closed() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.half).poll_read(context, buffer))?;
        let batches = this.meter.feed(&buffer.filled()[before..]);
        control.unhandled.fetch_add(batches as i64, Ordering::AcqRel);
        Poll::Ready(Ok(()))
    }
}

/// Bytes that a delay holds back.
struct Delayed {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

struct WriteSide {
    half: OwnedWriteHalf,
    delayed: VecDeque<Delayed>,
    delayed_bytes: usize,
    /// A task is at work on `delayed`.
    flushing: bool,
}

struct PeerWriter {
    side: Arc<Mutex<WriteSide>>,
    meter: FrameMeter,
    control: Arc<StreamControl>,
}

impl PeerWriter {
    /// Takes all of `bytes` in, to be written later.
    fn hold_back(&self, side: &mut WriteSide, bytes: &[u8], delay: Duration) -> usize {
        let earliest = side.delayed.back().map(|last| last.due);
        let due = Instant::now() + delay;
        side.delayed_bytes += bytes.len();
        side.delayed.push_back(Delayed {
            due: earliest.map_or(due, |earliest| due.max(earliest)),
            bytes: bytes.to_vec(),
            written: 0,
        });
        if !std::mem::replace(&mut side.flushing, true) {
            tokio::spawn(flush_delayed(self.side.clone(), self.control.clone()));
        }
        bytes.len()
    }
}

impl AsyncWrite for PeerWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let control = &this.control;
        let must_wait = || {
            let full = this.side.lock().expect("writer").delayed_bytes >= MAX_DELAYED;
            (full || control.faults.blocked()) && !control.closed()
        };
        if control.park(context, |parked| &mut parked.writer, must_wait) {
            return Poll::Pending;
        }
        if control.closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let delay = control.faults.delay();
        let mut side = this.side.lock().expect("writer");
        let written = if delay.is_zero() && side.delayed.is_empty() {
            ready!(Pin::new(&mut side.half).poll_write(context, bytes))?
        } else {
            this.hold_back(&mut side, bytes, delay)
        };
        drop(side);
        for _ in 0..this.meter.feed(&bytes[..written]) {
            (this.control.on_sent)();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side.lock().expect("writer").half).poll_shutdown(context)
    }
}

/// Writes what a delay has held back, each piece when it is due, until nothing is left or the stream is closed.
async fn flush_delayed(side: Arc<Mutex<WriteSide>>, control: Arc<StreamControl>) {
    loop {
        let due = {
            let mut side = side.lock().expect("writer");
            match side.delayed.front() {
                Some(first) if !control.closed() => first.due,
                _ => {
                    side.delayed = VecDeque::new();
                    side.delayed_bytes = 0;
                    side.flushing = false;
                    return;
                }
            }
        };
        // A delay may be an hour, and a link that is so slow is closed every second.
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = control.ended.notified() => continue,
        }
        while control.faults.blocked() && !control.closed() {
            tokio::time::sleep(BLOCKED_POLL).await;
        }
        let written = std::future::poll_fn(|context| {
            let WriteSide { half, delayed, .. } = &mut *side.lock().expect("writer");
            let first = delayed.front_mut().expect("only this task removes");
            let written = ready!(Pin::new(half).poll_write(context, &first.bytes[first.written..]))?;
            first.written += written;
            Poll::Ready(io::Result::Ok(written))
        })
        .await;
        match written {
            Ok(0) | Err(_) => control.close("the connection broke"),
            Ok(written) => {
                let mut side = side.lock().expect("writer");
                side.delayed_bytes -= written;
                if side
                    .delayed
                    .front()
                    .is_some_and(|first| first.written == first.bytes.len())
                {
                    side.delayed.pop_front();
                }
                drop(side);
                control.unpark();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::faults::Fault;
    use super::*;

    /// A stream whose way out is late by `delay`, and the other end.
    async fn slow_stream(delay: Duration) -> (PeerStream, Arc<StreamControl>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
        let faults = Arc::new(PeerFaults::default());
        faults.set(Fault {
            delay,
            ..Fault::default()
        });
        let (stream, control) =
            PeerStream::new(here.unwrap(), "peer".into(), faults, Box::new(|| ())).unwrap();
        (stream, control, there.unwrap().0)
    }

    #[tokio::test]
    async fn a_closed_stream_does_not_wait_for_delayed_bytes_to_be_due() {
        let (stream, control, _there) = slow_stream(Duration::from_secs(600)).await;
        let PeerStream { mut writer, .. } = stream;
        writer.write_all(&[0; 100_000]).await.unwrap();
        let side = Arc::downgrade(&writer.side);
        // The task waits by now.
        tokio::task::yield_now().await;
        assert!(side.upgrade().is_some_and(|side| side.lock().unwrap().flushing));
        control.close("the link was idle");
        assert!(writer.write_all(b"more").await.is_err());
        drop(writer);
        let gone = async {
            while side.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("the task that waits for the delay keeps socket and bytes");
    }
}
