//! A cache of refreshes that found no package, for clients that ask again.

use std::time::Duration;

use moka::sync::Cache;

use super::RefreshOutcome;
use atcomm_proto::syntax::Did;

/// Limit of the cache in bytes, including proofs of absence.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of a cached result without its proof.
const OVERHEAD: usize = 512;

/// The cache. An evicted result costs another refresh.
pub(super) struct Negatives {
    by_did: Cache<Did, RefreshOutcome>,
}

impl Negatives {
    pub(super) fn new(ttl: Duration) -> Self {
        let by_did = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, refreshed: &RefreshOutcome| {
                let proof = refreshed.car.as_ref().map_or(0, bytes::Bytes::len);
                u32::try_from(proof + OVERHEAD).unwrap_or(u32::MAX)
            })
            .time_to_live(ttl)
            .build();
        Self { by_did }
    }

    pub(super) fn get(&self, did: &Did) -> Option<RefreshOutcome> {
        self.by_did.get(did)
    }

    pub(super) fn insert(&self, did: &Did, refreshed: &RefreshOutcome) {
        self.by_did.insert(did.clone(), refreshed.clone());
    }

    pub(super) fn evict(&self, did: &Did) {
        self.by_did.invalidate(did);
    }
}
