//! Refreshes one account at a time: fetches the record from its PDS, proves it, and applies it to
//! the directory.
//!
//! A refresh is triggered by the request of a client (within budgets), by an event or a listing
//! (pending in the store, with growing back-off), and by age (every entry is proven again within 24
//! hours). At most one refresh per account runs at a time. A caller that arrives while one runs
//! shares its result, unless it was triggered by an event newer than the start of that refresh.

mod caller;
mod changed;
mod doubt;
mod fetch;
mod handles;
mod identities;
mod many;
mod negative;
mod pending;
mod proven;
mod refresh;
mod refused;
mod worker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::directory::{Directory, PendingUpdate, RecipientView, Refusal};
use crate::store::{StoreError, Trigger};
use atcomm_net::identity::{Freshness, HandleError, Identity, MediatorDocument};
use atcomm_net::net::{AddressLimiter, Net};
use atcomm_net::single_flight::SingleFlight;
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Did, Handle, LexiconError, MediatorDid, Origin};

use caller::Callers;
use negative::Negatives;

pub use caller::CallerError;
pub use identities::{IdentityFailure, ResolvedIdentity};
pub use proven::AccountProof;
pub use refresh::{
    IdentityLookup, NamedBy, NoAnswer, Refresh, RefreshError, RefreshOutcome, ResolveError,
};
pub use worker::Worker;

/// Limits of refreshes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSettings {
    /// Most concurrent refreshes for clients; above it a client is told to come back. Absent: 64.
    pub on_demand: usize,
    /// Most concurrent refreshes for events, listings and rechecks together. Several times
    /// `net.operator_concurrency`, so that a host that hangs does not take every slot. Absent: 64.
    pub maintenance: usize,
    /// Refreshes that one client address may cause per minute (IPv6: its /64). Absent: 60.
    pub misses_per_minute: u32,
    /// Time for which a refresh without a package is cached for clients. Absent: 30 s.
    #[serde(with = "humantime_serde")]
    pub negative_ttl: Duration,
    /// Longest time that a client waits for a refresh; the refresh itself goes on. Absent: 15 s.
    #[serde(rename = "patience", with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for ResolveSettings {
    fn default() -> Self {
        Self {
            on_demand: 64,
            maintenance: 64,
            misses_per_minute: 60,
            negative_ttl: Duration::from_secs(30),
            timeout: Duration::from_secs(15),
        }
    }
}

/// A PDS that the operator configured, with the address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The PDS as DID documents name it.
    pub origin: Origin,
    /// Where to connect, such as `http://pds:3000`.
    pub connect: Url,
}

/// Refreshes accounts. Cloning is cheap.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    net: Net,
    identity: Identity,
    directory: Arc<Directory>,
    routes: HashMap<Origin, Url>,
    settings: ResolveSettings,
    clock: Clock,

    /// Running refreshes, at most one per account; bounded by the budgets below.
    in_flight: SingleFlight<Did, Result<RefreshOutcome, RefreshError>>,
    on_demand: Arc<Semaphore>,
    misses: AddressLimiter,
    callers: Callers,
    negatives: Negatives,
    /// Accounts whose identity was looked up again because of a bad signature.
    recently_reverified: TtlCache<Did, ()>,
    /// Accounts that were refreshed because their document was found changed.
    recently_changed: TtlCache<Did, ()>,
    /// Operation logs that were read because of a bad signature.
    migrations: TtlCache<Did, Arc<fetch::CachedMigration>>,
    /// Addresses that are not charged.
    exempt: OnceLock<Box<dyn Fn(IpAddr) -> bool + Send + Sync>>,
    /// Accounts that were looked at a moment ago and are in doubt all the same.
    in_vain: TtlCache<Did, ()>,
    /// Handles of accounts that do not claim them.
    handle_mismatch: TtlCache<Handle, ()>,
    /// The DID document of the mediator of this program, if it is one.
    own_mediator: RwLock<Option<(MediatorDid, Bytes)>>,
    /// Notified when a refresh becomes pending.
    wake: Notify,
    wake_mediators: Notify,
    wake_handles: Notify,
}

/// Time that a mediator is deferred beyond what our own limits demand.
const BUSY_REST: Duration = Duration::from_secs(2);

/// Most accounts, or handles, in each of the caches that spare look-ups.
const MAX_CACHED: usize = 10_000;

