//! A blocking client of one node, directly on the frames, without retries.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};
use quorate_core::error::Error;
use quorate_core::ids::KeyspaceId;
use quorate_core::key::Key;
use quorate_core::level::Level;
use quorate_protocol::api::*;
use quorate_protocol::frame::{Decoder, encode};
use quorate_protocol::keyspace::{Keyspace, KeyspaceSettings};
use quorate_protocol::telemetry::{Span, TraceContext};
use quorate_versions::WriteId;

use crate::PATIENCE;

/// The deadline of requests, in milliseconds.
const DEADLINE_MS: u32 = 5_000;

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    decoder: Decoder,
    last: u64,
    /// The trace of later requests.
    pub(crate) trace: Option<TraceContext>,
}

/// A plain put.
pub(crate) fn put(keyspace: KeyspaceId, key: &str, value: &str, level: Level, sequence: u64) -> Request {
    Request::Put {
        keyspace,
        key: Key::try_from(key).unwrap(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        context: None,
        level: Some(level),
        write_id: WriteId {
            client: u64::from(std::process::id()),
            sequence,
        },
    }
}

/// A get.
pub(crate) fn get(keyspace: KeyspaceId, key: &str, level: Level) -> Request {
    Request::Get {
        keyspace,
        key: Key::try_from(key).unwrap(),
        level: Some(level),
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("a connection")
    }

    /// `None` if nothing listens, or the connection fails before the welcome.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client {
            stream,
            decoder: Decoder::new(MAX_CLIENT_FRAME),
            last: 0,
            trace: None,
        };
        let hello = ClientHello {
            version_min: CLIENT_VERSION_MIN,
            version_max: CLIENT_VERSION_MAX,
            features: 0,
            cluster: None,
            credentials: Bytes::new(),
        };
        let mut bytes = BytesMut::from(&CLIENT_MAGIC[..]);
        encode(&hello, MAX_CLIENT_FRAME, &mut bytes).unwrap();
        client.stream.write_all(&bytes).ok()?;
        match client.next::<ServerHello>()? {
            ServerHello::Welcome { .. } => Some(client),
            ServerHello::Refused(error) => panic!("refused: {error}"),
        }
    }

    /// Sends requests without waiting; returns their ids.
    pub(crate) fn send(&mut self, requests: impl IntoIterator<Item = Request>) -> Option<Vec<u64>> {
        let mut bytes = BytesMut::new();
        let mut ids = Vec::new();
        for request in requests {
            self.last += 1;
            ids.push(self.last);
            let frame = RequestFrame {
                id: self.last,
                deadline_ms: DEADLINE_MS,
                trace: self.trace,
                request,
            };
            encode(&frame, MAX_CLIENT_FRAME, &mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).ok()?;
        Some(ids)
    }

    /// The next response; `None` if the connection is closed.
    pub(crate) fn receive(&mut self) -> Option<ResponseFrame> {
        self.next()
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(message) = self.decoder.decode().unwrap() {
                return Some(message);
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.decoder.extend(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("timed out waiting for a response")
                }
                Err(_) => return None,
            }
        }
    }

    /// Sends a request and waits for its response; `None` if the connection is closed.
    pub(crate) fn try_ask(&mut self, request: Request) -> Option<Result<Response, Error>> {
        let ids = self.send([request])?;
        let answer = self.receive()?;
        assert_eq!(answer.id, ids[0]);
        Some(answer.response)
    }

    pub(crate) fn ask(&mut self, request: Request) -> Result<Response, Error> {
        self.try_ask(request).expect("an answer")
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Ok(Response::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn events(&mut self) -> Vec<quorate_protocol::telemetry::Occurrence> {
        match self.ask(Request::Events { after: 0 }) {
            Ok(Response::Events(events)) => events,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn spans(&mut self, trace_id: u128) -> Vec<Span> {
        match self.ask(Request::Spans { trace_id }) {
            Ok(Response::Spans(spans)) => spans,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&mut self, name: &str, replicas: u8) -> Keyspace {
        match self.ask(Request::CreateKeyspace(KeyspaceSettings::quorum(name, replicas))) {
            Ok(Response::Keyspace { keyspace, .. }) => keyspace,
            other => panic!("{other:?}"),
        }
    }

    /// The values of a key.
    pub(crate) fn values(&mut self, keyspace: KeyspaceId, key: &str, level: Level) -> Vec<Bytes> {
        match self.ask(get(keyspace, key, level)) {
            Ok(Response::Entry(entry)) => entry.versions.into_iter().map(|version| version.value).collect(),
            other => panic!("{other:?}"),
        }
    }
}
