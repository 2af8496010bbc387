//! The event source of an event loop other than Tokio's: the drivers of its clients, and wake-ups by other threads.
//!
//! The loop polls one descriptor. When it is readable, the loop calls [`turn`](EventLoop::turn), on its own thread,
//! which drives all its drivers and returns the numbers of the calls to poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};

use super::driver::{Driver, Shared};

/// The drivers of one event loop, and the calls to poll.
pub struct EventLoop {
    epoll: OwnedFd,
    /// Weak: a pending call keeps its client, and so its driver.
    drivers: Mutex<Vec<Weak<Shared>>>,
    wakeups: Arc<Wakeups>,
}

impl EventLoop {
    /// # Errors
    /// The system's: too many open files (`ulimit -n`).
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let notify = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        watch(&epoll, &notify)?;
        Ok(EventLoop {
            epoll,
            drivers: Mutex::default(),
            wakeups: Arc::new(Wakeups {
                list: Mutex::default(),
                notify,
            }),
        })
    }

    /// Drives this driver from now on, until its client is closed or dropped.
    ///
    /// # Errors
    /// The system's: too many watches.
    pub fn attach(&self, driver: &Driver) -> io::Result<()> {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |known: &Weak<Shared>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&driver.0));
        if !drivers.iter().any(known)
            && let Some(poller) = driver.0.poller()
        {
            watch(&self.epoll, &*poller)?;
            drivers.push(Arc::downgrade(&driver.0));
        }
        Ok(())
    }

    /// A waker for the call with this number. It may be used by any thread.
    pub fn waker(&self, number: u64) -> Waker {
        Waker::from(Arc::new(CallWaker {
            number,
            wakeups: Arc::clone(&self.wakeups),
        }))
    }

    /// Runs the drivers; returns the numbers of the calls that were woken since the last turn, each at least once.
    pub fn turn(&self) -> Vec<u64> {
        self.wakeups.listen();
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| {
            // Its descriptors are closed with it.
            let Some(driver) = driver.upgrade().map(Driver) else {
                return false;
            };
            driver.0.turn(Some(Duration::ZERO));
            !driver.is_closed()
        });
        self.wakeups.take()
    }
}

impl AsFd for EventLoop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn watch(epoll: &OwnedFd, source: impl AsFd) -> io::Result<()> {
    let data = epoll::EventData::new_u64(0);
    Ok(epoll::add(epoll, source, data, epoll::EventFlags::IN)?)
}

/// The calls that were woken since the last turn.
struct Wakeups {
    list: Mutex<List>,
    notify: OwnedFd,
}

#[derive(Default)]
struct List {
    numbers: Vec<u64>,
    /// The loop reads the list after its turn, and needs no notification.
    listening: bool,
    notified: bool,
}

impl Wakeups {
    fn with<T>(&self, act: impl FnOnce(&mut List) -> T) -> T {
        act(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn listen(&self) {
        self.with(|list| list.listening = true);
    }

    fn take(&self) -> Vec<u64> {
        self.with(|list| {
            list.listening = false;
            if std::mem::take(&mut list.notified) {
                let _count = rustix::io::read(&self.notify, &mut [0; 8]);
            }
            std::mem::take(&mut list.numbers)
        })
    }

    fn push(&self, number: u64) {
        self.with(|list| {
            list.numbers.push(number);
            if !list.listening && !std::mem::replace(&mut list.notified, true) {
                let _counted = rustix::io::write(&self.notify, &1u64.to_ne_bytes());
            }
        });
    }
}

/// Wakes one call.
struct CallWaker {
    number: u64,
    wakeups: Arc<Wakeups>,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakeups.push(self.number);
    }
}
