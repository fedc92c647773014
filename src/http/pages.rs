//! Pages for people: HTML for browsers, text for programs that print.
//!
//! A page needs no script and nothing of another server, and its policy lets browsers load nothing
//! else. Every value of the network is text to the templates, which escape it.

mod account;
mod home;
mod layout;
mod numbers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use maud::Markup;
use tokio::sync::Semaphore;

use super::client_address::ClientAddress;
use super::params::Params;
use crate::mediator::Mediator;
use crate::resolve::{ResolveError, Resolver};
use atcomm_proto::typed;

use account::Found;
use home::Known;
use layout::STYLE;
use numbers::Numbers;

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
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Most sources on the page.
const MAX_SOURCES: usize = 50;

/// State of the handlers.
struct Shared {
    resolver: Resolver,
    mediator: Option<String>,
    /// Slots for pages that wait for the store or the network.
    slots: Semaphore,
}

/// Returns the routes of all pages.
pub(super) fn routes(
    resolver: Resolver,
    mediator: Option<&Mediator>,
    max_requests: usize,
) -> Router {
    let shared = Shared {
        resolver,
        mediator: mediator.map(|mediator| mediator.did().to_string()),
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

async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let mediator = shared.mediator.as_deref();
    let mut response = if is_browser(&headers) {
        page(StatusCode::OK, home::html(mediator, &shared.known().await))
    } else {
        home::text(mediator).into_response()
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
    uri: Uri,
) -> Response {
    let Ok(Some(typed)) = Params::of(&uri).one("actor") else {
        return page(
            StatusCode::BAD_REQUEST,
            account::not_typed("", "type a name"),
        );
    };
    let actor = match typed::actor(&typed) {
        Ok(actor) => actor,
        Err(error) => {
            let why = error.to_string();
            return page(StatusCode::BAD_REQUEST, account::not_typed(&typed, &why));
        }
    };
    let Ok(_slot) = shared.slots.try_acquire() else {
        return busy(&typed, RETRY_AFTER);
    };
    match shared.look_up(&actor, client).await {
        Ok(found) => page(StatusCode::OK, account::found(&found)),
        Err(ResolveError::Refused(refusal)) => {
            let (status, page_of) = account::refused(&typed, &refusal);
            page(status, page_of)
        }
        Err(ResolveError::OverBudget { retry_after, .. }) => busy(&typed, retry_after),
        Err(ResolveError::Store(error)) => {
            tracing::error!(%error, "the store failed under a page");
            page(
                StatusCode::SERVICE_UNAVAILABLE,
                account::unavailable(&typed),
            )
        }
    }
}

impl Shared {
    /// Returns the numbers for the page at `/`. A page without them is better than none.
    async fn known(&self) -> Known {
        let directory = self.resolver.directory();
        let statistics = directory.statistics().await;
        let sources = directory.store().query(|q| q.sources(MAX_SOURCES)).await;
        if let Some(error) = statistics.as_ref().err().or(sources.as_ref().err()) {
            tracing::error!(%error, "the store failed under a page");
        }
        Known {
            numbers: statistics.ok().and_then(|all| Numbers::read(&all.body)),
            sources: sources.unwrap_or_default(),
        }
    }

    async fn look_up(
        &self,
        actor: &atcomm_proto::syntax::Actor,
        client: IpAddr,
    ) -> Result<Found, ResolveError> {
        let view = self.resolver.recipient(actor, client).await?;
        Found::read(&view.body).ok_or_else(|| {
            tracing::error!("a rendered answer cannot be read");
            crate::store::StoreError::Closed.into()
        })
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
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = [
        (CONTENT_TYPE, html),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, markup.into_string()).into_response()
}

fn busy(typed: &str, wait: Duration) -> Response {
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, account::busy(typed));
    let seconds = wait.as_secs().max(1);
    response
        .headers_mut()
        .insert(axum::http::header::RETRY_AFTER, seconds.into());
    response
}

async fn style() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/css; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=86400"),
    ];
    (headers, STYLE).into_response()
}
