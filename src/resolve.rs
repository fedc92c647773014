//! One account at a time: fetch what its PDS shows, prove it, apply it to the directory.
//!
//! A look is made for whoever asks (on demand, within budgets), for events and walks (owed work,
//! durable in the store, with growing back-off) and by age (every entry is proven again within
//! 24 hours). There is one look per account at a time; whoever comes while it runs shares it,
//! unless what brought them is newer than its start.

mod fetch;
mod negative;
mod proven;
mod refresh;
mod worker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::directory::{Directory, PendingUpdate, RecipientView, Refusal, RefusalKind};
use crate::store::{StoreError, Trigger};
use atcomm_net::identity::{Freshness, HandleError, Identity};
use atcomm_net::net::{AddressLimiter, Net};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid, Origin};

use negative::Negatives;

pub use refresh::{IdentityNeed, Refresh, RefreshError, RefreshOutcome, ResolveError};
pub use worker::Worker;

/// How looks are bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSettings {
    /// Looks under way for askers; beyond it an asker is told to come back. Absent: 64.
    pub on_demand: usize,
    /// Looks under way for events, walks and re-proofs together. Several times
    /// `net.operator_concurrency`, so that a host that hangs does not take every place.
    /// Absent: 64.
    pub maintenance: usize,
    /// Looks that one asker's address may cause per minute (IPv6: its /64). Absent: 60.
    pub misses_per_minute: u32,
    /// How long a look without a package is remembered for askers. Absent: 30 s.
    #[serde(with = "humantime_serde")]
    pub negative_ttl: Duration,
    /// Longest time an asker waits for a look; the look itself goes on. Absent: 15 s.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
}

impl Default for ResolveSettings {
    fn default() -> Self {
        Self {
            on_demand: 64,
            maintenance: 64,
            misses_per_minute: 60,
            negative_ttl: Duration::from_secs(30),
            patience: Duration::from_secs(15),
        }
    }
}

/// A PDS that the operator named, with the address under which it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The PDS as DID documents name it.
    pub origin: Origin,
    /// Where to connect, such as `http://pds:3000`.
    pub connect: Url,
}

type SharedRefresh = Shared<BoxFuture<'static, Result<RefreshOutcome, RefreshError>>>;

/// Looks at accounts. Cloning is cheap.
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

    /// Looks under way, at most one per account; bounded by the budgets below.
    in_flight: Mutex<HashMap<Did, SharedRefresh>>,
    on_demand: Arc<Semaphore>,
    misses: AddressLimiter,
    negatives: Negatives,
    /// Identities that were looked up anew because a signature did not hold.
    recently_reverified: moka::sync::Cache<Did, ()>,
    /// Operation logs that were read because a signature did not hold.
    moves: moka::sync::Cache<Did, Arc<fetch::CachedMigration>>,
    /// Handles that name accounts which do not name them.
    handle_mismatch: moka::sync::Cache<Handle, ()>,
    /// Owed work was written.
    wake: Notify,
    wake_mediators: Notify,
}

/// A mediator that could not be asked under our own limits rests this much longer than told.
const BUSY_REST: Duration = Duration::from_secs(2);

/// An identity is looked up anew, and its operation log read, because of a bad signature at most
/// once in this time.
const BAD_SIGNATURE_TTL: Duration = Duration::from_secs(60);

