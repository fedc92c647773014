//! The only place that dials out: HTTP, WebSockets and DNS, guarded.
//!
//! Names learnt from the network ([`Trust::Untrusted`]) are dialled only by `https`, on 443 or a port
//! from 1024 up, and only at public unicast addresses. The address is checked where the connection
//! takes it from, so a name that answers differently the second time gains nothing. Endpoints that
//! the operator named ([`Trust::Configured`]) are exempt from scheme and address rules.
//!
//! Every answer has a size cap that counts decompressed bytes as they arrive, every request a time
//! limit over all its parts, every host a rate, a number of places and a memory of the
//! `Retry-After` it sent. No log line or metric names a host.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use url::Url;

use atcomm_proto::clock::Clock;

mod address;
mod address_limiter;
mod dns;
mod error;
mod gate;
mod policy;
mod reader;
mod retry;
mod settings;
mod socket;
mod tls;
mod xrpc;

pub use address_limiter::{AddressLimiter, group_of};
pub use error::{DnsError, NetError, Refusal};
pub use gate::Priority;
pub use policy::Trust;
pub use reader::{Received, StreamReader};
pub use settings::NetSettings;
pub use socket::{Wire, WsOptions};
pub use xrpc::{CallError, XrpcError};

use dns::Names;
use gate::{Gate, HostKey};

/// Most redirects that are followed, whatever a request asks for.
const MAX_REDIRECTS: u8 = 3;

/// Idle connections kept per host name, and for how long.
struct Idle {
    connections: usize,
    timeout: Duration,
}

/// Endpoints of the operator are few: long enough for a walk through a repository list, short
/// enough that a host's move to another address is noticed.
const IDLE_OPERATOR: Idle = Idle {
    connections: 4,
    timeout: Duration::from_secs(30),
};

/// Anybody has as many names as he likes under one domain, and nothing bounds the idle connections
/// of all names together: just long enough for the look that is under way.
const IDLE_LEARNT: Idle = Idle {
    connections: 1,
    timeout: Duration::from_secs(2),
};

/// Response headers accepted by HTTP/2, in bytes.
const MAX_HEADER_LIST: u32 = 16 * 1024;

/// What to ask for. Everything but the URL and who named it has a default.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where.
    pub url: Url,
    /// Who named the URL.
    pub trust: Trust,
    /// Whose work it is; also that of its redirects.
    pub priority: Priority,
    /// Longest body in bytes after decompression.
    pub cap: usize,
    /// The `Accept` header.
    pub accept: Option<&'static str>,
    /// More headers. They are not sent on to where a redirect leads.
    pub headers: HeaderMap,
    /// Time for the whole exchange; `None` = the setting `timeout`.
    pub timeout: Option<Duration>,
    /// Whether the body is wanted. Without it the answer has none, however long it is.
    pub body: bool,
    /// Redirects followed (`GET` only, at most 3). Where one leads was learnt from the network,
    /// whoever named the first URL. With 0 a redirect is the answer.
    pub redirects: u8,
}

impl Request {
    /// A request of the given cap, in bytes; for the background; no redirects, the default time limit.
    pub fn new(url: Url, trust: Trust, cap: usize) -> Self {
        Self {
            url,
            trust,
            priority: Priority::default(),
            cap,
            accept: None,
            headers: HeaderMap::new(),
            timeout: None,
            body: true,
            redirects: 0,
        }
    }
}

/// A whole answer, of whatever status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// How long a refusal (429, 503) asks us to stay away. The host is closed for that long
    /// already; this is for the caller's own plans.
    pub retry_after: Option<Duration>,
}

impl Response {
    /// The media type, where it is text.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// The entity tag, where it is text.
    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }
}

/// Dials out. Cloning is cheap, and clones share all limits.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    settings: NetSettings,
    clock: Clock,
    user_agent: HeaderValue,
    gate: Gate,
    names: Names,
    /// Two clients, so that a connection opened for the operator is never reused for a stranger.
    operator: reqwest::Client,
    learnt: reqwest::Client,
    ws_tls: Arc<ClientConfig>,
}

