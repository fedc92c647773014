//! Who is who: DID documents and handles of accounts, documents of mediators; cached.
//!
//! Answers are served up to their limits of age, refreshed in the background while they are still
//! good, and looked up once for all who ask at the same time. [`Identity::purge`] makes the next
//! answer a new one, which every `#identity` event must lead to.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::net::{Net, NetError, Priority, Refusal, Request, Response, Trust};
use crate::rate_limit::{Rate, RateLimit};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, WebDid};

mod document;
mod handle;
mod lookups;
mod mediator;
mod migration;
mod pds;
mod plc_log;

pub use document::{DidDocument, DocumentError, MAX_DOCUMENT_LEN, Unusable};
pub use handle::HandleError;
pub use lookups::Freshness;
pub use mediator::{Busy, MediatorDocument, MediatorState, Service};
pub use migration::PreMigrationKey;
pub use pds::{PdsOptions, RecordAnswer, RepoStatus, UnusableAnswer, fetch_record};
pub use plc_log::{PlcLog, PlcLogError};

use lookups::{Bytes, Found, Lookups};

/// How identities are looked up. The default is right for the public network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// The PLC directory, an origin without a path. Absent: `https://plc.directory`.
    pub plc_url: Origin,
    /// Look-ups per minute at the PLC directory that askers may cause together, and how many of
    /// them at once after a silence; what events and re-proofs need is not counted. The public
    /// directory bears about 100. At least 1. Absent: 60.
    pub plc_rate: u32,
    /// Age up to which an account's document is served without a look-up. Absent: 1 h.
    #[serde(with = "humantime_serde")]
    pub document_fresh: Duration,
    /// Age up to which documents are served while a look-up runs behind. Absent: 24 h.
    #[serde(with = "humantime_serde")]
    pub hard_limit: Duration,
    /// How long a failed look-up answers for the next ones. Absent: 2 min.
    #[serde(with = "humantime_serde")]
    pub error_ttl: Duration,
    /// How long a handle's DID is remembered for askers; a rename shows after at most this, and at
    /// once where an `#identity` event told of it. Absent: 1 min.
    #[serde(with = "humantime_serde")]
    pub handle_ttl: Duration,
    /// How long a handle without an account is remembered as such. Absent: 5 min.
    #[serde(with = "humantime_serde")]
    pub handle_invalid_ttl: Duration,
    /// Age at which a mediator is looked at again. Absent: 1 h.
    #[serde(with = "humantime_serde")]
    pub mediator_fresh: Duration,
    /// Memory for accounts' documents, in bytes; one takes about 400. Absent: 32 MiB.
    pub document_cache: u64,
    /// Memory for handles, in bytes; one takes about 250. Absent: 8 MiB.
    pub handle_cache: u64,
    /// Memory for mediators, in bytes; one takes about 1 KiB. Absent: 8 MiB.
    pub mediator_cache: u64,
    /// Memory for accounts' PLC operation logs, in bytes; one takes about 3 KiB and
    /// at most 1 MiB. Absent: 8 MiB.
    pub plc_log_cache: u64,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        const MINUTE: Duration = Duration::from_secs(60);
        #[expect(clippy::expect_used, reason = "a constant; read by a test")]
        let plc_url = Origin::parse("https://plc.directory").expect("an origin");
        Self {
            plc_url,
            plc_rate: 60,
            document_fresh: HOUR,
            hard_limit: 24 * HOUR,
            error_ttl: 2 * MINUTE,
            handle_ttl: MINUTE,
            handle_invalid_ttl: 5 * MINUTE,
            mediator_fresh: HOUR,
            document_cache: 32 << 20,
            handle_cache: 8 << 20,
            mediator_cache: 8 << 20,
            plc_log_cache: 8 << 20,
        }
    }
}

/// Why an account's DID document cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The directory or the host says that there is none.
    #[error("there is no such DID")]
    NotFound,
    /// There was one, and it was ended for good.
    #[error("the DID is tombstoned")]
    Tombstoned,
    /// What was served is not its document.
    #[error("malformed DID document: {0}")]
    Malformed(#[from] DocumentError),
    /// No answer that says anything about the DID; a later one may.
    #[error("the DID cannot be looked up now")]
    Unreachable {
        /// When a new attempt makes sense, where that is known.
        retry_after: Option<Duration>,
    },
    /// A `did:web` that the network policy forbids to dial.
    #[error("the DID names a host that is not dialled: {0}")]
    Refused(Refusal),
}

/// Whether an account's claimed handle is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleCheck {
    /// The handle names the DID, and the DID claims the handle.
    Verified(Handle),
    /// No handle is claimed, or it does not lead back to the DID.
    Invalid,
    /// It could not be found out now: keep what was known.
    Inconclusive,
}

