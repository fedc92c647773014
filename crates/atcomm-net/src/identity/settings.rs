//! Settings of identities.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use atcomm_proto::syntax::Origin;

/// Where identities are looked up, and how long answers are cached. The default is right for the
/// public network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// The PLC directory, an origin without a path. Absent: `https://plc.directory`.
    pub plc_url: Origin,
    /// Look-ups per minute at the PLC directory for all clients together, and how many of them at
    /// once after a pause. Look-ups for events and re-proofs are not counted. The public directory
    /// allows about 100. At least 1. Absent: 60.
    pub plc_rate: u32,
    /// Age up to which an account's document is served without a look-up. Absent: 1 h.
    #[serde(with = "humantime_serde")]
    pub document_fresh: Duration,
    /// Age up to which documents are served while a look-up runs in the background. Absent: 24 h.
    #[serde(with = "humantime_serde")]
    pub hard_limit: Duration,
    /// Time for which the failure of a look-up is cached. Absent: 2 min.
    #[serde(with = "humantime_serde")]
    pub error_ttl: Duration,
    /// Time for which the DID of a handle is cached for clients. A rename is seen after this time
    /// at the latest, and at once where an `#identity` event announced it. Absent: 1 min.
    #[serde(with = "humantime_serde")]
    pub handle_ttl: Duration,
    /// Time for which a handle without an account is cached as such. Absent: 5 min.
    #[serde(with = "humantime_serde")]
    pub handle_invalid_ttl: Duration,
    /// Age at which a mediator is checked again. Absent: 1 h.
    #[serde(with = "humantime_serde")]
    pub mediator_fresh: Duration,
    /// Cache of accounts' documents, in bytes; one takes about 400. Absent: 32 MiB.
    pub document_cache: u64,
    /// Cache of handles, in bytes; one takes about 250. Absent: 8 MiB.
    pub handle_cache: u64,
    /// Cache of mediators, in bytes; one takes about 1 KiB. Absent: 8 MiB.
    pub mediator_cache: u64,
    /// Cache of accounts' PLC operation logs, in bytes; one takes about 3 KiB and at most 1 MiB.
    /// Absent: 8 MiB.
    pub plc_log_cache: u64,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        const MINUTE: Duration = Duration::from_secs(60);
        #[expect(clippy::expect_used, reason = "a constant; read by a test")]
        let plc_url = Origin::parse("https://plc.directory").expect("an origin");
        Self {
            plc_url,
            plc_rate: 60,
            document_fresh: HOUR,
            hard_limit: 24 * HOUR,
            error_ttl: 2 * MINUTE,
            handle_ttl: MINUTE,
            handle_invalid_ttl: 5 * MINUTE,
            mediator_fresh: HOUR,
            document_cache: 32 << 20,
            handle_cache: 8 << 20,
            mediator_cache: 8 << 20,
            plc_log_cache: 8 << 20,
        }
    }
}
