//! Connecting without blocking: the addresses of an endpoint are tried one after the other.
//!
//! Only names are resolved, in a thread, since the system has no other way; numeric addresses need none.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

/// A connection that is being established.
pub(super) struct Dial {
    socket: Socket,
    /// Tried if this one fails.
    others: VecDeque<SocketAddr>,
}

/// The progress of a dial.
pub(super) enum Progress {
    /// Connected.
    Connected(TcpStream),
    /// The last address failed; this one is being tried.
    Again(Dial),
}

impl Dial {
    /// Starts with the first address that does not fail at once.
    ///
    /// # Errors
    /// The error of the last address.
    pub(super) fn begin(mut addresses: VecDeque<SocketAddr>) -> io::Result<Dial> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        while let Some(address) = addresses.pop_front() {
            match connect(address) {
                Ok(socket) => {
                    return Ok(Dial {
                        socket,
                        others: addresses,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The socket has become writable, which also happens on failure.
    ///
    /// # Errors
    /// The last address failed, too.
    pub(super) fn ready(self) -> io::Result<Progress> {
        match self.socket.take_error()? {
            None => Ok(Progress::Connected(self.socket.into())),
            Some(error) if self.others.is_empty() => Err(error),
            Some(_) => Dial::begin(self.others).map(Progress::Again),
        }
    }
}

impl AsFd for Dial {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Starts to connect.
fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Ok(socket)
        }
        Err(error) => Err(error),
    }
}

/// Resolves an endpoint: at once if it is numeric, otherwise in a thread that passes the addresses to `found`.
///
/// # Errors
/// No thread can be started.
pub(super) fn resolve(
    endpoint: String,
    found: impl FnOnce(io::Result<VecDeque<SocketAddr>>) + Send + 'static,
) -> io::Result<Option<SocketAddr>> {
    if let Ok(address) = endpoint.parse() {
        return Ok(Some(address));
    }
    thread::Builder::new()
        .name("quorate-resolve".to_owned())
        .spawn(move || found(endpoint.to_socket_addrs().map(Iterator::collect)))?;
    Ok(None)
}
