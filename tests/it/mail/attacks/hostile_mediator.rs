//! A mediator of an attacker: its document may differ for each reader, and its endpoint answers as
//! the attacker likes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, LOCATION, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use crate::http::RUNTIME;

/// A message that was posted to the attacker's server, or to the server of a victim.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) path: String,
    pub(super) bytes: usize,
    pub(super) at: Instant,
}

/// An answer to a post.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) after: Duration,
}

impl Reply {
    /// Answers at once.
    pub(super) fn now(status: u16) -> Self {
        Self::after(status, Duration::ZERO)
    }

    /// Answers after a pause.
    pub(super) fn after(status: u16, after: Duration) -> Self {
        Self {
            status,
            location: None,
            after,
        }
    }
}

/// Returns the document for a reader, by the `User-Agent` and the path of the request.
type Documents = dyn Fn(&str, &str) -> Option<Value> + Send + Sync;

/// Returns the answer to a post, by the number of posts before it.
type Replies = dyn Fn(&Post, usize) -> Reply + Send + Sync;

struct Behaviour {
    documents: Box<Documents>,
    replies: Box<Replies>,
    posts: Mutex<Vec<Post>>,
}

/// A server of its own port.
pub(super) struct HostileMediator {
    pub(super) port: u16,
    pub(super) did: String,
    behaviour: Arc<Behaviour>,
}

impl HostileMediator {
    /// Starts a server. `documents` gets its own DID first.
    pub(super) fn start(
        documents: impl Fn(&str, &str, &str) -> Option<Value> + Send + Sync + 'static,
        replies: impl Fn(&Post, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let did = format!("did:web:localhost%3A{port}");
        let own = did.clone();
        let behaviour = Arc::new(Behaviour {
            documents: Box::new(move |agent, path| documents(&own, agent, path)),
            replies: Box::new(replies),
            posts: Mutex::default(),
        });
        let served = Arc::clone(&behaviour);
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let behaviour = Arc::clone(&served);
            async move { behaviour.answer(&method, uri.path(), &headers, &body).await }
        };
        RUNTIME.spawn(async move {
            drop(axum::serve(listener, Router::new().fallback(answer)).await);
        });
        Self {
            port,
            did,
            behaviour,
        }
    }

    /// Returns all posts so far.
    pub(super) fn posts(&self) -> Vec<Post> {
        self.behaviour.posts.lock().expect("a list").clone()
    }
}

impl Behaviour {
    async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Response {
        if *method != Method::POST {
            let agent = headers
                .get(USER_AGENT)
                .map_or("", |agent| agent.to_str().expect("text"));
            return match (self.documents)(agent, path) {
                Some(document) if *method == Method::GET => (
                    [(CONTENT_TYPE, "application/did+json")],
                    document.to_string(),
                )
                    .into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            };
        }
        let post = Post {
            path: path.to_owned(),
            bytes: body.len(),
            at: Instant::now(),
        };
        let reply = {
            let mut posts = self.posts.lock().expect("a list");
            let reply = (self.replies)(&post, posts.len());
            posts.push(post);
            reply
        };
        tokio::time::sleep(reply.after).await;
        let status = StatusCode::from_u16(reply.status).expect("a status");
        match reply.location {
            Some(location) => (status, [(LOCATION, location)]).into_response(),
            None => status.into_response(),
        }
    }
}
