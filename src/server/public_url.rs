//! What others see of the public address: the service calls itself by it, at the start and each hour.
//!
//! The address is one that the operator names, so it is dialled at any address of the machine's own
//! network, too: behind a router or in a container the way out may lead back inside. It is tried under
//! the rules for foreign hosts first, as others dial it, so that a name which leads to a private
//! address is told. Every step has a time limit, one check runs at a time, and redirects are not
//! followed.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::http::{Arrival, Arrivals, Http};
use crate::mediator::{Mediator, PublicAddress};
use crate::resolve::Resolver;
use atcomm_net::net::{Net, NetError, Refusal, Request, Response, Trust, WsOptions};
use atcomm_proto::clock::{Clock, Timestamp};

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Time between two checks while something is wrong: an operator who mends it wants to know.
const FAILING_INTERVAL: Duration = Duration::from_secs(60);

/// Time limit of the document and of the WebSocket each.
const STEP_TIMEOUT: Duration = Duration::from_secs(4);

/// A result that is younger is not made anew: several commands at once cause one check.
const FRESH: Duration = Duration::from_secs(1);

/// Longest document that is read, in bytes. The service's own has less than a tenth of it.
const MAX_DOCUMENT: usize = 64 << 10;

/// Address that the check claims to come from, of a block that no host has (RFC 5737). A proxy that
/// passes it on as the last entry lets every client claim any address.
const CLAIMED: &str = "192.0.2.1";

/// The public address as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicUrlStatus {
    /// The address.
    pub url: String,
    /// Time of the check (RFC 3339).
    pub checked_at: String,
    /// Whether everything works.
    pub ok: bool,
    /// Each part of the check, until one that makes the others impossible.
    pub findings: Vec<PublicUrlFinding>,
}

/// One part of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicUrlFinding {
    /// The part: `dns`, `certificate`, `did.json`, `websocket` or `proxy`.
    pub check: String,
    /// Whether it works for others.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, or to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PublicUrlFinding {
    fn of(check: &str, ok: bool, detail: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            check: check.to_owned(),
            ok,
            detail: detail.into(),
            hint: hint.map(str::to_owned),
        }
    }

    fn ok(check: &str, detail: impl Into<String>) -> Self {
        Self::of(check, true, detail, None)
    }

    fn failed(check: &str, detail: impl Into<String>, hint: &str) -> Self {
        Self::of(check, false, detail, Some(hint))
    }
}

/// Checks one public address.
pub(super) struct PublicUrlCheck {
    net: Net,
    address: PublicAddress,
    mediator: Option<Mediator>,
    arrivals: Arrivals,
    clock: Clock,
    /// Held during a check, since one request at a time is expected.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<(Timestamp, PublicUrlStatus)>>,
}

impl PublicUrlCheck {
    pub(super) fn new(
        resolver: &Resolver,
        address: PublicAddress,
        mediator: Option<Mediator>,
        http: &Http,
    ) -> Arc<Self> {
        Arc::new(Self {
            net: resolver.net().clone(),
            address,
            mediator,
            arrivals: http.arrivals(),
            clock: resolver.clock().clone(),
            turn: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        })
    }

