//! Look-ups of one kind: cached, refreshed behind the asker's back, and made once for all who ask
//! at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::oneshot;

use atcomm_proto::clock::{Clock, Timestamp};

/// Look-ups of one kind under way. A new one beyond it is turned away; joining one is free.
const MAX_FLIGHTS: usize = 1024;

/// Rough bytes of one entry besides its key and what its value holds elsewhere.
const ENTRY_BYTES: usize = 160;

/// Whether an answer that is known already will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A known answer within its limits of age.
    Cached,
    /// A new answer. A look-up under way is joined: purge first to exclude an answer that was
    /// asked for before.
    Refresh,
}

/// An answer with its limits of age.
pub(super) struct Found<V> {
    pub(super) value: V,
    /// For this long it is served as it is.
    pub(super) fresh: Duration,
    /// For this long it is served while a new look-up runs.
    pub(super) usable: Duration,
    /// Says nothing about the subject itself, so an older answer that is still usable stays.
    pub(super) transient: bool,
}

/// What the byte limit of a cache counts.
pub(super) trait Bytes {
    /// Rough bytes that the value holds.
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    fresh_until: Timestamp,
    usable_until: Timestamp,
}

#[derive(Clone)]
struct Scale;

impl<K: AsRef<str>, V: Bytes> Weighter<K, Entry<V>> for Scale {
    fn weight(&self, key: &K, entry: &Entry<V>) -> u64 {
        (ENTRY_BYTES + key.as_ref().len() + entry.value.bytes()) as u64
    }
}

struct Flight<V> {
    id: u64,
    answer: Shared<BoxFuture<'static, Option<V>>>,
}

struct Flights<K, V> {
    by_key: HashMap<K, Flight<V>>,
    started: u64,
}

struct Inner<K, V> {
    clock: Clock,
    cache: Cache<K, Entry<V>, Scale>,
    /// Also held while the cache is written, so that a purge and a landing answer have an order.
    flights: Mutex<Flights<K, V>>,
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
    V: Bytes + Clone + Send + Sync + 'static,
{
    /// Remembers answers up to about `bytes`; the least used go first. The memory is divided into
    /// parts, and an answer larger than one is not remembered.
    pub(super) fn new(bytes: u64, clock: Clock) -> Self {
        Self::of(Cache::with_weighter(items_in(bytes), bytes, Scale), clock)
    }

    /// The same in one part, for answers of which one may take a good deal of `bytes`.
    pub(super) fn undivided(bytes: u64, clock: Clock) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items_in(bytes))
            .weight_capacity(bytes)
            .shards(1)
            .build();
        Self::of(
            match options {
                Ok(options) => Cache::with_options(
                    options,
                    Scale,
                    DefaultHashBuilder::default(),
                    DefaultLifecycle::default(),
                ),
                // Only options that are missing are refused.
                Err(_) => Cache::with_weighter(items_in(bytes), bytes, Scale),
            },
            clock,
        )
    }

    fn of(cache: Cache<K, Entry<V>, Scale>, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                cache,
                flights: Mutex::new(Flights {
                    by_key: HashMap::new(),
                    started: 0,
                }),
            }),
        }
    }

    /// The known answer, if it is still usable. No I/O.
    pub(super) fn known(&self, key: &K) -> Option<V> {
        let now = self.inner.clock.now();
        self.inner.usable(key, now).map(|entry| entry.value)
    }

    /// Whether such a look-up would ask the source, and is not under way.
    pub(super) fn would_start(&self, key: &K, freshness: Freshness) -> bool {
        let now = self.inner.clock.now();
        let is_fresh = |entry: &Entry<V>| now < entry.fresh_until;
        let flights = self.inner.lock();
        let known = self.inner.usable(key, now).filter(is_fresh);
        !flights.by_key.contains_key(key) && (freshness == Freshness::Refresh || known.is_none())
    }

    /// Answers from what is known, or by `fetch`, which is handed the answer known so far. The
    /// look-up runs in a task of its own: a caller that goes away takes nothing from the others.
    /// `None` when too many look-ups are under way.
    pub(super) async fn look_up<F>(
        &self,
        key: &K,
        freshness: Freshness,
        fetch: impl FnOnce(Option<V>) -> F,
    ) -> Option<V>
    where
        F: Future<Output = Found<V>> + Send + 'static,
    {
        let now = self.inner.clock.now();
        let known = self.inner.usable(key, now);
        if let Some(entry) = known.filter(|_| freshness == Freshness::Cached) {
            if now >= entry.fresh_until {
                self.join(key, fetch);
            }
            return Some(entry.value);
        }
        self.join(key, fetch)?.await
    }

    /// Forgets the answer, and lets no look-up under way bring it back: it still answers those who
    /// wait for it, but whoever asks from now on starts another.
    pub(super) fn purge(&self, key: &K) {
        let mut flights = self.inner.lock();
        flights.by_key.remove(key);
        self.inner.cache.remove(key);
    }

    /// Joins the flight for `key`, started here if there is none.
    fn join<F>(
        &self,
        key: &K,
        fetch: impl FnOnce(Option<V>) -> F,
    ) -> Option<Shared<BoxFuture<'static, Option<V>>>>
    where
        F: Future<Output = Found<V>> + Send + 'static,
    {
        let mut flights = self.inner.lock();
        if let Some(flight) = flights.by_key.get(key) {
            return Some(flight.answer.clone());
        }
        if flights.by_key.len() >= MAX_FLIGHTS {
            return None;
        }
        flights.started += 1;
        let id = flights.started;
        let landing = Landing {
            inner: Arc::clone(&self.inner),
            key: key.clone(),
            id,
        };
        // Read under the lock: what the caller saw may have been purged since, and a failure must
        // not bring it back.
        let known = self.inner.usable(key, self.inner.clock.now());
        let (tell, told) = oneshot::channel();
        let fetch = fetch(known.as_ref().map(|entry| entry.value.clone()));
        tokio::spawn(async move {
            let found = fetch.await;
            let value = found.value.clone();
            landing.land(found, known);
            // Nobody may be waiting any more.
            let _ = tell.send(value);
        });
        let answer = told.map(Result::ok).boxed().shared();
        flights.by_key.insert(
            key.clone(),
            Flight {
                id,
                answer: answer.clone(),
            },
        );
        Some(answer)
    }
}