/// Looks identities up, for the background unless it is [`Identity::interactive`]. Cloning is cheap,
/// and clones share all caches.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
    priority: Priority,
}

struct Inner {
    net: Net,
    settings: IdentitySettings,
    clock: Clock,
    /// The PLC directory has a limit of its own for us. Used up by strangers, it would be missing
    /// where events and re-proofs need it; so the look-ups that they cause have a limit below it.
    plc: RateLimit,
    documents: Lookups<Did, Result<Arc<DidDocument>, IdentityError>>,
    handles: Lookups<Handle, Result<Did, HandleError>>,
    mediators: Lookups<MediatorDid, Result<Arc<MediatorDocument>, Busy>>,
    plc_logs: Lookups<Did, Result<Arc<PlcLog>, PlcLogError>>,
}

impl Identity {
    /// Starts with empty caches; dials nothing.
    pub fn bind(net: Net, settings: IdentitySettings, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                documents: Lookups::new(settings.document_cache, clock.clone()),
                handles: Lookups::new(settings.handle_cache, clock.clone()),
                mediators: Lookups::new(settings.mediator_cache, clock.clone()),
                plc_logs: Lookups::undivided(settings.plc_log_cache, clock.clone()),
                plc: RateLimit::new(Rate::per_minute(settings.plc_rate), clock.clone()),
                net,
                settings,
                clock,
            }),
            priority: Priority::Background,
        }
    }

    /// The same for what askers cause: its look-ups take the askers' places ([`Priority::Interactive`])
    /// and count against the setting `plc_rate`. Over it a document is served from memory or is
    /// [`IdentityError::Unreachable`] until the time that it names.
    pub fn interactive(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            priority: Priority::Interactive,
        }
    }

    /// The DID document of an account. With [`Freshness::Cached`] it is at most a day old; with
    /// [`Freshness::Refresh`] a failure is an error even where an older document is known. Must run
    /// inside a tokio runtime.
    pub async fn resolve(
        &self,
        did: &Did,
        freshness: Freshness,
    ) -> Result<Arc<DidDocument>, IdentityError> {
        let documents = &self.inner.documents;
        // Not within the look-up, which the background may join and whose failure is remembered.
        if self.priority == Priority::Interactive
            && did.web().is_none()
            && documents.would_start(did, freshness)
            && let Err(wait) = self.inner.plc.take()
        {
            let known = match freshness {
                Freshness::Cached => documents.known(did),
                Freshness::Refresh => None,
            };
            return known.unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(wait),
            }));
        }
        let inner = Arc::clone(&self.inner);
        let wanted = did.clone();
        let priority = self.priority;
        documents
            .look_up(did, freshness, move |_| async move {
                let result = fetch_document(&inner, &wanted, priority).await;
                inner.settings.documents_age(result.map(Arc::new))
            })
            .await
            .unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(Duration::from_secs(1)),
            }))
    }

    /// The document as far as it is known and at most a day old. No I/O.
    pub fn cached(&self, did: &Did) -> Option<Arc<DidDocument>> {
        self.inner.documents.known(did)?.ok()
    }

    /// The account's operation log, verified. With [`Freshness::Cached`] it is at most a day old,
    /// and may lack what happened since. Must run inside a tokio runtime.
    pub async fn plc_log(
        &self,
        did: &Did,
        freshness: Freshness,
    ) -> Result<Arc<PlcLog>, PlcLogError> {
        let logs = &self.inner.plc_logs;
        if self.priority == Priority::Interactive
            && did.web().is_none()
            && logs.would_start(did, freshness)
            && let Err(wait) = self.inner.plc.take()
        {
            return Err(PlcLogError::Unreachable {
                retry_after: Some(wait),
            });
        }
        let inner = Arc::clone(&self.inner);
        let wanted = did.clone();
        let priority = self.priority;
        logs.look_up(did, freshness, move |_| async move {
            let result = plc_log::fetch(&inner, &wanted, priority).await;
            inner.settings.plc_logs_age(result.map(Arc::new))
        })
        .await
        .unwrap_or(Err(PlcLogError::Unreachable {
            retry_after: Some(Duration::from_secs(1)),
        }))
    }

    /// The log as far as it is known and at most a day old, or why there is none. No I/O.
    pub fn cached_plc_log(&self, did: &Did) -> Option<Result<Arc<PlcLog>, PlcLogError>> {
        self.inner.plc_logs.known(did)
    }

    /// Forgets the document alone: whoever asks next for it gets an answer that was asked for after
    /// this call.
    pub fn purge_document(&self, did: &Did) {
        self.inner.documents.purge(did);
    }

    /// Forgets the document and the operation log: whoever asks next gets an answer that was asked
    /// for after this call.
    pub fn purge(&self, did: &Did) {
        self.inner.documents.purge(did);
        self.inner.plc_logs.purge(did);
    }

    /// The DID that a handle names: one direction only, so a claim of the handle's owner. Always the
    /// work of an asker, since events and re-proofs begin with DIDs.
    pub async fn resolve_handle(&self, handle: &Handle) -> Result<Did, HandleError> {
        self.look_up_handle(handle, Freshness::Cached, Priority::Interactive)
            .await
    }

    /// Whether the handle that the document claims leads back to its DID. Always looks anew.
    pub async fn verify_handle(&self, document: &DidDocument) -> HandleCheck {
        let Some(handle) = &document.claimed_handle else {
            return HandleCheck::Invalid;
        };
        // A look-up that began before the event that brings us here may carry the old answer.
        self.inner.handles.purge(handle);
        let found = self.look_up_handle(handle, Freshness::Refresh, self.priority);
        match found.await {
            Ok(did) if did == document.did => HandleCheck::Verified(handle.clone()),
            Err(HandleError::Unreachable) => HandleCheck::Inconclusive,
            Ok(_) | Err(_) => HandleCheck::Invalid,
        }
    }

    /// Forgets what a handle names. For the handle that an account gave up: until then askers may
    /// be led to the account by it for another minute.
    pub fn purge_handle(&self, handle: &Handle) {
        self.inner.handles.purge(handle);
    }

    /// What is known of a mediator, at most a day old; looked at again behind the asker's back after
    /// an hour, and after two minutes while something is wrong. Takes up to 15 s when nothing is
    /// known yet.
    ///
    /// What is wrong with the mediator stands in the document's state. [`Busy`] says nothing about
    /// it: whatever the caller keeps must stay as it is. `known` is what the caller kept, as by
    /// [`MediatorDocument::to_stored`]; its keys are shown on when the mediator fails for a while
    /// and the memory holds nothing newer, as after a restart.
    pub async fn mediator(
        &self,
        did: &MediatorDid,
        freshness: Freshness,
        known: Option<MediatorDocument>,
    ) -> Result<Arc<MediatorDocument>, Busy> {
        let Some(web) = did.web() else {
            return Ok(Arc::new(MediatorDocument::unsupported(did.clone())));
        };
        let inner = Arc::clone(&self.inner);
        let wanted = did.clone();
        let priority = self.priority;
        self.inner
            .mediators
            .look_up(did, freshness, move |memory| async move {
                let Inner {
                    net,
                    settings,
                    clock,
                    ..
                } = &*inner;
                let known = mediator::later(memory.and_then(Result::ok), known);
                mediator::check(net, settings, clock, priority, wanted, web, known).await
            })
            .await
            .unwrap_or(Err(Busy {
                retry_after: Duration::from_secs(1),
            }))
    }

    /// The directory that a mediator's document names beside it: the service `#atcomm_directory`.
    /// Not cached. `None` where it names none, or the document cannot be had now.
    pub async fn directory_beside(&self, did: &MediatorDid) -> Option<Origin> {
        let web = did.web()?;
        let body = mediator::fetch_bytes(&self.inner.net, self.priority, &web)
            .await
            .ok()?;
        mediator::directory(&body, did)
    }

    /// The mediator as far as it is known. No I/O.
    pub fn cached_mediator(&self, did: &MediatorDid) -> Option<Arc<MediatorDocument>> {
        self.inner.mediators.known(did)?.ok()
    }

    async fn look_up_handle(
        &self,
        handle: &Handle,
        freshness: Freshness,
        priority: Priority,
    ) -> Result<Did, HandleError> {
        if !handle.is_resolvable(self.inner.net.development()) {
            return Err(HandleError::NotResolvable);
        }
        let inner = Arc::clone(&self.inner);
        let wanted = handle.clone();
        self.inner
            .handles
            .look_up(handle, freshness, move |_| async move {
                let result = handle::resolve(&inner.net, &wanted, priority).await;
                inner.settings.handles_age(result)
            })
            .await
            .unwrap_or(Err(HandleError::Unreachable))
    }
}

