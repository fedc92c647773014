//! Mediators: their documents, and whether their endpoints answer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::fetch::web_url;
use super::lookups::{ByteSize, Fetched};
use super::settings::IdentitySettings;
use crate::net::{Net, NetError, Priority, Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp, serde::rfc3339_option};
use atcomm_proto::didcomm::party::KeyAgreement;
use atcomm_proto::syntax::{MediatorDid, Origin, RemoteText, WebDid};

mod document;

pub use document::Service;

/// Longest document of a mediator, in bytes.
const MAX_DOCUMENT_LEN: usize = 64 * 1024;

/// Time limit for an answer of the endpoint.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest body read of the endpoint's answer, in bytes. The content does not matter.
const PROBE_CAP: usize = 4096;

/// Time for which the keys of an earlier document are used while a new one cannot be fetched.
const KEYS_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The state of a mediator, in the form of the recipient view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediatorDocument {
    /// The mediator.
    pub did: MediatorDid,
    /// Whether the mediator can be used now.
    pub state: MediatorState,
    /// When the state was determined; absent before the first check.
    #[serde(
        default,
        with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub checked_at: Option<Timestamp>,
    /// Why the mediator is not reachable, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RemoteText>,
    /// X25519 and P-256 keys to encrypt forwards to, in the document's order.
    #[serde(default)]
    pub key_agreement: Vec<KeyAgreement>,
    /// Endpoints of type `DIDCommMessaging`, in the document's order.
    #[serde(default)]
    pub services: Vec<Service>,
    /// When keys and services were read. Earlier than `checked_at` where the document could not be
    /// fetched again. Not part of the view; stored by [`MediatorDocument::to_stored`].
    #[serde(skip)]
    resolved_at: Option<Timestamp>,
}

/// The form in which a document is stored: the view's form, and the age of the keys.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<D> {
    #[serde(flatten)]
    document: D,
    #[serde(
        default,
        with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    resolved_at: Option<Timestamp>,
}

/// Our own limits or a `Retry-After` of the host prevented the check. The earlier state of the
/// mediator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mediator must not be looked at for another {retry_after:?}")]
pub struct Busy {
    /// The time until a new attempt makes sense.
    pub retry_after: Duration,
}

/// Whether a mediator can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediatorState {
    /// The document has a usable key and endpoint, and the endpoint answered.
    Reachable,
    /// The document has both, now or within the last day, but the endpoint did not answer.
    Unreachable,
    /// The document cannot be fetched, or has no usable key or no endpoint.
    Unresolved,
    /// Not a `did:web`.
    Unsupported,
    /// Not checked, or the endpoint is of a kind that cannot be asked.
    Unchecked,
}

impl MediatorDocument {
    /// Returns the document of a mediator that was not checked.
    pub fn unchecked(did: MediatorDid) -> Self {
        Self::in_state(did, MediatorState::Unchecked, None)
    }

    pub(super) fn unsupported(did: MediatorDid) -> Self {
        Self::in_state(did, MediatorState::Unsupported, None)
    }

    /// Returns the document with the keys and services of `body`, which the program that is the
    /// mediator has made at `now`. Returns `None` where `body` is not the mediator's DID document.
    pub fn made_here(self, body: &[u8], development: bool, now: Timestamp) -> Option<Self> {
        let (key_agreement, services) =
            document::read(body, self.did.as_str(), development).ok()?;
        Some(Self {
            key_agreement,
            services,
            resolved_at: Some(now),
            ..self
        })
    }

    /// Returns the JSON to store: the view's form with `resolvedAt`, so that the keys stay usable
    /// after a restart.
    pub fn to_stored(&self) -> String {
        let stored = Stored {
            document: self,
            resolved_at: self.resolved_at,
        };
        #[expect(clippy::expect_used, reason = "texts and lists under constant names")]
        serde_json::to_string(&stored).expect("a document is JSON")
    }

    /// Reads the JSON of [`MediatorDocument::to_stored`]. Also reads the view's form, as a document
    /// whose keys are of unknown age. Returns `None` for anything else.
    pub fn from_stored(json: &str) -> Option<Self> {
        let stored: Stored<Self> = serde_json::from_str(json).ok()?;
        Some(Self {
            resolved_at: stored.resolved_at,
            ..stored.document
        })
    }

    /// Returns the time of the latest check or fetch.
    fn as_of(&self) -> Option<Timestamp> {
        self.checked_at.max(self.resolved_at)
    }