impl Resolver {
    /// Prepares looks; starts nothing. See [`Worker`] for the owed ones.
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
                in_flight: Mutex::default(),
                on_demand: Arc::new(Semaphore::new(settings.on_demand)),
                misses: AddressLimiter::new(settings.misses_per_minute),
                negatives: Negatives::new(settings.negative_ttl),
                recently_reverified: moka::sync::Cache::builder()
                    .max_capacity(10_000)
                    .time_to_live(BAD_SIGNATURE_TTL)
                    .build(),
                moves: moka::sync::Cache::builder()
                    .max_capacity(10_000)
                    .time_to_live(BAD_SIGNATURE_TTL)
                    .build(),
                handle_mismatch: moka::sync::Cache::builder()
                    .max_capacity(10_000)
                    .time_to_live(settings.negative_ttl)
                    .build(),
                wake: Notify::new(),
                wake_mediators: Notify::new(),
                settings,
                clock,
            }),
        }
    }

    /// The directory that looks are applied to.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.inner.directory
    }

    /// Identities, as far as they are known.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// What dials out.
    pub fn net(&self) -> &Net {
        &self.inner.net
    }

    /// Whether a look at the account is under way.
    pub fn is_refreshing(&self, did: &str) -> bool {
        self.in_flight().contains_key(did)
    }

    /// Owed work was written: the worker need not wait for its next round.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
        self.inner.wake_mediators.notify_one();
    }

    /// The recipient view of an account, from the directory or by a look now.
    ///
    /// `client` is the address that pays for a look out of its own allowance.
    pub async fn recipient(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        if let Some(view) = self.inner.directory.recipient(actor).await?.found()? {
            return Ok(view);
        }
        let handle = match actor {
            Actor::Did(did) => return self.refreshed_recipient(did, client).await,
            Actor::Handle(handle) => handle,
        };
        if self.inner.handle_mismatch.contains_key(handle) {
            return Err(handle_mismatch());
        }
        let did = self.resolve_handle(handle, client).await?;
        let mut view = None;
        // The handle leads here and the directory does not know it: the account was renamed, or it
        // does not claim the handle.
        if self.inner.directory.is_tracked(did.as_str()) {
            self.refresh_for_client(&did, client).await?;
            let by_did = Actor::Did(did.clone());
            view = self.inner.directory.recipient(&by_did).await?.found()?;
        }
        let view = match view {
            Some(view) => view,
            None => self.refreshed_recipient(&did, client).await?,
        };
        if view.handle.as_ref() != Some(handle) {
            self.inner.handle_mismatch.insert(handle.clone(), ());
            return Err(handle_mismatch());
        }
        Ok(view)
    }

    /// Returns the recipient view of an account without an entry, after a refresh.
    async fn refreshed_recipient(
        &self,
        did: &Did,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        let refreshed = self.ask(did, client).await?;
        let by_did = Actor::Did(did.clone());
        let found = self.inner.directory.recipient(&by_did).await?.found()?;
        found.ok_or_else(|| refreshed.refusal.unwrap_or_else(not_enrolled).into())
    }

    /// Looks at an account now, whatever is known of it, on behalf of an asker.
    pub async fn refresh(&self, did: &Did, client: IpAddr) -> Result<RefreshOutcome, ResolveError> {
        let refreshed = self.refresh_for_client(did, client).await;
        self.inner.negatives.forget(did);
        refreshed
    }

    /// A look that begins now, out of the asker's allowance and everybody's budget.
    async fn refresh_for_client(
        &self,
        did: &Did,
        client: IpAddr,
    ) -> Result<RefreshOutcome, ResolveError> {
        self.charge(client)?;
        let permit = self.permit()?;
        let refresh = Refresh {
            identity: IdentityNeed::Refresh,
            ..Refresh::new(Trigger::Request)
        };
        let look = self.refresh_and_update(did, refresh, PendingUpdate::Unchanged, Some(permit));
        self.with_timeout(look).await?.map_err(ask_error)
    }

    /// Looks at an account. What is known when this begins is looked at anew; it never shares a
    /// look that began earlier.
    pub async fn look(&self, did: &Did, refresh: Refresh) -> Result<RefreshOutcome, RefreshError> {
        self.refresh_and_update(did, refresh, PendingUpdate::Unchanged, None)
            .await
    }

    async fn refresh_and_update(
        &self,
        did: &Did,
        refresh: Refresh,
        update: PendingUpdate,
        mut permit: Option<OwnedSemaphorePermit>,
    ) -> Result<RefreshOutcome, RefreshError> {
        loop {
            let mine =
                {
                    let mut in_flight = self.in_flight();
                    match in_flight.get(did) {
                        Some(earlier) => Err(earlier.clone()),
                        None => {
                            let permit = permit.take();
                            Ok(self.spawn_refresh(
                                &mut in_flight,
                                did,
                                refresh.clone(),
                                update,
                                permit,
                            ))
                        }
                    }
                };
            match mine {
                Ok(shared) => return shared.await,
                Err(earlier) => drop(earlier.await),
            }
        }
    }

    /// A look for an asker: shares one that is under way, remembers for a while that there was
    /// nothing, and counts against the asker's allowance and everybody's.
    async fn ask(&self, did: &Did, client: IpAddr) -> Result<RefreshOutcome, ResolveError> {
        if let Some(remembered) = self.inner.negatives.get(did) {
            return Ok(remembered);
        }
        let under_way = self.in_flight().get(did).cloned();
        let shared = match under_way {
            Some(shared) => Some(self.with_timeout(shared).await?),
            None => None,
        };
        let refreshed = match shared {
            // What satisfies a walk is no answer.
            Some(refreshed)
                if !refreshed
                    .as_ref()
                    .is_ok_and(|refreshed| refreshed.prefiltered) =>
            {
                refreshed
            }
            _ => {
                self.charge(client)?;
                let permit = Some(self.permit()?);
                let shared = {
                    let mut in_flight = self.in_flight();
                    match in_flight.get(did) {
                        Some(shared) => shared.clone(),
                        None => {
                            let refresh = Refresh::new(Trigger::Request);
                            self.spawn_refresh(
                                &mut in_flight,
                                did,
                                refresh,
                                PendingUpdate::Unchanged,
                                permit,
                            )
                        }
                    }
                };
                self.with_timeout(shared).await?
            }
        };
        let refreshed = refreshed.map_err(ask_error)?;
        if refreshed.refusal.is_some() {
            self.inner.negatives.remember(did, &refreshed);
        }
        Ok(refreshed)
    }

    /// Starts a look in a task of its own, so that an asker who goes away takes nobody else's
    /// answer along. The place in the budget is free when the look has ended.
    fn spawn_refresh(
        &self,
        in_flight: &mut HashMap<Did, SharedRefresh>,
        did: &Did,
        refresh: Refresh,
        update: PendingUpdate,
        permit: Option<OwnedSemaphorePermit>,
    ) -> SharedRefresh {
        let resolver = self.clone();
        let account = did.clone();
        let task = tokio::spawn(async move {
            let _permit = permit;
            let guard = InFlightGuard {
                resolver,
                did: account,
            };
            guard
                .resolver
                .inner
                .refresh_now(&guard.did, &refresh, update)
                .await
        });
        let landed = async move {
            task.await.unwrap_or_else(|error| {
                // A panic in a look is a defect of ours; the asker gets an error, others go on.
                tracing::error!(%error, "a look failed");
                Err(RefreshError::Store(StoreError::Closed))
            })
        };
        let shared = landed.boxed().shared();
        in_flight.insert(did.clone(), shared.clone());
        shared
    }

    fn in_flight(&self) -> std::sync::MutexGuard<'_, HashMap<Did, SharedRefresh>> {
        self.inner
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, client: IpAddr) -> Result<(), ResolveError> {
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

    async fn with_timeout<T>(&self, look: impl Future<Output = T>) -> Result<T, ResolveError> {
        tokio::time::timeout(self.inner.settings.patience, look)
            .await
            .map_err(|_| {
                ResolveError::Refused(Refusal::new(
                    RefusalKind::Upstream,
                    "the account's servers take too long to answer",
                ))
            })
    }

    /// Returns the account that a handle names.
    async fn resolve_handle(&self, handle: &Handle, client: IpAddr) -> Result<Did, ResolveError> {
        let refused = |kind, message: &str| Err(ResolveError::Refused(Refusal::new(kind, message)));
        self.charge(client)?;
        let permit = self.permit()?;
        let found = self
            .with_timeout(self.inner.identity.resolve_handle(handle))
            .await?;
        drop(permit);
        match found {
            Ok(did) => Ok(did),
            Err(HandleError::NotFound) => refused(
                RefusalKind::HandleNotFound,
                "no DID is found under the handle",
            ),
            Err(HandleError::Ambiguous) => refused(
                RefusalKind::HandleNotFound,
                "the handle's DNS names several DIDs",
            ),
            Err(HandleError::NotResolvable) => refused(
                RefusalKind::HandleNotFound,
                "handles under this domain are not resolved",
            ),
            Err(HandleError::Unreachable) => refused(
                RefusalKind::Upstream,
                "the handle's name servers did not answer",
            ),
        }
    }
}

