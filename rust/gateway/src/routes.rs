//! The routes of the HTTP server.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use quorate_node::node_status::NodeStatus;
use quorate_node::telemetry::metrics::CONTENT_TYPE;

/// All routes of a node.
pub fn router(node: Arc<NodeStatus>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(node)
}

/// The metrics, in the OpenMetrics text format.
async fn metrics(State(node): State<Arc<NodeStatus>>) -> Response {
    (
        [(header::CONTENT_TYPE, CONTENT_TYPE)],
        node.telemetry.metrics().render(),
    )
        .into_response()
}

/// Always 200: a response proves that the process runs its actors.
async fn livez() -> &'static str {
    "ok\n"
}

/// 200 when the node serves requests, 503 before that and while it stops. A node with a full disk serves reads: it is
/// ready, and a second line reports the full disk.
async fn readyz(State(node): State<Arc<NodeStatus>>) -> Response {
    if node.is_ready() {
        return match node.storage.full_reason() {
            None => "ok\n".into_response(),
            Some(why) => format!("ok\nstorage full: {why}\n").into_response(),
        };
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, "1")],
        "not ready\n",
    )
        .into_response()
}
