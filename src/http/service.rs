//! The services of axum: one for all connections, in front of the router, and one for each.
//!
//! [`App`] answers from the cache of views at once, and does for every other request what all of
//! them need.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    AUTHORIZATION, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use metrics::{Counter, Histogram};
use tower::Service;

use super::client_address::ClientAddress;
use super::connection::{Activity, LimitedListener};
use super::dataset;
use super::error::XrpcError;
use super::params::{plain_actor, too_long};
use super::rate::RequestLimit;
use super::router::router;
use super::routes::{self, RESOLVE_RECIPIENT};
use super::service_auth::{Presented, ServiceAuth};
use super::settings::HttpSettings;
use super::socket::Sockets;
use super::streams::Streams;
use super::xrpc;
use crate::dataset::Editions;
use crate::mediator::{Mediator, PublicAddress};
use crate::resolve::Resolver;

/// Request headers that a preflight without a readable list of its own allows.
const USUAL_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, atproto-accept-labelers, atproto-proxy, if-none-match",
);

/// Response headers that pages of other origins may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Retry-After, Atproto-Repo-Rev, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, \
     RateLimit-Policy",
);

/// Maximum length of a list of request headers that is repeated to a page.
const MAX_REFLECTED_LEN: usize = 1024;

/// Answers a preflight, valid for a day. Every header that the page asks for is allowed: no response
/// depends on cookies, and browsers and tracing libraries add headers that no list here could name.
fn preflight(headers: &HeaderMap) -> Response {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let allowed = asked.filter(|asked| {
        let bytes = asked.as_bytes();
        let mut names = bytes.split(|byte| *byte == b',');
        bytes.len() <= MAX_REFLECTED_LEN
            && names.all(|name| HeaderName::from_bytes(name.trim_ascii()).is_ok())
    });
    let allowed = allowed.cloned().unwrap_or(USUAL_HEADERS);
    let headers = [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, POST"),
        ),
        (ACCESS_CONTROL_ALLOW_HEADERS, allowed),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
        (
            VARY,
            HeaderValue::from_static("Access-Control-Request-Headers"),
        ),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Allows pages of every origin to read the response: responses are public and do not depend on
/// cookies.
pub(super) fn add_cors_headers(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
}

/// State and router that all connections share.
pub(super) struct App {
    settings: HttpSettings,
    resolver: Resolver,
    /// `None` where this server has no public address, so that no token can be for it.
    auth: Option<ServiceAuth>,
    limit: RequestLimit,
    router: Router,
    streams: Streams,
    /// What the pages tell of; set before the server runs, if at all.
    datasets: Arc<OnceLock<Editions>>,
    /// Handles of the metrics of cached views, so that they are not looked up for each request.
    ok: Counter,
    not_modified: Counter,
    seconds: Histogram,
}

impl App {
    pub(super) fn new(
        settings: HttpSettings,
        resolver: Resolver,
        mediator: Option<(Mediator, Sockets)>,
        address: Option<&PublicAddress>,
    ) -> Self {
        let method = RESOLVE_RECIPIENT.label;
        let requests = |status: &'static str| metrics::counter!("atcomm_http_requests_total", "method" => method, "status" => status);
        let streams = Streams::new(resolver.directory(), &settings.updates);
        let datasets: Arc<OnceLock<Editions>> = Arc::default();
        let methods = router(
            resolver.clone(),
            mediator,
            address,
            Arc::clone(&datasets),
            settings.max_requests,
        );
        Self {
            auth: address.map(|address| ServiceAuth::new(address, resolver.clone())),
            router: methods.merge(streams.routes()),
            streams,
            datasets,
            limit: RequestLimit::new(&settings, &resolver),
            resolver,
            ok: requests("200"),
            not_modified: requests("304"),
            seconds: metrics::histogram!("atcomm_http_request_seconds", "method" => method),
            settings,
        }
    }

    /// Serves the editions of the dataset, too.
    pub(super) fn add_datasets(&mut self, editions: Editions) {
        let editions = self.datasets.get_or_init(|| editions).clone();
        let files = dataset::routes(editions, self.settings.max_requests);
        self.router = self.router.clone().merge(files);
    }

    /// Returns the readers of the change log.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    #[cfg(test)]
    pub(super) fn set_router(&mut self, router: Router) {
        self.router = router;
    }

    /// Answers the commonest query from the cache of views. Returns `None` where the cache cannot.
    fn answer_cached(&self, request: &Request) -> Option<Response> {
        if request.method() != Method::GET
            || request.uri().path() != RESOLVE_RECIPIENT.path
            // A token is verified first.
            || request.headers().contains_key(AUTHORIZATION)
        {
            return None;
        }
        let begun = Instant::now();
        let mut name = [0; 256];
        let name = plain_actor(request.uri().query()?, &mut name)?;
        let rendered = self.resolver.directory().cached_view(name)?;
        let mut response = xrpc::recipient_response(&rendered, request.headers());
        add_cors_headers(response.headers_mut());
        if response.status() == StatusCode::OK {
            self.ok.increment(1);
        } else {
            self.not_modified.increment(1);
        }
        self.seconds.record(begun.elapsed());
        Some(response)
    }

    /// Answers every other request.
    pub(super) async fn answer(&self, request: Request, peer: IpAddr) -> Response {
        let begun = Instant::now();
        let method = routes::label(request.uri().path());
        let mut response = self.route(request, peer).await;
        add_cors_headers(response.headers_mut());
        let (status, took) = (response.status().as_u16(), begun.elapsed());
        let requests = metrics::counter!(
            "atcomm_http_requests_total", "method" => method, "status" => status.to_string(),
        );
        requests.increment(1);
        metrics::histogram!("atcomm_http_request_seconds", "method" => method).record(took);
        tracing::debug!(method, status, took_us = took.as_micros(), "request");
        response
    }

    async fn route(&self, mut request: Request, peer: IpAddr) -> Response {
        if request.method() == Method::OPTIONS {
            return preflight(request.headers());
        }
        let max = routes::max_query_len(request.uri().path());
        if let Some(query) = request.uri().query().filter(|query| query.len() > max) {
            return too_long(query, max).into_response();
        }
        let client = ClientAddress::of(peer, request.headers(), &self.settings.trusted_proxies);
        let charge = match self.limit.charge(request.uri().path(), client.0) {
            Ok(charge) => charge,
            Err(refused) => return *refused,
        };
        request.extensions_mut().insert(client);
        let mut response = self.handle(request, client.0).await;
        charge.write(&mut response);
        response
    }

    /// Verifies the caller's token, if there is one, and answers by the router; within the time limit.
    async fn handle(&self, request: Request, client: IpAddr) -> Response {
        let presented = Presented::of(&request);
        let answer = async {
            if let Err(error) = self.verify(presented, client).await {
                return Ok(error.into_response());
            }
            self.router.clone().call(request).await
        };
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(self.settings.timeout, answer).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            // The panic hook has logged the place.
            Ok(Err(_panic)) => XrpcError::internal().into_response(),
            Err(_elapsed) => XrpcError::timeout().into_response(),
        }
    }
}

