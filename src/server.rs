//! The running service: opens every module, spawns their tasks, and ends them together.

mod accounts;
mod admin;
mod datasets;
mod error;
mod files;
mod mailbox;
mod measure;
mod otlp;
mod overview;
mod public_url;
mod reload;
mod supervision;
mod version;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupSettings, Copier};
use crate::config::Config;
use crate::directory::{Directory, Housekeeping};
use crate::http::{self, Http, HttpSettings, MetricsServer};
use crate::ingest::{self, BackfillProgress, Ingest, SourceSettings};
use crate::mediator::{
    KEYS_FILE, Keys, Maintenance, Mediator, MediatorError, PublicAddress, Relay,
};
use crate::resolve::{Resolver, Worker};
use crate::store::{DirectoryStore, MailboxStore};
use atcomm_net::identity::Identity;
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Origin;

pub use crate::store::{DIRECTORY_FILE, MAILBOX_FILE};
pub use accounts::{OwnAccount, OwnAccounts, OwnMail};
pub use admin::{
    AdminError, DestinationStatus, RelayStatus, Rotated, ask_mailbox_queues, ask_mailbox_status,
    ask_own_accounts, ask_relay_status, ask_service_status, purge_mailbox, retire_mediator,
    rotate_keys,
};
pub use error::ServerError;
pub use files::{DiskSpace, disk_space};
pub use mailbox::{MailboxQueues, MailboxStatus, Purged, PurgedQueueStatus, QueueStatus};
pub use overview::{ConnectionLimit, MediatorStatus, ServiceSource, ServiceStatus};
pub use public_url::{PublicUrlFinding, PublicUrlStatus};
pub use reload::{Reloaded, Reloader};
pub use supervision::health;
pub use version::version;

use admin::AdminSocket;
use datasets::Datasets;
use files::DataDir;
use measure::Metering;
use overview::Overview;
use public_url::PublicUrlCheck;
use supervision::Watchdog;

/// Maximum time for all tasks to end: open requests have [`http::SHUTDOWN_TIMEOUT`], and the
/// sources write what they read.
const SHUTDOWN_TIMEOUT: Duration = http::SHUTDOWN_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Maximum time for the continuous copy to write what is left.
const COPY_TIMEOUT: Duration = Duration::from_secs(5);

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
    reloader: Arc<Reloader>,
    copier: Option<CopierTask>,
    /// Unlocked when dropped, so it is declared after the stores, which lie in it.
    _data_dir: DataDir,
}

impl Server {
    /// Opens the store, binds the public, metrics and admin listeners and spawns all tasks.
    /// Returns once every listener is bound; the bound addresses are logged.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, ServerError> {
        log_start(&config);
        config.check()?;
        let (sources, own) = (config.all_sources()?, config.own_pdses()?);
        let data_dir = DataDir::claim(&config.data_dir)?;
        // Installed before any module takes a handle of its metrics.
        let metering = Metering::open(&config)?;
        let resolver = open_resolver(&config, &sources, own.clone(), &clock).await?;
        let mediator = open_mediator(&config, own.clone(), &resolver, clock.clone()).await?;
        let address = public_address(&config, mediator.as_ref())?;
        let datasets = Datasets::open(&config)?;
        let http = open_http(&config, &resolver, mediator.clone(), address.as_ref())?;
        let http = datasets.iter().fold(http, |http, one| one.serve(http));
        let metrics = metering.as_ref().map_or(Ok(None), Metering::listener)?;
        let instance = address.as_ref().map_or_else(
            || http.local_addr().to_string(),
            |address| address.did().to_string(),
        );
        let push = metering
            .as_ref()
            .map_or(Ok(None), |metering| metering.push(resolver.net(), instance))?;
        log_sources(&sources);
        let backup = (config.backup.clone(), config.data_dir.clone());
        let ingest = Ingest::bind(resolver.clone(), sources.clone(), clock.clone())?;
        let address = address.filter(|_| config.http.check_public_url);
        let public_url =
            address.map(|address| PublicUrlCheck::new(&resolver, address, mediator.clone(), &http));
        let overview = Overview {
            mediator: mediator.clone(),
            public_url: public_url.clone(),
            connections: ingest.connections(),
            ..Overview::new(&config, sources, own, &resolver)
        };
        let admin = AdminSocket::bind(&config.data_dir, overview).map_err(ServerError::Admin)?;
        let mut server = Self {
            http: http.local_addr(),
            metrics: metrics.as_ref().map(MetricsServer::local_addr),
            progress: ingest.progress(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            directory: Arc::clone(resolver.directory()),
            reloader: Arc::new(Reloader::new(config, http.limits(), mediator.clone())),
            mediator,
            copier: None,
            _data_dir: data_dir,
        };
        server.spawn_workers(resolver, ingest, metering);
        let stop = server.stop.clone();
        server.spawn_if("the push of metrics", push.map(|one| one.run(stop.clone())));
        server.spawn_if("the datasets", datasets.map(|one| one.run(stop.clone())));
        let check = public_url.map(|one| one.run(stop));
        server.spawn_if("the check of the public address", check);
        server.spawn_backups(&backup.0, &backup.1, clock)?;
        server.spawn_listeners(admin, http, metrics);
        Ok(server)
    }