impl IdentitySettings {
    fn documents_age(
        &self,
        value: Result<Arc<DidDocument>, IdentityError>,
    ) -> Found<Result<Arc<DidDocument>, IdentityError>> {
        let (fresh, usable, transient) = match &value {
            Ok(_) => (self.document_fresh, self.hard_limit, false),
            // No longer than the time it names: our own limits pass within seconds.
            Err(IdentityError::Unreachable { retry_after }) => {
                let ttl = retry_after.map_or(self.error_ttl, |wait| wait.min(self.error_ttl));
                (ttl, ttl, true)
            }
            Err(_) => (self.error_ttl, self.error_ttl, false),
        };
        Found {
            value,
            fresh,
            usable,
            transient,
        }
    }

    fn handles_age(&self, value: Result<Did, HandleError>) -> Found<Result<Did, HandleError>> {
        let ttl = match &value {
            Ok(_) => self.handle_ttl,
            // Half a minute spares a host in trouble without keeping people out for long.
            Err(HandleError::Unreachable) => self.handle_ttl.min(Duration::from_secs(30)),
            Err(_) => self.handle_invalid_ttl,
        };
        Found {
            value,
            fresh: ttl,
            usable: ttl,
            transient: false,
        }
    }
}

impl Bytes for Result<Arc<DidDocument>, IdentityError> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |document| {
            let pds = document.pds.as_ref().map_or(0, |pds| pds.as_str().len());
            let handle = document.claimed_handle.as_ref();
            size_of::<DidDocument>()
                + document.did.as_str().len()
                + pds
                + handle.map_or(0, |handle| handle.as_str().len())
        })
    }
}

