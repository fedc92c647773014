//! The set of accounts that have an entry, without a question to the store.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::{PoisonError, RwLock};

/// Hashes of DIDs, 64 bits under a random key: a collision costs one refresh too many.
///
/// The set changes inside the store's transactions, which run one after the other, so two changes
/// of one account cannot be recorded in the wrong order. After a failed transaction the set may
/// contain DIDs without an entry; it never misses one that has an entry (see the callers of
/// [`EnrolledSet::insert`]).
#[derive(Default)]
pub(super) struct EnrolledSet {
    hashes: RwLock<HashSet<u64, BuildHasherDefault<Hashed>>>,
    hasher: RandomState,
}

/// Hashes a number to itself: those of the set are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

impl EnrolledSet {
    /// Inserts all DIDs that `each` calls its argument with.
    pub(super) fn fill<R>(&self, each: impl FnOnce(&mut dyn FnMut(&str)) -> R) -> R {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        each(&mut |did| {
            hashes.insert(self.hasher.hash_one(did));
        })
    }

    pub(super) fn contains(&self, did: &str) -> bool {
        let hash = self.hasher.hash_one(did);
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        hashes.contains(&hash)
    }

    pub(super) fn insert(&self, did: &str) {
        let hash = self.hasher.hash_one(did);
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(hash);
    }

    pub(super) fn remove(&self, did: &str) {
        let hash = self.hasher.hash_one(did);
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.remove(&hash);
    }

    pub(super) fn len(&self) -> usize {
        self.hashes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}
