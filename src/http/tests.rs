mod accounts;
mod dataset;
mod harness;
mod hostile;
mod mediator;
mod pages;
mod rate;

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::resolve::ResolveSettings;

use harness::{HANDLE, Plc, Setup, TestServer, ask};

const RESOLVE: &str = "/xrpc/at.didcomm.directory.resolveRecipient";
const PROOF: &str = "/xrpc/at.didcomm.directory.getProof";
const REFRESH: &str = "/xrpc/at.didcomm.directory.refresh";

/// An account that the directory does not know. The PLC directory of these tests is a closed port.
const UNKNOWN: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

#[tokio::test]
async fn a_recipient_is_answered_by_any_of_its_names() {
    let server = TestServer::new().await;
    assert!(
        server
            .resolver
            .directory()
            .cached_view(&server.did)
            .is_none()
    );
    let first = server.get(&format!("{RESOLVE}?actor={}", server.did)).await;
    assert!(
        server
            .resolver
            .directory()
            .cached_view(&server.did)
            .is_some()
    );
    let view = first.json();
    assert_eq!(
        (first.status, view["did"].as_str()),
        (200, Some(server.did.as_str()))
    );
    assert_eq!(view["handle"], HANDLE);
    assert_eq!(first.headers["cache-control"], "public, max-age=15");
    assert_eq!(first.headers["access-control-allow-origin"], "*");
    assert_eq!(
        first.headers["access-control-expose-headers"],
        "ETag, Retry-After, Atproto-Repo-Rev, RateLimit-Limit, RateLimit-Remaining, \
         RateLimit-Reset, RateLimit-Policy"
    );
    for target in [
        format!("{RESOLVE}?actor={}", server.did),
        format!("{RESOLVE}?actor={}", server.did.replace(':', "%3A")),
        format!("{RESOLVE}?actor={HANDLE}"),
        format!("{RESOLVE}?actor=%40ALICE.Example.com&proof=false"),
        format!("{RESOLVE}?unknown=x&actor={HANDLE}"),
    ] {
        let again = server.get(&target).await;
        assert_eq!(again.body, first.body, "{target}");
        for header in [
            "etag",
            "cache-control",
            "content-type",
            "access-control-allow-origin",
        ] {
            assert_eq!(
                again.headers[header], first.headers[header],
                "{target} {header}"
            );
        }
    }
    let head = ask(
        server.address,
        &format!("HEAD {RESOLVE}?actor={HANDLE}"),
        &[],
        "",
    )
    .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["etag"], first.headers["etag"]);
}

#[tokio::test]
async fn a_spelling_has_one_status_cold_and_warm() {
    let cold = TestServer::new().await;
    let warm = TestServer::new().await;
    let (did, handle) = (&warm.did, HANDLE);
    for name in [did, handle] {
        assert_eq!(
            warm.get(&format!("{RESOLVE}?actor={name}")).await.status,
            200
        );
    }
    for (name, status) in [
        (did.to_uppercase(), 400),
        (did.replace("did:plc", "DID:PLC"), 400),
        (did.replace("did:", "Did%3A"), 400),
        (format!("@{did}"), 400),
        (format!("%40{did}"), 400),
        (format!("@@{handle}"), 400),
        (format!("%20{handle}"), 400),
        (format!("@{handle}"), 200),
        (handle.to_uppercase(), 200),
    ] {
        for server in [&warm, &cold] {
            let answer = server.get(&format!("{RESOLVE}?actor={name}")).await;
            assert_eq!(answer.status, status, "{name}");
        }
    }
}

