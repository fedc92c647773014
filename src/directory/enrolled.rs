//! Which accounts have an entry, without a question to the store.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{PoisonError, RwLock};

/// Hashes of DIDs, 64 bits under a random key: a collision costs one look too many.
///
/// Written inside the store's transactions, which follow each other, so that two changes of one
/// account cannot be noted in the wrong order. A transaction that fails afterwards may leave an
/// account here that has no entry, never the reverse (see [`EnrolledSet::insert`]'s callers).
#[derive(Default)]
pub(super) struct EnrolledSet {
    hashes: RwLock<HashSet<u64>>,
    hasher: RandomState,
}

impl EnrolledSet {
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