fn not_enrolled() -> Refusal {
    Refusal::new(RefusalKind::NotEnrolled, "the account has no key package")
}

fn handle_mismatch() -> ResolveError {
    ResolveError::Refused(Refusal::new(
        RefusalKind::HandleNotFound,
        "the handle names an account that does not name the handle",
    ))
}

/// Takes a look out of the list of those under way, also when it ends in a panic: nobody may wait
/// for it for ever.
struct InFlightGuard {
    resolver: Resolver,
    did: Did,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.resolver.in_flight().remove(&self.did);
    }
}

fn ask_error(error: RefreshError) -> ResolveError {
    match error {
        // The account's own servers are at their limit, not this directory.
        RefreshError::Busy { retry_after } => ResolveError::Refused(Refusal::new(
            RefusalKind::Upstream,
            format!(
                "the account's servers must not be asked again for {} s",
                retry_after.as_secs().max(1)
            ),
        )),
        RefreshError::Unreachable { .. } => {
            ResolveError::Refused(Refusal::new(RefusalKind::Upstream, error.to_string()))
        }
        RefreshError::Store(error) => ResolveError::Store(error),
    }
}

impl Inner {
    /// Looks up those of the account's mediators that are due, all at once.
    async fn check_mediators(&self, did: &Did) -> Result<(), StoreError> {
        let due = self.directory.due_mediators_of(did).await?;
        join_all(due.iter().map(|mediator| self.check_mediator(mediator)))
            .await
            .into_iter()
            .collect()
    }

    /// Looks up one mediator and keeps what it says.
    async fn check_mediator(&self, did: &MediatorDid) -> Result<(), StoreError> {
        let known = self.directory.mediator(did).await?;
        match self.identity.mediator(did, Freshness::Refresh, known).await {
            Ok(document) => self.directory.put_mediator(did, &document).await,
            // Our own limits say nothing about the mediator.
            Err(busy) => {
                let until = self.clock.now().plus(busy.retry_after + BUSY_REST);
                self.directory.defer_mediator_check(did, until).await
            }
        }
    }
}