    /// Spawns the task that makes backups, if a folder for them is set.
    fn spawn_backups(
        &mut self,
        settings: &BackupSettings,
        data_dir: &Path,
        clock: Clock,
    ) -> Result<(), ServerError> {
        if let Some(mediator) = &self.mediator {
            let store = Arc::clone(mediator.mailbox());
            let copier = settings.copier(store, data_dir, clock.clone())?;
            self.copier = copier.map(CopierTask::spawn);
        }
        if let Some(schedule) = settings.schedule(data_dir, clock)? {
            self.spawn("the backups", schedule.run(self.stop.clone()));
        }
        Ok(())
    }

    /// Spawns the tasks that work without being asked.
    fn spawn_workers(&mut self, resolver: Resolver, ingest: Ingest, metering: Option<Metering>) {
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
        if let Some(metering) = metering {
            let (directory, mediator) = (Arc::clone(&self.directory), self.mediator.clone());
            self.spawn("measuring", metering.run(directory, mediator, stop.clone()));
        }
        if let Some(mediator) = self.mediator.clone() {
            self.spawn(
                "keeping",
                Maintenance::new(mediator.clone()).run(stop.clone()),
            );
            self.spawn("the relay", Relay::new(mediator).run(stop));
        }
    }

    /// Spawns the tasks that accept connections, and the watchdog; logs the bound addresses, and tells
    /// the service manager that the service is ready.
    fn spawn_listeners(&mut self, admin: AdminSocket, http: Http, metrics: Option<MetricsServer>) {
        self.spawn("the admin socket", admin.run(self.stop.clone()));
        let (directory, mediator) = (Arc::clone(&self.directory), self.mediator.clone());
        let slots = http.connection_slots();
        let watchdog = Watchdog::of_environment(directory, mediator, self.http, slots);
        self.spawn("http", http.run(self.stop.clone()));
        tracing::info!(address = %self.http, "listening");
        if let Some(metrics) = metrics {
            tracing::info!(address = %metrics.local_addr(), "serving metrics");
            self.spawn("metrics", metrics.run(self.stop.clone()));
        }
        if let Some(watchdog) = watchdog {
            self.spawn("the watchdog", watchdog.run(self.stop.clone()));
        }
        supervision::ready();
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Spawns a task that only some services have.
    fn spawn_if(
        &mut self,
        name: &'static str,
        task: Option<impl Future<Output = ()> + Send + 'static>,
    ) {
        if let Some(task) = task {
            self.spawn(name, task);
        }
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

    /// Returns what applies a changed configuration to the running service.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
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
        supervision::stopping();
        tracing::info!("shutting down");
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some parts did not end in time");
            self.tasks.shutdown().await;
        }
        if let Some(mediator) = &self.mediator {
            mediator.shutdown().await;
        }
        if let Some(copier) = self.copier.take() {
            copier.finish().await;
        }
        self.directory.shutdown().await;
        tracing::info!("the store is closed");
        result
    }
}

/// The continuous copy, which ends after the mailbox.
struct CopierTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl CopierTask {
    fn spawn(copier: Copier) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(copier.run(stop.clone()));
        Self { stop, task }
    }

    /// Copies what is left. To be called when the mailbox is closed.
    async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(COPY_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("the continuous copy lacks the end");
        }
    }
}

/// Opens the directory's store and everything that refreshes its entries.
async fn open_resolver(
    config: &Config,
    sources: &[SourceSettings],
    own: BTreeSet<Origin>,
    clock: &Clock,
) -> Result<Resolver, ServerError> {
    let routes = ingest::routes(sources)?;
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
        .with_limits(config.directory.limits(own));
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

/// Binds the public listener.
fn open_http(
    config: &Config,
    resolver: &Resolver,
    mediator: Option<Mediator>,
    address: Option<&PublicAddress>,
) -> Result<Http, ServerError> {
    let settings = HttpSettings {
        max_connections: files::affordable_connections(config.http.max_connections),
        ..config.http.clone()
    };
    Ok(Http::bind(settings, resolver.clone(), mediator, address)?)
}

/// Opens the mediator with its keys and its store. Returns `None` without `mediator.public_url`.
async fn open_mediator(
    config: &Config,
    local: BTreeSet<Origin>,
    resolver: &Resolver,
    clock: Clock,
) -> Result<Option<Mediator>, ServerError> {
    let mut settings = config.mediator.clone();
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
    settings.total_bytes = Some(mailbox_limit(config));
    let mailbox = MailboxStore::open(&path).map_err(|error| ServerError::Store { path, error })?;
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

/// Returns the bytes that may wait for all recipients together, and logs them.
fn mailbox_limit(config: &Config) -> u64 {
    let mailbox = config.data_dir.join(MAILBOX_FILE);
    let held = mailbox.metadata().map_or(0, |file| file.len());
    let free = match files::disk_space(&config.data_dir) {
        Ok(space) => space.free,
        Err(error) => {
            tracing::warn!(%error, "the free space of the disk is not known");
            u64::MAX
        }
    };
    let affordable = files::mailbox_room(free, held);
    let limit = config.mediator.total_bytes.unwrap_or(affordable);
    tracing::info!(
        bytes = limit,
        free_bytes = free,
        "the mailbox may take (mediator.total_bytes)"
    );
    if limit > free.saturating_add(held) {
        tracing::warn!(
            "the mailbox may take more than the disk has free: set mediator.total_bytes lower"
        );
    }
    limit
}

fn log_start(config: &Config) {
    tracing::info!(
        version = version(),
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
        tracing::info!("no sources: accounts are looked up when a client asks for them");
    }
}
