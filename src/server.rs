//! The running service: opens every module, spawns their tasks, and ends them together.

mod admin;
mod datasets;
mod error;
mod files;
mod mailbox;
mod measure;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::{Directory, Housekeeping};
use crate::http::{self, Http, HttpSettings, MetricsServer};
use crate::ingest::{self, BackfillProgress, Ingest, SourceKind, SourceSettings};
use crate::mediator::{
    KEYS_FILE, Keys, Maintenance, Mediator, MediatorError, PublicAddress, Relay,
};
use crate::resolve::{Resolver, Worker};
use crate::store::{DirectoryStore, MailboxStore};
use atcomm_net::identity::Identity;
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Origin;

pub use admin::{
    AdminError, DestinationStatus, RelayStatus, Rotated, ask_mailbox_queues, ask_mailbox_status,
    ask_relay_status, purge_mailbox, rotate_keys,
};
pub use error::ServerError;
pub use mailbox::{MailboxQueues, MailboxStatus, Purged, PurgedQueueStatus, QueueStatus};

use admin::AdminSocket;
use datasets::Datasets;
use files::DataDir;

/// File of the directory's store in the data directory.
pub const DIRECTORY_FILE: &str = "directory.db";

/// File of the mediator's store in the data directory.
pub const MAILBOX_FILE: &str = "mailbox.db";

/// Maximum time for all tasks to end: open requests have [`http::SHUTDOWN_TIMEOUT`], and the
/// sources write what they read.
const SHUTDOWN_TIMEOUT: Duration = http::SHUTDOWN_TIMEOUT.saturating_add(Duration::from_secs(5));

/// A running service. Dropping it without [`Server::join`] aborts its tasks, which loses nothing
/// that was acknowledged.
pub struct Server {
    http: SocketAddr,
    metrics: Option<SocketAddr>,
    progress: watch::Receiver<Vec<BackfillProgress>>,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    directory: Arc<Directory>,
    mediator: Option<Mediator>,
    /// Unlocked when dropped, so it is declared after the stores, which lie in it.
    _data_dir: DataDir,
}

impl Server {
    /// Opens the store, binds the public, metrics and admin listeners and spawns all tasks.
    /// Returns once every listener is bound; the bound addresses are logged.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, ServerError> {
        log_start(&config);
        let data_dir = DataDir::claim(&config.data_dir)?;
        // Installed before any module takes a handle of its metrics.
        let recorder = match config.metrics.listen {
            Some(address) => Some((address, measure::recorder().ok_or(ServerError::Recorder)?)),
            None => None,
        };
        let resolver = open_resolver(&config, &clock).await?;
        let mediator = open_mediator(&config, &resolver, clock.clone()).await?;
        let admin = AdminSocket::bind(&config.data_dir, mediator.clone(), clock.clone())
            .map_err(ServerError::Admin)?;
        let address = public_address(&config, mediator.as_ref())?;
        let datasets = Datasets::open(&config)?;
        let http_settings = HttpSettings {
            max_connections: files::affordable_connections(config.http.max_connections),
            ..config.http
        };
        let http = Http::bind(
            http_settings,
            resolver.clone(),
            mediator.clone(),
            address.as_ref(),
        )?;
        let http = match &datasets {
            Some(datasets) => datasets.serve(http),
            None => http,
        };
        let metrics = match &recorder {
            Some((address, recorder)) => {
                let recorder = recorder.clone();
                Some(MetricsServer::bind(*address, move || recorder.render())?)
            }
            None => None,
        };
        log_sources(&config.sources);
        let ingest = Ingest::bind(resolver.clone(), config.sources, clock)?;

        let mut server = Self {
            http: http.local_addr(),
            metrics: metrics.as_ref().map(MetricsServer::local_addr),
            progress: ingest.progress(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            directory: Arc::clone(resolver.directory()),
            mediator,
            _data_dir: data_dir,
        };
        server.spawn_workers(resolver, ingest, recorder.map(|(_, recorder)| recorder));
        if let Some(datasets) = datasets {
            server.spawn("the datasets", datasets.run(server.stop.clone()));
        }
        server.spawn_listeners(admin, http, metrics);
        Ok(server)
    }

    /// Spawns the tasks that work without being asked.
    fn spawn_workers(
        &mut self,
        resolver: Resolver,
        ingest: Ingest,
        recorder: Option<PrometheusHandle>,
    ) {
        let stop = self.stop.clone();
        self.spawn("the worker", Worker::new(resolver).run(stop.clone()));
        let running = stop.clone();
        self.spawn("ingest", async move {
            ingest.run(running.clone()).await;
            // Without sources it returns at once, which is no reason to end the service.
            running.cancelled().await;
        });
        let housekeeping = Housekeeping::new(Arc::clone(&self.directory));
        self.spawn("the housekeeping", housekeeping.run(stop.clone()));
        if let Some(recorder) = recorder {
            let (directory, mediator) = (Arc::clone(&self.directory), self.mediator.clone());
            self.spawn(
                "measuring",
                measure::run(recorder, directory, mediator, stop.clone()),
            );
        }
        if let Some(mediator) = self.mediator.clone() {
            self.spawn(
                "keeping",
                Maintenance::new(mediator.clone()).run(stop.clone()),
            );
            self.spawn("the relay", Relay::new(mediator).run(stop));
        }
    }

