use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::{any, get};
use serde_json::{Value, json};

use super::*;
use crate::identity::{Freshness, Identity};
use crate::net::NetSettings;
use crate::testing::{bind, development, serve, serve_raw};

const KEY: &str = "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";

/// A mediator with the document and endpoint that the test sets.
#[derive(Clone)]
struct Mediator {
    document: Arc<Mutex<(u16, Value)>>,
    asked: Arc<AtomicUsize>,
    did: MediatorDid,
    port: u16,
}

impl Mediator {
    async fn start() -> Self {
        let document = Arc::new(Mutex::new((200, Value::Null)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, count) = (Arc::clone(&document), Arc::clone(&asked));
        let page = get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let (status, body) = served.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), body.to_string())
        });
        let port = serve(
            Router::new()
                .route("/.well-known/did.json", page.clone())
                .route("/a/b/did.json", page)
                .route("/didcomm", any(async || StatusCode::METHOD_NOT_ALLOWED))
                .route("/long", any(async || "x".repeat(10_000)))
                .route(
                    "/moved",
                    any(async || {
                        (StatusCode::FOUND, [(header::LOCATION, "http://10.0.0.1/")])
                            .into_response()
                    }),
                ),
        )
        .await;
        let did = MediatorDid::parse(&format!("did:web:localhost%3A{port}")).unwrap();
        let mediator = Self {
            document,
            asked,
            did,
            port,
        };
        mediator.offer(&format!("http://localhost:{port}/didcomm"));
        mediator
    }

    fn offer(&self, uri: &str) {
        self.serve(
            200,
            document(&self.did, json!([{"uri": uri, "accept": ["didcomm/v2"]}])),
        );
    }

    fn serve(&self, status: u16, body: Value) {
        *self.document.lock().unwrap() = (status, body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn document(did: &MediatorDid, endpoint: Value) -> Value {
    json!({
        "id": did,
        "verificationMethod": [
            {"id": "#k", "type": "Multikey", "controller": did, "publicKeyMultibase": KEY},
        ],
        "keyAgreement": ["#k"],
        "service": [
            {"id": "#didcomm", "type": "DIDCommMessaging", "serviceEndpoint": endpoint},
        ],
    })
}

fn by_hand() -> (Identity, Clock) {
    with_net(development())
}

fn with_net(net: NetSettings) -> (Identity, Clock) {
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let net = Net::bind(net, clock.clone()).unwrap();
    let identity = Identity::bind(net, IdentitySettings::default(), clock.clone());
    (identity, clock)
}

async fn state(identity: &Identity, mediator: &Mediator) -> MediatorState {
    identity
        .mediator(&mediator.did, Freshness::Refresh, None)
        .await
        .unwrap()
        .state
}

#[tokio::test]
async fn a_mediator_that_answers_is_reachable_in_the_recipient_views_form() {
    let mediator = Mediator::start().await;
    let (identity, _) = by_hand();
    assert_eq!(identity.cached_mediator(&mediator.did), None);
    let found = identity
        .mediator(&mediator.did, Freshness::Cached, None)
        .await
        .unwrap();
    let shown = serde_json::to_value(&*found).unwrap();
    let did = &mediator.did;
    assert_eq!(
        shown,
        json!({
            "did": did,
            "state": "reachable",
            "checkedAt": "2027-01-15T08:00:00.000Z",
            "keyAgreement": [
                {"id": format!("{did}#k"), "type": "Multikey", "publicKeyMultibase": KEY},
            ],
            "services": [{
                "uri": format!("http://localhost:{}/didcomm", mediator.port),
                "accept": ["didcomm/v2"], "routingKeys": [],
            }],
        })
    );
    let mut read: MediatorDocument = serde_json::from_value(shown).unwrap();
    assert_eq!(read.resolved_at, None);
    read.resolved_at = found.resolved_at;
    assert_eq!(read, *found);
    let stored = found.to_stored();
    assert!(stored.contains(r#""resolvedAt":"2027-01-15T08:00:00.000Z""#));
    assert_eq!(
        MediatorDocument::from_stored(&stored),
        Some((*found).clone())
    );
    assert_eq!(MediatorDocument::from_stored("{}"), None);
    assert_eq!(identity.cached_mediator(&mediator.did), Some(found));
}

#[tokio::test]
async fn any_http_answer_counts_and_nothing_else() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, _) = by_hand();
    let silent = serve_raw(async |stream| drop(stream)).await;
    let port = mediator.port;
    for (uri, want) in [
        (format!("http://localhost:{port}/didcomm"), Reachable),
        (format!("http://localhost:{port}/nothing-here"), Reachable),
        (format!("http://localhost:{port}/moved"), Reachable),
        (format!("http://localhost:{port}/long"), Reachable),
        (format!("http://localhost:{silent}/didcomm"), Unreachable),
        ("https://169.254.169.254/didcomm".to_owned(), Unreachable),
        ("wss://localhost/ws".to_owned(), Unchecked),
        ("did:web:next.example.com".to_owned(), Unchecked),
    ] {
        mediator.offer(&uri);
        assert_eq!(state(&identity, &mediator).await, want, "{uri}");
    }
}

#[tokio::test]
async fn unusable_mediators_are_unresolved_or_unsupported() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, _) = by_hand();
    let did = &mediator.did;
    let mut keyless = document(did, json!("http://localhost/"));
    keyless["keyAgreement"] = json!([]);
    let other = MediatorDid::parse("did:web:other.example.com").unwrap();
    for (status, body) in [
        (404, json!({})),
        (200, json!("<html>")),
        (200, keyless),
        (200, document(did, json!([]))),
        (200, document(&other, json!("http://localhost/"))),
        (200, document(did, json!(did))),
        (
            200,
            document(
                did,
                json!([{"uri": "http://localhost/", "accept": ["didcomm/aip1"]}]),
            ),
        ),
        (200, json!({"id": did, "x": "x".repeat(70_000)})),
    ] {
        mediator.serve(status, body);
        let found = identity
            .mediator(did, Freshness::Refresh, None)
            .await
            .unwrap();
        assert_eq!(found.state, Unresolved);
        assert!(found.reason.is_some() && found.checked_at.is_some());
    }
    let peer = MediatorDid::parse("did:peer:2.Ez6LS").unwrap();
    let found = identity
        .mediator(&peer, Freshness::Cached, None)
        .await
        .unwrap();
    assert_eq!(found.state, Unsupported);
    assert_eq!(
        serde_json::to_value(&*found).unwrap()["state"],
        "unsupported"
    );
    let public = Identity::bind(
        bind(NetSettings::default()),
        IdentitySettings::default(),
        Clock::system(),
    );
    let found = public.mediator(did, Freshness::Cached, None).await.unwrap();
    assert_eq!(found.state, Unresolved);
    assert_eq!(mediator.asked(), 8);
}

