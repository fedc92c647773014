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
use crate::net::testing::{bind, development, serve, serve_raw};

const KEY: &str = "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";

/// A mediator whose document and health the test sets.
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
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let net = Net::bind(development(), clock.clone()).unwrap();
    let identity = Identity::bind(net, IdentitySettings::default(), clock.clone());
    (identity, clock)
}

async fn state(identity: &Identity, mediator: &Mediator) -> MediatorState {
    identity
        .mediator(&mediator.did, Freshness::Fresh)
        .await
        .state
}

#[tokio::test]
async fn a_mediator_that_answers_is_reachable_in_the_recipient_views_form() {
    let mediator = Mediator::start().await;
    let (identity, _) = by_hand();
    assert_eq!(identity.cached_mediator(&mediator.did), None);
    let found = identity.mediator(&mediator.did, Freshness::Cached).await;
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
    read.resolved_at = found.resolved_at;
    assert_eq!(read, *found);
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
async fn what_cannot_be_used_is_unresolved_or_unsupported() {
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
        let found = identity.mediator(did, Freshness::Fresh).await;
        assert_eq!(found.state, Unresolved);
        assert!(found.reason.is_some() && found.checked_at.is_some());
    }
    let peer = MediatorDid::parse("did:peer:2.Ez6LS").unwrap();
    let found = identity.mediator(&peer, Freshness::Cached).await;
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
    let found = public.mediator(did, Freshness::Cached).await;
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
    let found = identity.mediator(&did, Freshness::Cached).await;
    assert_eq!(found.state, MediatorState::Reachable);
}

#[tokio::test]
async fn mediators_are_looked_at_hourly_and_keep_their_keys_for_a_day() {
    use MediatorState::*;
    let mediator = Mediator::start().await;
    let (identity, clock) = by_hand();
    let seen = async || identity.mediator(&mediator.did, Freshness::Cached).await;
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
    // A day after the keys were read last they are no longer shown.
    clock.advance(Duration::from_secs(23 * 3600));
    let gone = identity.mediator(&mediator.did, Freshness::Fresh).await;
    assert_eq!((gone.state, gone.key_agreement.len()), (Unresolved, 0));
    mediator.offer(&format!("http://localhost:{}/didcomm", mediator.port));
    assert_eq!(state(&identity, &mediator).await, Reachable);
    // A definite answer is not softened by what was known.
    mediator.serve(404, json!(null));
    assert_eq!(state(&identity, &mediator).await, Unresolved);
}
