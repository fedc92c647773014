//! A cache of rendered recipient views, under the account's DID and its handle.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::view::RecipientView;
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Did, Handle};

/// Time after which a view is rendered again, so that the ages in it are true to this time.
const VIEW_TTL: Duration = Duration::from_secs(15);

/// Groups of accounts whose changes are distinguished. A change invalidates the views of its whole
/// group.
const GROUPS: usize = 4096;

/// Bytes of a cached view beside its body: keys, tags and the cache's own bookkeeping.
const OVERHEAD: u64 = 512;

/// A view, and the epoch in which its rendering began.
#[derive(Clone)]
struct Cached {
    view: Arc<RecipientView>,
    epoch: Epoch,
}

/// A count of the changes so far. A view is valid while nothing in its group has changed after the
/// epoch in which its rendering began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

/// The cache, bounded in bytes.
pub(super) struct ViewCache {
    by_name: TtlCache<Box<str>, Cached>,
    now: AtomicU64,
    /// Epoch of the last change of each group, and of the last change that concerned all accounts.
    changed: Vec<AtomicU64>,
    all_changed: AtomicU64,
    hasher: RandomState,
}

impl ViewCache {
    pub(super) fn new(max_bytes: u64, clock: Clock) -> Self {
        Self {
            // A view is stored under two names. Each of them carries the whole weight, so the
            // bound holds.
            by_name: TtlCache::with_bytes(
                max_bytes,
                |name, cached| name.len() as u64 + cached.view.body.len() as u64 + OVERHEAD,
                clock,
            ),
            now: AtomicU64::new(0),
            changed: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
            all_changed: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }

    /// Returns the view under this name, unless it is too old or invalid.
    pub(super) fn view(&self, name: &str) -> Option<Arc<RecipientView>> {
        let cached = self.by_name.get(name)?;
        self.is_current(&cached.view.did, cached.epoch)
            .then_some(cached.view)
    }

    /// Returns the present epoch. To be called before the store is read: a view of the state before
    /// a change must not outlive the change.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.now.load(Ordering::Acquire))
    }

    /// Caches a view whose rendering began in `epoch`.
    pub(super) fn insert(&self, view: &Arc<RecipientView>, epoch: Epoch) {
        let cached = Cached {
            view: Arc::clone(view),
            epoch,
        };
        if let Some(handle) = view.handle.as_ref().map(Handle::as_str) {
            self.by_name.insert(handle.into(), cached.clone(), VIEW_TTL);
        }
        self.by_name
            .insert(view.did.as_str().into(), cached, VIEW_TTL);
    }

    /// Invalidates the views of these accounts, once their changes have committed.
    pub(super) fn invalidate(&self, dids: &[Did]) {
        if dids.is_empty() {
            return;
        }
        let epoch = self.now.fetch_add(1, Ordering::AcqRel) + 1;
        for did in dids {
            if let Some(changed) = self.changed.get(self.group(did)) {
                changed.fetch_max(epoch, Ordering::AcqRel);
            }
        }
    }

    /// Invalidates every view.
    pub(super) fn invalidate_all(&self) {
        let epoch = self.now.fetch_add(1, Ordering::AcqRel) + 1;
        self.all_changed.fetch_max(epoch, Ordering::AcqRel);
    }

    fn is_current(&self, did: &Did, epoch: Epoch) -> bool {
        let changed = self
            .changed
            .get(self.group(did))
            .map_or(0, |n| n.load(Ordering::Acquire));
        changed.max(self.all_changed.load(Ordering::Acquire)) <= epoch.0
    }

    fn group(&self, did: &Did) -> usize {
        usize::try_from(self.hasher.hash_one(did) % GROUPS as u64).unwrap_or(0)
    }
}
