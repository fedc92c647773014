//! Whether the host of an endpoint takes DIDComm messages at all. Any document may name any address,
//! and a message must not be posted to a host that never agreed to that.
//!
//! A host agrees where the document that names it stands at the same registrable domain, where its
//! own document names the same endpoint, or where it answers the smallest post as a DIDComm endpoint
//! does. The mediators of the setting `relay.allow` need none of it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use url::Url;

use super::Destinations;
use super::schedule::{domain_of, domain_of_url};
use atcomm_net::net::{NetError, Priority, Request, Trust};
use atcomm_net::rate_limit::{KeyedRateLimit, Rate};
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::MediatorDid;

/// How long an answer holds.
const CONSENT_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Endpoints remembered.
const MAX_ENDPOINTS: usize = 8192;

/// Posts an hour to endpoints of one registrable domain that have not agreed yet.
const QUESTIONS_PER_HOUR: u32 = 4;

const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers that show a DIDComm endpoint: it takes the post, or finds that this is no message for it.
const CONSENTING: [StatusCode; 5] = [
    StatusCode::ACCEPTED,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// Media type of the messages.
pub(super) const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

/// A reason not to post to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoConsent {
    /// The host answers, and not as a DIDComm endpoint.
    #[error(
        "its endpoint is at another host, which does not answer as a DIDComm endpoint (it answered {0})"
    )]
    NoEndpoint(u16),
    /// The policy forbids the address.
    #[error("its endpoint is at another host: {0}")]
    Forbidden(#[source] NetError),
    /// Not known yet, and the host does not answer.
    #[error("its endpoint is at another host, which does not answer: {0}")]
    Silent(String),
    /// Not known yet, and the host may not be asked now.
    #[error("its endpoint is at another host, which may not be asked now")]
    Later(Duration),
}

/// What is known of the endpoints of other hosts.
pub(super) struct Consents {
    /// The status of a refusal, or `None`: the host agrees.
    known: TtlCache<String, Option<u16>>,
    questions: KeyedRateLimit<String>,
}

impl Consents {
    pub(super) fn new(clock: Clock) -> Self {
        let rate = Rate::per_hour(QUESTIONS_PER_HOUR);
        Self {
            known: TtlCache::with_entries(MAX_ENDPOINTS, clock.clone()),
            questions: KeyedRateLimit::new(rate, MAX_ENDPOINTS, clock),
        }
    }
}

impl Destinations {
    /// Checks that the host of an endpoint agrees to take messages. `named_by` is the mediator whose
    /// document, or whose redirect, leads there.
    pub(super) async fn check_consent(
        &self,
        named_by: &MediatorDid,
        endpoint: &Url,
    ) -> Result<(), NoConsent> {
        let domain = domain_of_url(endpoint);
        if self.allow.contains(named_by) || domain_of(named_by) == domain {
            return Ok(());
        }
        let known = self.consents.known.get(endpoint.as_str());
        let refusal = match known {
            Some(known) => known,
            None if self.is_named_by_its_host(endpoint).await => None,
            None => self.ask(endpoint, &domain).await?,
        };
        let consents = &self.consents.known;
        if known.is_none() {
            consents.insert(endpoint.as_str().to_owned(), refusal, CONSENT_RETENTION);
        }
        refusal.map_or(Ok(()), |status| Err(NoConsent::NoEndpoint(status)))
    }

    /// Returns whether the document of the endpoint's own host names the endpoint.
    async fn is_named_by_its_host(&self, endpoint: &Url) -> bool {
        let Some(host) = endpoint.host_str() else {
            return false;
        };
        let port = endpoint.port().map(|port| format!("%3A{port}"));
        let did = format!("did:web:{host}{}", port.unwrap_or_default());
        let Ok(did) = MediatorDid::parse(&did) else {
            return false;
        };
        let Ok(document) = self.document(&did).await else {
            return false;
        };
        let mut services = document.services.iter();
        services.any(|service| Url::parse(&service.uri).is_ok_and(|url| url == *endpoint))
    }

    /// Posts an empty object. Returns the status of a refusal; `None`: the host agrees.
    async fn ask(&self, endpoint: &Url, domain: &String) -> Result<Option<u16>, NoConsent> {
        self.consents
            .questions
            .take(domain)
            .map_err(NoConsent::Later)?;
        let request = Request {
            priority: Priority::Mail,
            timeout: Some(QUESTION_TIMEOUT),
            body: false,
            ..Request::new(endpoint.clone(), Trust::Untrusted, 0)
        };
        let net = self.resolver.net();
        let answer = net
            .post(&request, MEDIA_TYPE, Bytes::from_static(b"{}"))
            .await;
        match answer {
            Ok(answer) if CONSENTING.contains(&answer.status) => Ok(None),
            // It may say something else when it works again.
            Ok(answer)
                if answer.status.is_server_error()
                    || answer.status == StatusCode::TOO_MANY_REQUESTS =>
            {
                Err(NoConsent::Silent(format!(
                    "it answered {}",
                    answer.status.as_u16()
                )))
            }
            Ok(answer) => Ok(Some(answer.status.as_u16())),
            Err(error @ NetError::Refused(_)) => Err(NoConsent::Forbidden(error)),
            Err(NetError::HostBusy { retry_after }) => Err(NoConsent::Later(retry_after)),
            Err(error) => Err(NoConsent::Silent(error.to_string())),
        }
    }
}
