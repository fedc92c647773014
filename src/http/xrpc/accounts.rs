//! Methods about several accounts, and about what the directory has of one.

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::error::XrpcError;
use super::super::response_budget::MAX_RESPONSE;
use super::{JSON, NO_STORE, Query, add_rev, cacheable, etag_of_digest};
use crate::directory::{ExplainedState, RecipientView};
use atcomm_proto::syntax::{Actor, Did};

/// Most accounts of one question.
pub(in crate::http) const MAX_ACTORS: usize = 100;

/// An account that is not answered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unanswered<'a> {
    actor: &'a str,
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

pub(super) async fn resolve_recipients(query: Query) -> Result<Response, XrpcError> {
    let actors = query.params().actors(MAX_ACTORS)?;
    let (shared, client) = (&query.shared, query.client);
    let _slot = shared.acquire_slot()?;
    let permit = shared.acquire_response(client)?;
    let answers = shared.resolver.recipients(&actors, client).await;
    let share = MAX_RESPONSE / actors.len().max(1);
    let mut views = Views::new(share);
    let mut failed: Vec<(&Actor, XrpcError)> = Vec::new();
    for (actor, answer) in actors.iter().zip(answers) {
        match answer {
            Ok(view) if views.push(&view) => {}
            Ok(_) => failed.push((actor, too_large(share))),
            Err(error) => failed.push((actor, error.into())),
        }
    }
    let is_whole = failed.is_empty();
    let failures: Vec<Unanswered<'_>> = failed
        .iter()
        .map(|(actor, error)| unanswered(actor, error))
        .collect();
    let (list, digest) = views.end();
    let body = object(&[("recipients", &list), ("failures", &json(&failures)?)]);
    let body = permit.attach(body);
    if is_whole {
        let etag = etag_of_digest(digest);
        return Ok(cacheable(&body, &etag, JSON, &query.headers));
    }
    let headers = [(CACHE_CONTROL, NO_STORE), (super::CONTENT_TYPE, JSON)];
    Ok((headers, body).into_response())
}

pub(super) async fn find_by_peer(query: Query) -> Result<Response, XrpcError> {
    let peer = query.params().peer()?;
    let shared = &query.shared;
    let _slot = shared.acquire_slot()?;
    let permit = shared.acquire_response(query.client)?;
    let claimants = shared.resolver.directory().claimants(&peer).await?;
    let count = claimants.views.len();
    let mut views = Views::new(MAX_RESPONSE / count.max(1));
    let unshown: Vec<&Did> = claimants
        .views
        .iter()
        .filter(|view| !views.push(view))
        .map(|view| &view.did)
        .collect();
    let (list, mut digest) = views.end();
    let (ambiguous, more) = (json(&(count > 1))?, json(&claimants.more)?);
    let unshown = (!unshown.is_empty()).then(|| json(&unshown)).transpose()?;
    let mut parts = vec![
        ("claimants", &list),
        ("ambiguous", &ambiguous),
        ("more", &more),
    ];
    if let Some(unshown) = &unshown {
        parts.push(("unshown", unshown));
    }
    for (_, part) in parts.iter().skip(1) {
        digest.update(part);
    }
    let body = permit.attach(object(&parts));
    let etag = etag_of_digest(digest);
    Ok(cacheable(&body, &etag, JSON, &query.headers))
}

pub(super) async fn explain_account(query: Query) -> Result<Response, XrpcError> {
    let did = query.params().did()?;
    let _slot = query.shared.acquire_slot()?;
    let directory = query.shared.resolver.directory();
    let explained = directory.explain(&did).await?;
    let mut response = ([(CACHE_CONTROL, NO_STORE)], Json(&explained)).into_response();
    if let Some(rev) = &explained.rev {
        add_rev(&mut response, rev);
    }
    Ok(response)
}

/// The answer of `com.atproto.sync.getRepoStatus`.
#[derive(Serialize)]
struct RepoStatus<'a> {
    did: &'a Did,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<&'a str>,
}

