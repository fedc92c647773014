//! Access to the network and to the disk for everything that knows other servers only by what they
//! say of themselves: guarded outbound HTTP, WebSockets and DNS; DID documents, handles and
//! records of accounts, cached; private files that survive a crash; back-off and random numbers.
//!
//! Hosts named by the network are dialled only at addresses that pass the policy of [`net`] when the
//! connection is made. Every answer, cache and wait is bounded.
//!
//! # Modules by rank
//!
//! A module imports only modules of lower rank (`tests/structure` of the program checks).
//!
//! | rank | module | holds |
//! |---|---|---|
//! | 0 | [`backoff`], [`rate_limit`], [`single_flight`], [`ttl_cache`] | waits between attempts; token buckets; one task per key, shared by its callers; entries with a time to live |
//! | 0 | [`durable`] | private files that survive a crash, and the secrets in them |
//! | 1 | [`net`] | the only place that dials out; errors of XRPC read once |
//! | 2 | [`identity`] | DID documents, handles, mediators and `getRecord` of a PDS |

// 0
pub mod backoff;
pub mod durable;
pub mod rate_limit;
pub mod single_flight;
pub mod ttl_cache;
// 1
pub mod net;
// 2
pub mod identity;

#[cfg(test)]
extern crate self as atcomm_net;
#[cfg(test)]
#[path = "../../testkit/src/net/mod.rs"]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the same source as in testkit, compiled against the crate under test"
)]
mod testing;
