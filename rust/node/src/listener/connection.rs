//! One client connection: its requests in flight, its unread answers, and the loops that move bytes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use quorate_protocol::api::{
    CLIENT_VERSION_MAX, CLIENT_VERSION_MIN, ClientHello, MAX_CLIENT_FRAME, MAX_VALUE_BYTES, Request,
    RequestFrame, Response, ResponseFrame, ServerHello,
};
use quorate_protocol::error::Error;
use quorate_protocol::frame::{Decoder, MAX_HELLO_FRAME, MAX_REQUEST_FRAME, encode};
use quorate_protocol::role::ClientRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::{Arguments, Limits, Load};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection as the rest of the node sees it.
///
/// Invariant: a request is in `in_flight` from its admission to its answer, and counted in [`Load`] just as long.
pub(super) struct Connection {
    pub(super) id: u64,
    limits: Limits,
    state: Mutex<State>,
    /// There are answers to write, or the connection is to end.
    ready: Notify,
}

#[derive(Default)]
struct State {
    /// The sizes of the requests that wait for their answers, in bytes.
    in_flight: BTreeMap<u64, usize>,
    /// Encoded answers that have not been written yet.
    unread: BytesMut,
    /// Why the connection must end.
    broken: Option<&'static str>,
}

impl Connection {
    pub(super) fn new(id: u64, limits: Limits) -> Self {
        Connection {
            id,
            limits,
            state: Mutex::default(),
            ready: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, or says why not.
    fn admit(&self, request: u64, bytes: usize, load: &Load) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.in_flight.contains_key(&request) {
            return Err(Refusal::Repeated);
        }
        let full = if state.in_flight.len() >= self.limits.connection_requests {
            Some(format!(
                "{} requests are in flight on this connection",
                state.in_flight.len()
            ))
        } else if load.requests.load(Ordering::Relaxed) >= self.limits.requests {
            Some(format!(
                "{} requests are in flight on this node",
                self.limits.requests
            ))
        } else if load.bytes.load(Ordering::Relaxed) + bytes > self.limits.request_bytes {
            Some(format!(
                "requests of {} bytes are in flight on this node",
                self.limits.request_bytes
            ))
        } else {
            None
        };
        if let Some(full) = full {
            load.refused.fetch_add(1, Ordering::Relaxed);
            let remedy = "nothing was done about this one; wait a moment and try again, or use fewer clients";
            return Err(Refusal::Overloaded(Error::Overloaded(format!(
                "{full}: {remedy}"
            ))));
        }
        load.requests.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        state.in_flight.insert(request, bytes);
        Ok(())
    }

    /// Answers a request that was let in, and wakes the writer.
    pub(super) fn answer(&self, request: u64, response: Result<Response, Error>, load: &Load) {
        self.append(request, response, load);
        self.wake();
    }

    /// Answers a request that was let in; [`Connection::wake`] follows.
    pub(super) fn append(&self, request: u64, response: Result<Response, Error>, load: &Load) {
        let mut state = self.state();
        let Some(bytes) = state.in_flight.remove(&request) else {
            return;
        };
        load.requests.fetch_sub(1, Ordering::Relaxed);
        load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.write(&mut state, request, response);
    }

    pub(super) fn wake(&self) {
        self.ready.notify_one();
    }

    fn refuse(&self, request: u64, error: Error) {
        self.write(&mut self.state(), request, Err(error));
    }

    fn write(&self, state: &mut State, id: u64, response: Result<Response, Error>) {
        if encode(
            &ResponseFrame { id, response },
            MAX_CLIENT_FRAME,
            &mut state.unread,
        )
        .is_err()
        {
            let error = Error::LimitExceeded {
                what: "the answer in bytes".to_owned(),
                size: MAX_CLIENT_FRAME as u64 + 1,
                limit: MAX_CLIENT_FRAME as u64,
                remedy: "scan with a smaller limit, or put a merged value in place of the key's siblings"
                    .to_owned(),
            };
            let small = encode(
                &ResponseFrame {
                    id,
                    response: Err(error),
                },
                MAX_CLIENT_FRAME,
                &mut state.unread,
            );
            assert!(small.is_ok(), "an error always fits into a frame");
        }
        if state.unread.len() > self.limits.unread_bytes {
            state.broken = Some("the client does not read its answers");
        }
    }

    /// What is to be written now.
    fn take_unread(&self) -> Result<BytesMut, &'static str> {
        let mut state = self.state();
        match state.broken {
            Some(reason) => Err(reason),
            None => Ok(std::mem::take(&mut state.unread)),
        }
    }

