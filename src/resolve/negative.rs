//! A cache of refreshes that found no package, for clients that ask again.

use std::time::Duration;

use super::RefreshOutcome;
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Did;

/// Limit of the cache in bytes, including proofs of absence.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of a cached result without its proof.
const OVERHEAD: usize = 512;

/// The cache. An evicted result costs another refresh.
pub(super) struct Negatives {
    ttl: Duration,
    by_did: TtlCache<Did, RefreshOutcome>,
}

impl Negatives {
    pub(super) fn new(ttl: Duration, clock: Clock) -> Self {
        let weight = |_: &Did, refreshed: &RefreshOutcome| {
            let proof = refreshed.car.as_ref().map_or(0, bytes::Bytes::len);
            (proof + OVERHEAD) as u64
        };
        // A single proof of absence may be large.
        let by_did = TtlCache::with_bytes_undivided(MAX_BYTES, weight, clock);
        Self { ttl, by_did }
    }

    pub(super) fn get(&self, did: &Did) -> Option<RefreshOutcome> {
        self.by_did.get(did)
    }

    pub(super) fn insert(&self, did: &Did, refreshed: &RefreshOutcome) {
        self.by_did.insert(did.clone(), refreshed.clone(), self.ttl);
    }

    pub(super) fn evict(&self, did: &Did) {
        self.by_did.remove(did);
    }
}
