//! The HTTP client and its redirects, under policy and limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use url::Url;

use super::dns::DnsResolver;
use super::error::{DnsError, NetError, SettingsError};
use super::host_limiter::{HostKey, HostLimiter, HostPermit, Priority};
use super::policy::{self, Trust};
use super::request::{Request, Response};
use super::settings::NetSettings;
use super::{retry_after, tls};
use atcomm_proto::clock::Clock;

/// Most redirects followed, whatever a request allows.
const MAX_REDIRECTS: u8 = 3;

/// Response headers accepted by HTTP/2, in bytes.
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// Memory reserved for a body on the word of its `Content-Length`, in bytes.
const MAX_RESERVED: usize = 64 * 1024;

/// Idle connections kept per host name, and for how long.
struct Idle {
    connections: usize,
    timeout: Duration,
}

/// Configured endpoints are few. Long enough for the listing of all repositories of a PDS, short
/// enough that a host's move to another address is noticed.
const IDLE_CONFIGURED: Idle = Idle {
    connections: 4,
    timeout: Duration::from_secs(30),
};

/// An attacker can create any number of names under one domain, and idle connections are limited
/// only per name. So a connection stays open only for the refresh that it serves.
const IDLE_UNTRUSTED: Idle = Idle {
    connections: 1,
    timeout: Duration::from_secs(2),
};

/// Dials out. Cloning is cheap, and clones share all limits.
#[derive(Clone)]
pub struct Net {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: NetSettings,
    pub(super) clock: Clock,
    pub(super) user_agent: HeaderValue,
    pub(super) hosts: HostLimiter,
    pub(super) dns: DnsResolver,
    /// One client for each origin of an address, so that a connection opened for the operator is
    /// never reused for an untrusted address.
    configured: reqwest::Client,
    untrusted: reqwest::Client,
    pub(super) ws_tls: Arc<ClientConfig>,
}

impl Net {
    /// Reads the file of certificate authorities and prepares the clients. Dials nothing.
    ///
    /// # Errors
    ///
    /// [`NetError::Settings`] where the settings contradict each other or the file is unusable.
    pub fn bind(settings: NetSettings, clock: Clock) -> Result<Self, NetError> {
        if settings.https_port != 443 && !settings.development {
            return Err(SettingsError::HttpsPort.into());
        }
        let version = env!("CARGO_PKG_VERSION");
        let user_agent = match &settings.contact {
            Some(contact) => format!("atcomm/{version} (+{contact})"),
            None => format!("atcomm/{version}"),
        };
        let user_agent = HeaderValue::try_from(user_agent).map_err(SettingsError::Contact)?;
        let dns = DnsResolver::bind(settings.name_server, settings.development)?;
        let mut ws_tls = tls::client_config(settings.extra_ca_file.as_deref())?;
        let mut http_tls = ws_tls.clone();
        ws_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        http_tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = |trust, idle: Idle| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(http_tls.clone())
                .dns_resolver(Arc::new(PolicyResolver {
                    dns: dns.clone(),
                    trust,
                }))
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .gzip(true)
                .user_agent(user_agent.clone())
                .connect_timeout(settings.connect_timeout)
                .pool_max_idle_per_host(idle.connections)
                .pool_idle_timeout(idle.timeout)
                .http2_max_header_list_size(MAX_HEADER_LIST)
                .build()
                .map_err(SettingsError::Client)
        };
        Ok(Self {
            inner: Arc::new(Inner {
                hosts: HostLimiter::new(&settings, clock.clone()),
                configured: client(Trust::Configured, IDLE_CONFIGURED)?,
                untrusted: client(Trust::Untrusted, IDLE_UNTRUSTED)?,
                dns,
                ws_tls: Arc::new(ws_tls),
                user_agent,
                clock,
                settings,
            }),
        })
    }

    /// Whether the development switch is on.
    pub fn development(&self) -> bool {
        self.inner.settings.development
    }

    /// Returns the port of `https` for handles and for a `did:web` without a port: 443 outside
    /// development.
    pub fn https_port(&self) -> u16 {
        self.inner.settings.https_port
    }

    /// Sends a `GET`. A response of any status is an `Ok`.
    pub async fn get(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::GET, request, None).await
    }

    /// Sends `body` by `POST`. A response of any status is an `Ok`; redirects are not followed.
    /// After an error the host may have received the body all the same.
    pub async fn post(
        &self,
        request: &Request,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Response, NetError> {
        let content_type = HeaderValue::from_static(content_type);
        self.send(Method::POST, request, Some((content_type, body)))
            .await
    }

    /// Sends a `POST` without a body, for procedures without input.
    pub async fn post_nothing(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::POST, request, None).await
    }

    /// Sends an `OPTIONS`, which shows whether a server answers at the address.
    pub async fn options(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::OPTIONS, request, None).await
    }

    /// Returns the TXT records of `name`, the strings of each record joined. Never cached.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let result = self.inner.dns.txt(name).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(DnsError::NoRecords) => "no_records",
            Err(DnsError::Failed) => "failed",
        };
        metrics::counter!("atcomm_net_requests_total", "kind" => "dns", "outcome" => outcome)
            .increment(1);
        result
    }

    async fn send(
        &self,
        method: Method,
        request: &Request,
        body: Option<(HeaderValue, Bytes)>,
    ) -> Result<Response, NetError> {
        let limit = request.timeout.unwrap_or(self.inner.settings.timeout);
        let result = tokio::time::timeout(limit, self.follow(method, request, body))
            .await
            .unwrap_or(Err(NetError::Timeout));
        count("http", result.as_ref().err());
        result
    }

    /// Makes the request and follows its redirects, each of which passes policy and limits anew.
    async fn follow(
        &self,
        method: Method,
        request: &Request,
        body: Option<(HeaderValue, Bytes)>,
    ) -> Result<Response, NetError> {
        let allowed = if method == Method::GET {
            request.redirects.min(MAX_REDIRECTS)
        } else {
            0
        };
        let mut url = request.url.clone();
        let mut trust = request.trust;
        let mut followed = 0;
        loop {
            let hop = Hop {
                url: &url,
                trust,
                is_first: followed == 0,
            };
            let exchange = self.exchange(&method, request, &hop, body.as_ref()).await?;
            let target = redirect_target(&url, &exchange.answer).filter(|_| allowed > 0);
            let Some(target) = target else {
                return exchange.read(request).await;
            };
            if followed == allowed {
                return Err(NetError::Protocol("too many redirects"));
            }
            followed += 1;
            url = target;
            trust = Trust::Untrusted;
        }
    }

    /// Sends one request, and returns once the head of the response is here.
    async fn exchange(
        &self,
        method: &Method,
        request: &Request,
        hop: &Hop<'_>,
        body: Option<&(HeaderValue, Bytes)>,
    ) -> Result<Exchange, NetError> {
        let host = policy::check(hop.url, hop.trust, policy::HTTP, self.development())?;
        let port = hop.url.port_or_known_default().unwrap_or_default();
        let key = HostKey::new(&host, port, hop.trust);
        let permit = self.inner.hosts.acquire(&key, request.priority).await?;
        let client = match hop.trust {
            Trust::Configured => &self.inner.configured,
            Trust::Untrusted => &self.inner.untrusted,
        };
        let mut builder = client.request(method.clone(), hop.url.clone());
        if hop.is_first {
            builder = builder.headers(request.headers.clone());
        }
        if let Some(accept) = request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        if let Some((content_type, bytes)) = body {
            builder = builder
                .header(CONTENT_TYPE, content_type)
                .body(bytes.clone());
        }
        let answer = builder.send().await.map_err(|e| NetError::of_request(&e))?;
        let now = self.inner.clock.now();
        let retry_after = retry_after::requested(answer.status(), answer.headers(), now);
        // The refusal of a message may mean the full queue of one recipient, which anyone can fill,
        // and says nothing about the host.
        if let Some(wait) = retry_after.filter(|_| request.priority != Priority::Mail) {
            self.inner.hosts.close(&key, wait);
        }
        Ok(Exchange {
            answer,
            retry_after,
            _permit: permit,
        })
    }
}

