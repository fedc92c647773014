//! The public HTTP server: XRPC, DIDComm by POST and WebSocket, and pages for people.
//!
//! This module is the only user of axum. `service::App` stands in front of the router: it answers
//! the commonest query from the cache of views without waiting, and does for every other request
//! what all of them need (client address, time limit, CORS, metrics). No log line or metric joins a
//! client with the account that it asked for (invariant 9).

mod channel;
mod client_address;
mod conditional;
mod connection;
mod dataset;
mod didcomm;
mod error;
mod listener;
mod metrics_server;
mod pages;
mod params;
mod per_address;
mod rate;
mod response_budget;
mod router;
mod routes;
mod service;
mod service_auth;
mod settings;
mod socket;
mod streams;
mod updates;
mod xrpc;

#[cfg(test)]
mod tests;

/// What the fuzz targets reach of this module.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::params::{NameBuffer, Params, plain_actor};
    use atcomm_proto::syntax::Actor;

    /// Reads a query as every method does. The short way to a cached answer and the full reader
    /// must find the same account.
    pub fn read_query(query: &str) {
        let params = Params::of_query(query);
        let _ = (
            params.did(),
            params.handle(),
            params.identifier(),
            params.actors(100),
            params.peer(),
            params.flag("proof"),
            params.limit(100, 50),
            params.cursor(),
        );
        let mut name: NameBuffer = [0; 256];
        if let (Some(plain), Ok(actor)) = (plain_actor(query, &mut name), params.actor()) {
            let full = match &actor {
                Actor::Did(did) => did.as_str(),
                Actor::Handle(handle) => handle.as_str(),
            };
            assert_eq!(plain, full, "{query}");
        }
    }
}

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::dataset::Editions;
use crate::mediator::{Mediator, PublicAddress};
use crate::resolve::Resolver;

pub use client_address::Network;
pub use listener::{HttpError, SHUTDOWN_TIMEOUT};
pub use metrics_server::MetricsServer;
pub use settings::{HttpSettings, NoListenAddress, listen_address, optional_listen};
pub use updates::{ChannelPassword, UpdatesSettings};

use connection::LimitedListener;
use listener::{listen, serve_until};
use service::{App, MakeConnectionService};
use socket::Sockets;

/// The public server: bound to its address, and serving once [`Http::run`] is called.
pub struct Http {
    listener: LimitedListener,
    app: Arc<App>,
    sockets: Option<Sockets>,
    address: SocketAddr,
}

impl Http {
    /// Binds the listener; connections wait in the kernel until [`Http::run`]. Must be called
    /// inside a tokio runtime. Without a mediator its paths answer 404. `address` is where others
    /// reach the server, if that is known: its DID is what they call it by.
    pub fn bind(
        settings: HttpSettings,
        resolver: Resolver,
        mediator: Option<Mediator>,
        address: Option<&PublicAddress>,
    ) -> Result<Self, HttpError> {
        let (listener, bound) = listen(settings.listen)?;
        let bypass = settings.rate_limit_bypass.clone();
        resolver.exempt(move |client| bypass.iter().any(|network| network.contains(client)));
        let sockets = mediator
            .as_ref()
            .map(|mediator| Sockets::of_mediator(mediator.settings()));
        let mediator = mediator.zip(sockets.clone());
        Ok(Self {
            listener: LimitedListener::new(listener, settings.max_connections),
            app: Arc::new(App::new(settings, resolver, mediator, address)),
            sockets,
            address: bound,
        })
    }

    /// Serves the editions of the dataset, too.
    #[must_use]
    pub fn with_datasets(mut self, editions: Editions) -> Self {
        // Nothing else has the app before it runs.
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.add_datasets(editions);
        }
        self
    }

    /// Returns the bound address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then accepts nothing more and gives open requests and sockets
    /// [`SHUTDOWN_TIMEOUT`] to end.
    pub async fn run(self, stop: CancellationToken) {
        let streams = self.app.streams().clone();
        let serving = axum::serve(self.listener, MakeConnectionService::new(self.app))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let sockets = async {
            stop.cancelled().await;
            if let Some(sockets) = &self.sockets {
                sockets.shutdown().await;
            }
        };
        let streams = streams.run(stop.clone());
        tokio::join!(serve_until(serving, stop.clone()), sockets, streams);
    }
}