impl Resolver {
    /// Prepares a resolver, and starts nothing. The [`Worker`] makes the pending refreshes.
    pub fn bind(
        net: Net,
        identity: Identity,
        directory: Arc<Directory>,
        routes: Vec<Route>,
        settings: ResolveSettings,
        clock: Clock,
    ) -> Self {
        let routes = routes
            .into_iter()
            .map(|route| (route.origin, route.connect))
            .collect();
        Self {
            inner: Arc::new(Inner {
                net,
                identity,
                directory,
                routes,
                // As many as the budgets below and the worker allow.
                in_flight: SingleFlight::new(usize::MAX),
                on_demand: Arc::new(Semaphore::new(settings.on_demand)),
                misses: AddressLimiter::new(settings.misses_per_minute, clock.clone()),
                callers: Callers::new(clock.clone()),
                negatives: Negatives::new(settings.negative_ttl, clock.clone()),
                recently_reverified: TtlCache::with_entries(MAX_CACHED, clock.clone()),
                recently_changed: TtlCache::with_entries(MAX_CACHED, clock.clone()),
                migrations: TtlCache::with_entries(MAX_CACHED, clock.clone()),
                exempt: OnceLock::new(),
                in_vain: TtlCache::with_entries(MAX_CACHED, clock.clone()),
                handle_mismatch: TtlCache::with_entries(MAX_CACHED, clock.clone()),
                own_mediator: RwLock::new(None),
                wake: Notify::new(),
                wake_mediators: Notify::new(),
                wake_handles: Notify::new(),
                settings,
                clock,
            }),
        }
    }

