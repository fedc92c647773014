//! A bounded cache whose entries end after a time to live, measured by the injected clock.

use std::hash::Hash;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};

use atcomm_proto::clock::{Clock, Timestamp};

/// Bytes assumed per entry when the index of a cache bounded in bytes is first allocated.
const EXPECTED_ENTRY_BYTES: u64 = 512;

/// Most entries that the index is first allocated for.
const MAX_EXPECTED_ENTRIES: usize = 1 << 20;

/// A cache bounded in entries or in bytes; the entries used least are evicted first. Safe to use
/// concurrently.
pub struct TtlCache<K, V> {
    clock: Clock,
    entries: Cache<K, Entry<V>, EntryWeight<K, V>>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    stored_at: Timestamp,
    ttl: Duration,
}

impl<V> Entry<V> {
    /// An entry from the future is over, too: a clock that was set back must not lengthen a life.
    fn is_alive(&self, now: Timestamp) -> bool {
        self.stored_at <= now && now < self.stored_at.plus(self.ttl)
    }
}

/// What one entry counts against the bound.
struct EntryWeight<K, V>(fn(&K, &V) -> u64);

impl<K, V> Clone for EntryWeight<K, V> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<K, V> Weighter<K, Entry<V>> for EntryWeight<K, V> {
    fn weight(&self, key: &K, entry: &Entry<V>) -> u64 {
        (self.0)(key, &entry.value)
    }
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    /// Creates a cache of at most `max` entries.
    pub fn with_entries(max: usize, clock: Clock) -> Self {
        Self {
            clock,
            entries: Cache::with_weighter(max, max as u64, EntryWeight(|_, _| 1)),
        }
    }

    /// Creates a cache of at most `max` bytes as counted by `weight`. The cache is divided into
    /// parts, one lock each; a value larger than its part is not stored.
    pub fn with_bytes(max: u64, weight: fn(&K, &V) -> u64, clock: Clock) -> Self {
        Self {
            clock,
            entries: Cache::with_weighter(expected_entries(max), max, EntryWeight(weight)),
        }
    }

    /// Creates a cache like [`TtlCache::with_bytes`] in one part, for values of which a single one
    /// may take a good share of `max`.
    pub fn with_bytes_undivided(max: u64, weight: fn(&K, &V) -> u64, clock: Clock) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(expected_entries(max))
            .weight_capacity(max)
            .shards(1)
            .build();
        match options {
            Ok(options) => Self {
                clock,
                entries: Cache::with_options(
                    options,
                    EntryWeight(weight),
                    DefaultHashBuilder::default(),
                    DefaultLifecycle::default(),
                ),
            },
            // Only missing options are refused.
            Err(_) => Self::with_bytes(max, weight, clock),
        }
    }

    /// Returns the value stored under `key`, unless its time to live is over.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let entry = self.entries.get(key)?;
        entry.is_alive(self.clock.now()).then_some(entry.value)
    }

    /// Stores `value` for `ttl`, in place of an earlier value.
    pub fn insert(&self, key: K, value: V, ttl: Duration) {
        let entry = Entry {
            value,
            stored_at: self.clock.now(),
            ttl,
        };
        self.entries.insert(key, entry);
    }

    /// Evicts the value stored under `key`.
    pub fn remove<Q>(&self, key: &Q)
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.entries.remove(key);
    }

    /// Returns the weight of all entries, never more than the bound.
    pub fn weight(&self) -> u64 {
        self.entries.weight()
    }
}

fn expected_entries(bytes: u64) -> usize {
    usize::try_from(bytes / EXPECTED_ENTRY_BYTES)
        .unwrap_or(MAX_EXPECTED_ENTRIES)
        .min(MAX_EXPECTED_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_millis(1_800_000_000_000))
    }

    #[test]
    fn an_entry_ends_with_its_own_time_to_live() {
        let clock = clock();
        let cache = TtlCache::with_entries(100, clock.clone());
        cache.insert("short", 1, MINUTE);
        cache.insert("long", 2, 2 * MINUTE);
        clock.advance(MINUTE - Duration::from_millis(1));
        assert_eq!((cache.get("short"), cache.get("long")), (Some(1), Some(2)));
        clock.advance(Duration::from_millis(1));
        assert_eq!((cache.get("short"), cache.get("long")), (None, Some(2)));
        cache.insert("short", 3, MINUTE);
        clock.advance(MINUTE - Duration::from_millis(1));
        assert_eq!((cache.get("short"), cache.get("long")), (Some(3), Some(2)));
        clock.advance(Duration::from_millis(1));
        assert_eq!((cache.get("short"), cache.get("long")), (None, None));
        cache.insert("long", 4, MINUTE);
        cache.remove("long");
        assert_eq!(cache.get("long"), None);
    }

    #[test]
    fn a_clock_set_back_does_not_lengthen_a_life() {
        let stored_at = clock().now();
        let entry = Entry {
            value: (),
            stored_at,
            ttl: MINUTE,
        };
        assert!(entry.is_alive(stored_at));
        assert!(!entry.is_alive(stored_at.minus(Duration::from_millis(1))));
        assert!(!entry.is_alive(stored_at.plus(MINUTE)));
    }

    #[test]
    fn inv7_entries_and_bytes_are_bounded() {
        let entries = TtlCache::with_entries(100, clock());
        let bytes = TtlCache::with_bytes(64 << 10, |_, text: &String| text.len() as u64, clock());
        for i in 0..1000 {
            entries.insert(i, (), MINUTE);
            bytes.insert(i, "x".repeat(1000), MINUTE);
        }
        assert!(entries.weight() <= 100);
        assert!(bytes.weight() <= 64 << 10);
        assert!((0..1000).any(|i| entries.get(&i).is_some()));
        assert!((0..1000).any(|i| bytes.get(&i).is_some()));
    }

    #[test]
    fn an_undivided_cache_stores_a_large_value() {
        let cache =
            TtlCache::with_bytes_undivided(1 << 20, |_, text: &String| text.len() as u64, clock());
        for i in 0..10 {
            cache.insert(i, "x".repeat(800_000), MINUTE);
            assert!(cache.get(&i).is_some(), "{i}");
            assert!(cache.weight() <= 1 << 20);
        }
    }
}