    fn in_state(did: MediatorDid, state: MediatorState, checked_at: Option<Timestamp>) -> Self {
        Self {
            did,
            state,
            checked_at,
            reason: None,
            key_agreement: Vec::new(),
            services: Vec::new(),
            resolved_at: None,
        }
    }
}

impl ByteSize for Result<Arc<MediatorDocument>, Busy> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |document| document.bytes())
    }
}

impl MediatorDocument {
    fn bytes(&self) -> usize {
        let keys = self
            .key_agreement
            .iter()
            .map(|k| k.id.len() + 160)
            .sum::<usize>();
        let lists = self
            .services
            .iter()
            .flat_map(|s| [&s.accept, &s.routing_keys].into_iter().flatten())
            .map(|s| s.len() + 32)
            .sum::<usize>();
        let services = self
            .services
            .iter()
            .map(|s| s.uri.len() + 96)
            .sum::<usize>();
        512 + self.did.as_str().len() + keys + services + lists
    }
}

/// Returns the later one of the cached document and the document that the caller has stored.
pub(super) fn later(
    cached: Option<Arc<MediatorDocument>>,
    stored: Option<MediatorDocument>,
) -> Option<Arc<MediatorDocument>> {
    match (cached, stored) {
        (Some(cached), Some(stored)) if stored.as_of() > cached.as_of() => Some(Arc::new(stored)),
        (Some(cached), _) => Some(cached),
        (None, stored) => stored.map(Arc::new),
    }
}

/// Checks a mediator. `known` is its earlier document.
pub(super) async fn check(
    net: &Net,
    settings: &IdentitySettings,
    clock: &Clock,
    priority: Priority,
    did: MediatorDid,
    web: WebDid,
    known: Option<Arc<MediatorDocument>>,
) -> Fetched<Result<Arc<MediatorDocument>, Busy>> {
    let fetched = fetch(net, priority, &did, &web).await;
    let now = clock.now();
    let mut document = MediatorDocument::in_state(did, MediatorState::Unresolved, Some(now));
    let mut probed = true;
    match fetched {
        Ok((key_agreement, services)) => {
            document.resolved_at = Some(now);
            document.key_agreement = key_agreement;
            document.services = services;
            if document.key_agreement.is_empty() {
                document.reason = Some(RemoteText::new("the document has no key to encrypt to"));
            } else if !document.services.iter().any(|s| s.is_usable(&document.did)) {
                document.reason = Some(RemoteText::new("the document has no DIDComm v2 endpoint"));
            } else {
                probed = probe(net, priority, &mut document, clock, known.as_deref()).await;
            }
        }
        Err(FetchError::Busy(busy)) => {
            let wait = busy.retry_after.min(settings.error_ttl);
            return Fetched {
                value: Err(busy),
                fresh: wait,
                usable: wait,
                transient: true,
            };
        }
        Err(FetchError::Transient(reason))
            if let Some(known) = known.filter(|known| has_valid_keys(known, now)) =>
        {
            document = MediatorDocument {
                state: MediatorState::Unreachable,
                checked_at: Some(now),
                reason: Some(reason),
                ..(*known).clone()
            };
        }
        Err(FetchError::Transient(reason) | FetchError::Definite(reason)) => {
            document.reason = Some(reason);
        }
    }
    lifetimes(document, probed, settings)
}

/// Adds the limits of age to the result of a check.
fn lifetimes(
    document: MediatorDocument,
    probed: bool,
    settings: &IdentitySettings,
) -> Fetched<Result<Arc<MediatorDocument>, Busy>> {
    let good = document.state == MediatorState::Reachable && probed;
    let has_keys = document.resolved_at.is_some() && !document.key_agreement.is_empty();
    Fetched {
        value: Ok(Arc::new(document)),
        fresh: if good {
            settings.mediator_fresh
        } else {
            settings.error_ttl
        },
        // Failures are served a while longer, too, with their `checkedAt`, so that a mediator that
        // hangs does not make every caller wait.
        usable: if has_keys {
            settings.hard_limit
        } else {
            settings.mediator_fresh
        },
        transient: false,
    }
}

/// Whether the keys of an earlier document are still to be used.
fn has_valid_keys(known: &MediatorDocument, now: Timestamp) -> bool {
    !known.key_agreement.is_empty()
        && !known.services.is_empty()
        && known
            .resolved_at
            .is_some_and(|at| now.since(at) < KEYS_RETENTION)
}