#[tokio::test]
async fn a_path_is_followed() {
    let mediator = Mediator::start().await;
    let did = MediatorDid::parse(&format!("{}:a:b", mediator.did)).unwrap();
    mediator.serve(
        200,
        document(
            &did,
            json!(format!("http://localhost:{}/didcomm", mediator.port)),
        ),
    );
    let (identity, _) = by_hand();
    let found = identity
        .mediator(&did, Freshness::Cached, None)
        .await
        .unwrap();
    assert_eq!(found.state, MediatorState::Reachable);
}

#[tokio::test]
async fn mediators_are_checked_hourly_and_keep_their_keys_for_a_day() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, clock) = by_hand();
    let seen = async || {
        identity
            .mediator(&mediator.did, Freshness::Cached, None)
            .await
            .unwrap()
    };
    assert_eq!(seen().await.state, Reachable);
    clock.advance(Duration::from_secs(3599));
    assert_eq!(seen().await.state, Reachable);
    assert_eq!(mediator.asked(), 1);
    mediator.serve(502, json!(null));
    clock.advance(Duration::from_secs(1));
    assert_eq!(seen().await.state, Reachable);
    while identity.cached_mediator(&mediator.did).unwrap().state == Reachable {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let down = seen().await;
    assert_eq!(
        (down.state, down.key_agreement.len(), mediator.asked()),
        (Unreachable, 1, 2)
    );
    // A day after the keys were last read they are no longer used.
    clock.advance(Duration::from_secs(23 * 3600));
    let gone = identity
        .mediator(&mediator.did, Freshness::Refresh, None)
        .await
        .unwrap();
    assert_eq!((gone.state, gone.key_agreement.len()), (Unresolved, 0));
    mediator.offer(&format!("http://localhost:{}/didcomm", mediator.port));
    assert_eq!(state(&identity, &mediator).await, Reachable);
    // A definite answer overrides the earlier document.
    mediator.serve(404, json!(null));
    assert_eq!(state(&identity, &mediator).await, Unresolved);
}

