//! Operation logs of `did:plc` accounts, verified. A log proves an account's signing key without
//! trust in a directory.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use url::Url;

use super::lookups::{ByteSize, Fetched};
use super::settings::IdentitySettings;
use crate::net::{Net, NetError, Priority, Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::plc::{self, LogError, MAX_LOG_LEN, State, VerifiedLog};
use atcomm_proto::syntax::Did;

/// Errors of looking up an account's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlcLogError {
    /// The directory has none.
    #[error("the PLC directory has no log of the account")]
    NotFound,
    /// The directory's answer is not the account's log.
    #[error(transparent)]
    Invalid(#[from] LogError),
    /// No answer came. A later look-up may succeed.
    #[error("the PLC directory gives no log now")]
    Unreachable {
        /// The time until a new attempt makes sense, where it is known.
        retry_after: Option<Duration>,
    },
}

/// An account's log, verified, and in the form for other verifiers.
#[derive(Debug)]
pub struct PlcLog {
    verified: VerifiedLog,
    entries: Box<RawValue>,
    asked_at: Timestamp,
}

impl PlcLog {
    /// Returns the verified log.
    pub fn verified(&self) -> &VerifiedLog {
        &self.verified
    }

    /// Returns the log for another verifier: a JSON array of `{cid, createdAt, nullified,
    /// operation}`, at most [`MAX_LOG_LEN`] bytes.
    pub fn entries(&self) -> &RawValue {
        &self.entries
    }

    /// Returns the time at which the directory was asked.
    pub fn asked_at(&self) -> Timestamp {
        self.asked_at
    }

    /// Verifies a log as the directory serves it: a JSON array of entries.
    ///
    /// # Errors
    ///
    /// [`PlcLogError::Invalid`] where the log does not show the account's keys.
    pub fn read(did: &Did, body: &[u8], asked_at: Timestamp) -> Result<Self, PlcLogError> {
        let verified = plc::verify(did, body)?;
        let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|_| LogError::NotALog)?;
        let entries = to_raw_value(&entries).map_err(|_| LogError::NotALog)?;
        // Other verifiers have the same limit.
        if entries.get().len() > MAX_LOG_LEN {
            return Err(LogError::TooLong.into());
        }
        Ok(Self {
            verified,
            entries,
            asked_at,
        })
    }
}

/// An entry for another verifier: without unverified members, and each member of an operation once,
/// so that all readers read the same.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    cid: String,
    created_at: String,
    nullified: bool,
    operation: Map<String, Value>,
}

/// Fetches the log from the PLC directory and verifies it. Not cached.
pub(super) async fn fetch(
    net: &Net,
    settings: &IdentitySettings,
    clock: &Clock,
    did: &Did,
    priority: Priority,
) -> Result<PlcLog, PlcLogError> {
    if did.web().is_some() {
        return Err(LogError::NotPlc.into());
    }
    let result = ask(net, settings, clock, did, priority).await;
    let outcome = match &result {
        Ok(_) => "ok",
        Err(PlcLogError::NotFound) => "not_found",
        Err(PlcLogError::Invalid(_)) => "invalid",
        Err(PlcLogError::Unreachable { .. }) => "unreachable",
    };
    metrics::counter!("atcomm_identity_plc_logs_total", "outcome" => outcome).increment(1);
    result
}

async fn ask(
    net: &Net,
    settings: &IdentitySettings,
    clock: &Clock,
    did: &Did,
    priority: Priority,
) -> Result<PlcLog, PlcLogError> {
    let unreachable = |retry_after| PlcLogError::Unreachable { retry_after };
    let url = format!("{}/{did}/log/audit", settings.plc_url);
    let url = Url::parse(&url).map_err(|_| PlcLogError::NotFound)?;
    let request = Request {
        priority,
        ..Request::new(url, Trust::Configured, MAX_LOG_LEN)
    };
    let asked_at = clock.now();
    let answer = match net.get(&request).await {
        Ok(answer) => answer,
        Err(NetError::TooLarge { .. }) => return Err(LogError::TooLong.into()),
        Err(error) => return Err(unreachable(error.retry_after())),
    };
    match answer.status.as_u16() {
        200 => {}
        404 | 410 => return Err(PlcLogError::NotFound),
        _ => return Err(unreachable(answer.retry_after)),
    }
    let (did, body) = (did.clone(), answer.body);
    // The longest log takes as much time as hundreds of proofs.
    tokio::task::spawn_blocking(move || PlcLog::read(&did, &body, asked_at))
        .await
        .map_err(|error| {
            tracing::error!(%error, "reading an operation log failed");
            unreachable(None)
        })?
}

impl IdentitySettings {
    /// Adds the limits of age to the result of fetching a log.
    pub(super) fn plc_logs_age(
        &self,
        value: Result<Arc<PlcLog>, PlcLogError>,
    ) -> Fetched<Result<Arc<PlcLog>, PlcLogError>> {
        let ttl = match &value {
            // Nothing in a log becomes untrue. A log that has become too short is purged by an
            // event, or noticed by the comparison with the account's present key.
            Ok(_) => self.hard_limit,
            Err(PlcLogError::Unreachable {
                retry_after: Some(wait),
            }) => self.error_ttl.min(*wait),
            Err(_) => self.error_ttl,
        };
        Fetched {
            value,
            fresh: ttl,
            usable: ttl,
            // A caller refreshes a cached log because it is too short. A failure replaces the log,
            // so that the next callers do not ask again.
            transient: false,
        }
    }
}

impl ByteSize for Result<Arc<PlcLog>, PlcLogError> {
    fn bytes(&self) -> usize {
        // The texts of a state are about as long as its shortest form.
        self.as_ref().map_or(0, |log| {
            log.entries.get().len() + log.verified.states().len() * (size_of::<State>() + 256)
        })
    }
}