/// Errors of fetching a mediator's document.
pub(super) enum FetchError {
    /// The mediator was not asked.
    Busy(Busy),
    /// The mediator may have a document, so the keys of an earlier one stay good.
    Transient(RemoteText),
    /// The mediator has no document that can be used.
    Definite(RemoteText),
}

async fn fetch(
    net: &Net,
    priority: Priority,
    did: &MediatorDid,
    web: &WebDid,
) -> Result<(Vec<KeyAgreement>, Vec<Service>), FetchError> {
    let body = fetch_bytes(net, priority, web).await?;
    document::read(&body, did.as_str(), net.development()).map_err(|e| fail(&e.to_string(), false))
}

fn fail(reason: &str, transient: bool) -> FetchError {
    let reason = RemoteText::new(reason);
    if transient {
        FetchError::Transient(reason)
    } else {
        FetchError::Definite(reason)
    }
}

/// Fetches the document as it is served.
pub(super) async fn fetch_bytes(
    net: &Net,
    priority: Priority,
    web: &WebDid,
) -> Result<bytes::Bytes, FetchError> {
    let url = web_url(net, web).ok_or_else(|| fail("not an address", false))?;
    let request = Request {
        priority,
        accept: Some("application/did+ld+json, application/did+json, application/json"),
        ..Request::new(url, Trust::Untrusted, MAX_DOCUMENT_LEN)
    };
    let answer = net.get(&request).await.map_err(|e| match e {
        NetError::HostBusy { retry_after } => FetchError::Busy(Busy { retry_after }),
        e => fail(&e.to_string(), e.is_transient()),
    })?;
    let status = answer.status.as_u16();
    if status != 200 {
        let transient = status >= 500 || matches!(status, 408 | 425 | 429);
        return Err(fail(&format!("the host answered {status}"), transient));
    }
    Ok(answer.body)
}

/// Returns the directory that a mediator's document names.
pub(super) fn directory(document: &[u8], did: &MediatorDid) -> Option<Origin> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    if document.get("id")?.as_str()? != did.as_str() {
        return None;
    }
    let id = format!("{did}#atcomm_directory");
    let is_directory = |service: &&serde_json::Value| {
        let found = service.get("id").and_then(serde_json::Value::as_str);
        found == Some(id.as_str()) || found == Some("#atcomm_directory")
    };
    let service = document
        .get("service")?
        .as_array()?
        .iter()
        .find(is_directory)?;
    Origin::parse(service.get("serviceEndpoint")?.as_str()?).ok()
}

/// Asks the first endpoint with an HTTP address for any answer at all. Returns whether it was asked;
/// otherwise limits forbade it, and the earlier state stands.
async fn probe(
    net: &Net,
    priority: Priority,
    document: &mut MediatorDocument,
    clock: &Clock,
    known: Option<&MediatorDocument>,
) -> bool {
    let speaks_http = |uri: &str| {
        uri.starts_with("https://") || (net.development() && uri.starts_with("http://"))
    };
    let endpoint = document
        .services
        .iter()
        .find(|s| s.is_usable(&document.did) && speaks_http(&s.uri));
    let Some(url) = endpoint.and_then(|s| Url::parse(&s.uri).ok()) else {
        document.state = MediatorState::Unchecked;
        document.reason = Some(RemoteText::new("no https endpoint to ask"));
        return true;
    };
    let request = Request {
        priority,
        timeout: Some(PROBE_TIMEOUT),
        ..Request::new(url, Trust::Untrusted, PROBE_CAP)
    };
    let answer = net.options(&request).await;
    document.checked_at = Some(clock.now());
    match answer {
        Ok(_) | Err(NetError::TooLarge { .. }) => document.state = MediatorState::Reachable,
        Err(e @ NetError::HostBusy { .. }) => {
            // Only a state of the endpoint stands. A missing document has been found meanwhile.
            let known = known.filter(|known| {
                matches!(
                    known.state,
                    MediatorState::Reachable | MediatorState::Unreachable
                )
            });
            document.state = known.map_or(MediatorState::Unchecked, |known| known.state);
            document.checked_at = known.and_then(|known| known.checked_at);
            document.reason = match known {
                Some(known) => known.reason.clone(),
                None => Some(RemoteText::new(&e.to_string())),
            };
            return false;
        }
        Err(e) => {
            document.state = MediatorState::Unreachable;
            document.reason = Some(RemoteText::new(&e.to_string()));
        }
    }
    true
}

#[cfg(test)]
mod tests;
