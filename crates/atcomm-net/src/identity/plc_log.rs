//! Operation logs of `did:plc` accounts, verified: what shows an account's signing key without
//! trust in any directory.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use url::Url;

use super::lookups::{Bytes, Found};
use super::{IdentitySettings, Inner};
use crate::net::{NetError, Priority, Request, Trust};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::plc::{self, LogError, MAX_LOG_LEN, State, VerifiedLog};
use atcomm_proto::syntax::Did;

/// Why an account's log cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlcLogError {
    /// The directory knows of none.
    #[error("the PLC directory has no log of the account")]
    NotFound,
    /// What the directory gave is not the account's log.
    #[error(transparent)]
    Invalid(#[from] LogError),
    /// No answer; a later one may come.
    #[error("the PLC directory gives no log now")]
    Unreachable {
        /// When a new attempt makes sense, where that is known.
        retry_after: Option<Duration>,
    },
}

/// An account's log, as it was verified and as it is passed on.
#[derive(Debug)]
pub struct PlcLog {
    verified: VerifiedLog,
    entries: Box<RawValue>,
    asked_at: Timestamp,
}

impl PlcLog {
    /// What the log shows.
    pub fn verified(&self) -> &VerifiedLog {
        &self.verified
    }

    /// The log itself, for who verifies it again: a JSON array of `{cid, createdAt, nullified,
    /// operation}`, at most [`MAX_LOG_LEN`] bytes.
    pub fn entries(&self) -> &RawValue {
        &self.entries
    }

    /// When the directory was asked for it.
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
        // What is passed on must fit whoever reads it with the same limit.
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

/// An entry as it is passed on: without members that nobody verified, and each operation with
/// its members once, so that no two readers read it differently.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    cid: String,
    created_at: String,
    nullified: bool,
    operation: Map<String, Value>,
}

/// Asks the PLC directory for the log and verifies it. Not cached.
pub(super) async fn fetch(
    inner: &Inner,
    did: &Did,
    priority: Priority,
) -> Result<PlcLog, PlcLogError> {
    if did.web().is_some() {
        return Err(LogError::NotPlc.into());
    }
    let result = ask(inner, did, priority).await;
    let outcome = match &result {
        Ok(_) => "ok",
        Err(PlcLogError::NotFound) => "not_found",
        Err(PlcLogError::Invalid(_)) => "invalid",
        Err(PlcLogError::Unreachable { .. }) => "unreachable",
    };
    metrics::counter!("atcomm_identity_plc_logs_total", "outcome" => outcome).increment(1);
    result
}

async fn ask(inner: &Inner, did: &Did, priority: Priority) -> Result<PlcLog, PlcLogError> {
    let unreachable = |retry_after| PlcLogError::Unreachable { retry_after };
    let url = format!("{}/{did}/log/audit", inner.settings.plc_url);
    let url = Url::parse(&url).map_err(|_| PlcLogError::NotFound)?;
    let request = Request {
        priority,
        ..Request::new(url, Trust::Configured, MAX_LOG_LEN)
    };
    let asked_at = inner.clock.now();
    let answer = match inner.net.get(&request).await {
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
    // A log as long as may be takes as much time as hundreds of proofs.
    tokio::task::spawn_blocking(move || PlcLog::read(&did, &body, asked_at))
        .await
        .map_err(|error| {
            tracing::error!(%error, "reading an operation log failed");
            unreachable(None)
        })?
}

impl IdentitySettings {
    pub(super) fn plc_logs_age(
        &self,
        value: Result<Arc<PlcLog>, PlcLogError>,
    ) -> Found<Result<Arc<PlcLog>, PlcLogError>> {
        let ttl = match &value {
            // Nothing in a log becomes untrue; one that has become too short is purged by an
            // event, or found out by who compares it with the account's present key.
            Ok(_) => self.hard_limit,
            Err(PlcLogError::Unreachable {
                retry_after: Some(wait),
            }) => self.error_ttl.min(*wait),
            Err(_) => self.error_ttl,
        };
        Found {
            value,
            fresh: ttl,
            usable: ttl,
            // Whoever asks while a log is known finds it too short: a failure takes its place, so
            // that the next ones do not ask again.
            transient: false,
        }
    }
}

impl Bytes for Result<Arc<PlcLog>, PlcLogError> {
    fn bytes(&self) -> usize {
        // A state's own texts are about as long as its shortest form.
        self.as_ref().map_or(0, |log| {
            log.entries.get().len() + log.verified.states().len() * (size_of::<State>() + 256)
        })
    }
}
