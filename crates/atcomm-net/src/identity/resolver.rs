//! The resolver of identities, with its caches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use super::document::DidDocument;
use super::fetch::{self, IdentityError};
use super::handle::{self, HandleAnswer, HandleError};
use super::lookups::{Freshness, Lookups};
use super::mediator::{self, Busy, MediatorDocument};
use super::plc_log::{self, PlcLog, PlcLogError};
use super::settings::IdentitySettings;
use super::whole::{self, MAX_WHOLE, WholeAnswer, WholeDocument};
use crate::net::{Net, Priority};
use crate::rate_limit::{Rate, RateLimit};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin};

/// Whether an account's claimed handle is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandleCheck {
    /// The handle names the DID, and the DID claims the handle.
    Verified(Handle),
    /// No handle is claimed, or the handle does not lead back to the DID.
    Invalid,
    /// The check failed for now: the earlier result stands.
    Inconclusive,
}

/// The result of checking a handle that an account claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedHandle {
    /// The result.
    pub check: HandleCheck,
    /// When the check began.
    pub asked_at: Timestamp,
    /// The time to wait, where only a limit of ours, or a pause that the host asked for, kept the
    /// handle from being looked up. The check is inconclusive then, and says nothing.
    pub retry_after: Option<Duration>,
}

/// The account that a handle names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedDid {
    /// The account.
    pub did: Did,
    /// When the handle was looked up.
    pub asked_at: Timestamp,
}

/// Looks up identities, in the background unless made by [`Identity::interactive`]. Cloning is
/// cheap, and clones share all caches.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
    priority: Priority,
}

/// Most changed documents that are told and not yet heard of.
const MAX_CHANGED: usize = 1024;

struct Inner {
    net: Net,
    settings: IdentitySettings,
    clock: Clock,
    /// Limit of the look-ups at the PLC directory that clients cause. The directory limits us;
    /// clients must not use up what events and re-proofs need.
    plc: RateLimit,
    documents: Lookups<Did, Result<Arc<DidDocument>, IdentityError>>,
    /// Whole documents, for those who ask for them.
    whole: Lookups<Did, WholeAnswer>,
    handles: Lookups<Handle, HandleAnswer>,
    mediators: Lookups<MediatorDid, Result<Arc<MediatorDocument>, Busy>>,
    plc_logs: Lookups<Did, Result<Arc<PlcLog>, PlcLogError>>,
    /// Accounts whose document was found to differ from the cached one.
    changed: broadcast::Sender<Did>,
}

