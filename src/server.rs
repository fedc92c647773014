//! The running service: every part bound to the next, until it is told to stop.

mod admin;
mod files;
mod measure;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::Directory;
use crate::http::{self, Http, HttpError, MetricsServer};
use crate::ingest::{self, BackfillProgress, Ingest, IngestError, SourceKind, SourceSettings};
use crate::mediator::{
    KEYS_FILE, Keys, Maintenance, Mediator, MediatorError, MediatorSettings, PublicAddress, Relay,
};
use crate::resolve::{Resolver, Worker};
use crate::store::{DirectoryStore, MailboxStore, StoreError};
use atcomm_net::identity::Identity;
use atcomm_net::net::{Net, NetError};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Origin;

pub use admin::{
    AdminError, DestinationStatus, MailboxStatus, RelayStatus, Rotated, ask_mailbox_status,
    ask_relay_status, rotate_keys,
};

use admin::Admin;
use files::DataDir;

/// The mediator's store in the data directory.
const MAILBOX: &str = "mailbox.db";

/// Longest time for everything to end: requests have [`http::SHUTDOWN_TIMEOUT`], and sources write what they read.
const SHUTDOWN_TIMEOUT: Duration = http::SHUTDOWN_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Why the service cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {error}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process has the data directory.
    #[error("the data directory {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store cannot be opened.
    #[error("cannot open {}: {error}", path.display())]
    Store {
        /// The store's file.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// Settings of what dials out that cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Sources that cannot be used.
    #[error(transparent)]
    Sources(#[from] IngestError),
    /// A listener that cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A mediator that cannot run.
    #[error(transparent)]
    Mediator(#[from] MediatorError),
    /// The operator's socket cannot be had.
    #[error("cannot listen on admin.sock in the data directory: {0}")]
    Admin(io::Error),
    /// Something else in this process records metrics already.
    #[error("metrics are recorded elsewhere in this process")]
    Recorder,
    /// A part ended by itself: a defect, which the log tells more about.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl ServerError {
    /// Whether the configuration has to be changed.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Net(_) | Self::Sources(_) | Self::Mediator(MediatorError::Address(_))
        )
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DataDir { .. } => {
                "set data_dir, or --data-dir, to a directory that can be written"
            }
            Self::Locked(_) => "stop the other process, or give this one its own --data-dir",
            Self::Store {
                error: StoreError::Newer { .. },
                ..
            } => "the file was written by a newer version of atcomm; use that one",
            Self::Store { path, .. } if path.ends_with(MAILBOX) => {
                "mail is nowhere else: put the file back from a backup before you give it up"
            }
            Self::Store { .. } => {
                "what the file holds can be fetched again: move it away and start anew"
            }
            Self::Mediator(MediatorError::Keys(error)) => error.hint(),
            Self::Mediator(_) => "see [mediator] in the configuration",
            Self::Admin(_) => "the path of the data directory may be too long for a socket",
            Self::Net(_) => "see [net] in the configuration",
            Self::Sources(_) => "see [[sources]] in the configuration",
            Self::Http(_) => "choose another address with http.listen, --listen or --metrics",
            Self::Recorder | Self::Ended(_) => "this is a defect; please report it with the log",
        }
    }
}

/// A running service. Dropping it without [`Server::join`] ends its tasks where they are, which
/// loses nothing that was acknowledged.
pub struct Server {
    http: SocketAddr,
    metrics: Option<SocketAddr>,
    progress: watch::Receiver<Vec<BackfillProgress>>,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
    directory: Arc<Directory>,
    mediator: Option<Mediator>,
    /// Locked as long as it lives; after the store, which is in it.
    _data_dir: DataDir,
}

