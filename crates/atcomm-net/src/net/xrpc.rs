//! XRPC over HTTP: addresses of methods, and errors as servers answer them.
//!
//! Source: atproto, "HTTP API (XRPC)".

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::client::Net;
use super::error::NetError;
use super::policy::Trust;
use super::request::{Request, Response};
use atcomm_proto::syntax::RemoteText;

/// Errors of calling a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No whole response came.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] XrpcError),
}

/// An error response, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("HTTP {}", .status.as_u16())]
pub struct XrpcError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The name of the error, for programs. `None` where the body is not an error of XRPC: then
    /// something else than the method has answered, such as a proxy.
    pub name: Option<RemoteText>,
    /// The description of the error, for people.
    pub message: Option<RemoteText>,
    /// The time until a new attempt makes sense (429 and 503).
    pub retry_after: Option<Duration>,
}

/// The body of an error. Fields of another type than text are treated as absent. The fields are
/// borrowed from the body, so that a long body costs no further memory.
#[derive(Default, Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

impl XrpcError {
    /// Reads an error response.
    pub fn of(answer: &Response) -> Self {
        let text = |field: Option<&RawValue>| serde_json::from_str(field?.get()).ok();
        let body: Body<'_> = serde_json::from_slice(&answer.body).unwrap_or_default();
        Self {
            status: answer.status,
            name: text(body.error),
            message: text(body.message),
            retry_after: answer.retry_after,
        }
    }

    /// Returns the name of the error; empty where there is none.
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or("", RemoteText::as_str)
    }

    /// Whether the server is at fault and not the request: the server fails (5xx) or limits the
    /// rate (429).
    pub fn is_of_server(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

impl Request {
    /// Returns a request for the method `nsid` at a server, with its parameters and the defaults of
    /// [`Request::new`].
    pub fn xrpc(
        server: &Url,
        nsid: &str,
        params: &[(&str, &str)],
        trust: Trust,
        cap: usize,
    ) -> Self {
        let mut url = server.clone();
        url.set_path(&format!("/xrpc/{nsid}"));
        if !params.is_empty() {
            url.query_pairs_mut().extend_pairs(params);
        }
        Self::new(url, trust, cap)
    }
}

impl Response {
    /// Returns the body of a success, or the error of the response.
    pub fn accepted(self) -> Result<Bytes, XrpcError> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            Err(XrpcError::of(&self))
        }
    }
}

impl Net {
    /// Calls a query (`GET`).
    pub async fn query(&self, request: &Request) -> Result<Bytes, CallError> {
        Ok(self.get(request).await?.accepted()?)
    }

    /// Calls a procedure (`POST`) whose input is JSON. After [`CallError::Net`] the procedure may
    /// have run all the same.
    pub async fn procedure(&self, request: &Request, input: Bytes) -> Result<Bytes, CallError> {
        let answer = self.post(request, "application/json", input).await?;
        Ok(answer.accepted()?)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn refused(status: u16, body: &str) -> XrpcError {
        let answer = Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            retry_after: Some(Duration::from_secs(9)),
        };
        answer.accepted().unwrap_err()
    }

    #[test]
    fn errors_are_read_as_far_as_possible() {
        for (body, name, message) in [
            (r#"{"error":"Odd","message":"a"}"#, "Odd", Some("a")),
            (r#"{"error":"Odd"}"#, "Odd", None),
            (r#"{"message":"a"}"#, "", Some("a")),
            (r#"{"error":"Odd","message":7,"more":{}}"#, "Odd", None),
            (r#"{"error":{"a":[]},"message":"a"}"#, "", Some("a")),
            (r#"{"error":null,"message":null}"#, "", None),
            // Control characters do not reach a terminal.
            (
                r#"{"error":"O\u001bdd","message":"a\nb"}"#,
                "O\u{fffd}dd",
                Some("a b"),
            ),
            ("", "", None),
            ("<html>", "", None),
            ("[]", "", None),
            (r#""Odd""#, "", None),
        ] {
            let error = refused(400, body);
            assert_eq!(error.name(), name, "{body}");
            let said = error.message.as_ref().map(RemoteText::as_str);
            assert_eq!(said, message, "{body}");
            assert_eq!(error.to_string(), "HTTP 400");
        }
        let long = format!(r#"{{"error":"{0}","message":"{0}"}}"#, "x".repeat(10_000));
        assert_eq!(refused(400, &long).name().len(), RemoteText::MAX_CHARS);
    }

    #[test]
    fn faults_of_servers_are_distinguished_from_faults_of_requests() {
        for status in [429, 500, 502, 503] {
            assert!(refused(status, "").is_of_server(), "{status}");
        }
        for status in [301, 400, 401, 404] {
            assert!(!refused(status, "").is_of_server(), "{status}");
        }
    }

    #[test]
    fn methods_have_addresses() {
        let server = Url::parse("https://pds.example.com").unwrap();
        let url = |params: &[(&str, &str)]| {
            let request = Request::xrpc(&server, "a.b.c", params, Trust::Untrusted, 1);
            request.url.to_string()
        };
        assert_eq!(url(&[]), "https://pds.example.com/xrpc/a.b.c");
        assert_eq!(
            url(&[("did", "did:web:x"), ("q", "a&b c")]),
            "https://pds.example.com/xrpc/a.b.c?did=did%3Aweb%3Ax&q=a%26b+c"
        );
    }
}
