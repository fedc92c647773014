//! The metrics server, on a listener of its own for the operator's network.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::listener::{HttpError, listen, serve_until};

/// Media type of the Prometheus text format.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The server of `/metrics`: bound to its address, and serving once [`MetricsServer::run`] is
/// called.
pub struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl MetricsServer {
    /// Binds the listener; `render` writes the current metrics. Must be called inside a tokio
    /// runtime.
    pub fn bind(
        address: SocketAddr,
        render: impl Fn() -> String + Send + Sync + 'static,
    ) -> Result<Self, HttpError> {
        let (listener, address) = listen(address)?;
        let render = Arc::new(render);
        let metrics = get(move || {
            let text = render();
            async move { ([(CONTENT_TYPE, MEDIA_TYPE)], text) }
        });
        Ok(Self {
            listener,
            address,
            router: Router::new().route("/metrics", metrics),
        })
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and open requests at most [`SHUTDOWN_TIMEOUT`](super::SHUTDOWN_TIMEOUT)
    /// longer.
    pub async fn run(self, stop: CancellationToken) {
        let serving = axum::serve(self.listener, self.router)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        serve_until(serving, stop).await;
    }
}