impl Server {
    /// Binds everything and starts to serve. What it is and where is in the log.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, ServerError> {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data_dir = %config.data_dir.display(),
            "atcomm starts"
        );
        if config.net.development {
            tracing::warn!("development is on: this must not be reachable by others");
        }
        let data_dir = DataDir::claim(&config.data_dir)?;
        // Before any part takes a handle of its metrics.
        let recorder = match config.metrics.listen {
            Some(address) => Some((address, measure::recorder().ok_or(ServerError::Recorder)?)),
            None => None,
        };
        let routes = ingest::routes(&config.sources)?;
        let net = Net::bind(config.net, clock.clone())?;
        let path = config.data_dir.join("directory.db");
        let unopened = |error| ServerError::Store {
            path: path.clone(),
            error,
        };
        let store = DirectoryStore::open(&path).map_err(unopened)?;
        let cache = config.directory.answers_cache;
        let directory = Directory::bind(store, clock.clone(), cache)
            .await
            .map_err(unopened)?;
        let directory = Arc::new(directory);
        let identity = Identity::bind(net.clone(), config.identity, clock.clone());
        let resolver = Resolver::bind(
            net,
            identity,
            Arc::clone(&directory),
            routes,
            config.resolve,
            clock.clone(),
        );
        let mut http = config.http;
        http.max_connections = files::connections(http.max_connections);
        let mediator = open_mediator(
            config.mediator,
            &config.data_dir,
            &config.sources,
            &resolver,
            clock.clone(),
        )
        .await?;
        let admin = Admin::bind(&config.data_dir, mediator.clone(), clock.clone())
            .map_err(ServerError::Admin)?;
        let http = Http::bind(http, resolver.clone(), mediator.clone())?;
        let metrics = match &recorder {
            Some((address, handle)) => {
                let handle = handle.clone();
                Some(MetricsServer::bind(*address, move || handle.render())?)
            }
            None => None,
        };
        log_sources(&config.sources);
        let ingest = Ingest::bind(resolver.clone(), config.sources, clock)?;

        let stop = CancellationToken::new();
        let mut server = Self {
            http: http.local_addr(),
            metrics: metrics.as_ref().map(MetricsServer::local_addr),
            progress: ingest.progress(),
            stop: stop.clone(),
            tasks: JoinSet::new(),
            directory: Arc::clone(&directory),
            mediator: mediator.clone(),
            _data_dir: data_dir,
        };
        server.start("the worker", Worker::new(resolver).run(stop.clone()));
        let idle = stop.clone();
        server.start("ingest", async move {
            ingest.run(idle.clone()).await;
            // Without sources there is nothing to do from the beginning.
            idle.cancelled().await;
        });
        if let Some((_, handle)) = recorder {
            let measuring = measure::run(handle, directory, mediator.clone(), stop.clone());
            server.start("measuring", measuring);
        }
        if let Some(mediator) = mediator {
            server.start(
                "keeping",
                Maintenance::new(mediator.clone()).run(stop.clone()),
            );
            server.start("the relay", Relay::new(mediator).run(stop.clone()));
        }
        server.start("the admin socket", admin.run(stop.clone()));
        server.start("http", http.run(stop.clone()));
        tracing::info!(address = %server.http, "listening");
        if let Some(metrics) = metrics {
            tracing::info!(address = %metrics.local_addr(), "metrics are shown");
            server.start("metrics", metrics.run(stop));
        }
        Ok(server)
    }

    fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Where the world is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where metrics are shown.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// How far the walks have come.
    pub fn progress(&self) -> watch::Receiver<Vec<BackfillProgress>> {
        self.progress.clone()
    }

    /// Ends the service from elsewhere, like [`Server::shutdown`].
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Lets the service end: nothing more is accepted, requests under way are finished, what was
    /// read from sources is written. [`Server::join`] waits for that.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Waits for [`Server::shutdown`], or for a part that ends by itself, and closes the store.
    pub async fn join(mut self) -> Result<(), ServerError> {
        let mut result = Ok(());
        let ended = tokio::select! {
            () = self.stop.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        if let Some(ended) = ended
            && !self.stop.is_cancelled()
        {
            // The panic hook has written where; which task it was is not known any more.
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

/// The mediator with its keys and its store, if there is to be one.
async fn open_mediator(
    settings: MediatorSettings,
    data_dir: &Path,
    sources: &[SourceSettings],
    resolver: &Resolver,
    clock: Clock,
) -> Result<Option<Mediator>, ServerError> {
    let Some(public_url) = &settings.public_url else {
        return Ok(None);
    };
    let address = PublicAddress::parse(public_url, resolver.net().development())
        .map_err(MediatorError::Address)?;
    let path = data_dir.join(MAILBOX);
    let (mailbox_exists, keys) = (path.exists(), data_dir.join(KEYS_FILE));
    // Before the store, so that one is never there without the keys that it was filled under.
    let keys =
        Keys::open(&keys, mailbox_exists, &address, clock.now()).map_err(MediatorError::Keys)?;
    let mailbox = MailboxStore::open(&path).map_err(|error| ServerError::Store { path, error })?;
    let local = sources
        .iter()
        .filter(|source| source.kind == SourceKind::Pds)
        .filter_map(|source| Origin::parse(&source.url).ok())
        .collect();
    let resolver = resolver.clone();
    let mediator = Mediator::bind(settings, address, local, keys, mailbox, resolver, clock).await?;
    Ok(Some(mediator))
}

fn log_sources(sources: &[SourceSettings]) {
    for source in sources {
        let connect = source.connect.as_deref().unwrap_or(&source.url);
        tracing::info!(
            url = source.url,
            connect,
            kind = source.kind.as_str(),
            stream = source.stream,
            walk = source.walk,
            "source"
        );
    }
    if sources.is_empty() {
        tracing::info!("no sources: accounts are looked at when somebody asks for them");
    }
}