    /// Returns the directory that refreshes are applied to.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.inner.directory
    }

    /// Returns the cached look-up of identities.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Returns the looks that one client address may cause per minute.
    pub fn looks_per_minute(&self) -> u32 {
        self.inner.settings.misses_per_minute
    }

    /// Tells which addresses are not charged for the looks that they cause. Only the first call
    /// counts.
    pub fn exempt(&self, is_exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) {
        let _ = self.inner.exempt.set(Box::new(is_exempt));
    }

    /// Returns the outbound network.
    pub fn net(&self) -> &Net {
        &self.inner.net
    }

    /// Tells which mediator this program is, and its DID document. To be called again when the
    /// document changes: the directory shows its contents at once and does not take them from the
    /// network, where an earlier one may be cached. The network says only whether others reach it.
    pub async fn set_own_mediator(
        &self,
        did: &MediatorDid,
        document: Bytes,
    ) -> Result<(), StoreError> {
        *self
            .inner
            .own_mediator
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some((did.clone(), document));
        // Where no package names it, nothing is stored.
        if let Some(stored) = self.inner.directory.mediator(did).await? {
            let document = self.inner.with_own_contents(stored);
            self.inner.directory.put_mediator(did, &document).await?;
        }
        Ok(())
    }

    /// Returns whether a refresh of the account is running.
    pub fn is_refreshing(&self, did: &str) -> bool {
        self.inner.in_flight.running(did).is_some()
    }

    /// Wakes the worker, because refreshes became pending.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
        self.inner.wake_mediators.notify_one();
    }

    /// Returns the recipient view of an account, from the directory or after a refresh.
    ///
    /// `client` is the address whose allowance pays for the refresh.
    pub async fn recipient(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        if let Some(view) = self.known(actor, client).await? {
            return Ok(view);
        }
        let handle = match actor {
            Actor::Did(did) => return self.refreshed_recipient(did, None, client).await,
            Actor::Handle(handle) => handle,
        };
        if self.inner.handle_mismatch.get(handle).is_some() {
            return Err(handle_mismatch());
        }
        let (did, named) = self.resolve_handle(handle, client).await?;
        let mut view = None;
        // The handle resolves to an account that the directory has under another handle or none:
        // the account was renamed, or it does not claim the handle.
        if self.inner.directory.is_tracked(did.as_str()) {
            self.refresh_for_client(&did, Some(named.clone()), client)
                .await?;
            let by_did = Actor::Did(did.clone());
            view = self.inner.directory.recipient(&by_did).await?.found()?;
        }
        let mut view = match view {
            Some(view) => view,
            None => {
                let named = Some(named.clone());
                self.refreshed_recipient(&did, named, client).await?
            }
        };
        if view.handle.as_ref() != Some(handle) {
            // The refresh may have been another's, which does not know of the handle.
            self.inner.confirm_handle(&did, &named).await?;
            let found = self.inner.directory.recipient(&Actor::Did(did)).await?;
            view = found.found()?.unwrap_or(view);
        }
        if view.handle.as_ref() != Some(handle) {
            let ttl = self.inner.settings.negative_ttl;
            self.inner.handle_mismatch.insert(handle.clone(), (), ttl);
            return Err(handle_mismatch());
        }
        Ok(view)
    }

    /// Returns the recipient view of an account without an entry, after a refresh.
    async fn refreshed_recipient(
        &self,
        did: &Did,
        named: Option<NamedBy>,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        let refreshed = self.ask(did, named, client).await?;
        let by_did = Actor::Did(did.clone());
        let found = self.inner.directory.recipient(&by_did).await?.found()?;
        found.ok_or_else(|| refreshed.refusal.unwrap_or_else(not_enrolled).into())
    }

    /// Refreshes an account for a client, whatever the directory has of it.
    pub async fn refresh(&self, did: &Did, client: IpAddr) -> Result<RefreshOutcome, ResolveError> {
        let refreshed = self.refresh_for_client(did, None, client).await;
        self.inner.negatives.evict(did);
        refreshed
    }

    /// Starts a refresh now, out of the client's allowance and the common budget.
    async fn refresh_for_client(
        &self,
        did: &Did,
        named: Option<NamedBy>,
        client: IpAddr,
    ) -> Result<RefreshOutcome, ResolveError> {
        self.charge(client)?;
        let permit = self.permit()?;
        let refresh = Refresh {
            identity: IdentityLookup::Refresh,
            named,
            ..Refresh::new(Trigger::Request)
        };
        let refreshed =
            self.refresh_and_update(did, refresh, PendingUpdate::Unchanged, Some(permit));
        self.with_timeout(refreshed).await?.map_err(client_error)
    }

    /// Refreshes an account, and writes the end of the pending refresh in the same transaction. Never
    /// shares a refresh that began earlier, so all that is known at the call is checked again.
    async fn refresh_and_update(
        &self,
        did: &Did,
        refresh: Refresh,
        update: PendingUpdate,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<RefreshOutcome, RefreshError> {
        self.inner
            .in_flight
            .start_next(
                did,
                || self.refresh_task(did, refresh, update, permit),
                |refreshed, _| refreshed,
            )
            .await
            .unwrap_or_else(lost)
    }

    /// Refreshes an account for a client. Shares a running refresh, caches a result without a
    /// package for a while, and counts against the client's allowance and the common budget.
    async fn ask(
        &self,
        did: &Did,
        named: Option<NamedBy>,
        client: IpAddr,
    ) -> Result<RefreshOutcome, ResolveError> {
        if let Some(remembered) = self.inner.negatives.get(did) {
            return Ok(remembered);
        }
        let shared = match self.inner.in_flight.running(did) {
            Some(shared) => Some(self.with_timeout(shared).await?.unwrap_or_else(lost)),
            None => None,
        };
        let refreshed = match shared {
            // An account that has just written a package must not be missed by a refresh of
            // the background that began before that. The result of a prefilter is no answer, either.
            Some(refreshed)
                if !refreshed.as_ref().is_ok_and(|refreshed| {
                    refreshed.prefiltered || (refreshed.background && refreshed.refusal.is_some())
                }) =>
            {
                refreshed
            }
            _ => {
                self.charge(client)?;
                let permit = Some(self.permit()?);
                let shared = self.inner.in_flight.join(
                    did,
                    || {
                        let refresh = Refresh {
                            named,
                            ..Refresh::new(Trigger::Request)
                        };
                        self.refresh_task(did, refresh, PendingUpdate::Unchanged, permit)
                    },
                    |refreshed, _| refreshed,
                );
                self.with_timeout(shared).await?.unwrap_or_else(lost)
            }
        };
        let refreshed = refreshed.map_err(client_error)?;
        if refreshed.refusal.is_some() {
            self.inner.negatives.insert(did, &refreshed);
        }
        Ok(refreshed)
    }

    /// Makes the task of a refresh. The budget's permit is released when the refresh has ended.
    fn refresh_task(
        &self,
        did: &Did,
        refresh: Refresh,
        update: PendingUpdate,
        permit: Option<OwnedSemaphorePermit>,
    ) -> impl Future<Output = Result<RefreshOutcome, RefreshError>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let did = did.clone();
        async move {
            let _permit = permit;
            inner.refresh_now(&did, &refresh, update).await
        }
    }

    fn charge(&self, client: IpAddr) -> Result<(), ResolveError> {
        if self.inner.exempt.get().is_some_and(|exempt| exempt(client)) {
            return Ok(());
        }
        self.inner.misses.charge(client).map_err(|retry_after| {
            metrics::counter!("atcomm_resolve_address_limited_total").increment(1);
            ResolveError::OverBudget {
                own: true,
                retry_after,
            }
        })
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, ResolveError> {
        Arc::clone(&self.inner.on_demand)
            .try_acquire_owned()
            .map_err(|_| {
                metrics::counter!("atcomm_resolve_over_budget_total").increment(1);
                ResolveError::OverBudget {
                    own: false,
                    retry_after: Duration::from_secs(2),
                }
            })
    }

    async fn with_timeout<T>(&self, work: impl Future<Output = T>) -> Result<T, ResolveError> {
        tokio::time::timeout(self.inner.settings.timeout, work)
            .await
            .map_err(|_| {
                ResolveError::Refused(Refusal::new(
                    LexiconError::UpstreamFailure,
                    "the account's servers take too long to answer",
                ))
            })
    }

    /// Returns the account that a handle names.
    async fn resolve_handle(
        &self,
        handle: &Handle,
        client: IpAddr,
    ) -> Result<(Did, NamedBy), ResolveError> {
        let refused = |kind, message: &str| Err(ResolveError::Refused(Refusal::new(kind, message)));
        self.charge(client)?;
        let permit = self.permit()?;
        let found = self
            .with_timeout(self.inner.identity.named_by(handle))
            .await?;
        drop(permit);
        match found {
            Ok(named) => {
                let by = NamedBy {
                    handle: handle.clone(),
                    asked_at: named.asked_at,
                };
                Ok((named.did, by))
            }
            Err(HandleError::NotFound) => refused(
                LexiconError::HandleNotFound,
                "no DID is found under the handle",
            ),
            Err(HandleError::Ambiguous) => refused(
                LexiconError::HandleNotFound,
                "the handle's DNS names several DIDs",
            ),
            Err(HandleError::NotResolvable) => refused(
                LexiconError::HandleNotFound,
                "handles under this domain are not resolved",
            ),
            Err(HandleError::Unreachable) => refused(
                LexiconError::UpstreamFailure,
                "the handle's name servers did not answer",
            ),
        }
    }
}