    /// Returns the result of the last check.
    pub(super) fn last(&self) -> Option<PublicUrlStatus> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(_, status)| status.clone())
    }

    /// Checks until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut before = None;
        loop {
            let status = tokio::select! {
                () = stop.cancelled() => return,
                status = self.check() => status,
            };
            if before.as_ref() != Some(&status.findings) {
                log(&status);
            }
            let wait = if status.ok {
                CHECK_INTERVAL
            } else {
                FAILING_INTERVAL
            };
            before = Some(status.findings);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Checks once; a result of the last seconds is returned as it is.
    pub(super) async fn check(&self) -> PublicUrlStatus {
        let _turn = self.turn.lock().await;
        let begun = self.clock.now();
        {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, status)) = &*last
                && begun.since(*at) < FRESH
            {
                return status.clone();
            }
        }
        let findings = self.findings().await;
        let ok = findings.iter().all(|finding| finding.ok);
        metrics::gauge!("atcomm_public_url_ok").set(f64::from(u8::from(ok)));
        let status = PublicUrlStatus {
            url: self.address.origin().to_owned(),
            checked_at: self.clock.now().to_string(),
            ok,
            findings,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((self.clock.now(), status.clone()));
        status
    }

    async fn findings(&self) -> Vec<PublicUrlFinding> {
        let mut findings = Vec::new();
        let mut trust = Trust::Untrusted;
        let mut answer = self.fetch(trust).await;
        if matches!(answer, Err(NetError::Refused(Refusal::Address))) {
            findings.push(PublicUrlFinding::of(
                "dns",
                true,
                "the name leads to a private address on this machine",
                Some("others need a public one: look the name up from elsewhere"),
            ));
            trust = Trust::Configured;
            answer = self.fetch(trust).await;
        }
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                findings.push(unreachable(&error));
                return findings;
            }
        };
        if self.address.origin().starts_with("https:") {
            findings.push(PublicUrlFinding::ok("certificate", "valid"));
        }
        let document = self.document(&response);
        let is_ours = document.ok;
        findings.push(document);
        if is_ours {
            findings.push(self.websocket(trust).await);
            findings.push(of_arrival(
                self.arrivals.take(),
                self.address.origin().starts_with("https:"),
            ));
        }
        findings
    }

    /// Asks for the DID document, as a client that claims to be somewhere else.
    async fn fetch(&self, trust: Trust) -> Result<Response, NetError> {
        let query = self.arrivals.expect();
        let url = format!("{}/.well-known/did.json?{query}", self.address.origin());
        let url = Url::parse(&url).map_err(|_| NetError::Protocol("not a URL"))?;
        let mut request = Request::new(url, trust, MAX_DOCUMENT);
        request.timeout = Some(STEP_TIMEOUT);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(CLAIMED));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        request.headers = headers;
        self.net.get(&request).await
    }

    /// Returns the document as it has to be.
    fn own_document(&self) -> Option<Value> {
        match &self.mediator {
            Some(mediator) => serde_json::from_slice(&mediator.did_document()).ok(),
            None => Some(self.address.directory_document()),
        }
    }

    fn document(&self, response: &Response) -> PublicUrlFinding {
        const CHECK: &str = "did.json";
        let status = response.status;
        let failed = |detail: String, hint| PublicUrlFinding::failed(CHECK, detail, hint);
        if status.is_redirection() {
            let hint = "let the proxy answer it without a redirect: a did:web is not looked for \
                        anywhere else";
            return failed(format!("the address redirects ({})", status.as_u16()), hint);
        }
        if status.as_u16() != 200 {
            let hint = "let the proxy pass every path of this host name on to the service";
            return failed(format!("the address answers {}", status.as_u16()), hint);
        }
        let found: Option<Value> = serde_json::from_slice(&response.body).ok();
        let own = self.own_document();
        let id = |document: &Option<Value>| document.as_ref().map(|one| one["id"].clone());
        if found.is_some() && found == own {
            return PublicUrlFinding::ok(CHECK, format!("that of {}", self.address.did()));
        }
        if id(&found).is_some() && id(&found) == id(&own) {
            let hint = "another service or a cache answers at this address; only one may";
            return failed("it has other keys than this service".to_owned(), hint);
        }
        let hint = "let the proxy pass /.well-known/did.json on to this service";
        failed("it is not the one of this service".to_owned(), hint)
    }

    async fn websocket(&self, trust: Trust) -> PublicUrlFinding {
        const CHECK: &str = "websocket";
        let path = match &self.mediator {
            Some(_) => "/didcomm",
            None => "/xrpc/at.didcomm.directory.subscribeUpdates",
        };
        // `https` becomes `wss`, `http` becomes `ws`.
        let origin = self.address.origin().trim_start_matches("http");
        let Ok(url) = Url::parse(&format!("ws{origin}{path}")) else {
            return PublicUrlFinding::failed(CHECK, "not a URL", "see mediator.public_url");
        };
        let options = WsOptions {
            max_frame: MAX_DOCUMENT,
            handshake_timeout: STEP_TIMEOUT,
            subprotocol: None,
        };
        match self.net.read_stream(&url, trust, &options).await {
            Ok(stream) => {
                stream.close().await;
                PublicUrlFinding::ok(CHECK, format!("{path} opens"))
            }
            Err(error) => PublicUrlFinding::failed(
                CHECK,
                format!("{path} does not open: {error}"),
                "let the proxy pass Upgrade and Connection on; without it new mail is not pushed",
            ),
        }
    }
}