impl Net {
    /// Reads the CA file and prepares the clients; dials nothing. Fails on settings that cannot
    /// be used together.
    pub fn bind(settings: NetSettings, clock: Clock) -> Result<Self, NetError> {
        if settings.https_port != 443 && !settings.development {
            return Err(NetError::Settings(
                "https_port is for development only".to_owned(),
            ));
        }
        let version = env!("CARGO_PKG_VERSION");
        let user_agent = match &settings.contact {
            Some(contact) => format!("atcomm/{version} (+{contact})"),
            None => format!("atcomm/{version}"),
        };
        let user_agent = HeaderValue::try_from(user_agent).map_err(|_| {
            NetError::Settings("contact has characters that no header may have".to_owned())
        })?;
        let names = Names::bind(settings.name_server, settings.development)?;
        let mut ws_tls = tls::client_config(settings.extra_ca_file.as_deref())?;
        let mut http_tls = ws_tls.clone();
        ws_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        http_tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = |trust, idle: Idle| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(http_tls.clone())
                .dns_resolver(Arc::new(Filter {
                    names: names.clone(),
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
                .map_err(|e| NetError::Settings(e.to_string()))
        };
        Ok(Self {
            inner: Arc::new(Inner {
                gate: Gate::new(&settings, clock.clone()),
                operator: client(Trust::Configured, IDLE_OPERATOR)?,
                learnt: client(Trust::Untrusted, IDLE_LEARNT)?,
                names,
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

    /// The port of `https` where a handle or a `did:web` names none: 443 outside development.
    pub fn https_port(&self) -> u16 {
        self.inner.settings.https_port
    }

    /// Fetches. Any status is an `Ok`.
    pub async fn get(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::GET, request, None).await
    }

    /// Sends `body` and gives the answer. Any status is an `Ok`; redirects are never followed. An
    /// error says nothing about whether the host received the body.
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

    /// The same without a body, for procedures that take none.
    pub async fn post_nothing(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::POST, request, None).await
    }

    /// Asks whether anybody answers there (`OPTIONS`).
    pub async fn options(&self, request: &Request) -> Result<Response, NetError> {
        self.send(Method::OPTIONS, request, None).await
    }

    /// The TXT records of `name`, the strings of each record joined. Never cached.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let result = self.inner.names.txt(name).await;
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

    /// The exchange with its redirects, each a request of its own before policy and limits.
    async fn follow(
        &self,
        method: Method,
        request: &Request,
        body: Option<(HeaderValue, Bytes)>,
    ) -> Result<Response, NetError> {
        let allowed = match method {
            Method::GET => request.redirects.min(MAX_REDIRECTS),
            _ => 0,
        };
        let mut url = request.url.clone();
        let mut trust = request.trust;
        let mut hops = 0;
        loop {
            let host = policy::check(&url, trust, policy::HTTP, self.development())?;
            let port = url.port_or_known_default().unwrap_or_default();
            let key = HostKey::new(&host, port, trust);
            let turn = self.inner.gate.enter(&key, request.priority).await?;
            let client = match trust {
                Trust::Configured => &self.inner.operator,
                Trust::Untrusted => &self.inner.learnt,
            };
            let mut builder = client.request(method.clone(), url.clone());
            if hops == 0 {
                builder = builder.headers(request.headers.clone());
            }
            if let Some(accept) = request.accept {
                builder = builder.header(ACCEPT, accept);
            }
            if let Some((content_type, bytes)) = &body {
                builder = builder
                    .header(CONTENT_TYPE, content_type)
                    .body(bytes.clone());
            }
            let answer = builder.send().await.map_err(|e| request_error(&e))?;
            let retry_after =
                retry::wanted(answer.status(), answer.headers(), self.inner.clock.now());
            // One recipient's full queue, which anybody can fill, is no word about the host.
            if let Some(wait) = retry_after.filter(|_| request.priority != Priority::Mail) {
                self.inner.gate.close(&key, wait);
            }
            let target = redirect_target(&url, &answer).filter(|_| allowed > 0);
            if let Some(target) = target {
                if hops == allowed {
                    return Err(NetError::Protocol("too many redirects"));
                }
                hops += 1;
                url = target;
                trust = Trust::Untrusted;
                drop(turn);
                continue;
            }
            if !request.body {
                return Ok(Response {
                    status: answer.status(),
                    headers: answer.headers().clone(),
                    body: Bytes::new(),
                    retry_after,
                });
            }
            return read(answer, request.cap, retry_after).await;
        }
    }
}

/// Reads the body up to `cap` bytes, counted as they come out of decompression.
async fn read(
    mut answer: reqwest::Response,
    cap: usize,
    retry_after: Option<Duration>,
) -> Result<Response, NetError> {
    let announced = usize::try_from(answer.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > cap {
        return Err(NetError::TooLarge { cap });
    }
    // What a host announces is not yet worth memory.
    let mut body = BytesMut::with_capacity(announced.min(64 * 1024));
    while let Some(chunk) = answer.chunk().await.map_err(|e| request_error(&e))? {
        if chunk.len() > cap - body.len() {
            return Err(NetError::TooLarge { cap });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: body.freeze(),
        retry_after,
    })
}

fn redirect_target(url: &Url, answer: &reqwest::Response) -> Option<Url> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

/// The resolver of one client: what it refuses, the client cannot connect to.
struct Filter {
    names: Names,
    trust: Trust,
}

impl Resolve for Filter {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.names.clone();
        let trust = self.trust;
        Box::pin(async move {
            let addresses = names.addresses(name.as_str(), trust).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| (ip, 0).into()));
            Ok(addresses)
        })
    }
}

/// Finds our own reason, or the TLS library's, under the client's layers.
fn request_error(error: &reqwest::Error) -> NetError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<NetError>() {
            return own.clone();
        }
        if let Some(cause) = cause.downcast_ref::<io::Error>()
            && let NetError::Tls(reason) = io_error(cause)
        {
            return NetError::Tls(reason);
        }
        source = cause.source();
    }
    if error.is_timeout() {
        NetError::Timeout
    } else if error.is_connect() {
        NetError::Connect
    } else if error.is_decode() {
        NetError::Protocol("the body cannot be decoded")
    } else if error.is_builder() {
        NetError::Protocol("not a request that can be sent")
    } else {
        // A connection that broke after it stood; nothing tells bad HTTP from a lost peer.
        NetError::Connect
    }
}

/// The TLS library's reason may be wrapped in more than one I/O error.
fn io_error(error: &io::Error) -> NetError {
    let mut error = error;
    while let Some(inner) = error.get_ref() {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return NetError::Tls(tls.to_string());
        }
        match inner.downcast_ref::<io::Error>() {
            Some(inner) => error = inner,
            None => break,
        }
    }
    match error.kind() {
        io::ErrorKind::TimedOut => NetError::Timeout,
        _ => NetError::Connect,
    }
}

fn count(kind: &'static str, error: Option<&NetError>) {
    let outcome = error.map_or("ok", NetError::outcome);
    metrics::counter!("atcomm_net_requests_total", "kind" => kind, "outcome" => outcome)
        .increment(1);
}

#[cfg(test)]
mod tests;