/// One address on the way of a request.
struct Hop<'u> {
    url: &'u Url,
    trust: Trust,
    is_first: bool,
}

/// A response whose body was not read yet; the host's permit is held until then.
struct Exchange {
    answer: reqwest::Response,
    retry_after: Option<Duration>,
    _permit: HostPermit,
}

impl Exchange {
    /// Reads the body up to the request's limit, counted as the bytes come out of decompression.
    async fn read(mut self, request: &Request) -> Result<Response, NetError> {
        let mut body = BytesMut::new();
        if request.body {
            let cap = request.cap;
            let announced = self.answer.content_length().unwrap_or(0);
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            if announced > cap {
                return Err(NetError::TooLarge { cap });
            }
            body.reserve(announced.min(MAX_RESERVED));
            while let Some(chunk) = self
                .answer
                .chunk()
                .await
                .map_err(|e| NetError::of_request(&e))?
            {
                if chunk.len() > cap - body.len() {
                    return Err(NetError::TooLarge { cap });
                }
                body.extend_from_slice(&chunk);
            }
        }
        Ok(Response {
            status: self.answer.status(),
            headers: self.answer.headers().clone(),
            body: body.freeze(),
            retry_after: self.retry_after,
        })
    }
}

fn redirect_target(url: &Url, answer: &reqwest::Response) -> Option<Url> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

/// The name resolver of one client. The client cannot connect to an address that is refused here.
struct PolicyResolver {
    dns: DnsResolver,
    trust: Trust,
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let dns = self.dns.clone();
        let trust = self.trust;
        Box::pin(async move {
            let addresses = dns.addresses(name.as_str(), trust).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| (ip, 0).into()));
            Ok(addresses)
        })
    }
}

/// Counts a request by its outcome.
pub(super) fn count(kind: &'static str, error: Option<&NetError>) {
    let outcome = error.map_or("ok", NetError::outcome);
    metrics::counter!("atcomm_net_requests_total", "kind" => kind, "outcome" => outcome)
        .increment(1);
}
