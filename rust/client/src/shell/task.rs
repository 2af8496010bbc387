//! A Tokio task that drives.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::driver::{Driver, Shared};

/// Drives until the client is closed. Must be called within a Tokio runtime.
///
/// # Errors
/// The runtime cannot watch the descriptor.
pub(super) fn spawn(driver: &Driver) -> io::Result<()> {
    let Some(poller) = driver.0.poller() else {
        return Ok(());
    };
    let descriptor = poller.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is owned, and stays open and the same until `watched` is dropped.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    let driver = driver.clone();
    tokio::spawn(async move { poll_fn(|context| poll(&driver, &watched, context)).await });
    Ok(())
}

fn poll(driver: &Driver, watched: &AsyncFd<OwnedFd>, context: &mut Context<'_>) -> Poll<()> {
    let shared: &Shared = &driver.0;
    shared.set_task(context.waker());
    shared.flush();
    loop {
        if driver.is_closed() {
            return Poll::Ready(());
        }
        let Ok(mut guard) = ready!(watched.poll_read_ready(context)) else {
            // The runtime is shutting down.
            return Poll::Ready(());
        };
        if shared.turn(Some(Duration::ZERO)) == 0 {
            guard.clear_ready();
        }
    }
}