    /// The connection is gone: its requests count no longer.
    pub(super) fn forget(&self, load: &Load) {
        for (_, bytes) in std::mem::take(&mut self.state().in_flight) {
            load.requests.fetch_sub(1, Ordering::Relaxed);
            load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Why a request was not let in.
enum Refusal {
    Overloaded(Error),
    /// Its id is in flight already: the client has lost count, and the connection must end.
    Repeated,
}

/// Serves a connection until either side closes it.
///
/// # Errors
/// Why it was closed, in words.
pub(super) async fn run(
    connection: &Connection,
    stream: TcpStream,
    arguments: &Arguments,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (mut reader, mut writer) = stream.into_split();
    let hello = hello(&mut reader, &mut writer, arguments);
    let decoder = match tokio::time::timeout(arguments.limits.hello, hello).await {
        Ok(greeted) => greeted?,
        Err(_) => return Err("no hello in time".to_owned()),
    };
    tokio::select! {
        ended = read(connection, reader, decoder, arguments) => ended,
        ended = write(connection, writer) => ended,
    }
}

/// Learns who the client is and says who we are, or why not.
async fn hello(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    arguments: &Arguments,
) -> Result<Decoder, String> {
    let mut decoder = Decoder::new(MAX_HELLO_FRAME);
    while !decoder.magic().map_err(|error| error.to_string())? {
        more(reader, &mut decoder).await?;
    }
    let hello: ClientHello = loop {
        if let Some(hello) = decoder.decode().map_err(|error| error.to_string())? {
            break hello;
        }
        more(reader, &mut decoder).await?;
    };
    decoder.set_limit(MAX_REQUEST_FRAME);
    let answer = greet(&hello, arguments);
    let mut bytes = BytesMut::new();
    encode(&answer, MAX_CLIENT_FRAME, &mut bytes).map_err(|error| error.to_string())?;
    writer
        .write_all(&bytes)
        .await
        .map_err(|error| error.to_string())?;
    match answer {
        ServerHello::Welcome { .. } => Ok(decoder),
        ServerHello::Refused(error) => Err(error.to_string()),
    }
}

fn greet(hello: &ClientHello, arguments: &Arguments) -> ServerHello {
    let identity = arguments.identity;
    if hello.version_min > CLIENT_VERSION_MAX || hello.version_max < CLIENT_VERSION_MIN {
        return ServerHello::Refused(Error::Refused(format!(
            "the client speaks versions {} to {} of the client protocol, {} speaks {CLIENT_VERSION_MIN} to \
             {CLIENT_VERSION_MAX}: use a client of the node's release",
            hello.version_min, hello.version_max, identity.node
        )));
    }
    if let Some(expected) = hello.cluster.filter(|expected| *expected != identity.cluster) {
        return ServerHello::Refused(Error::Refused(format!(
            "{} belongs to cluster {}, not to {expected}: check the address",
            identity.node, identity.cluster
        )));
    }
    ServerHello::Welcome {
        version: hello.version_max.min(CLIENT_VERSION_MAX),
        features: 0,
        cluster: identity.cluster,
        node: identity.node,
        boot: identity.boot,
    }
}

async fn more(reader: &mut OwnedReadHalf, decoder: &mut Decoder) -> Result<(), String> {
    decoder.buffer_mut().reserve(READ_BYTES);
    match reader.read_buf(decoder.buffer_mut()).await {
        Ok(0) => Err("closed by the client".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads requests and hands all that came together to the router together.
async fn read(
    connection: &Connection,
    mut reader: OwnedReadHalf,
    mut decoder: Decoder,
    arguments: &Arguments,
) -> Result<(), String> {
    loop {
        let mut batch = Vec::new();
        loop {
            let before = decoder.buffered();
            let Some(frame) = decoder
                .decode::<RequestFrame>()
                .map_err(|error| error.to_string())?
            else {
                break;
            };
            let bytes = before - decoder.buffered();
            if let Some(error) = too_large(&frame.request) {
                connection.refuse(frame.id, error);
                connection.wake();
                continue;
            }
            match connection.admit(frame.id, bytes, &arguments.replies.shared.load) {
                Ok(()) => batch.push((
                    ClientRef {
                        connection: connection.id,
                        request: frame.id,
                    },
                    frame,
                )),
                Err(Refusal::Overloaded(error)) => {
                    connection.refuse(frame.id, error);
                    connection.wake();
                }
                Err(Refusal::Repeated) => {
                    return Err(format!("request id {} is in flight already", frame.id));
                }
            }
        }
        if !batch.is_empty() {
            arguments.router.dispatch(batch);
        }
        more(&mut reader, &mut decoder).await?;
    }
}

/// What the frame limit lets through and a value may not be.
fn too_large(request: &Request) -> Option<Error> {
    let Request::Put {
        key,
        value: Some(value),
        ..
    } = request
    else {
        return None;
    };
    (value.len() > MAX_VALUE_BYTES).then(|| Error::LimitExceeded {
        what: format!("the value of {key} in bytes"),
        size: value.len() as u64,
        limit: MAX_VALUE_BYTES as u64,
        remedy: "split it into several keys".to_owned(),
    })
}

/// Writes answers as they come: all that wait, at once.
async fn write(connection: &Connection, mut writer: OwnedWriteHalf) -> Result<(), String> {
    loop {
        connection.ready.notified().await;
        let mut bytes = connection.take_unread()?;
        while bytes.has_remaining() {
            tokio::select! {
                written = writer.write_buf(&mut bytes) => {
                    written.map_err(|error| error.to_string())?;
                }
                // A client that stopped reading must not keep its answers here for ever.
                () = connection.ready.notified() => {
                    let more = connection.take_unread()?;
                    bytes.extend_from_slice(&more);
                    if bytes.len() > connection.limits.unread_bytes {
                        return Err("the client does not read its answers".to_owned());
                    }
                }
            }
        }
    }
}
