//! Sources: streams that tell which accounts to look at, and walks that enumerate them.
//!
//! Every event ends as a proof that the event itself carried, or as an owed look; both are written
//! together with the source's cursor, in one transaction (invariant 2). A cursor therefore never
//! passes work that is not durable, whatever hangs.

mod backfill;
mod events;
mod stream;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::resolve::{Resolver, Route};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Origin, SyntaxError};

pub use crate::store::SourceKind;

/// A source as the operator names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Address of the host; for a PDS as DID documents name it, such as `https://pds.example.com`.
    pub url: String,
    /// Where to connect instead, such as `http://pds:3000`. Absent: `url`.
    #[serde(default)]
    pub connect: Option<String>,
    /// What the host is.
    pub kind: SourceKind,
    /// Whether to follow its stream. Absent: true.
    #[serde(default = "yes")]
    pub stream: bool,
    /// Whether to enumerate its accounts at the first start and after a gap. Absent: true.
    #[serde(default = "yes")]
    pub walk: bool,
}

fn yes() -> bool {
    true
}

/// Why the sources cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// An address that is none.
    #[error("source {url}: {reason}")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: SyntaxError,
    },
    /// The same host and kind twice.
    #[error("source {0} is given twice")]
    Twice(String),
}

/// A checked source.
#[derive(Debug, Clone)]
struct Source {
    /// Kind and address: the name under which its cursor is kept.
    name: String,
    kind: SourceKind,
    origin: Origin,
    connect: Url,
    stream: bool,
    walk: bool,
}

impl Source {
    fn read(settings: &SourceSettings) -> Result<Self, IngestError> {
        let parse = |url: &str| {
            // Streams are often written with their own scheme; it is the same host.
            let plain = url
                .replacen("wss://", "https://", 1)
                .replacen("ws://", "http://", 1);
            Origin::parse(&plain).map_err(|reason| IngestError::Address {
                url: url.to_owned(),
                reason,
            })
        };
        let origin = parse(&settings.url)?;
        let connect = settings
            .connect
            .as_deref()
            .map_or(Ok(origin.clone()), parse)?;
        let connect = Url::parse(connect.as_str()).map_err(|_| IngestError::Address {
            url: connect.to_string(),
            reason: SyntaxError {
                kind: "origin",
                reason: "not an URL",
            },
        })?;
        Ok(Self {
            name: format!("{} {origin}", settings.kind.as_str()),
            kind: settings.kind,
            origin,
            connect,
            stream: settings.stream,
            walk: settings.walk && settings.kind != SourceKind::Jetstream,
        })
    }

    /// A request or stream address at this host.
    fn url(&self, path: &str, websocket: bool) -> Url {
        let mut url = self.connect.clone();
        if websocket {
            let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
            // Both are special schemes, between which the URL standard lets one change.
            if url.set_scheme(scheme).is_err() {
                tracing::error!("cannot make a WebSocket address of {url}");
            }
        }
        url.set_path(path);
        url
    }
}

/// A source whose accounts can be enumerated, and what wakes that walk: its own stream stands, or
/// events were missed. What is to be walked is in the store.
#[derive(Debug, Clone)]
struct BackfillHandle {
    source: String,
    wake: Arc<Notify>,
}

/// The PDSes among the sources, with the addresses under which looks ask them too.
pub fn routes(settings: &[SourceSettings]) -> Result<Vec<Route>, IngestError> {
    settings
        .iter()
        .filter(|source| source.kind == SourceKind::Pds)
        .map(|source| {
            Source::read(source).map(|source| Route {
                origin: source.origin,
                connect: source.connect,
            })
        })
        .collect()
}

/// How far the walk of one source has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillProgress {
    /// The source's name.
    pub source: String,
    /// Accounts seen.
    pub seen: u64,
    /// Whether it has come to its end.
    pub done: bool,
}

/// All sources.
pub struct Ingest {
    resolver: Resolver,
    sources: Vec<Source>,
    clock: Clock,
    progress: watch::Sender<Vec<BackfillProgress>>,
}

impl Ingest {
    /// Checks the sources; connects to nothing.
    pub fn bind(
        resolver: Resolver,
        settings: Vec<SourceSettings>,
        clock: Clock,
    ) -> Result<Self, IngestError> {
        let mut sources: Vec<Source> = Vec::new();
        for source in &settings {
            let source = Source::read(source)?;
            if sources.iter().any(|other| other.name == source.name) {
                return Err(IngestError::Twice(source.name));
            }
            sources.push(source);
        }
        Ok(Self {
            resolver,
            sources,
            clock,
            progress: watch::Sender::new(Vec::new()),
        })
    }

    /// How far the walks have come.
    pub fn progress(&self) -> watch::Receiver<Vec<BackfillProgress>> {
        self.progress.subscribe()
    }

    /// Follows and walks until `stop`; what was read is written before this returns.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let backfills: Vec<BackfillHandle> = self
            .sources
            .iter()
            .filter(|source| source.walk)
            .map(|source| BackfillHandle {
                source: source.name.clone(),
                wake: Arc::new(Notify::new()),
            })
            .collect();
        for source in self.sources {
            let own = backfills
                .iter()
                .find(|backfill| backfill.source == source.name);
            if source.stream {
                let covers = match source.kind {
                    SourceKind::Jetstream => backfills.clone(),
                    SourceKind::Pds | SourceKind::Relay => own.cloned().into_iter().collect(),
                };
                let reader = stream::Reader::new(
                    source.clone(),
                    self.resolver.clone(),
                    self.clock.clone(),
                    covers,
                );
                tasks.spawn(reader.run(stop.clone()));
            } else if let Some(own) = own {
                // No stream will say that it stands.
                own.wake.notify_one();
            }
            if let Some(own) = own {
                let backfill = backfill::Backfill::new(
                    source,
                    self.resolver.clone(),
                    self.clock.clone(),
                    self.progress.clone(),
                );
                tasks.spawn(backfill.run(Arc::clone(&own.wake), stop.clone()));
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}