impl App {
    /// Verifies the token of a request, if it has one.
    async fn verify(
        &self,
        presented: Result<Option<Presented>, XrpcError>,
        client: IpAddr,
    ) -> Result<(), XrpcError> {
        match (&self.auth, presented?) {
            (Some(auth), Some(presented)) => auth.verify(&presented, client).await,
            _ => Ok(()),
        }
    }
}

/// Makes the service of each connection.
pub(super) struct MakeConnectionService(Arc<App>);

impl MakeConnectionService {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

impl Service<IncomingStream<'_, LimitedListener>> for MakeConnectionService {
    type Response = ConnectionService;
    type Error = Infallible;
    type Future = Ready<Result<ConnectionService, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, LimitedListener>) -> Self::Future {
        ready(Ok(ConnectionService {
            app: Arc::clone(&self.0),
            activity: Arc::clone(stream.io().activity()),
            peer: stream.remote_addr().ip(),
        }))
    }
}

/// The service of one connection.
#[derive(Clone)]
pub(super) struct ConnectionService {
    app: Arc<App>,
    activity: Arc<Activity>,
    peer: IpAddr,
}

impl Service<Request> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Response, Infallible>>,
        BoxFuture<'static, Result<Response, Infallible>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        self.activity.request_begun();
        if let Some(response) = self.app.answer_cached(&request) {
            return Either::Left(ready(Ok(response)));
        }
        let guard = self.activity.busy_guard();
        let Self { app, peer, .. } = self.clone();
        if routes::has_sockets(request.uri().path()) {
            // Needed by the socket that the connection may become.
            let activity = Arc::clone(&self.activity);
            request.extensions_mut().insert(activity);
        }
        Either::Right(Box::pin(async move {
            let response = app.answer(request, peer).await;
            drop(guard);
            Ok(response)
        }))
    }
}
