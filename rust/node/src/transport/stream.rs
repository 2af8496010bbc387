//! Our own stream under a ractor_cluster session.
//!
//! ractor_cluster writes everything that it is given to the stream and reads everything that arrives, with unbounded
//! queues in between. The stream adds flow control:
//! * the writer reports when the kernel has accepted a batch; only then does the link make the next one;
//! * the reader stops while too many batches that it has read are not handled by the link;
//! * fault injection can block either direction, and delay bytes;
//! * the holder of the [`StreamControl`] can close the stream, whatever ractor_cluster is waiting for.

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

/// Bytes per read from the kernel; ractor_cluster reads eight bytes, then chunks of 8 KiB.
const READ_BUFFER: usize = 64 << 10;

/// The number of unhandled batches at which reading stops ...
const MAX_UNHANDLED: i64 = 128;
/// ... and at which it resumes.
const RESUME_UNHANDLED: i64 = MAX_UNHANDLED / 2;

/// The most delayed bytes.
const MAX_DELAYED: usize = 4 << 20;

/// The interval at which a delayed writer checks whether it is still blocked.
const BLOCKED_POLL: Duration = Duration::from_millis(10);

/// Called when the kernel has accepted a batch.
type OnSent = Box<dyn Fn() + Send + Sync>;

/// The handle of one stream.
pub(super) struct StreamControl {
    faults: Arc<PeerFaults>,
    on_sent: OnSent,
    /// A second handle of the socket, to shut it down.
    socket: std::net::TcpStream,
    closed: AtomicBool,
    /// Wakes the task that flushes delayed bytes, so that it does not outlive the stream.
    ended: Notify,
    reason: OnceLock<String>,
    unhandled: AtomicI64,
    parked: Mutex<Parked>,
}

/// Tasks that wait for the end of a fault, or for batches to be handled.
#[derive(Default)]
struct Parked {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamControl {
    /// Closes the stream in both directions. The first reason is kept.
    pub(super) fn close(&self, reason: &str) {
        let _later = self.reason.set(reason.to_owned());
        self.closed.store(true, Ordering::Release);
        // It may have ended already.
        let _ended = self.socket.shutdown(Shutdown::Both);
        self.ended.notify_one();
        self.unpark();
    }

    /// The reason why this side closed it, if it did.
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

    /// Wakes the parked tasks.
    pub(super) fn unpark(&self) {
        let mut parked = self.parked.lock().expect("parked");
        let wakers = [parked.reader.take(), parked.writer.take()];
        drop(parked);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Registers the waker and returns whether `holds` is still true.
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

/// A connection after its handshake.
pub(super) struct PeerStream {
    label: String,
    reader: PeerReader,
    writer: PeerWriter,
}

impl PeerStream {
    /// Wraps `stream`; `label` identifies it in the node server's events.
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

/// Delayed bytes.
struct Delayed {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

struct WriteSide {
    half: OwnedWriteHalf,
    delayed: VecDeque<Delayed>,
    delayed_bytes: usize,
    /// Whether a task is flushing `delayed`.
    flushing: bool,
}

struct PeerWriter {
    side: Arc<Mutex<WriteSide>>,
    meter: FrameMeter,
    control: Arc<StreamControl>,
}

impl PeerWriter {
    /// Queues all of `bytes`, to be written later.
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

/// Writes delayed bytes when they are due, until none are left or the stream is closed.
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
        // A delay may be an hour, while a link that slow is closed every second.
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

    /// A stream with a `delay` on what it sends, and the other end.
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
        // The task is waiting now.
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
            .expect("the task that waits for the delay must release socket and bytes");
    }
}