pub(super) async fn repo_status(query: Query) -> Result<Response, XrpcError> {
    let did = query.params().did()?;
    let _slot = query.shared.acquire_slot()?;
    let directory = query.shared.resolver.directory();
    let explained = directory.explain(&did).await?;
    let status = match &explained.status {
        Some(status) => status.as_str(),
        None if explained.state == ExplainedState::Deleted => "deleted",
        None => return Err(repo_not_found()),
    };
    let active = explained
        .status
        .as_ref()
        .is_some_and(|status| status.is_active());
    let rev = explained.rev.as_deref().filter(|_| active);
    let answer = RepoStatus {
        did: &did,
        active,
        status: (!active).then_some(status),
        rev,
    };
    let mut response = ([(CACHE_CONTROL, NO_STORE)], Json(&answer)).into_response();
    if let Some(rev) = rev {
        add_rev(&mut response, rev);
    }
    Ok(response)
}

fn repo_not_found() -> XrpcError {
    XrpcError::named("RepoNotFound", "the directory has no entry of the account")
}

/// A JSON array of views, each within the same share of the answer: a large one leaves the others
/// their place.
struct Views {
    share: usize,
    list: Vec<u8>,
    digest: Sha256,
}

impl Views {
    fn new(share: usize) -> Self {
        Self {
            share,
            list: b"[".to_vec(),
            digest: Sha256::new(),
        }
    }

    /// Appends a view. Returns `false` for one that is larger than its share.
    fn push(&mut self, view: &RecipientView) -> bool {
        if view.body.len() >= self.share {
            return false;
        }
        if self.list.len() > 1 {
            self.list.push(b',');
        }
        self.list.extend_from_slice(&view.body);
        self.digest.update(&view.etag);
        true
    }

    /// Returns the array, and a digest over the tags of the views.
    fn end(mut self) -> (Vec<u8>, Sha256) {
        self.list.push(b']');
        (self.list, self.digest)
    }
}

/// Returns a JSON object of members that are JSON already.
fn object(members: &[(&str, &Vec<u8>)]) -> Bytes {
    let len: usize = members
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let mut body = Vec::with_capacity(len + 2);
    for (name, value) in members {
        body.push(if body.is_empty() { b'{' } else { b',' });
        body.push(b'"');
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(value);
    }
    body.push(b'}');
    body.into()
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, XrpcError> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        XrpcError::internal()
    })
}

fn unanswered<'a>(actor: &'a Actor, error: &'a XrpcError) -> Unanswered<'a> {
    Unanswered {
        actor: match actor {
            Actor::Did(did) => did.as_str(),
            Actor::Handle(handle) => handle.as_str(),
        },
        error: error.name(),
        message: error.message(),
        retry_after: error.retry_seconds(),
    }
}

fn too_large(share: usize) -> XrpcError {
    let message = format!("the view takes more than {share} bytes; ask for fewer accounts at once");
    XrpcError::named("ResponseTooLarge", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::clock::Timestamp;

    #[test]
    fn inv7_a_view_larger_than_its_share_leaves_the_others_their_place() {
        let view = |body: &str| RecipientView {
            did: Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap(),
            handle: None,
            rev: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
            etag: "W/\"1\"".to_owned(),
            at: Timestamp::from_millis(0),
            in_doubt: false,
        };
        let mut views = Views::new(8);
        assert!(views.push(&view(r#"{"a":1}"#)));
        assert!(!views.push(&view(r#"{"a":12}"#)));
        assert!(views.push(&view(r#"{"b":2}"#)));
        let (list, _) = views.end();
        let body = object(&[("recipients", &list), ("failures", &b"[]".to_vec())]);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let whole = serde_json::json!({"recipients": [{"a": 1}, {"b": 2}], "failures": []});
        assert_eq!(body, whole);
        // A separator takes the byte by which a view is shorter than its share.
        assert!(list.len() <= 2 * 8 + 1);
    }
}