/// A stored document counts like a cached one.
#[tokio::test]
async fn keys_stay_after_a_restart_while_the_mediator_is_down() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, _) = by_hand();
    let ask = async |identity: &Identity, known: &str| {
        let known = MediatorDocument::from_stored(known);
        let found = identity
            .mediator(&mediator.did, Freshness::Refresh, known)
            .await;
        found.unwrap()
    };
    let kept = ask(&identity, "").await.to_stored();
    mediator.serve(503, json!(null));
    let (restarted, clock) = by_hand();
    clock.advance(Duration::from_secs(3600));
    let down = ask(&restarted, &kept).await;
    assert_eq!((down.state, down.key_agreement.len()), (Unreachable, 1));
    // However often the document is stored, its keys end a day after they were read.
    let kept = down.to_stored();
    let (restarted, clock) = by_hand();
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(ask(&restarted, &kept).await.state, Unreachable);
    clock.advance(Duration::from_secs(1));
    let gone = ask(&restarted, &kept).await;
    assert_eq!((gone.state, gone.key_agreement.len()), (Unresolved, 0));
    // The cached answer is newer: the mediator has no document.
    mediator.serve(404, json!(null));
    let (running, clock) = by_hand();
    assert_eq!(ask(&running, &kept).await.state, Unresolved);
    clock.advance(Duration::from_secs(60));
    mediator.serve(503, json!(null));
    let older = MediatorDocument {
        checked_at: None,
        ..MediatorDocument::from_stored(&kept).unwrap()
    };
    assert!(older.as_of() <= running.cached_mediator(&mediator.did).unwrap().checked_at);
    assert_eq!(ask(&running, &older.to_stored()).await.state, Unresolved);
}

/// Our own limits are no failure of the mediator and do not change its state.
#[tokio::test]
async fn our_own_overload_says_nothing_about_a_mediator() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, clock) = with_net(NetSettings {
        host_rate: 1,
        host_burst: 3,
        busy_wait: Duration::ZERO,
        ..development()
    });
    let ask = async |freshness| {
        identity
            .mediator(&mediator.did, freshness, None)
            .await
            .map(|found| found.state)
    };
    assert_eq!(ask(Freshness::Refresh).await, Ok(Reachable));
    // One request is left: the document is fetched, the endpoint cannot be asked.
    let checked_at = identity.cached_mediator(&mediator.did).unwrap().checked_at;
    clock.advance(Duration::from_millis(1));
    assert_eq!(ask(Freshness::Refresh).await, Ok(Reachable));
    let known = identity.cached_mediator(&mediator.did).unwrap();
    assert_eq!((known.checked_at, &known.reason), (checked_at, &None));
    assert_eq!(mediator.asked(), 2);
    // None is left.
    let busy = ask(Freshness::Refresh).await.unwrap_err();
    assert!(busy.retry_after <= Duration::from_secs(1));
    assert_eq!(mediator.asked(), 2);
    assert_eq!(identity.cached_mediator(&mediator.did), Some(known));
    assert_eq!(ask(Freshness::Cached).await, Ok(Reachable));
    clock.advance(Duration::from_secs(2));
    assert_eq!(ask(Freshness::Refresh).await, Ok(Reachable));
}

/// A mediator whose document was missing is not unresolved once the document is fetched, even where
/// the endpoint could not be asked.
#[tokio::test]
async fn an_endpoint_that_was_not_asked_is_unchecked() {
    let mediator = Mediator::start().await;
    let (identity, _) = with_net(NetSettings {
        host_burst: 2,
        busy_wait: Duration::ZERO,
        ..development()
    });
    mediator.serve(404, json!(null));
    assert_eq!(state(&identity, &mediator).await, MediatorState::Unresolved);
    mediator.offer(&format!("http://localhost:{}/didcomm", mediator.port));
    assert_eq!(state(&identity, &mediator).await, MediatorState::Unchecked);
    let found = identity.cached_mediator(&mediator.did).unwrap();
    assert_eq!((found.key_agreement.len(), found.checked_at), (1, None));
}
