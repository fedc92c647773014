//! Sources: streams that tell which accounts to refresh, and backfills that enumerate them.
//!
//! Every event ends as a proof that the event itself carried, or as a pending refresh. Both are
//! written together with the source's cursor, in one transaction (invariant 2), so a cursor never
//! passes work that is not durable, whatever hangs.

mod backfill;
mod coverage;
mod events;
mod notice;
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

/// A source as the operator configures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Address of the host; for a PDS as DID documents name it, such as `https://pds.example.com`.
    pub url: String,
    /// Where to connect instead, such as `http://pds:3000`. Absent: `url`.
    #[serde(default)]
    pub connect: Option<String>,
    /// The kind of the host.
    pub kind: SourceKind,
    /// Where the accounts are listed, such as `http://collections:2510`, if it is not the host of
    /// the stream. Absent: `connect`.
    #[serde(default)]
    pub list: Option<String>,
    /// Whether to follow its stream. Absent: true.
    #[serde(default = "yes")]
    pub stream: bool,
    /// Whether to enumerate its accounts at the first start and after a gap. Absent: true.
    #[serde(default = "yes", rename = "walk")]
    pub backfill: bool,
    /// Whether an account is hidden while this relay says that it is not active. For a relay only.
    /// Absent: false, and the account's PDS decides.
    #[serde(default)]
    pub takedowns: bool,
}

impl SourceSettings {
    /// Returns whether the accounts are enumerated. A Jetstream lists nothing, but a server beside
    /// it may.
    pub fn lists(&self) -> bool {
        self.backfill && (self.kind != SourceKind::Jetstream || self.list.is_some())
    }
}

fn yes() -> bool {
    true
}

/// Errors of the configured sources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// An address is not valid.
    #[error("source {url}: {reason}")]
    Address {
        /// The address as configured.
        url: String,
        /// The broken rule.
        #[source]
        reason: SyntaxError,
    },
    /// The same host and kind are configured twice.
    #[error("source {0} is given twice")]
    Twice(String),
}

/// A checked source.
#[derive(Debug, Clone)]
struct Source {
    /// Kind and address: the name that its cursor is stored under.
    name: String,
    kind: SourceKind,
    origin: Origin,
    connect: Url,
    list: Url,
    stream: bool,
    backfill: bool,
    takedowns: bool,
}

impl Source {
    fn read(settings: &SourceSettings) -> Result<Self, IngestError> {
        let parse = |url: &str| {
            // Stream addresses are often written with their own scheme. The host is the same.
            let plain = without_stream(url.trim(), settings.kind)
                .replacen("wss://", "https://", 1)
                .replacen("ws://", "http://", 1);
            Origin::parse(&plain).map_err(|reason| IngestError::Address {
                url: url.to_owned(),
                reason,
            })
        };
        let origin = parse(&settings.url)?;
        let address = |origin: &Origin| {
            Url::parse(origin.as_str()).map_err(|_| IngestError::Address {
                url: origin.to_string(),
                reason: SyntaxError {
                    kind: "origin",
                    reason: "not an URL",
                },
            })
        };
        let connect = settings
            .connect
            .as_deref()
            .map_or(Ok(origin.clone()), parse)?;
        let list = settings
            .list
            .as_deref()
            .map_or(Ok(connect.clone()), parse)?;
        Ok(Self {
            name: format!("{} {origin}", settings.kind.as_str()),
            kind: settings.kind,
            origin,
            connect: address(&connect)?,
            list: address(&list)?,
            stream: settings.stream,
            backfill: settings.lists(),
            takedowns: settings.takedowns && settings.kind == SourceKind::Relay,
        })
    }

    /// Returns the address of the stream.
    fn stream_url(&self) -> Url {
        let mut url = self.connect.clone();
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        // Both schemes are special, and the URL standard allows the change from one to the other.
        if url.set_scheme(scheme).is_err() {
            tracing::error!("cannot make a WebSocket address of {url}");
        }
        url.set_path(stream_path(self.kind));
        url
    }

    /// Returns whether only the accounts with a key package are listed, and only those that the
    /// server knows.
    fn lists_by_collection(&self) -> bool {
        self.kind != SourceKind::Pds
    }

    /// Returns the address of the list of accounts.
    fn list_url(&self) -> Url {
        let mut url = self.list.clone();
        url.set_path(if self.lists_by_collection() {
            "/xrpc/com.atproto.sync.listReposByCollection"
        } else {
            "/xrpc/com.atproto.sync.listRepos"
        });
        url
    }
}

