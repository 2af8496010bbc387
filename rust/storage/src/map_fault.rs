//! Reports faults of mapped data files (SIGBUS).
//!
//! LMDB reads through a memory map. A page beyond the end of the file (because of a damaged pointer or truncation), or one
//! that the disk cannot read, is not an error but a SIGBUS, which ends the process without a message. [`install`] sets a
//! handler that writes a prepared message and exits. Nothing is repaired, and no destructor runs: recovery inspects what is
//! on disk.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The output and exit status of a process whose data file faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultMessage {
    /// Texts, and the file descriptors to write them to.
    pub texts: Vec<(RawFd, String)>,
    /// The exit status.
    pub status: i32,
}

/// Never freed: a fault can happen at any time.
static FAULT_MESSAGE: AtomicPtr<FaultMessage> = AtomicPtr::new(ptr::null_mut());

/// Sets the message with which a fault ends the process; replaces an earlier one.
///
/// # Errors
/// If the signal handler cannot be installed.
pub fn install(message: FaultMessage) -> io::Result<()> {
    FAULT_MESSAGE.store(Box::into_raw(Box::new(message)), Ordering::Release);
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid sigaction. The handler does only what a signal handler may: it reads what is never
    // changed nor freed, and calls write and _exit. It runs on the stack that the runtime set aside, if there is one.
    let installed = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_fault as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, action, ptr::null_mut())
    };
    if installed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_fault(_signal: libc::c_int) {
    // SAFETY: what the pointer was set to is never freed, and set before the handler was installed.
    let message = unsafe { &*FAULT_MESSAGE.load(Ordering::Acquire) };
    for (descriptor, text) in &message.texts {
        // SAFETY: the pointer and the length are those of the text. A failure cannot be reported.
        let _failed = unsafe { libc::write(*descriptor, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: ends the process immediately.
    unsafe { libc::_exit(message.status) }
}
