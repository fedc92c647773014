//! The state of the whole service, as the operator asks for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::accounts::{self, OwnAccounts};
use super::files::{self, DiskSpace};
use super::mailbox::{self, MailboxStatus};
use super::public_url::{PublicUrlCheck, PublicUrlStatus};
use crate::config::Config;
use crate::directory::Directory;
use crate::ingest::{Connections, SourceSettings};
use crate::mediator::Mediator;
use crate::resolve::Resolver;
use crate::store::{SourceStatus, StoreError};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::Origin;

/// Most sources that are told.
const MAX_SOURCES: usize = 100;

/// State of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Version of the program that runs.
    pub version: String,
    /// When it started (RFC 3339).
    pub started_at: String,
    /// Its clock (RFC 3339).
    pub now: String,
    /// Whether both databases can be written.
    pub healthy: bool,
    /// Accounts in the directory.
    pub entries: u64,
    /// Accounts that wait for a lookup.
    pub pending: u64,
    /// Resident memory of the process in bytes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Room in the file system of the data directory, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSpace>,
    /// Connections that it may have at once, by its settings and by the limit of open files.
    pub connections: ConnectionLimit,
    /// The configured sources.
    pub sources: Vec<ServiceSource>,
    /// The public address, once it was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<PublicUrlStatus>,
    /// The mediator, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mediator: Option<MediatorStatus>,
}

/// Limits of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionLimit {
    /// `http.max_connections`.
    pub wanted: usize,
    /// What the limit of open files leaves for them.
    pub possible: usize,
}

/// State of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSource {
    /// Kind and address.
    pub name: String,
    /// Whether its stream is followed.
    pub followed: bool,
    /// Since when the stream is connected (RFC 3339), if it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<String>,
    /// Time of the newest event that is proven to have come (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_until: Option<String>,
    /// Whether its accounts are listed.
    pub lists: bool,
    /// When its list of accounts was last read to the end (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_at: Option<String>,
    /// Accounts on that list so far.
    pub listed: u64,
    /// Why the list could not be read at the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// State of the mediator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediatorStatus {
    /// For whom it keeps mail: `mediator.admission`.
    pub admission: String,
    /// When it stops taking mail (RFC 3339), if it retires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_at: Option<String>,
    /// Bytes that may wait in all.
    pub total_bytes: u64,
    /// What waits to be picked up.
    pub mailbox: MailboxStatus,
    /// Messages that wait for other mediators.
    pub relay_waiting: u64,
}

/// What the service tells of itself.
pub(super) struct Overview {
    pub(super) started: Timestamp,
    pub(super) clock: Clock,
    pub(super) data_dir: PathBuf,
    pub(super) max_connections: usize,
    pub(super) directory: Arc<Directory>,
    pub(super) mediator: Option<Mediator>,
    pub(super) sources: Vec<SourceSettings>,
    /// The operator's own PDSes.
    pub(super) own: BTreeSet<Origin>,
    pub(super) connections: Connections,
    pub(super) public_url: Option<Arc<PublicUrlCheck>>,
}

impl Overview {
    /// Returns what is told of a service without a mediator and without streams.
    pub(super) fn new(
        config: &Config,
        sources: Vec<SourceSettings>,
        own: BTreeSet<Origin>,
        resolver: &Resolver,
    ) -> Self {
        let clock = resolver.clock().clone();
        Self {
            started: clock.now(),
            clock,
            data_dir: config.data_dir.clone(),
            max_connections: config.http.max_connections,
            directory: Arc::clone(resolver.directory()),
            mediator: None,
            sources,
            own,
            connections: Connections::default(),
            public_url: None,
        }
    }

    /// Returns the state now; `check`: after a check of the public address, which takes seconds.
    pub(super) async fn status(&self, check: bool) -> Result<ServiceStatus, StoreError> {
        let public_url = match &self.public_url {
            Some(public_url) if check => Some(public_url.check().await),
            Some(public_url) => public_url.last(),
            None => None,
        };
        let store = self.directory.store();
        let (pending, known) = store
            .query(|q| Ok((q.pending_count()?, q.sources(MAX_SOURCES)?)))
            .await?;
        let mediator = match &self.mediator {
            Some(mediator) => Some(of_mediator(mediator).await?),
            None => None,
        };
        let stores_are_healthy =
            self.directory.is_healthy() && self.mediator.as_ref().is_none_or(Mediator::is_healthy);
        Ok(ServiceStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started.to_string(),
            now: self.clock.now().to_string(),
            healthy: stores_are_healthy,
            entries: self.directory.len() as u64,
            pending,
            memory: files::resident_memory().ok(),
            disk: files::disk_space(&self.data_dir).ok(),
            connections: ConnectionLimit {
                wanted: self.max_connections,
                possible: files::possible_connections(self.max_connections),
            },
            sources: self.sources(&known),
            public_url,
            mediator,
        })
    }

    /// Returns the accounts of the operator's own PDSes, at most `limit`.
    pub(super) async fn accounts(&self, limit: usize) -> Result<OwnAccounts, StoreError> {
        let (mediator, now) = (self.mediator.as_ref(), self.clock.now());
        accounts::accounts(&self.directory, mediator, &self.own, limit, now).await
    }

    fn sources(&self, known: &[SourceStatus]) -> Vec<ServiceSource> {
        let connected = self.connections.states();
        let mut names = BTreeSet::new();
        let named = self.sources.iter().filter_map(|settings| {
            let name = settings.name()?;
            names.insert(name.clone()).then_some((settings, name))
        });
        named
            .map(|(settings, name)| {
                let known = known.iter().find(|one| one.name == name);
                let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
                ServiceSource {
                    followed: settings.stream,
                    connected_since: time(connected.get(&name).copied().flatten()),
                    covered_until: time(known.and_then(|one| one.covered_until)),
                    lists: settings.lists(),
                    listed_at: time(known.and_then(|one| one.listed_at)),
                    listed: known.map_or(0, |one| one.listed),
                    failure: known.and_then(|one| one.failure.clone()),
                    name,
                }
            })
            .collect()
    }
}

async fn of_mediator(mediator: &Mediator) -> Result<MediatorStatus, StoreError> {
    let settings = mediator.settings();
    let outbox = mediator.mailbox().query(|q| q.outbox_totals());
    let (relay_waiting, _) = outbox.await?;
    Ok(MediatorStatus {
        retires_at: mediator.retires_at().map(|end| end.to_string()),
        admission: settings.admission.as_str().to_owned(),
        total_bytes: settings.total_bytes.unwrap_or_default(),
        mailbox: mailbox::status(mediator).await?,
        relay_waiting,
    })
}
