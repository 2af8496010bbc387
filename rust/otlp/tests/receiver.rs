//! A real OTLP receiver: spans arrive over HTTP in the standard format.
//!
//! A single test, because the environment of the process configures the export.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use quorate_core::ids::NodeId;
use quorate_core::time::WallTime;
use quorate_otlp::Exporter;
use quorate_protocol::telemetry::Span;
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(20);

/// Reads one request per connection and passes on its path and body.
fn receive(listener: TcpListener, received: Sender<(String, ExportTraceServiceRequest)>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        let received = received.clone();
        std::thread::spawn(move || {
            while let Some(request) = one(&stream) {
                if received.send(request).is_err() {
                    return;
                }
            }
        });
    }
}

fn one(mut stream: &TcpStream) -> Option<(String, ExportTraceServiceRequest)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")
            .map(|length| length.trim().parse().ok())
    })??;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .ok()?;
    let path = head.split_whitespace().nth(1)?.to_owned();
    Some((path, ExportTraceServiceRequest::decode(body.as_slice()).ok()?))
}

#[test]
fn spans_reach_a_receiver_only_if_export_is_enabled() {
    assert!(
        Exporter::from_environment("quorate", &[]).unwrap().is_none(),
        "no endpoint, no exporter"
    );

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || receive(listener, sender));
    // SAFETY: this is the only test of this program, and no other thread reads the environment now.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    }
    let exporter = Exporter::from_environment("quorate-node", &[("service.instance.id", "n1")])
        .unwrap()
        .unwrap();
    exporter.export(&[Span {
        trace_id: 0xabc,
        span_id: 0x12,
        parent_id: 0x11,
        name: "quorum.put".to_owned(),
        node: Some(NodeId(1)),
        start: WallTime(1_000),
        end: WallTime(2_500),
        attributes: vec![("db.namespace".to_owned(), "users".to_owned())],
        error: Some("Unavailable".to_owned()),
    }]);
    assert!(exporter.flush(PATIENCE));
    let (path, request) = received.recv_timeout(PATIENCE).expect("an export");
    assert_eq!(path, "/v1/traces");
    let resource = &request.resource_spans[0];
    let service = resource
        .resource
        .as_ref()
        .unwrap()
        .attributes
        .iter()
        .find(|pair| pair.key == "service.name");
    assert!(format!("{service:?}").contains("quorate-node"), "{service:?}");
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(span.trace_id, 0xabc_u128.to_be_bytes());
    assert_eq!(span.span_id, 0x12_u64.to_be_bytes());
    assert_eq!(span.parent_span_id, 0x11_u64.to_be_bytes());
    assert_eq!(
        (
            span.name.as_str(),
            span.end_time_unix_nano - span.start_time_unix_nano
        ),
        ("quorum.put", 1_500_000)
    );
    assert!(span.attributes.iter().any(|pair| pair.key == "error.type"));

    let subscriber = tracing_subscriber::registry().with(exporter.layer());
    tracing::subscriber::with_default(subscriber, || tracing::info_span!("node.start").in_scope(|| {}));
    assert!(exporter.flush(PATIENCE));
    let (_, request) = received.recv_timeout(PATIENCE).expect("an export");
    assert_eq!(
        request.resource_spans[0].scope_spans[0].spans[0].name,
        "node.start"
    );
    assert_eq!(exporter.dropped(), 0);
}