#[tokio::test]
async fn a_proof_comes_with_the_view_or_alone() {
    let server = TestServer::new().await;
    let plain = server.get(&format!("{RESOLVE}?actor={HANDLE}")).await;
    assert_eq!(plain.json().get("proof"), None);
    let with = server
        .get(&format!("{RESOLVE}?actor={HANDLE}&proof=true"))
        .await;
    assert_ne!(with.headers["etag"], plain.headers["etag"]);
    assert!(with.json()["proof"]["car"].is_string() || with.json()["proof"]["car"].is_object());
    let target = format!("{PROOF}?did={}", server.did);
    let alone = server.get(&target).await;
    assert_eq!(alone.headers["content-type"], "application/vnd.ipld.car");
    assert_eq!(alone.headers["cache-control"], "public, max-age=15");
    // Only the blocks that prove the record are kept, in the order of the PDS.
    assert!(!alone.body.is_empty() && alone.body.len() <= server.car.len());
    let etag = alone.headers["etag"].clone();
    let again = server.get_with(&target, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn a_matching_etag_is_answered_with_304() {
    let server = TestServer::new().await;
    let target = format!("{RESOLVE}?actor={HANDLE}");
    let etag = server.get(&target).await.headers["etag"].clone();
    // Weak, because ages in the body change under the same tag; compared without the prefix.
    let bare = etag.strip_prefix("W/").unwrap().to_owned();
    let listed = format!("\"x\", {etag}");
    // First through the store, then from the cache of views.
    for target in [format!("{target}&x=y"), target] {
        for tags in [etag.as_str(), &bare, &listed, "*"] {
            let answer = server.get_with(&target, &[("if-none-match", tags)]).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{tags}");
            assert_eq!(answer.headers["etag"], etag);
            assert_eq!(answer.headers["cache-control"], "public, max-age=15");
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
        }
        let answer = server
            .get_with(&target, &[("if-none-match", "\"x\"")])
            .await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let server = TestServer::new().await;
    let long = format!("{RESOLVE}?actor={}", "a".repeat(7000));
    for (target, names) in [
        (RESOLVE.to_owned(), "actor is missing"),
        (format!("{RESOLVE}?actor="), "actor"),
        (format!("{RESOLVE}?actor=alice"), "actor"),
        (format!("{RESOLVE}?actor=did:plc:short"), "actor"),
        (format!("{RESOLVE}?actor=did:key:z6Mk"), "actor"),
        (
            format!("{RESOLVE}?actor=a.b&actor=a.b"),
            "actor is given more than once",
        ),
        (format!("{RESOLVE}?actor=a.b&proof=yes"), "proof"),
        (format!("{RESOLVE}?actor=a.b&proof="), "proof"),
        (PROOF.to_owned(), "did is missing"),
        (format!("{PROOF}?did={HANDLE}"), "did"),
        (long, "query"),
    ] {
        let answer = server.get(&target).await;
        assert_eq!(
            answer.error(),
            (400, "InvalidRequest".to_owned()),
            "{target}"
        );
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(names), "{target}: {message}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let server = TestServer::new().await;
    for (line, status, name) in [
        (
            "GET /xrpc/app.bsky.actor.getProfile",
            501,
            "MethodNotImplemented",
        ),
        (
            "POST /xrpc/at.didcomm.directory.other",
            501,
            "MethodNotImplemented",
        ),
        ("GET /xrpc/nonsense", 400, "InvalidRequest"),
        ("GET /xrpc/", 400, "InvalidRequest"),
        (
            "GET /xrpc/at.didcomm.directory.resolveRecipient/",
            400,
            "InvalidRequest",
        ),
        ("GET /other", 404, "NotFound"),
        ("GET /xrpc", 404, "NotFound"),
    ] {
        assert_eq!(
            ask(server.address, line, &[], "").await.error(),
            (status, name.to_owned()),
            "{line}"
        );
    }
    for (line, allow) in [
        (format!("POST {RESOLVE}?actor={HANDLE}"), "GET,HEAD"),
        (format!("DELETE {PROOF}"), "GET,HEAD"),
        (format!("GET {REFRESH}"), "POST"),
        ("PUT /".to_owned(), "GET,HEAD"),
    ] {
        let answer = ask(server.address, &line, &[], "").await;
        assert_eq!(answer.error(), (405, "InvalidRequest".to_owned()), "{line}");
        assert_eq!(answer.headers["allow"], allow, "{line}");
    }
}

#[tokio::test]
async fn browsers_may_call_from_any_origin() {
    let server = TestServer::new().await;
    for path in [RESOLVE, REFRESH, "/xrpc/app.bsky.actor.getProfile", "/"] {
        let headers = [
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
        ];
        let answer = ask(server.address, &format!("OPTIONS {path}"), &headers, "").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(
            answer.headers["access-control-allow-methods"],
            "GET, HEAD, POST"
        );
        assert_eq!(answer.headers["access-control-max-age"], "86400");
        let allowed = &answer.headers["access-control-allow-headers"];
        for header in [
            "authorization",
            "content-type",
            "atproto-proxy",
            "if-none-match",
        ] {
            assert!(allowed.contains(header), "{header}");
        }
    }
}

#[tokio::test]
async fn a_preflight_allows_the_headers_that_it_names() {
    let server = TestServer::new().await;
    let allowed = async |asked: &str| {
        let headers = [("access-control-request-headers", asked)];
        let line = format!("OPTIONS {RESOLVE}");
        let answer = ask(server.address, &line, &headers, "").await;
        assert_eq!(answer.status, 204, "{asked}");
        assert_eq!(answer.headers["vary"], "Access-Control-Request-Headers");
        answer.headers["access-control-allow-headers"].clone()
    };
    for asked in [
        "dpop",
        "traceparent,tracestate, baggage",
        "sentry-trace, X-Of-Tomorrow",
    ] {
        assert_eq!(allowed(asked).await, asked);
    }
    // What is no list of names, or too long, is not repeated.
    let long = "x".repeat(1025);
    for asked in ["a b", "a,,b", "<script>", "a: b", "", "\u{e9}", &long] {
        assert!(
            allowed(asked).await.starts_with("authorization, "),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn health_and_pages() {
    let server = TestServer::new().await;
    let health = server.get("/xrpc/_health").await;
    assert_eq!(health.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(health.headers["cache-control"], "no-store");
    let index = server.get("/").await;
    assert!(index.headers["content-type"].starts_with("text/plain"));
    let index = String::from_utf8(index.body).unwrap();
    for path in [RESOLVE, PROOF, REFRESH] {
        assert!(index.contains(path), "{index}");
    }
    assert!(
        server
            .get("/robots.txt")
            .await
            .body
            .starts_with(b"User-agent: *\n")
    );
}

#[tokio::test]
async fn a_refresh_checks_its_input() {
    let server = TestServer::new().await;
    let good = json!({"did": UNKNOWN}).to_string();
    let long = json!({"did": UNKNOWN, "more": "x".repeat(4096)}).to_string();
    for (media_type, body, status, name) in [
        ("text/plain", good.as_str(), 400, "InvalidRequest"),
        ("application/json", "{", 400, "InvalidRequest"),
        ("application/json", "{}", 400, "InvalidRequest"),
        ("application/json", r#"{"did": 5}"#, 400, "InvalidRequest"),
        (
            "application/json",
            r#"{"did": "alice.example.com"}"#,
            400,
            "InvalidRequest",
        ),
        ("application/json", &long, 413, "PayloadTooLarge"),
        (
            "application/json; charset=utf-8",
            &good,
            502,
            "UpstreamFailure",
        ),
    ] {
        let answer = server.refresh(media_type, body).await;
        assert_eq!(
            answer.error(),
            (status, name.to_owned()),
            "{media_type} {body}"
        );
    }
    let answer = ask(server.address, &format!("POST {REFRESH}"), &[], &good).await;
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("Content-Type")
    );
}

#[tokio::test]
async fn a_refresh_of_an_account_that_no_server_knows_says_so() {
    let plc = Plc::start().await;
    plc.release.add_permits(100);
    let server = Setup {
        plc: Some(plc.address),
        ..Setup::default()
    }
    .start()
    .await;
    let body = json!({"did": UNKNOWN}).to_string();
    let answer = server.refresh("application/json", &body).await;
    assert_eq!(answer.error(), (400, "DidNotFound".to_owned()));
    // The account in the directory is served on: it may be an accident of minutes.
    let body = json!({"did": server.did}).to_string();
    for _ in 0..2 {
        let answer = server.refresh("application/json", &body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.error());
        assert_eq!(answer.json()["outcome"], "missing");
        assert_eq!(answer.json()["recipient"]["did"], *server.did);
    }
    let answer = server.get(&format!("{RESOLVE}?actor={HANDLE}")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_served_view() {
    // The PLC directory is down: the refresh fails, and the entry stays.
    let server = TestServer::new().await;
    let body = json!({"did": server.did}).to_string();
    assert_eq!(
        server.refresh("application/json", &body).await.error().0,
        502
    );
    assert_eq!(
        server
            .get(&format!("{RESOLVE}?actor={HANDLE}"))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_client_over_its_budget_is_told_when_to_retry() {
    let resolve = ResolveSettings {
        misses_per_minute: 1,
        ..ResolveSettings::default()
    };
    let server = Setup {
        resolve,
        ..Setup::default()
    }
    .start()
    .await;
    let did = |n: u8| format!("did:plc:{}", char::from(b'a' + n).to_string().repeat(24));
    let asked = async |n, from: &str| {
        let target = format!("{RESOLVE}?actor={}", did(n));
        server.get_with(&target, &[("x-forwarded-for", from)]).await
    };
    assert_eq!(asked(0, "203.0.113.5").await.error().0, 502);
    let limited = asked(1, "203.0.113.5").await;
    assert_eq!(limited.error(), (429, "RateLimitExceeded".to_owned()));
    assert!((1..=60).contains(&limited.headers["retry-after"].parse::<u32>().unwrap()));
    assert_eq!(asked(2, "203.0.113.6").await.error().0, 502);
    // An account in the directory costs no budget.
    let target = format!("{RESOLVE}?actor={HANDLE}");
    assert_eq!(
        server
            .get_with(&target, &[("x-forwarded-for", "203.0.113.5")])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn open_requests_are_finished_and_no_more_accepted() {
    let plc = Plc::start().await;
    let http = HttpSettings {
        max_requests: 1,
        ..HttpSettings::default()
    };
    let server = Setup {
        plc: Some(plc.address),
        http,
        ..Setup::default()
    }
    .start()
    .await;
    let (address, line) = (server.address, format!("GET {RESOLVE}?actor={UNKNOWN}"));
    let waiting = tokio::spawn(async move { ask(address, &line, &[], "").await });
    plc.requests.acquire().await.unwrap().forget();
    // The only slot for requests that wait is taken; the health check needs none.
    let overloaded = server.get(&format!("{RESOLVE}?actor={HANDLE}")).await;
    assert_eq!(overloaded.error().1, "Overloaded");
    assert_eq!(overloaded.headers["retry-after"], "1");
    assert_eq!(server.get("/xrpc/_health").await.status, 200);
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished() && !server.running.is_finished());
    plc.release.add_permits(100);
    assert_eq!(waiting.await.unwrap().error().1, "DidNotFound");
    tokio::time::timeout(Duration::from_secs(5), server.running)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_panic_or_a_timeout_ends_in_an_error() {
    let server = TestServer::new().await;
    let settings = HttpSettings {
        timeout: Duration::from_millis(20),
        ..HttpSettings::default()
    };
    let mut app = App::new(settings, server.resolver.clone(), None, None);
    app.set_router(
        Router::new()
            .route("/panic", get(async || panic!("on purpose") as &'static str))
            .route("/wait", get(std::future::pending::<&'static str>)),
    );
    for (path, status, name) in [
        ("/panic", 500, "InternalServerError"),
        ("/wait", 503, "ServiceUnavailable"),
    ] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = app.answer(request, Ipv4Addr::LOCALHOST.into()).await;
        assert_eq!(response.status(), status);
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"], name);
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = TestServer::new().await;
    let settings = HttpSettings {
        listen: server.address,
        ..HttpSettings::default()
    };
    let error = Http::bind(settings, server.resolver.clone(), None, None)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {}: ", server.address)),
        "{error}"
    );
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let metrics = MetricsServer::bind(any, || "up 1\n".to_owned()).unwrap();
    let (address, stop) = (metrics.local_addr(), CancellationToken::new());
    let running = tokio::spawn(metrics.run(stop.clone()));
    let answer = ask(address, "GET /metrics", &[], "").await;
    assert_eq!(answer.body, b"up 1\n");
    assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    assert_eq!(ask(address, "GET /", &[], "").await.status, 404);
    stop.cancel();
    running.await.unwrap();
}

/// The permit of a response with proofs is released when the body is written, not when the response
/// is made.
#[tokio::test]
async fn inv7_answers_with_proofs_are_counted_until_they_are_written() {
    use tower::Service as _;
    let server = TestServer::new().await;
    let ask = async |router: &Router, target: &str, address: [u8; 4]| {
        let mut request = Request::builder().uri(target).body(Body::empty()).unwrap();
        let client = client_address::ClientAddress(Ipv4Addr::from(address).into());
        request.extensions_mut().insert(client);
        let response = router.clone().call(request).await.unwrap();
        (response.status().as_u16(), response.into_body())
    };
    let history = "/xrpc/at.didcomm.directory.getHistory";
    let targets = [
        format!("{RESOLVE}?actor={}&proof=true", server.did),
        format!("{PROOF}?did={}", server.did),
        format!("{history}?did={}&proof=true", server.did),
        format!("{history}?did={}", server.did),
    ];
    let router = router::router(server.resolver.clone(), None, None, Arc::default(), 4);
    for target in &targets {
        let (status, body) = ask(&router, target, [192, 0, 2, 1]).await;
        assert_eq!(status, 200, "{target}");
        for other in &targets {
            let (status, _) = ask(&router, other, [192, 0, 2, 2]).await;
            assert_eq!(status, 503, "{other}");
        }
        // Requests without proofs are answered.
        let plain = format!("{RESOLVE}?actor={}", server.did);
        assert_eq!(ask(&router, &plain, [192, 0, 2, 1]).await.0, 200);
        drop(body);
    }
    let router = router::router(server.resolver.clone(), None, None, Arc::default(), 512);
    let mut held = Vec::new();
    for _ in 0..response_budget::MAX_PER_ADDRESS {
        held.push(ask(&router, &targets[0], [192, 0, 2, 1]).await);
    }
    assert!(held.iter().all(|(status, _)| *status == 200));
    assert_eq!(ask(&router, &targets[1], [192, 0, 2, 1]).await.0, 429);
    assert_eq!(ask(&router, &targets[1], [192, 0, 2, 2]).await.0, 200);
    held.clear();
    assert_eq!(ask(&router, &targets[1], [192, 0, 2, 1]).await.0, 200);
}
