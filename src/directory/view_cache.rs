//! Rendered answers, kept ready under the account's DID and its handle.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::RecipientView;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Handle};

/// An answer is rendered anew after this long, so that the ages in it are true to it.
const READY_FOR: Duration = Duration::from_secs(15);

/// Answers expected in a cache of average size, for its first allocation.
const EXPECTED: usize = 10_000;

/// Groups of accounts whose changes are told apart; a change makes the answers of its whole
/// group be rendered again.
const GROUPS: usize = 4096;

/// Bytes of an answer without its body: keys, tags and the cache's own bookkeeping.
const OVERHEAD: u64 = 512;

/// An answer and the epoch in which its rendering began.
#[derive(Clone)]
struct Kept {
    answer: Arc<RecipientView>,
    epoch: Epoch,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Box<str>, Kept> for ByBytes {
    fn weight(&self, name: &Box<str>, kept: &Kept) -> u64 {
        // An answer stands under two names; each carries its whole weight, so the bound holds.
        name.len() as u64 + kept.answer.body.len() as u64 + OVERHEAD
    }
}

/// A count of the changes so far; an answer is fit for use while nothing about its group changed
/// after the epoch in which its rendering began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

/// The cache of rendered answers, bounded in bytes.
pub(super) struct ViewCache {
    by_name: Cache<Box<str>, Kept, ByBytes>,
    now: AtomicU64,
    /// Epoch of the last change of each group, and of the last one that concerned everybody.
    changed: Vec<AtomicU64>,
    all_changed: AtomicU64,
    hasher: RandomState,
}

impl ViewCache {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            by_name: Cache::with_weighter(EXPECTED, max_bytes, ByBytes),
            now: AtomicU64::new(0),
            changed: (0..GROUPS).map(|_| AtomicU64::new(0)).collect(),
            all_changed: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }

    /// The answer under this name, unless it is too old or something changed since.
    pub(super) fn ready(&self, name: &str, now: Timestamp) -> Option<Arc<RecipientView>> {
        let kept = self.by_name.get(name)?;
        let fresh = now.since(kept.answer.at) < READY_FOR;
        (fresh && self.is_current(&kept.answer.did, kept.epoch)).then_some(kept.answer)
    }

    /// To be taken before the store is read: what was read before a change must not outlive it.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.now.load(Ordering::Acquire))
    }

    /// Keeps an answer whose rendering began in `epoch`.
    pub(super) fn keep(&self, answer: &Arc<RecipientView>, epoch: Epoch) {
        let kept = Kept {
            answer: Arc::clone(answer),
            epoch,
        };
        if let Some(handle) = answer.handle.as_ref().map(Handle::as_str) {
            self.by_name.insert(handle.into(), kept.clone());
        }
        self.by_name.insert(answer.did.as_str().into(), kept);
    }

    /// Makes the answers about these accounts unfit, once their changes have committed.
    pub(super) fn forget(&self, dids: &[Did]) {
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

    /// Makes every answer unfit.
    pub(super) fn forget_all(&self) {
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
