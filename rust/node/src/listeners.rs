//! The node's three listening sockets, bound before anything else so that a port of 0 is known early.

use std::io;
use std::net::{SocketAddr, TcpListener};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;
use crate::start_error::StartError;

/// The backlog of connections to be accepted.
const BACKLOG: i32 = 1024;

/// Bound and listening; connections are not accepted yet.
#[derive(Debug)]
pub struct Listeners {
    /// For the other nodes.
    pub peer: TcpListener,
    /// For clients.
    pub client: TcpListener,
    /// For `/metrics` and probes.
    pub http: TcpListener,
}

/// The bound addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// For the other nodes.
    pub peer: SocketAddr,
    /// For clients.
    pub client: SocketAddr,
    /// For `/metrics` and probes.
    pub http: SocketAddr,
}

impl Listeners {
    /// Binds all three.
    ///
    /// # Errors
    /// [`StartError::AddressInUse`] or [`StartError::Listen`], naming the setting.
    pub fn open(listen: &Listen) -> Result<Self, StartError> {
        Ok(Listeners {
            peer: bind("listen.peer", listen.peer)?,
            client: bind("listen.client", listen.client)?,
            http: bind("listen.http", listen.http)?,
        })
    }

    /// The bound addresses.
    ///
    /// # Errors
    /// [`StartError::System`] when the operating system does not report them.
    pub fn bound(&self) -> Result<Bound, StartError> {
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(StartError::system("read a bound address"))
        };
        Ok(Bound {
            peer: address(&self.peer)?,
            client: address(&self.client)?,
            http: address(&self.http)?,
        })
    }
}

fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of an earlier run in TIME_WAIT must not block the port.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    listen().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { setting, address },
        _ => StartError::Listen {
            setting,
            address,
            source,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::open(&Listen {
            peer: any,
            client: any,
            http: any,
        })
        .unwrap();
        let taken = listeners.bound().unwrap().client;
        assert_ne!(taken.port(), 0);
        let error = Listeners::open(&Listen {
            peer: any,
            client: any,
            http: taken,
        })
        .unwrap_err();
        assert_eq!(error.name(), "AddressInUse");
        let text = error.to_string();
        assert!(
            text.contains("listen.http") && text.contains(&taken.to_string()),
            "{text}"
        );
    }
}