fn not_enrolled() -> Refusal {
    Refusal::new(LexiconError::NotEnrolled, "the account has no key package")
}

fn handle_mismatch() -> ResolveError {
    ResolveError::Refused(Refusal::new(
        LexiconError::HandleNotFound,
        "the handle names an account that does not name the handle",
    ))
}

/// The result of a refresh that ended in a panic, which is a defect of this program: its callers
/// get an error, and other refreshes go on.
fn lost() -> Result<RefreshOutcome, RefreshError> {
    Err(RefreshError::Store(StoreError::Closed))
}

fn client_error(error: RefreshError) -> ResolveError {
    match error {
        // The account's own servers are at their limit, not this directory.
        RefreshError::Busy { retry_after } => ResolveError::Refused(Refusal::new(
            LexiconError::UpstreamFailure,
            format!(
                "the account's servers must not be asked again for {} s",
                retry_after.as_secs().max(1)
            ),
        )),
        RefreshError::Unreachable { .. } => ResolveError::Refused(Refusal::new(
            LexiconError::UpstreamFailure,
            error.to_string(),
        )),
        RefreshError::Store(error) => ResolveError::Store(error),
    }
}

impl Inner {
    /// Looks up the account's mediators that are due, all at once.
    async fn check_mediators(&self, did: &Did) -> Result<(), StoreError> {
        let due = self.directory.due_mediators_of(did).await?;
        join_all(due.iter().map(|mediator| self.check_mediator(mediator)))
            .await
            .into_iter()
            .collect()
    }

    /// Returns a document with the contents that this program gives it, if it is the mediator.
    fn with_own_contents(&self, document: MediatorDocument) -> MediatorDocument {
        let own = self
            .own_mediator
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((_, body)) = own.as_ref().filter(|(did, _)| *did == document.did) else {
            return document;
        };
        let development = self.net.development();
        let made = document
            .clone()
            .made_here(body, development, self.clock.now());
        made.unwrap_or(document)
    }

    /// Looks up one mediator and stores its document.
    async fn check_mediator(&self, did: &MediatorDid) -> Result<(), StoreError> {
        let known = self.directory.mediator(did).await?;
        match self.identity.mediator(did, Freshness::Refresh, known).await {
            Ok(document) => {
                let document = self.with_own_contents((*document).clone());
                self.directory.put_mediator(did, &document).await
            }
            // Our own limits say nothing about the mediator.
            Err(busy) => {
                let until = self.clock.now().plus(busy.retry_after + BUSY_REST);
                self.directory.defer_mediator_check(did, until).await
            }
        }
    }
}
