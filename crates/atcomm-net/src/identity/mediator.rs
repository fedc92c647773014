//! Mediators: what their documents offer, and whether anybody answers there.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::lookups::{Bytes, Found};
use super::{IdentitySettings, web_url};
use crate::net::{Net, NetError, Priority, Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp, serde::rfc3339_option};
use atcomm_proto::didcomm::party::KeyAgreement;
use atcomm_proto::syntax::{MediatorDid, Origin, RemoteText, WebDid};

mod document;

/// Longest document of a mediator, in bytes.
const MAX_DOCUMENT_LEN: usize = 64 * 1024;

/// Time for the endpoint to answer at all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the endpoint's answer that are read; it only has to come.
const PROBE_CAP: usize = 4096;

/// For how long keys of an earlier document are shown when a new one cannot be had.
const KEEP_KEYS: Duration = Duration::from_secs(24 * 3600);

/// What is known of a mediator, as the recipient view shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediatorDocument {
    /// The mediator.
    pub did: MediatorDid,
    /// Whether it can be used now.
    pub state: MediatorState,
    /// When the state was found out; absent while it was not.
    #[serde(
        default,
        with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub checked_at: Option<Timestamp>,
    /// Why it is not reachable, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RemoteText>,
    /// X25519 and P-256 keys to encrypt forwards to, in the document's order.
    #[serde(default)]
    pub key_agreement: Vec<KeyAgreement>,
    /// Endpoints of type `DIDCommMessaging`, in the document's order.
    #[serde(default)]
    pub services: Vec<Service>,
    /// When keys and services were read. Older than `checked_at` when the document could not be
    /// had again. Not shown, but kept in [`MediatorDocument::to_stored`].
    #[serde(skip)]
    resolved_at: Option<Timestamp>,
}

/// The form in which a document outlives a restart: what the view shows, and how old the keys are.
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

/// Limits of ours, or a `Retry-After` of the host, kept us from looking: nothing was found out
/// about the mediator, and what was known of it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mediator must not be looked at for another {retry_after:?}")]
pub struct Busy {
    /// When a new attempt makes sense.
    pub retry_after: Duration,
}

/// Whether a mediator can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediatorState {
    /// Its document has a usable key and endpoint, and the endpoint answered.
    Reachable,
    /// Its document has both, now or within the last day, but nobody answered.
    Unreachable,
    /// No document could be had, or it has no usable key or no endpoint.
    Unresolved,
    /// Not a `did:web`.
    Unsupported,
    /// Not looked at, or its endpoint is not one that can be asked.
    Unchecked,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// An `http(s)` or `ws(s)` address, or the DID of a further mediator, which the sender resolves.
    pub uri: String,
    /// Profiles, such as `didcomm/v2`; empty when the document names none.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Keys to wrap for, outermost last.
    #[serde(default)]
    pub routing_keys: Vec<String>,
}

impl Service {
    /// Whether DIDComm v2 can be sent there: it accepts it or does not say what it accepts, and it
    /// does not lead back to the mediator itself.
    fn is_usable(&self, did: &MediatorDid) -> bool {
        let v2 = |profile: &String| profile == "didcomm/v2" || profile.starts_with("didcomm/v2;");
        self.uri != did.as_str() && (self.accept.is_empty() || self.accept.iter().any(v2))
    }
}

impl MediatorDocument {
    /// A mediator that was not looked at.
    pub fn unchecked(did: MediatorDid) -> Self {
        Self::in_state(did, MediatorState::Unchecked, None)
    }

    pub(super) fn unsupported(did: MediatorDid) -> Self {
        Self::in_state(did, MediatorState::Unsupported, None)
    }

    /// JSON to be kept: the view's form with `resolvedAt` beside it, so that keys are still known
    /// to be good after a restart.
    pub fn to_stored(&self) -> String {
        let stored = Stored {
            document: self,
            resolved_at: self.resolved_at,
        };
        #[expect(clippy::expect_used, reason = "texts and lists under constant names")]
        serde_json::to_string(&stored).expect("a document is JSON")
    }

    /// Reads what [`MediatorDocument::to_stored`] wrote. `None` for anything else. The view's own
    /// form is read too, as a document whose keys are of unknown age.
    pub fn from_stored(json: &str) -> Option<Self> {
        let stored: Stored<Self> = serde_json::from_str(json).ok()?;
        Some(Self {
            resolved_at: stored.resolved_at,
            ..stored.document
        })
    }

