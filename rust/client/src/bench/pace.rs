//! Paces the workers: until the end (a closed loop), or on a schedule (an open loop).
//!
//! The timers of the runtime have a resolution of a millisecond, which is longer than many operations take. So a
//! separate thread sleeps until each start is due and issues a permit for it. Idle workers wait for permits; while none
//! is idle, permits accumulate, and their operations start late. Latencies count from the due time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_core::error::Error;
use tokio::sync::Semaphore;

use super::schedule::Schedule;

/// Minimum interval between permits: a thread that wakes for each of many would take CPU time from the measured work.
const GRAIN: Duration = Duration::from_micros(50);

/// When operations start.
pub(super) enum Pace {
    /// As soon as a worker is free.
    Closed,
    /// When they are due.
    Open(Arc<Open>),
}

/// An open loop: the places of its schedule, in order, each taken by one worker.
pub(super) struct Open {
    begun: Instant,
    end: Instant,
    due: Semaphore,
    places: Mutex<Schedule>,
    stopped: AtomicBool,
}

/// The thread that issues the permits; ends when this is dropped.
pub(super) struct Pacer {
    open: Arc<Open>,
    thread: Option<JoinHandle<()>>,
}

impl Pace {
    /// Waits until an operation may start, and returns the time from which its latency counts; `None` after the end.
    pub(super) async fn next(&self, end: Instant) -> Option<Instant> {
        match self {
            Pace::Closed => Some(Instant::now()).filter(|now| *now < end),
            Pace::Open(open) => open.next().await,
        }
    }
}

impl Open {
    async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // Operations that have not started by then stay in the schedule, and are counted there.
        (Instant::now() < self.end).then(|| {
            let place = self.begun + places.peek();
            places.advance();
            place
        })
    }

    /// The places before the end that no worker has taken.
    pub(super) fn left(&self) -> Vec<Instant> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        while self.begun + places.peek() < self.end {
            left.push(self.begun + places.peek());
            places.advance();
        }
        left
    }

    fn give_out(&self, mut schedule: Schedule) {
        while !self.stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= self.end {
                self.due.close();
                return;
            }
            let due = schedule.take_due(now - self.begun);
            if due > 0 {
                self.due.add_permits(due);
            }
            let next = (self.begun + schedule.peek()).min(self.end);
            std::thread::park_timeout((next - now).max(GRAIN));
        }
    }
}

impl Pacer {
    /// Starts to issue permits for this schedule.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if no thread can be started.
    pub(super) fn start(schedule: Schedule, begun: Instant, end: Instant) -> Result<Pacer, Error> {
        let open = Arc::new(Open {
            begun,
            end,
            due: Semaphore::new(0),
            places: Mutex::new(schedule.clone()),
            stopped: AtomicBool::new(false),
        });
        let pacing = Arc::clone(&open);
        let thread = std::thread::Builder::new()
            .name("quorate-pacer".to_owned())
            .spawn(move || pacing.give_out(schedule))
            .map_err(|error| Error::Overloaded(format!("no thread for the schedule: {error}")))?;
        Ok(Pacer {
            open,
            thread: Some(thread),
        })
    }

    /// What the workers take their places from.
    pub(super) fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.open.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does nothing that could panic.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Arrivals;
    use super::*;

    #[tokio::test]
    async fn places_are_taken_in_order_when_they_are_due_and_the_rest_is_left() {
        let begun = Instant::now();
        let end = begun + Duration::from_millis(100);
        let pacer = Pacer::start(Schedule::new(100.0, Arrivals::Even, 0), begun, end).unwrap();
        let pace = Pace::Open(pacer.open());
        for number in 0..3 {
            let place = pace.next(end).await.unwrap();
            assert_eq!(place, begun + Duration::from_millis(10 * number));
            assert!(place <= Instant::now(), "not before it is due");
        }
        // After the end no place is taken any more.
        while Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(pace.next(end).await, None);
        let left: Vec<u128> = pacer
            .open()
            .left()
            .iter()
            .map(|place| (*place - begun).as_millis())
            .collect();
        assert_eq!(left, [30, 40, 50, 60, 70, 80, 90]);
    }

    #[tokio::test]
    async fn a_worker_that_waits_is_released_at_the_end() {
        let begun = Instant::now();
        let end = begun + Duration::from_millis(30);
        let pacer = Pacer::start(Schedule::new(0.1, Arrivals::Even, 0), begun, end).unwrap();
        let pace = Pace::Open(pacer.open());
        assert_eq!(pace.next(end).await, Some(begun));
        assert_eq!(pace.next(end).await, None);
        assert!(Instant::now() >= end);
    }

    #[test]
    fn a_pacer_ends_when_it_is_dropped() {
        let begun = Instant::now();
        let schedule = Schedule::new(0.001, Arrivals::Even, 0);
        let pacer = Pacer::start(schedule, begun, begun + Duration::from_secs(3_600)).unwrap();
        let open = pacer.open();
        drop(pacer);
        assert_eq!(Arc::strong_count(&open), 1, "the thread is gone");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
