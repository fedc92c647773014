//! HTTP requests and responses.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};
use url::Url;

use super::host_limiter::Priority;
use super::policy::Trust;

/// An HTTP request. Everything but the address, its origin and `cap` has a default.
#[derive(Debug, Clone)]
pub struct Request {
    /// The address.
    pub url: Url,
    /// The origin of the address.
    pub trust: Trust,
    /// The class of work that the request and its redirects belong to.
    pub priority: Priority,
    /// Longest body in bytes after decompression.
    pub cap: usize,
    /// The `Accept` header.
    pub accept: Option<&'static str>,
    /// Further headers. They are not sent to the target of a redirect.
    pub headers: HeaderMap,
    /// Time limit of the whole exchange; `None`: the setting `timeout`.
    pub timeout: Option<Duration>,
    /// Whether the body is read. Otherwise the response has an empty body, however long the body
    /// sent is.
    pub body: bool,
    /// Redirects followed (`GET` only, at most 3). Their targets are [`Trust::Untrusted`], also
    /// where the first address is configured. With 0 a redirect is the response.
    pub redirects: u8,
}

impl Request {
    /// Returns a request with a body of at most `cap` bytes, in the background, without redirects
    /// and with the default time limit.
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

/// A whole response, of any status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// The pause that a refusal (429, 503) asks for. Requests to the host fail as busy until then;
    /// the field serves the caller's own plans.
    pub retry_after: Option<Duration>,
}

impl Response {
    /// Returns the media type, where it is text.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// Returns the entity tag, where it is text.
    pub fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }
}