    /// Spawns the tasks that accept connections, and logs the bound addresses.
    fn spawn_listeners(&mut self, admin: AdminSocket, http: Http, metrics: Option<MetricsServer>) {
        self.spawn("the admin socket", admin.run(self.stop.clone()));
        self.spawn("http", http.run(self.stop.clone()));
        tracing::info!(address = %self.http, "listening");
        if let Some(metrics) = metrics {
            tracing::info!(address = %metrics.local_addr(), "metrics are shown");
            self.spawn("metrics", metrics.run(self.stop.clone()));
        }
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Returns the address of the public listener.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Returns the address of the metrics listener.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Returns the progress of the enumerations of accounts.
    pub fn progress(&self) -> watch::Receiver<Vec<BackfillProgress>> {
        self.progress.clone()
    }

    /// Returns a token whose cancellation has the effect of [`Server::shutdown`].
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Begins the shutdown: nothing more is accepted, open requests are finished, and events that
    /// were read from sources are written. [`Server::join`] waits for that.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Waits for [`Server::shutdown`], or for a task that ends by itself, then ends all tasks and
    /// closes the stores.
    pub async fn join(mut self) -> Result<(), ServerError> {
        let mut result = Ok(());
        let ended = tokio::select! {
            () = self.stop.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        if let Some(ended) = ended
            && !self.stop.is_cancelled()
        {
            // A task that panicked has lost its name; the panic hook has logged the place.
            result = Err(ServerError::Ended(ended.unwrap_or("a part of the service")));
            self.stop.cancel();
        }
        tracing::info!("shutting down");
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some parts did not end in time");
            self.tasks.shutdown().await;
        }
        if let Some(mediator) = &self.mediator {
            mediator.shutdown().await;
        }
        self.directory.shutdown().await;
        tracing::info!("the store is closed");
        result
    }
}

/// Opens the directory's store and everything that refreshes its entries.
async fn open_resolver(config: &Config, clock: &Clock) -> Result<Resolver, ServerError> {
    let routes = ingest::routes(&config.sources)?;
    let net = Net::bind(config.net.clone(), clock.clone())?;
    let path = config.data_dir.join(DIRECTORY_FILE);
    let store_error = |error| ServerError::Store {
        path: path.clone(),
        error,
    };
    let store = DirectoryStore::open(&path).map_err(store_error)?;
    let directory = Directory::bind(store, clock.clone(), config.directory.answers_cache)
        .await
        .map_err(store_error)?
        .with_limits(config.directory.limits(own_pdses(&config.sources)));
    directory.begin_log().await.map_err(store_error)?;
    let identity = Identity::bind(net.clone(), config.identity.clone(), clock.clone());
    Ok(Resolver::bind(
        net,
        identity,
        Arc::new(directory),
        routes,
        config.resolve.clone(),
        clock.clone(),
    ))
}

/// Opens the mediator with its keys and its store. Returns `None` without `mediator.public_url`.
async fn open_mediator(
    config: &Config,
    resolver: &Resolver,
    clock: Clock,
) -> Result<Option<Mediator>, ServerError> {
    let settings = config.mediator.clone();
    let Some(public_url) = &settings.public_url else {
        return Ok(None);
    };
    let address = PublicAddress::parse(public_url, resolver.net().development())
        .map_err(MediatorError::Address)?;
    let path = config.data_dir.join(MAILBOX_FILE);
    // Opened before the store, so that a store never exists without the keys that its mail was
    // encrypted to.
    let keys = Keys::open(
        &config.data_dir.join(KEYS_FILE),
        path.exists(),
        &address,
        clock.now(),
    )
    .map_err(MediatorError::Keys)?;
    let mailbox = MailboxStore::open(&path).map_err(|error| ServerError::Store { path, error })?;
    let local = own_pdses(&config.sources);
    let resolver = resolver.clone();
    let mediator = Mediator::bind(settings, address, local, keys, mailbox, resolver, clock).await?;
    // The keys may have been rotated while nothing ran.
    let shown = mediator.show_in_directory().await;
    shown.map_err(MediatorError::Store)?;
    Ok(Some(mediator))
}

/// Returns where others reach the server, if that is configured.
fn public_address(
    config: &Config,
    mediator: Option<&Mediator>,
) -> Result<Option<PublicAddress>, ServerError> {
    let own = mediator.map(Mediator::address).cloned();
    let Some(url) = &config.http.public_url else {
        return Ok(own);
    };
    let address =
        PublicAddress::parse(url, config.net.development).map_err(ServerError::PublicUrl)?;
    if own.is_some_and(|own| own != address) {
        return Err(ServerError::TwoAddresses);
    }
    Ok(Some(address))
}

/// Returns the operator's own PDSes.
fn own_pdses(sources: &[SourceSettings]) -> BTreeSet<Origin> {
    let own = sources
        .iter()
        .filter(|source| source.kind == SourceKind::Pds);
    own.filter_map(|source| Origin::parse(&source.url).ok())
        .collect()
}

fn log_start(config: &Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.data_dir.display(),
        "atcomm starts"
    );
    if config.net.development {
        tracing::warn!("development is on: this must not be reachable by others");
    }
}

fn log_sources(sources: &[SourceSettings]) {
    for source in sources {
        let connect = source.connect.as_deref().unwrap_or(&source.url);
        let list = source.list.as_deref().unwrap_or(connect);
        tracing::info!(
            url = source.url,
            connect,
            kind = source.kind.as_str(),
            stream = source.stream,
            list = source.lists().then_some(list),
            "source"
        );
    }
    if sources.is_empty() {
        tracing::info!("no sources: accounts are looked at when somebody asks for them");
    }
}