fn unreachable(error: &NetError) -> PublicUrlFinding {
    let (check, hint) = match error {
        NetError::NoSuchHost => ("dns", "add an A or AAAA record for the host name"),
        NetError::Tls(_) => (
            "certificate",
            "others refuse the connection, too: look at the certificate of the proxy",
        ),
        _ => (
            "did.json",
            "look at the proxy and the firewall. If others do get through, this machine alone does \
             not: set http.check_public_url to false",
        ),
    };
    PublicUrlFinding::failed(check, error.to_string(), hint)
}

/// Judges how the request arrived; `has_proxy`: one has to be there, since the service itself speaks
/// no TLS.
fn of_arrival(arrival: Option<Arrival>, has_proxy: bool) -> PublicUrlFinding {
    const CHECK: &str = "proxy";
    let Some(arrival) = arrival else {
        return PublicUrlFinding::of(
            CHECK,
            true,
            "the request did not arrive here: something in between answers it",
            Some("a cache in front of the service shows old keys after `keys rotate`"),
        );
    };
    let Arrival {
        peer,
        is_trusted,
        forwarded,
    } = arrival;
    let claimed = CLAIMED.parse::<IpAddr>().ok();
    if !has_proxy && forwarded == claimed {
        return PublicUrlFinding::ok(CHECK, "none: the service is reached directly");
    }
    match forwarded {
        None => PublicUrlFinding::failed(
            CHECK,
            format!("the proxy at {peer} sends no X-Forwarded-For"),
            "let it set X-Forwarded-For; until then all clients share the limits of one address",
        ),
        Some(_) if forwarded == claimed => PublicUrlFinding::failed(
            CHECK,
            format!("the proxy at {peer} passes X-Forwarded-For of clients on as it is"),
            "let it append or set the address of the client; until then clients evade every limit",
        ),
        Some(_) if !is_trusted => PublicUrlFinding::failed(
            CHECK,
            format!("http.trusted_proxies does not name the proxy at {peer}"),
            "add its address or network there; until then all clients share the limits of one \
             address",
        ),
        Some(_) => PublicUrlFinding::ok(CHECK, "X-Forwarded-For arrives"),
    }
}

fn log(status: &PublicUrlStatus) {
    if status.ok {
        tracing::info!(url = status.url, "the public address works");
    }
    for finding in &status.findings {
        let hint = finding.hint.as_deref().unwrap_or_default();
        if !finding.ok {
            tracing::warn!(
                url = status.url,
                check = finding.check,
                hint,
                "the public address does not work: {}",
                finding.detail
            );
        } else if finding.hint.is_some() {
            tracing::info!(
                check = finding.check,
                hint,
                "the public address: {}",
                finding.detail
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(peer: &str, is_trusted: bool, forwarded: Option<&str>) -> Option<Arrival> {
        Some(Arrival {
            peer: peer.parse().unwrap(),
            is_trusted,
            forwarded: forwarded.map(|address| address.parse().unwrap()),
        })
    }

    #[test]
    fn a_proxy_is_judged_by_what_it_writes() {
        for (arrival, has_proxy, ok, word) in [
            (
                arrived("127.0.0.1", true, Some("203.0.113.5")),
                true,
                true,
                "arrives",
            ),
            // The way out leads back inside.
            (
                arrived("127.0.0.1", true, Some("127.0.0.1")),
                true,
                true,
                "arrives",
            ),
            (arrived("127.0.0.1", true, None), true, false, "sends no"),
            (
                arrived("127.0.0.1", true, Some(CLAIMED)),
                true,
                false,
                "of clients",
            ),
            (
                arrived("172.18.0.2", false, Some("203.0.113.5")),
                true,
                false,
                "172.18.0.2",
            ),
            (
                arrived("127.0.0.1", true, Some(CLAIMED)),
                false,
                true,
                "directly",
            ),
            (None, true, true, "did not arrive"),
        ] {
            let finding = of_arrival(arrival, has_proxy);
            assert_eq!(finding.ok, ok, "{finding:?}");
            assert!(finding.detail.contains(word), "{finding:?}");
            assert_eq!(
                finding.hint.is_some(),
                !ok || arrival.is_none(),
                "{finding:?}"
            );
        }
    }
}
