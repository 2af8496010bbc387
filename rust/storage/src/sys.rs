//! System calls that the standard library does not offer. The only unsafe code besides opening LMDB and the handler of
//! map faults.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Takes the exclusive lock of an open file, until the file is closed or the process exits; `false` if it is held.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as the borrow of `file` lasts.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(false)
    } else {
        Err(error)
    }
}

/// Bytes available to an ordinary user in the file system of `path`.
pub(crate) fn available_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string, and statvfs fills the whole structure when it returns 0.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

/// The size of a page of memory, which LMDB uses as its page size.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: sysconf only reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Requests a short scheduler slice for the calling thread, so that it runs as soon as its sync returns instead of waiting
/// for the tick of a busy neighbour. A hint: it has no effect on kernels without it, and in containers that forbid it.
#[cfg(target_os = "linux")]
pub(crate) fn request_short_slice() {
    /// `struct sched_attr` of the kernel, version 0.
    #[repr(C)]
    #[derive(Default)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    const SCHED_OTHER: u32 = 0;
    const SLICE_NANOS: u64 = 100_000;
    // SAFETY: getpriority reads the calling thread's nice value, so that the call below leaves it as it is.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: SCHED_OTHER,
        nice,
        runtime: SLICE_NANOS,
        ..SchedAttr::default()
    };
    // SAFETY: the structure is as long as its size field says, and the kernel only reads it.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

/// Not available on other systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn request_short_slice() {}

/// Starts writeback of a file, so that the final sync is short. A hint.
#[cfg(target_os = "linux")]
pub(crate) fn begin_writeback(file: &File) {
    // SAFETY: the descriptor is open for as long as the borrow of `file` lasts; no memory is involved.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Not available on other systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn begin_writeback(_file: &File) {}
