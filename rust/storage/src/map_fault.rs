//! A data file that cannot be read where it is mapped, told in message.
//!
//! LMDB reads through a memory map. A page that the file does not have (a damaged pointer leads past its end, somebody
//! cut it), or that the disk does not give back, is no error there but a SIGBUS, which ends the process without a word.
//! [`install`] gives it one: what was prepared for that end is written, and the process exits. Nothing is repaired, and
//! no destructor runs: what is on disk is for recovery to find out.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What a process says and does when a data file faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultMessage {
    /// Texts, and the descriptors that they are written to.
    pub texts: Vec<(RawFd, String)>,
    /// The exit status.
    pub status: i32,
}

/// Never freed: a fault may come at any time.
static FAULT_MESSAGE: AtomicPtr<FaultMessage> = AtomicPtr::new(ptr::null_mut());

/// From now on a fault ends the process with these message; replaces earlier ones.
///
/// # Errors
/// If the system refuses the signal's handler.
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
        // SAFETY: the text is as long as it says. Nobody can be told of a failure.
        let _unheard = unsafe { libc::write(*descriptor, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(message.status) }
}
