//! The HTTP server of the routes: it bounds the number of connections and times out slow clients.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The most concurrent connections; further ones wait to be accepted.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// The timeout of a request's head, from the connection or the previous request on.
const HEAD: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// The pause when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Accepts and serves connections until it is dropped.
pub(crate) async fn serve(listener: std::net::TcpListener, routes: Router) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| format!("use the socket: {error}"))?;
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&free)
            .acquire_owned()
            .await
            .map_err(|error| error.to_string())?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // Malformed or slow requests were answered with 400 or 408 where possible.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection failed");
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use axum::routing::get;

    use super::*;

    /// Sends `request` and reads until the other side closes.
    fn exchange(address: std::net::SocketAddr, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may close before it has read everything.
        let _closed = stream.write_all(request);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn malformed_requests_are_rejected_and_others_are_served() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(
            listener,
            Router::new().route("/", get(|| async { "hello" })),
        ));
        tokio::task::spawn_blocking(move || {
            let idle: Vec<TcpStream> = (0..MAX_CONNECTIONS / 2)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            for garbage in [
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                &[b'A'; 100_000],
                b"\r\n\r\n\0\0\0",
            ] {
                let answer = exchange(address, garbage);
                let text = String::from_utf8_lossy(&answer);
                assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
            }
            let answer = exchange(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            assert!(answer.ends_with(b"hello"), "{}", String::from_utf8_lossy(&answer));
            drop(idle);
        })
        .await
        .unwrap();
        server.abort();
    }
}