impl Identity {
    /// Starts with empty caches; dials nothing.
    pub fn bind(net: Net, settings: IdentitySettings, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                documents: Lookups::new(settings.document_cache, clock.clone()),
                whole: Lookups::undivided(MAX_WHOLE, clock.clone()),
                handles: Lookups::new(settings.handle_cache, clock.clone()),
                mediators: Lookups::new(settings.mediator_cache, clock.clone()),
                plc_logs: Lookups::undivided(settings.plc_log_cache, clock.clone()),
                changed: broadcast::Sender::new(MAX_CHANGED),
                plc: RateLimit::new(Rate::per_minute(settings.plc_rate), clock.clone()),
                net,
                settings,
                clock,
            }),
            priority: Priority::Background,
        }
    }

    /// Returns the resolver for look-ups that clients cause. They have [`Priority::Interactive`] and
    /// count against the setting `plc_rate`. Beyond that rate a document is served from the cache,
    /// or is [`IdentityError::Unreachable`] until the time that the error names.
    pub fn interactive(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            priority: Priority::Interactive,
        }
    }

    /// Returns the DID document of an account. With [`Freshness::Cached`] it is at most a day old;
    /// with [`Freshness::Refresh`] a failure is an error even where an older document is cached.
    /// Must run inside a tokio runtime.
    pub async fn resolve(
        &self,
        did: &Did,
        freshness: Freshness,
    ) -> Result<Arc<DidDocument>, IdentityError> {
        let documents = &self.inner.documents;
        // A document of our future, after a step of the clock, would seem newer than what is read
        // from now on.
        if matches!(documents.cached(did), Some(Ok(known)) if known.asked_at > self.now()) {
            documents.purge(did);
        }
        // Not within the look-up, which the background may join and whose failure is cached.
        if self.priority == Priority::Interactive
            && did.web().is_none()
            && documents.would_start(did, freshness)
            && let Err(wait) = self.inner.plc.take()
        {
            let cached = match freshness {
                Freshness::Cached => documents.cached(did),
                Freshness::Refresh => None,
            };
            return cached.unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(wait),
            }));
        }
        let inner = Arc::clone(&self.inner);
        let wanted = did.clone();
        let priority = self.priority;
        documents
            .look_up(did, freshness, move |known| async move {
                let Inner {
                    net,
                    settings,
                    clock,
                    ..
                } = &*inner;
                let result = fetch::fetch(net, &settings.plc_url, clock, &wanted, priority).await;
                if let (Some(Ok(known)), Ok(found)) = (known, &result)
                    && !known.names_the_same(found)
                {
                    inner.whole.purge(&wanted);
                    // Without a receiver there is no one to tell.
                    drop(inner.changed.send(wanted));
                }
                inner.settings.documents_age(result.map(Arc::new))
            })
            .await
            .unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(Duration::from_secs(1)),
            }))
    }

    /// Returns the whole DID document of an account. At most a day old, and never older than the
    /// last [`Identity::purge_document`]. Under the same limits as [`Identity::resolve`]. Must run
    /// inside a tokio runtime.
    pub async fn whole(&self, did: &Did) -> Result<Arc<WholeDocument>, IdentityError> {
        let documents = &self.inner.whole;
        if self.priority == Priority::Interactive
            && did.web().is_none()
            && documents.would_start(did, Freshness::Cached)
            && let Err(wait) = self.inner.plc.take()
        {
            return documents
                .cached(did)
                .unwrap_or(Err(IdentityError::Unreachable {
                    retry_after: Some(wait),
                }));
        }
        let inner = Arc::clone(&self.inner);
        let (wanted, priority) = (did.clone(), self.priority);
        documents
            .look_up(did, Freshness::Cached, move |_| async move {
                let Inner {
                    net,
                    settings,
                    clock,
                    ..
                } = &*inner;
                whole::fetch(net, settings, clock, &wanted, priority).await
            })
            .await
            .unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(Duration::from_secs(1)),
            }))
    }

    /// Returns the cached whole document, or the cached failure. Does no I/O.
    pub fn cached_whole(&self, did: &Did) -> Option<Result<Arc<WholeDocument>, IdentityError>> {
        self.inner.whole.cached(did)
    }

    /// Returns the accounts whose document is found, from now on, to have another key, PDS or handle
    /// than the cached one. A receiver that falls far behind misses some, and learns how many.
    pub fn changed_documents(&self) -> broadcast::Receiver<Did> {
        self.inner.changed.subscribe()
    }

    /// Returns the cached document, at most a day old. Does no I/O.
    pub fn cached(&self, did: &Did) -> Option<Arc<DidDocument>> {
        self.inner.documents.cached(did)?.ok()
    }

    /// Returns the cached document if it was asked for within the setting `document_fresh`. Does no
    /// I/O.
    pub fn cached_fresh(&self, did: &Did) -> Option<Arc<DidDocument>> {
        let (now, fresh) = (self.now(), self.inner.settings.document_fresh);
        self.cached(did).filter(|document| {
            // A time in our future, after a step of the clock, is unknown.
            document.asked_at <= now && now.since(document.asked_at) < fresh
        })
    }

    /// Returns the account's operation log, verified. With [`Freshness::Cached`] it is at most a day
    /// old and may lack later operations. Must run inside a tokio runtime.
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
            let result =
                plc_log::fetch(&inner.net, &inner.settings, &inner.clock, &wanted, priority).await;
            inner.settings.plc_logs_age(result.map(Arc::new))
        })
        .await
        .unwrap_or(Err(PlcLogError::Unreachable {
            retry_after: Some(Duration::from_secs(1)),
        }))
    }

    /// Returns the cached log, at most a day old, or the cached failure. Does no I/O.
    pub fn cached_plc_log(&self, did: &Did) -> Option<Result<Arc<PlcLog>, PlcLogError>> {
        self.inner.plc_logs.cached(did)
    }

    /// Evicts the document alone: the next call for the document returns an answer requested after
    /// this one.
    pub fn purge_document(&self, did: &Did) {
        self.inner.documents.purge(did);
        self.inner.whole.purge(did);
    }

    /// Evicts the document and the operation log: the next call for either returns an answer
    /// requested after this one.
    pub fn purge(&self, did: &Did) {
        self.inner.documents.purge(did);
        self.inner.whole.purge(did);
        self.inner.plc_logs.purge(did);
    }

    /// Returns the DID that a handle names. One direction only, so a claim of the handle's owner.
    /// Always interactive, since events and re-proofs begin with DIDs.
    pub async fn resolve_handle(&self, handle: &Handle) -> Result<Did, HandleError> {
        Ok(self.named_by(handle).await?.did)
    }

    /// Does the same as [`Identity::resolve_handle`], and says when the handle was looked up: an
    /// answer from the cache is up to the setting `handle_ttl` old.
    pub async fn named_by(&self, handle: &Handle) -> Result<NamedDid, HandleError> {
        let answer = self
            .look_up_handle(handle, Freshness::Cached, Priority::Interactive)
            .await;
        Ok(NamedDid {
            did: answer.named?,
            asked_at: answer.asked_at,
        })
    }

    /// Checks whether the handle that the document claims leads back to its DID. Never answers from
    /// the cache.
    pub async fn verify_handle(&self, document: &DidDocument) -> HandleCheck {
        match &document.claimed_handle {
            Some(handle) => self.check_handle(&document.did, handle).await.check,
            None => HandleCheck::Invalid,
        }
    }

    /// Checks whether a handle that an account claims leads back to the account. Never answers from
    /// the cache.
    pub async fn check_handle(&self, did: &Did, claimed: &Handle) -> CheckedHandle {
        let asked_at = self.inner.clock.now();
        // A look-up that began before the event which causes this check may bring the old answer.
        self.inner.handles.purge(claimed);
        let answer = self
            .look_up_handle(claimed, Freshness::Refresh, self.priority)
            .await;
        CheckedHandle {
            check: match answer.named {
                Ok(named) if named == *did => HandleCheck::Verified(claimed.clone()),
                Err(HandleError::Unreachable) => HandleCheck::Inconclusive,
                Ok(_) | Err(_) => HandleCheck::Invalid,
            },
            asked_at,
            retry_after: answer.retry_after,
        }
    }

    /// Evicts the DID of a handle. For a handle that an account gave up: otherwise it leads to the
    /// account for another minute.
    pub fn purge_handle(&self, handle: &Handle) {
        self.inner.handles.purge(handle);
    }

    /// Returns the document of a mediator, at most a day old. Checks the mediator again in the
    /// background after an hour, or after two minutes while something is wrong. Takes up to 15 s
    /// when nothing is cached.
    ///
    /// Faults of the mediator are in the document's state. [`Busy`] says nothing about the mediator:
    /// the caller's own state of it must stay as it is. `known` is the document that the caller
    /// stored by [`MediatorDocument::to_stored`]. Its keys are used on while the mediator fails and
    /// the cache holds nothing newer, as after a restart.
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

    /// Returns the directory that a mediator's document names: the service `#atcomm_directory`. Not
    /// cached. `None` where the document names none or cannot be fetched now.
    pub async fn directory_beside(&self, did: &MediatorDid) -> Option<Origin> {
        let web = did.web()?;
        let body = mediator::fetch_bytes(&self.inner.net, self.priority, &web)
            .await
            .ok()?;
        mediator::directory(&body, did)
    }

    /// Returns the cached document of a mediator. Does no I/O.
    pub fn cached_mediator(&self, did: &MediatorDid) -> Option<Arc<MediatorDocument>> {
        self.inner.mediators.cached(did)?.ok()
    }

    /// Returns the time now.
    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    async fn look_up_handle(
        &self,
        handle: &Handle,
        freshness: Freshness,
        priority: Priority,
    ) -> HandleAnswer {
        let answer = |error, retry_after| HandleAnswer {
            named: Err(error),
            asked_at: self.inner.clock.now(),
            retry_after,
        };
        if !handle.is_resolvable(self.inner.net.development()) {
            return answer(HandleError::NotResolvable, None);
        }
        let inner = Arc::clone(&self.inner);
        let wanted = handle.clone();
        self.inner
            .handles
            .look_up(handle, freshness, move |_| async move {
                let answer = handle::resolve(&inner.net, &inner.clock, &wanted, priority).await;
                inner.settings.handles_age(answer)
            })
            .await
            .unwrap_or_else(|| answer(HandleError::Unreachable, Some(Duration::from_secs(1))))
    }
}