/// A source whose accounts can be enumerated. `wake` starts a backfill that is due: when the
/// source's own stream is connected, and when events were missed. The store knows which backfills
/// are due.
#[derive(Debug, Clone)]
struct BackfillHandle {
    source: String,
    wake: Arc<Notify>,
}

/// Returns the path of the stream of a kind of hosts.
fn stream_path(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Jetstream => "/subscribe",
        SourceKind::Pds | SourceKind::Relay => "/xrpc/com.atproto.sync.subscribeRepos",
    }
}

/// Returns the address of a host without the path of its stream, under which people know it.
fn without_stream(url: &str, kind: SourceKind) -> &str {
    let path = stream_path(kind);
    let address = url.split(['?', '#']).next().unwrap_or(url);
    address
        .trim_end_matches('/')
        .strip_suffix(path)
        .unwrap_or(url)
}

/// Returns the PDSes among the sources, with the addresses that refreshes use for them too.
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

/// The progress of one source's backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillProgress {
    /// The source's name.
    pub source: String,
    /// Accounts seen.
    pub seen: u64,
    /// Whether the backfill has ended.
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
    /// Checks the sources, and connects to none.
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

    /// Returns the progress of all backfills.
    pub fn progress(&self) -> watch::Receiver<Vec<BackfillProgress>> {
        self.progress.subscribe()
    }

    /// Follows streams and runs backfills until `stop`. All that was read is written before this
    /// returns.
    pub async fn run(self, stop: CancellationToken) {
        self.keep_takedowns().await;
        self.follow().await;
        let mut tasks = JoinSet::new();
        let backfills: Vec<BackfillHandle> = self
            .sources
            .iter()
            .filter(|source| source.backfill)
            .map(|source| BackfillHandle {
                source: source.name.clone(),
                wake: Arc::new(Notify::new()),
            })
            .collect();
        let coverages = coverage::Coverages::default();
        tasks.spawn(coverages.clone().mark(self.resolver.clone(), stop.clone()));
        for source in self.sources {
            let own = backfills
                .iter()
                .find(|backfill| backfill.source == source.name);
            if source.stream {
                let reader = stream::Reader::new(
                    source.clone(),
                    self.resolver.clone(),
                    self.clock.clone(),
                    coverages.clone(),
                    backfills.clone(),
                );
                tasks.spawn(reader.run(stop.clone()));
            } else if let Some(own) = own {
                // There is no stream that wakes the backfill when it is connected.
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

impl Ingest {
    /// Tells the directory which sources' streams are followed.
    async fn follow(&self) {
        let streams = self.sources.iter().filter(|source| source.stream);
        let names = streams.map(|source| source.name.clone()).collect();
        if let Err(error) = self.resolver.directory().follow_sources(names).await {
            tracing::error!(%error, "cannot write which sources are followed");
        }
    }

    /// Forgets the word of relays whose word counts no more.
    async fn keep_takedowns(&self) {
        let relays = self.sources.iter().filter(|source| source.takedowns);
        let names = relays.map(|source| source.name.clone()).collect();
        let directory = self.resolver.directory();
        if let Err(error) = directory.keep_takedowns_of(names).await {
            tracing::error!(%error, "cannot forget what other relays said");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_known_by_the_address_of_its_stream_too() {
        let origin = |url: &str, kind| {
            let settings = SourceSettings {
                url: url.to_owned(),
                connect: None,
                kind,
                list: None,
                stream: true,
                backfill: true,
                takedowns: false,
            };
            Source::read(&settings).map(|source| source.origin.to_string())
        };
        for url in [
            "wss://jet.example.com",
            " wss://jet.example.com/ ",
            "wss://jet.example.com/subscribe",
            "wss://jet.example.com/subscribe/?wantedCollections=at.didcomm.keyPackage",
            "https://jet.example.com/subscribe",
        ] {
            let read = origin(url, SourceKind::Jetstream);
            assert_eq!(read.as_deref(), Ok("https://jet.example.com"), "{url}");
        }
        let firehose = "wss://relay.example.com/xrpc/com.atproto.sync.subscribeRepos?cursor=0";
        let read = origin(firehose, SourceKind::Relay);
        assert_eq!(read.as_deref(), Ok("https://relay.example.com"));
        for (url, kind) in [
            ("wss://jet.example.com/other", SourceKind::Jetstream),
            ("wss://jet.example.com/?x=y", SourceKind::Jetstream),
            ("wss://relay.example.com/subscribe", SourceKind::Relay),
        ] {
            assert!(origin(url, kind).is_err(), "{url}");
        }
    }
}
