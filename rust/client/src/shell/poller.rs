//! The event sources of a driver: one epoll instance with its sockets, a timer and two notifications.
//!
//! The epoll descriptor is itself readable while anything in it is ready. So a thread can block on it, an event loop
//! can poll it beside its own descriptors, and a Tokio task can wait for it; see [`super::driver`].

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Maximum number of events per wait; the others stay for the next one.
const EVENTS: usize = 32;

const TIMER: u64 = u64::MAX;
const NOTIFY: u64 = u64::MAX - 1;
const INTERRUPT: u64 = u64::MAX - 2;

/// A ready source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// The socket of this connection is readable, closed, or writable again.
    Socket { connection: u64 },
    /// The timer has fired.
    Timer,
    /// [`Poller::notify`] was called.
    Notified,
    /// [`Poller::interrupt`] was called.
    Interrupted,
}

/// Sockets, a timer and notifications to wait for.
pub(super) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    notify: OwnedFd,
    interrupt: OwnedFd,
}

impl Poller {
    /// # Errors
    /// The system's: too many open files (`ulimit -n`).
    pub(super) fn new() -> io::Result<Self> {
        let poller = Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?,
            notify: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            interrupt: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        };
        poller.add(&poller.timer, TIMER, epoll::EventFlags::IN)?;
        poller.add(&poller.notify, NOTIFY, epoll::EventFlags::IN)?;
        poller.add(&poller.interrupt, INTERRUPT, epoll::EventFlags::IN)?;
        Ok(poller)
    }

    fn add(&self, source: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            epoll::EventData::new_u64(token),
            flags,
        )?)
    }

    /// Waits for a connection to be established or refused.
    pub(super) fn await_connected(&self, socket: impl AsFd, connection: u64) -> io::Result<()> {
        self.add(socket, connection, epoll::EventFlags::OUT)
    }

    /// Waits for bytes from a registered socket, and until it is writable if `blocked`.
    pub(super) fn await_bytes(&self, socket: impl AsFd, connection: u64, blocked: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        if blocked {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(connection);
        Ok(epoll::modify(&self.epoll, socket, data, flags)?)
    }

    /// Resets the timer.
    pub(super) fn set_timer(&self, after: Duration) {
        // A time of zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let timer = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: timespec(after),
        };
        // It fails only for an invalid time.
        let _armed = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }

    /// Makes the next wait, by any thread, return [`Ready::Notified`].
    pub(super) fn notify(&self) {
        write(&self.notify);
    }

    /// Ends the wait of the blocking thread.
    pub(super) fn interrupt(&self) {
        write(&self.interrupt);
    }

    /// Consumes an interruption. Only the blocking thread does, so that no other consumes it.
    pub(super) fn take_interruption(&self) {
        read(&self.interrupt);
    }

    /// Waits until a source is ready or the timeout passes; returns the number of ready sources, 0 after a signal.
    pub(super) fn wait(&self, timeout: Option<Duration>, mut found: impl FnMut(Ready)) -> usize {
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let timeout = timeout.map(timespec);
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) else {
            return 0;
        };
        for event in &*events {
            found(match event.data.u64() {
                TIMER => {
                    read(&self.timer);
                    Ready::Timer
                }
                NOTIFY => {
                    read(&self.notify);
                    Ready::Notified
                }
                INTERRUPT => Ready::Interrupted,
                connection => Ready::Socket { connection },
            });
        }
        events.len()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Resets a counter; its value does not matter.
fn read(counter: &OwnedFd) {
    let _count = rustix::io::read(counter, &mut [0; 8]);
}

/// Increments a counter. A full counter is already readable.
fn write(counter: &OwnedFd) {
    let _counted = rustix::io::write(counter, &1u64.to_ne_bytes());
}
