//! Pages for people: HTML for browsers, text for programs that print.
//!
//! A page needs no script and nothing of another server, and its policy lets browsers load nothing
//! else. Every value of the network is text to the templates, which escape it.

mod account;
mod axis;
mod front;
mod groups;
mod home;
mod layout;
mod numbers;
mod series;
mod sources;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use maud::Markup;
use tokio::sync::Semaphore;

use super::client_address::ClientAddress;
use super::params::Params;
use crate::dataset::Editions;
use crate::mediator::Mediator;
use crate::resolve::{ResolveError, Resolver};
use crate::store::StoreError;
use atcomm_proto::syntax::Actor;
use atcomm_proto::typed;

use account::{Checks, Found, Problem};
use front::FrontPages;
use layout::STYLE;
use numbers::Numbers;
use series::Span;

/// Keeps crawlers away from what would look up every handle that a crawler finds, and from the
/// mediator's paths, which have nothing for them.
const ROBOTS: &str = "User-agent: *\nDisallow: /xrpc/\nDisallow: /account\nDisallow: /didcomm\n\
                      Disallow: /invitation\n";

/// Nothing but the style sheet is loaded, forms lead here, and no page of others frames this one.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'",
);

/// `Retry-After` where no more pages are made at once.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// State of the handlers.
struct Shared {
    resolver: Resolver,
    mediator: Option<String>,
    /// Empty where no datasets are served.
    datasets: Arc<OnceLock<Editions>>,
    front: FrontPages,
    /// Slots for pages that wait for the store or the network.
    slots: Semaphore,
}

/// Returns the routes of all pages.
pub(super) fn routes(
    resolver: Resolver,
    mediator: Option<&Mediator>,
    datasets: Arc<OnceLock<Editions>>,
    max_requests: usize,
) -> Router {
    let shared = Shared {
        resolver,
        mediator: mediator.map(|mediator| mediator.did().to_string()),
        datasets,
        front: FrontPages::default(),
        // A part, so that programs are answered while pages are asked for.
        slots: Semaphore::new((max_requests / 8).clamp(1, Semaphore::MAX_PERMITS)),
    };
    let robots = ([(CACHE_CONTROL, "public, max-age=3600")], ROBOTS);
    Router::new()
        .route("/", get(home))
        .route("/account", get(account))
        .route("/style.css", get(style))
        .route("/robots.txt", get(async move || robots))
        .with_state(Arc::new(shared))
}

async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap, uri: Uri) -> Response {
    let mediator = shared.mediator.as_deref();
    let directory = shared.resolver.directory();
    let mut response = if is_browser(&headers) {
        let days = Params::of(&uri).one("days");
        let Some(span) = days.ok().and_then(|days| Span::read(days.as_deref())) else {
            return page(StatusCode::BAD_REQUEST, home::no_such_span());
        };
        let edition = shared.datasets.get().and_then(Editions::latest);
        let edition = edition.map(|edition| edition.day);
        let html = shared.front.page(span, directory, mediator, edition);
        let html = html.await;
        (page_headers(), html).into_response()
    } else {
        // A text without numbers is better than none.
        let statistics = directory.statistics().await.ok();
        let numbers = statistics.and_then(|all| Numbers::read(&all.body));
        home::text(mediator, numbers.as_ref()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=60"),
    );
    headers.insert(VARY, HeaderValue::from_name(ACCEPT));
    response
}

/// Shows how an account is written to, and every step that leads there.
async fn account(
    State(shared): State<Arc<Shared>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let typed = Params::of(&uri).one("actor").ok().flatten();
    let typed = typed.unwrap_or_default();
    let is_browser = is_browser(&headers);
    let mut response = match shared.account(&typed, client).await {
        Ok((found, checks)) if is_browser => page(StatusCode::OK, account::found(&found, &checks)),
        Ok((found, checks)) => text(StatusCode::OK, found.text(&checks)),
        Err((problem, wait)) => {
            let mut response = if is_browser {
                page(problem.status, problem.html(&typed))
            } else {
                text(problem.status, problem.text(&typed))
            };
            if let Some(wait) = wait {
                let seconds = wait.as_secs().max(1);
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_name(ACCEPT));
    response
}

impl Shared {
    /// Looks an account up. A problem that passes comes with the time after which to try again.
    async fn account(
        &self,
        typed: &str,
        client: IpAddr,
    ) -> Result<(Found, Checks), (Problem, Option<Duration>)> {
        if typed.is_empty() {
            return Err((account::not_typed("type a name"), None));
        }
        let actor = typed::actor(typed);
        let actor = actor.map_err(|error| (account::not_typed(&error.to_string()), None))?;
        let slot = self.slots.try_acquire();
        let _slot = slot.map_err(|_| (account::busy(), Some(BUSY_WAIT)))?;
        self.look_up(&actor, client)
            .await
            .map_err(|error| match error {
                ResolveError::Refused(refusal) => (account::refused(&refusal), None),
                ResolveError::OverBudget { retry_after, .. } => {
                    (account::busy(), Some(retry_after))
                }
                ResolveError::Store(error) => {
                    tracing::error!(%error, "the store failed under a page");
                    (account::unavailable(), None)
                }
            })
    }

    async fn look_up(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<(Found, Checks), ResolveError> {
        let view = self.resolver.recipient(actor, client).await?;
        let found = Found::read(&view.body).ok_or_else(|| {
            tracing::error!("a rendered answer cannot be read");
            StoreError::Closed
        })?;
        let did = view.did.clone();
        let store = self.resolver.directory().store();
        let entry = store.query(move |q| q.entry(&did)).await?;
        // The entry may have gone since the view was rendered.
        Ok((found, entry.as_ref().map(Checks::of).unwrap_or_default()))
    }
}

/// Returns whether the client shows HTML: browsers say so, programs that print do not.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// Returns a page with the headers that each has.
fn page(status: StatusCode, markup: Markup) -> Response {
    (status, page_headers(), markup.into_string()).into_response()
}

fn page_headers() -> [(HeaderName, HeaderValue); 5] {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    [
        (CONTENT_TYPE, html),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

/// Returns a text with the same headers but for the policy, which is about HTML.
fn text(status: StatusCode, text: String) -> Response {
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, text).into_response()
}

async fn style() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/css; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=86400"),
    ];
    (headers, STYLE).into_response()
}
