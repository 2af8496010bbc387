//! The HTTP server of a node, and the node program: [`run`].
//!
//! This crate depends on the node, which knows only the interface [`HttpServer`].

pub mod routes;
mod server;

use std::sync::Arc;

pub use quorate_node::inspection::inspect;
use quorate_node::node::HttpServer;
use quorate_node::node_status::NodeStatus;
use quorate_node::service::ServiceFuture;

/// Serves `/metrics`, `/livez` and `/readyz`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gateway;

impl HttpServer for Gateway {
    fn serve(&self, listener: std::net::TcpListener, node: Arc<NodeStatus>) -> ServiceFuture {
        Box::pin(server::serve(listener, routes::router(node)))
    }
}

/// Runs a node with this gateway until it is stopped; returns the exit status for the process. See
/// [`quorate_node::run`] for the configuration, the protocol with the parent and the exit statuses.
pub fn run(config: &str) -> i32 {
    quorate_node::run::run(config, Arc::new(Gateway))
}
