//! `/dataset/`: the newest edition's list of files, and the files of all editions that are kept.
//!
//! A file never changes under its address, so caches keep it. It is read from the disk in small
//! pieces as the client takes them; how many are being read is limited, in total and by address.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::TryStreamExt as _;
use serde::Serialize;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::client_address::ClientAddress;
use super::conditional;
use super::error::XrpcError;
use super::response_budget::{Exhausted, LargeResponseBudget};
use super::routes::{DATASET_FILES, DATASET_LATEST, wrong_verb};
use crate::dataset::{DatasetFile, Edition, Editions};
use crate::store::directory::Day;

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// Time for which caches keep the list: an edition is made once a day.
const CACHE_LATEST: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Time for which caches keep a file: a year, and no cache asks whether it has changed.
const CACHE_FILE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// `Retry-After` where too many files are being read.
const RETRY_AFTER: Duration = Duration::from_secs(5);

struct Shared {
    editions: Editions,
    files: LargeResponseBudget,
}

#[derive(Serialize)]
struct Latest<'e> {
    edition: String,
    files: Vec<Listed<'e>>,
}

#[derive(Serialize)]
struct Listed<'e> {
    name: &'e str,
    url: String,
    bytes: u64,
    sha256: &'e str,
}

/// Returns the routes of the editions.
pub(super) fn routes(editions: Editions, max_requests: usize) -> Router {
    let shared = Shared {
        editions,
        files: LargeResponseBudget::new(max_requests / 8),
    };
    Router::new()
        .route(DATASET_LATEST.path, get(latest))
        .route(DATASET_FILES.path, get(file))
        .with_state(Arc::new(shared))
        .method_not_allowed_fallback(wrong_verb)
}

/// Lists the files of the newest edition.
async fn latest(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(edition) = shared.editions.latest() else {
        return not_found("no dataset was made yet: the first one is made when a day is closed");
    };
    // The list is one of the files, so it changes with them.
    let etag = edition
        .files
        .iter()
        .find(|file| file.name == crate::dataset::HASHES);
    let etag = etag.map(|file| quoted(&file.sha256)).unwrap_or_default();
    let mut response = if conditional::not_modified(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(list(&edition)).into_response()
    };
    add_headers(response.headers_mut(), &etag, CACHE_LATEST);
    response
}

fn list(edition: &Edition) -> Latest<'_> {
    let day = edition.day.to_string();
    let files = edition.files.iter().map(|file| Listed {
        name: &file.name,
        url: format!("/dataset/{day}/{}", file.name),
        bytes: file.bytes,
        sha256: &file.sha256,
    });
    let files = files.collect();
    Latest {
        edition: day,
        files,
    }
}

/// Serves a file of an edition.
async fn file(
    State(shared): State<Arc<Shared>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    Path((day, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let edition = Day::parse(&day).and_then(|day| shared.editions.of(day));
    let Some(edition) = edition else {
        return not_found("there is no such edition; see /dataset/latest.json for the newest one");
    };
    let Some((file, path)) = edition.file(&name) else {
        return not_found("the edition has no such file; SHA256SUMS lists them");
    };
    let etag = quoted(&file.sha256);
    if conditional::not_modified(&headers, &etag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        add_headers(response.headers_mut(), &etag, CACHE_FILE);
        return response;
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let permit = match shared.files.acquire(client) {
            Ok(permit) => permit,
            Err(Exhausted::Address) => {
                return XrpcError::rate_limited(RETRY_AFTER).into_response();
            }
            Err(Exhausted::Total) => return XrpcError::overloaded(RETRY_AFTER).into_response(),
        };
        let Ok(opened) = File::open(&path).await else {
            // Deleted since: a newer edition has taken its place.
            return not_found("the edition is not kept any more");
        };
        // The permit is released with the stream, when the last byte was taken or the client left.
        let pieces = ReaderStream::with_capacity(opened, PIECE);
        Body::from_stream(pieces.map_ok(move |piece| {
            let _held = &permit;
            piece
        }))
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(file));
    headers.insert(CONTENT_LENGTH, file.bytes.into());
    add_headers(headers, &etag, CACHE_FILE);
    response
}

fn add_headers(headers: &mut HeaderMap, etag: &str, cache: HeaderValue) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

fn quoted(sha256: &str) -> String {
    format!("\"{sha256}\"")
}

fn content_type(file: &DatasetFile) -> HeaderValue {
    let (_, ending) = file.name.rsplit_once('.').unwrap_or_default();
    HeaderValue::from_static(match ending {
        "csv" => "text/csv; charset=utf-8",
        "parquet" => "application/vnd.apache.parquet",
        "json" => "application/json",
        "md" => "text/markdown; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    })
}

fn not_found(message: &'static str) -> Response {
    XrpcError::new(StatusCode::NOT_FOUND, "NotFound", message).into_response()
}