impl Bytes for Result<Did, HandleError> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |did| did.as_str().len())
    }
}

async fn fetch_document(
    inner: &Inner,
    did: &Did,
    priority: Priority,
) -> Result<DidDocument, IdentityError> {
    let (url, trust) = match did.web() {
        Some(web) => (account_web_url(&inner.net, &web)?, Trust::Untrusted),
        None => (
            Url::parse(&format!("{}/{did}", inner.settings.plc_url)).ok(),
            Trust::Configured,
        ),
    };
    let url = url.ok_or(IdentityError::NotFound)?;
    let request = Request {
        priority,
        accept: Some("application/did+ld+json, application/json"),
        ..Request::new(url, trust, MAX_DOCUMENT_LEN)
    };
    let result = match inner.net.get(&request).await {
        Ok(answer) => read_answer(&answer, did),
        Err(NetError::Refused(refusal)) => Err(IdentityError::Refused(refusal)),
        Err(NetError::TooLarge { .. }) => Err(DocumentError::TooLong.into()),
        Err(e) => Err(IdentityError::Unreachable {
            retry_after: e.retry_after(),
        }),
    };
    let outcome = match &result {
        Ok(_) => "ok",
        Err(IdentityError::NotFound) => "not_found",
        Err(IdentityError::Tombstoned) => "tombstoned",
        Err(IdentityError::Malformed(_)) => "malformed",
        Err(IdentityError::Unreachable { .. }) => "unreachable",
        Err(IdentityError::Refused(_)) => "refused",
    };
    metrics::counter!("atcomm_identity_documents_total", "outcome" => outcome).increment(1);
    result
}

fn read_answer(answer: &Response, did: &Did) -> Result<DidDocument, IdentityError> {
    match answer.status.as_u16() {
        200 => Ok(DidDocument::parse(&answer.body, did)?),
        // The PLC directory tells the two apart only by its message.
        404 if did.web().is_none() && says_tombstoned(&answer.body, did) => {
            Err(IdentityError::Tombstoned)
        }
        404 => Err(IdentityError::NotFound),
        410 => Err(IdentityError::Tombstoned),
        _ => Err(IdentityError::Unreachable {
            retry_after: answer.retry_after,
        }),
    }
}

/// Whether this is what the PLC directory's server (`@did-plc/server`) says of a tombstoned DID.
/// Nothing less will do, since what is known of the account is deleted then.
fn says_tombstoned(body: &[u8], did: &Did) -> bool {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
    message.and_then(|message| message.strip_prefix("DID not available: ")) == Some(did.as_str())
}

/// Where an account's `did:web` document lies. Ports are for development (atproto DID
/// specification).
fn account_web_url(net: &Net, web: &WebDid) -> Result<Option<Url>, IdentityError> {
    if web.port.is_some() && !net.development() {
        return Err(IdentityError::Refused(Refusal::Port));
    }
    Ok(web_url(net, web))
}

/// Where a `did:web` document lies (did:web method specification): under `/.well-known` unless the
/// DID has a path. In development `localhost` speaks plain http, as its test servers do.
fn web_url(net: &Net, web: &WebDid) -> Option<Url> {
    let plain = net.development() && web.host == "localhost";
    let (scheme, default_port) = match plain {
        true => ("http", 80),
        false => ("https", net.https_port()),
    };
    let port = web.port.unwrap_or(default_port);
    let path = match web.path.is_empty() {
        true => ".well-known".to_owned(),
        false => web.path.join("/"),
    };
    Url::parse(&format!("{scheme}://{}:{port}/{path}/did.json", web.host)).ok()
}

#[cfg(test)]
mod tests;