impl<K, V> Inner<K, V>
where
    K: AsRef<str> + Hash + Eq + Clone,
    V: Bytes + Clone,
{
    fn usable(&self, key: &K, now: Timestamp) -> Option<Entry<V>> {
        let entry = self.cache.get(key)?;
        (now < entry.usable_until).then_some(entry)
    }
}

impl<K, V> Inner<K, V> {
    fn lock(&self) -> MutexGuard<'_, Flights<K, V>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight, also one whose task was dropped half-way.
struct Landing<K: Hash + Eq, V> {
    inner: Arc<Inner<K, V>>,
    key: K,
    id: u64,
}

impl<K, V> Landing<K, V>
where
    K: AsRef<str> + Hash + Eq + Clone,
    V: Bytes + Clone,
{
    fn land(self, found: Found<V>, known: Option<Entry<V>>) {
        let now = self.inner.clock.now();
        let flights = self.inner.lock();
        if !is_current(&flights, &self.key, self.id) {
            return;
        }
        let older = known.filter(|entry| found.transient && now < entry.usable_until);
        let entry = match older {
            // Served on, and asked about again only when the failure's own time is over.
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
        self.inner.cache.insert(self.key.clone(), entry);
        // Still under the lock: dropping `self` takes it again to remove the flight.
        drop(flights);
    }
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = self.inner.lock();
        if is_current(&flights, &self.key, self.id) {
            flights.by_key.remove(&self.key);
        }
    }
}

/// What sizes a cache's index only: entries of half a kilobyte.
fn items_in(bytes: u64) -> usize {
    usize::try_from(bytes / 512).map_or(1 << 20, |items| items.min(1 << 20))
}

fn is_current<K: Hash + Eq, V>(flights: &Flights<K, V>, key: &K, id: u64) -> bool {
    flights
        .by_key
        .get(key)
        .is_some_and(|flight| flight.id == id)
}

#[cfg(test)]
mod tests;
