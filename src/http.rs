//! What the world sees: XRPC over HTTP.
//!
//! The only user of axum. One service stands in front of its router: it answers from the
//! directory's ready answers without waiting, and does for every other request what all of them
//! need (address of the client, time limit, CORS, metrics). No log line or metric joins a client
//! with what was asked for (invariant 9).

mod client_address;
mod conditional;
mod connection;
mod didcomm;
mod error;
mod metrics_server;
mod pages;
mod params;
mod per_address;
mod response_budget;
mod service;
mod socket;
mod xrpc;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::mediator::Mediator;
use crate::resolve::Resolver;

pub use client_address::Network;
pub use metrics_server::MetricsServer;

use connection::LimitedListener;
use service::{App, MakeConnectionService};
use socket::Sockets;

/// How long requests under way may go on after the server was told to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// The public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on; port 0 takes any free one. Absent: `127.0.0.1:2590`, for a reverse
    /// proxy on the same machine, which also does TLS.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or networks (`10.0.0.0/8`).
    /// Absent: this machine. Empty: none, and every client is whoever connects.
    pub trusted_proxies: Vec<Network>,
    /// Connections at the same time; more wait until one ends. Absent: 4096.
    pub max_connections: usize,
    /// Requests under way that are not answered from memory; more are told to come back. A quarter
    /// of it is how many answers with proofs or histories may be held until they are written.
    /// Absent: 512.
    pub max_requests: usize,
    /// Longest time that one request may take, its body included. Absent: 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2590)),
            trusted_proxies: vec![
                Network::host(Ipv4Addr::LOCALHOST.into()),
                Network::host(Ipv6Addr::LOCALHOST.into()),
            ],
            max_connections: 4096,
            max_requests: 512,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct HttpError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

/// The public server, listening and not yet serving.
pub struct Http {
    listener: LimitedListener,
    app: Arc<App>,
    sockets: Option<Sockets>,
    address: SocketAddr,
}

impl Http {
    /// Listens; connections wait until [`Http::run`]. Must be called inside a tokio runtime.
    /// Without a mediator its paths are unknown.
    pub fn bind(
        settings: HttpSettings,
        resolver: Resolver,
        mediator: Option<Mediator>,
    ) -> Result<Self, HttpError> {
        let (listener, address) = listen(settings.listen)?;
        let sockets = mediator
            .as_ref()
            .map(|mediator| Sockets::new(mediator.settings()));
        let mediator = mediator.zip(sockets.clone());
        Ok(Self {
            listener: LimitedListener::new(listener, settings.max_connections),
            app: Arc::new(App::new(settings, resolver, mediator)),
            sockets,
            address,
        })
    }

    /// Where it listens, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then accepts nothing more and gives requests and sockets under way
    /// [`SHUTDOWN_TIMEOUT`].
    pub async fn run(self, stop: CancellationToken) {
        let serving = axum::serve(self.listener, MakeConnectionService::new(self.app))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let sockets = async {
            stop.cancelled().await;
            if let Some(sockets) = &self.sockets {
                sockets.shutdown().await;
            }
        };
        tokio::join!(serve_until(serving, stop.clone()), sockets);
    }
}

/// Waits for a graceful shutdown, but not for ever.
async fn serve_until(serving: impl IntoFuture<Output = io::Result<()>>, stop: CancellationToken) {
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        // axum's loop ends only by the signal and has no error of its own.
        _ = serving.into_future() => {}
        () = too_late => tracing::warn!("some connections did not end in time"),
    }
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), HttpError> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restart must not wait for the old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|error| HttpError { address, error })
}
