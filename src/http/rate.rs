//! The limit on requests of one client address for XRPC methods and files of datasets, and the headers that tell of it as other
//! atproto servers do: `RateLimit-Limit`, `-Remaining`, `-Reset` (seconds since 1970) and `-Policy`.
//!
//! Answers from the cache of views are not counted. An answer that a client is refused because of
//! the looks that it caused tells of that limit instead.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use super::client_address::Network;
use super::error::{LooksUsedUp, XrpcError};
use super::routes::{DATASET_FILES, HEALTH};
use super::settings::HttpSettings;
use crate::resolve::Resolver;
use atcomm_net::net::AddressLimiter;
use atcomm_net::rate_limit::Rate;
use atcomm_proto::clock::Clock;

/// The time in which the setting `rate_limit` counts.
const WINDOW: Duration = Duration::from_secs(300);

/// The time in which the setting `misses_per_minute` counts.
const LOOKS_WINDOW: Duration = Duration::from_secs(60);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limit on the requests of each address.
pub(super) struct RequestLimit {
    /// `None` where there is no limit.
    requests: Option<AddressLimiter>,
    per_window: u32,
    /// `RateLimit-Policy` of this limit.
    policy: HeaderValue,
    looks_per_minute: u32,
    bypass: Vec<Network>,
    clock: Clock,
}

/// What a limit says of a request.
#[derive(Clone, Copy)]
struct State {
    limit: u32,
    window: Duration,
    remaining: u32,
    /// Time until all of it is left again.
    reset: Duration,
}

/// What is to be told of the limits with the response to a request.
pub(super) struct Charge<'l> {
    limit: &'l RequestLimit,
    /// `None` where the request is not limited.
    state: Option<State>,
}

impl RequestLimit {
    pub(super) fn new(settings: &HttpSettings, resolver: &Resolver) -> Self {
        let (per_window, clock) = (settings.rate_limit, resolver.clock().clone());
        let rate = (per_window > 0).then(|| Rate::per(per_window, WINDOW));
        Self {
            requests: rate.map(|rate| AddressLimiter::with_rate(rate, clock.clone())),
            per_window,
            policy: policy(per_window, WINDOW),
            looks_per_minute: resolver.looks_per_minute(),
            bypass: settings.rate_limit_bypass.clone(),
            clock,
        }
    }

    /// Charges the client with a request of a path, or returns the response that refuses it.
    pub(super) fn charge(&self, path: &str, client: IpAddr) -> Result<Charge<'_>, Box<Response>> {
        let charge = |state| Charge { limit: self, state };
        let Some(requests) = self.requests.as_ref().filter(|_| self.counts(path, client)) else {
            return Ok(charge(None));
        };
        let state = |remaining, reset| State {
            limit: self.per_window,
            window: WINDOW,
            remaining,
            reset,
        };
        match requests.spend(client) {
            Ok(left) => Ok(charge(Some(state(left.requests, left.full_in)))),
            Err(wait) => {
                metrics::counter!("atcomm_http_address_limited_total").increment(1);
                let mut response = XrpcError::rate_limited(wait).into_response();
                charge(Some(state(0, wait))).write(&mut response);
                Err(Box::new(response))
            }
        }
    }

    /// Returns whether requests of a client for a path are counted. Monitoring is not.
    fn counts(&self, path: &str, client: IpAddr) -> bool {
        (path.starts_with("/xrpc/") || path.starts_with(DATASET_FILES.label))
            && path != HEALTH.path
            && !self.bypass.iter().any(|network| network.contains(client))
    }
}

impl Charge<'_> {
    /// Writes the headers.
    pub(super) fn write(&self, response: &mut Response) {
        let looks = response.extensions().get::<LooksUsedUp>().copied();
        let state = match looks {
            Some(LooksUsedUp(wait)) => State {
                limit: self.limit.looks_per_minute,
                window: LOOKS_WINDOW,
                remaining: 0,
                reset: wait,
            },
            None => match self.state {
                Some(state) => state,
                None => return,
            },
        };
        let now = u64::try_from(self.limit.clock.now().millis()).unwrap_or(0);
        let reset_at = Duration::from_millis(now).saturating_add(state.reset);
        let policy = if looks.is_some() {
            policy(state.limit, state.window)
        } else {
            self.limit.policy.clone()
        };
        let headers = response.headers_mut();
        headers.insert(LIMIT, state.limit.into());
        headers.insert(REMAINING, state.remaining.into());
        // Rounded up: a client that returns too early is refused again.
        headers.insert(RESET, reset_at.as_secs().saturating_add(1).into());
        headers.insert(POLICY, policy);
    }
}

fn policy(limit: u32, window: Duration) -> HeaderValue {
    let policy = format!("{limit};w={}", window.as_secs());
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static(""))
}