    /// When anything in it was found out last.
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

impl Bytes for Result<Arc<MediatorDocument>, Busy> {
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

/// The later of two states of knowledge: the memory's, and what the caller kept over a restart.
pub(super) fn later(
    memory: Option<Arc<MediatorDocument>>,
    kept: Option<MediatorDocument>,
) -> Option<Arc<MediatorDocument>> {
    match (memory, kept) {
        (Some(memory), Some(kept)) if kept.as_of() > memory.as_of() => Some(Arc::new(kept)),
        (Some(memory), _) => Some(memory),
        (None, kept) => kept.map(Arc::new),
    }
}

/// Looks at a mediator. `known` is what was known of it before.
pub(super) async fn check(
    net: &Net,
    settings: &IdentitySettings,
    clock: &Clock,
    priority: Priority,
    did: MediatorDid,
    web: WebDid,
    known: Option<Arc<MediatorDocument>>,
) -> Found<Result<Arc<MediatorDocument>, Busy>> {
    let fetched = fetch(net, priority, &did, &web).await;
    let now = clock.now();
    let mut document = MediatorDocument::in_state(did, MediatorState::Unresolved, Some(now));
    let mut asked = true;
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
                asked = probe(net, priority, &mut document, clock, known.as_deref()).await;
            }
        }
        Err(Failure::Busy(busy)) => {
            let wait = busy.retry_after.min(settings.error_ttl);
            return Found {
                value: Err(busy),
                fresh: wait,
                usable: wait,
                transient: true,
            };
        }
        Err(Failure::Transient(reason))
            if let Some(known) = known.filter(|known| still_counts(known, now)) =>
        {
            document = MediatorDocument {
                state: MediatorState::Unreachable,
                checked_at: Some(now),
                reason: Some(reason),
                ..(*known).clone()
            };
        }
        Err(Failure::Transient(reason) | Failure::Definite(reason)) => {
            document.reason = Some(reason);
        }
    }
    let good = document.state == MediatorState::Reachable && asked;
    let has_keys = document.resolved_at.is_some() && !document.key_agreement.is_empty();
    Found {
        value: Ok(Arc::new(document)),
        fresh: match good {
            true => settings.mediator_fresh,
            false => settings.error_ttl,
        },
        // Failures too are shown a while longer with their `checkedAt`, so that mediators that hang
        // do not make every asker wait for them.
        usable: match has_keys {
            true => settings.hard_limit,
            false => settings.mediator_fresh,
        },
        transient: false,
    }
}

fn still_counts(known: &MediatorDocument, now: Timestamp) -> bool {
    !known.key_agreement.is_empty()
        && !known.services.is_empty()
        && known
            .resolved_at
            .is_some_and(|at| now.since(at) < KEEP_KEYS)
}

/// Why there is no document.
pub(super) enum Failure {
    /// The mediator was not asked.
    Busy(Busy),
    /// It may have one, so keys of an earlier one are still good.
    Transient(RemoteText),
    /// It has none that can be used.
    Definite(RemoteText),
}

async fn fetch(
    net: &Net,
    priority: Priority,
    did: &MediatorDid,
    web: &WebDid,
) -> Result<(Vec<KeyAgreement>, Vec<Service>), Failure> {
    let body = fetch_bytes(net, priority, web).await?;
    document::read(&body, did.as_str(), net.development()).map_err(|e| fail(&e.to_string(), false))
}

fn fail(reason: &str, transient: bool) -> Failure {
    let reason = RemoteText::new(reason);
    if transient {
        Failure::Transient(reason)
    } else {
        Failure::Definite(reason)
    }
}

/// The document as it is served.
pub(super) async fn fetch_bytes(
    net: &Net,
    priority: Priority,
    web: &WebDid,
) -> Result<bytes::Bytes, Failure> {
    let url = web_url(net, web).ok_or_else(|| fail("not an address", false))?;
    let request = Request {
        priority,
        accept: Some("application/did+ld+json, application/did+json, application/json"),
        ..Request::new(url, Trust::Untrusted, MAX_DOCUMENT_LEN)
    };
    let answer = net.get(&request).await.map_err(|e| match e {
        NetError::HostBusy { retry_after } => Failure::Busy(Busy { retry_after }),
        e => fail(&e.to_string(), e.is_transient()),
    })?;
    let status = answer.status.as_u16();
    if status != 200 {
        let transient = status >= 500 || matches!(status, 408 | 425 | 429);
        return Err(fail(&format!("the host answered {status}"), transient));
    }
    Ok(answer.body)
}

/// The directory that a mediator's document names.
pub(super) fn directory(document: &[u8], did: &MediatorDid) -> Option<Origin> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    if document.get("id")?.as_str()? != did.as_str() {
        return None;
    }
    let id = format!("{did}#atcomm_directory");
    let is_it = |service: &&serde_json::Value| {
        let found = service.get("id").and_then(serde_json::Value::as_str);
        found == Some(id.as_str()) || found == Some("#atcomm_directory")
    };
    let service = document.get("service")?.as_array()?.iter().find(is_it)?;
    Origin::parse(service.get("serviceEndpoint")?.as_str()?).ok()
}

/// Asks the first endpoint that speaks HTTP for any answer at all. False when limits kept us from
/// asking, so that the state that was known before stands.
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
            // Only states of an endpoint: of a document that was missing nothing is left to say.
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
