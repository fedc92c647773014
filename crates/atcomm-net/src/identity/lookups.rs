//! Look-ups of one kind: cached, refreshed in the background, and made once for all concurrent
//! callers.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::single_flight::{Answer, SingleFlight};
use crate::ttl_cache::TtlCache;
use atcomm_proto::clock::{Clock, Timestamp};

/// Concurrent look-ups of one kind. Further ones are turned away; joining one is free.
const MAX_IN_FLIGHT: usize = 1024;

/// Rough bytes of one entry without its key and without the memory that its value points to.
const ENTRY_BYTES: usize = 160;

/// Whether a cached answer suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A cached answer within its limits of age suffices.
    Cached,
    /// A new answer is needed. A running look-up is joined: purge first to exclude an answer that
    /// was requested before.
    Refresh,
}

/// The answer of a look-up, with its limits of age.
pub(super) struct Fetched<V> {
    pub(super) value: V,
    /// Time for which the answer is served without a new look-up.
    pub(super) fresh: Duration,
    /// Time for which the answer is served while a new look-up runs.
    pub(super) usable: Duration,
    /// Whether the answer says nothing about the subject itself. An older answer that is still
    /// usable stays then.
    pub(super) transient: bool,
}

/// A value whose size counts against the limit of a cache.
pub(super) trait ByteSize {
    /// Returns the rough bytes that the value holds.
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    fresh_until: Timestamp,
    usable_until: Timestamp,
}

struct Inner<K, V> {
    clock: Clock,
    /// Written under the lock of `in_flight`, so that a purge and an arriving answer are ordered.
    cache: TtlCache<K, Entry<V>>,
    in_flight: SingleFlight<K, V>,
}

/// The look-ups of one kind. Cloning is cheap.
pub(super) struct Lookups<K, V> {
    inner: Arc<Inner<K, V>>,
}

impl<K, V> Clone for Lookups<K, V> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, V> Lookups<K, V>
where
    K: AsRef<str> + Hash + Eq + Clone + Send + Sync + 'static,
    V: ByteSize + Clone + Send + Sync + 'static,
{
    /// Creates a cache of about `bytes`; the answers used least are evicted first. The cache is
    /// divided into parts, and an answer larger than its part is not cached.
    pub(super) fn new(bytes: u64, clock: Clock) -> Self {
        let cache = TtlCache::with_bytes(bytes, weight, clock.clone());
        Self::with_cache(cache, clock)
    }

    /// Creates a cache in one part, for answers of which a single one may take a good share of
    /// `bytes`.
    pub(super) fn undivided(bytes: u64, clock: Clock) -> Self {
        let cache = TtlCache::with_bytes_undivided(bytes, weight, clock.clone());
        Self::with_cache(cache, clock)
    }

    fn with_cache(cache: TtlCache<K, Entry<V>>, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                cache,
                in_flight: SingleFlight::new(MAX_IN_FLIGHT),
            }),
        }
    }

    /// Returns the cached answer, if it is still usable. Does no I/O.
    pub(super) fn cached(&self, key: &K) -> Option<V> {
        self.inner.cache.get(key).map(|entry| entry.value)
    }

    /// Whether a look-up would ask the source, and none is running.
    pub(super) fn would_start(&self, key: &K, freshness: Freshness) -> bool {
        // In this order: an answer is cached before its look-up leaves the table of running ones.
        self.inner.in_flight.running(key).is_none()
            && (freshness == Freshness::Refresh
                || self.inner.cache.get(key).is_none_or(|entry| {
                    let now = self.inner.clock.now();
                    now >= entry.fresh_until
                }))
    }

    /// Answers from the cache, or by `fetch`, which is handed the answer cached so far. The look-up
    /// runs in a task of its own: a caller that goes away takes nothing from the other callers.
    /// Returns `None` when too many look-ups are under way.
    pub(super) async fn look_up<F>(
        &self,
        key: &K,
        freshness: Freshness,
        fetch: impl FnOnce(Option<V>) -> F,
    ) -> Option<V>
    where
        F: Future<Output = Fetched<V>> + Send + 'static,
    {
        if freshness == Freshness::Cached
            && let Some(entry) = self.inner.cache.get(key)
        {
            if self.inner.clock.now() >= entry.fresh_until {
                drop(self.join(key, fetch));
            }
            return Some(entry.value);
        }
        self.join(key, fetch).await
    }

    /// Evicts the answer, and lets no look-up under way bring it back: that look-up still answers
    /// the callers who wait for it, but a later caller starts another one.
    pub(super) fn purge(&self, key: &K) {
        let inner = &self.inner;
        inner.in_flight.detach(key, || inner.cache.remove(key));
    }

    /// Joins the look-up of `key`, started here if there is none.
    fn join<F>(&self, key: &K, fetch: impl FnOnce(Option<V>) -> F) -> Answer<V>
    where
        F: Future<Output = Fetched<V>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let cached = key.clone();
        self.inner.in_flight.join(
            key,
            || {
                // Read here, under the lock: the entry that the caller saw may have been purged
                // since, and a failure must not bring it back.
                let known = self.inner.cache.get(key);
                let fetch = fetch(known.as_ref().map(|entry| entry.value.clone()));
                async move { (fetch.await, known) }
            },
            move |(found, known), is_current| {
                let value = found.value.clone();
                if is_current {
                    inner.store(cached, found, known);
                }
                value
            },
        )
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq,
    V: Clone,
{
    /// Caches what a look-up found, beside the answer `known` when it began.
    fn store(&self, key: K, found: Fetched<V>, known: Option<Entry<V>>) {
        let now = self.clock.now();
        let older = known.filter(|entry| found.transient && now < entry.usable_until);
        let entry = match older {
            // Served on, and looked up again only when the failure's own time is over.
            Some(older) => Entry {
                fresh_until: now.plus(found.fresh),
                ..older
            },
            None => Entry {
                fresh_until: now.plus(found.fresh),
                usable_until: now.plus(found.usable),
                value: found.value,
            },
        };
        let ttl = entry.usable_until.since(now);
        self.cache.insert(key, entry, ttl);
    }
}

/// Rough bytes of an entry.
fn weight<K: AsRef<str>, V: ByteSize>(key: &K, entry: &Entry<V>) -> u64 {
    (ENTRY_BYTES + key.as_ref().len() + entry.value.bytes()) as u64
}

#[cfg(test)]
mod tests;
