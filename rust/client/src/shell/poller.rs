//! What a driver waits on: one epoll instance with its sockets, a timer and two notifications.
//!
//! The epoll descriptor is itself readable while anything in it is ready. So a thread can block in it, an event loop can watch
//! it beside its own descriptors, and a task of Tokio can wait for it; see [`super::driver`].

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Events taken at a time; the others are still there the next time.
const EVENTS: usize = 32;

const TIMER: u64 = u64::MAX;
const NOTIFY: u64 = u64::MAX - 1;
const INTERRUPT: u64 = u64::MAX - 2;

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// The socket of this connection has bytes, or is at its end, or takes bytes again.
    Socket { connection: u64 },
    /// The time that was set has passed.
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

    /// Waits for bytes from a socket that is there already, and until it takes some if `blocked`.
    pub(super) fn await_bytes(&self, socket: impl AsFd, connection: u64, blocked: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        if blocked {
            flags |= epoll::EventFlags::OUT;
        }
        let data = epoll::EventData::new_u64(connection);
        Ok(epoll::modify(&self.epoll, socket, data, flags)?)
    }

    /// Sets the timer anew.
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
        // It refuses nothing but a time that is none.
        let _armed = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }

    /// Makes [`Ready::Notified`] of the next wait, by whichever thread.
    pub(super) fn notify(&self) {
        write(&self.notify);
    }

    /// Ends the wait of the thread that blocks.
    pub(super) fn interrupt(&self) {
        write(&self.interrupt);
    }

    /// Takes an interruption. Only the thread that blocks does, so that no other takes it away.
    pub(super) fn take_interruption(&self) {
        read(&self.interrupt);
    }

    /// What is ready, once something is or the time is up; nothing after a signal.
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

/// Empties a counter: what it counted is of no interest, and neither is that it was empty.
fn read(counter: &OwnedFd) {
    let _count = rustix::io::read(counter, &mut [0; 8]);
}

/// Counts one more. A counter that is full is readable already.
fn write(counter: &OwnedFd) {
    let _counted = rustix::io::write(counter, &1u64.to_ne_bytes());
}
