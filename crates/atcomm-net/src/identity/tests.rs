use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::*;
use crate::net::{Net, NetSettings, Refusal};
use crate::testing::{Answer, Authority, NameServer, bind, development, serve};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Did, Handle, Origin};

mod interactive;
mod logs;

const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const BOB: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";
const KEY: &str = "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc";

/// A PLC directory with the answers that the test sets, which counts requests.
#[derive(Clone, Default)]
struct Plc {
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    asked: Arc<AtomicUsize>,
    delay: Duration,
}

impl Plc {
    async fn serve(&self) -> u16 {
        let router = Router::new()
            .route("/{did}", get(Self::answer))
            .with_state(self.clone());
        serve(router).await
    }

    async fn answer(State(plc): State<Self>, Path(did): Path<String>) -> Response {
        plc.asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(plc.delay).await;
        let found = plc.answers.lock().unwrap().get(&did).cloned();
        let (status, body) = found.unwrap_or((
            404,
            json!({"message": format!("DID not registered: {did}")}).to_string(),
        ));
        let status = StatusCode::from_u16(status).unwrap();
        if status == 429 {
            return (status, [(header::RETRY_AFTER, "30")], body).into_response();
        }
        (status, body).into_response()
    }

    fn set(&self, did: &str, status: u16, body: impl ToString) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(did.to_owned(), (status, body.to_string()));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn document(did: &str, handle: &str) -> Value {
    json!({
        "id": did,
        "alsoKnownAs": [format!("at://{handle}")],
        "verificationMethod": [{
            "id": format!("{did}#atproto"), "type": "Multikey", "controller": did,
            "publicKeyMultibase": KEY,
        }],
        "service": [{
            "id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": "https://pds.example.com",
        }],
    })
}

fn did(s: &str) -> Did {
    Did::parse(s).unwrap()
}

fn handle(s: &str) -> Handle {
    Handle::parse(s).unwrap()
}

async fn with_plc(plc: &Plc, net: NetSettings, clock: Clock) -> Identity {
    let port = plc.serve().await;
    let settings = IdentitySettings {
        plc_url: Origin::parse(&format!("http://localhost:{port}")).unwrap(),
        ..IdentitySettings::default()
    };
    Identity::bind(Net::bind(net, clock.clone()).unwrap(), settings, clock)
}

fn by_hand() -> Clock {
    Clock::manual(Timestamp::from_millis(1_800_000_000_000))
}

#[test]
fn settings_have_defaults_and_refuse_unknown_keys() {
    let read = serde_json::from_str::<IdentitySettings>;
    assert_eq!(read("{}").unwrap(), IdentitySettings::default());
    assert_eq!(
        IdentitySettings::default().plc_url.as_str(),
        "https://plc.directory"
    );
    let some = read(r#"{"plc_url":"http://plc:2582","hard_limit":"12h"}"#).unwrap();
    assert_eq!(some.plc_url.as_str(), "http://plc:2582");
    assert!(read(r#"{"plc":"http://plc:2582"}"#).is_err());
    assert!(read(r#"{"plc_url":"plc.directory"}"#).is_err());
}

#[tokio::test]
async fn documents_come_from_the_directory_and_stay() {
    let plc = Plc::default();
    plc.set(ALICE, 200, document(ALICE, "alice.test"));
    // The operator's directory is dialled on loopback without the development switch.
    let identity = with_plc(&plc, NetSettings::default(), by_hand()).await;
    assert_eq!(identity.cached(&did(ALICE)), None);
    let found = identity
        .resolve(&did(ALICE), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(
        found.claimed_handle.as_ref().unwrap().as_str(),
        "alice.test"
    );
    assert_eq!(found.signing_key.as_ref().unwrap().multikey(), KEY);
    assert_eq!(identity.cached(&did(ALICE)), Some(Arc::clone(&found)));
    identity
        .resolve(&did(ALICE), Freshness::Cached)
        .await
        .unwrap();
    assert_eq!(plc.asked(), 1);
    plc.set(ALICE, 200, document(ALICE, "renamed.test"));
    let fresh = identity
        .resolve(&did(ALICE), Freshness::Refresh)
        .await
        .unwrap();
    assert_ne!(fresh, found);
    identity.purge(&did(ALICE));
    assert_eq!(identity.cached(&did(ALICE)), None);
}

#[tokio::test]
async fn concurrent_look_ups_are_one_request() {
    let plc = Plc {
        delay: Duration::from_millis(50),
        ..Plc::default()
    };
    plc.set(ALICE, 200, document(ALICE, "alice.test"));
    let identity = with_plc(&plc, NetSettings::default(), by_hand()).await;
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let identity = identity.clone();
            tokio::spawn(async move { identity.resolve(&did(ALICE), Freshness::Refresh).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(plc.asked(), 1);
}

#[tokio::test]
async fn failures_are_distinguished_and_cached_for_two_minutes() {
    let plc = Plc::default();
    let clock = by_hand();
    let identity = with_plc(&plc, NetSettings::default(), clock.clone()).await;
    let resolve = async || {
        identity
            .resolve(&did(ALICE), Freshness::Cached)
            .await
            .map(drop)
    };
    let unreachable = Err(IdentityError::Unreachable { retry_after: None });
    for (status, body, want) in [
        (
            404,
            json!({"message": format!("DID not registered: {ALICE}")}),
            Err(IdentityError::NotFound),
        ),
        (
            404,
            json!({"message": format!("DID not available: {ALICE}")}),
            Err(IdentityError::Tombstoned),
        ),
        (
            404,
            json!({"message": format!("DID not available: {BOB}")}),
            Err(IdentityError::NotFound),
        ),
        (
            404,
            json!(format!("<p>DID not available: {ALICE}</p>")),
            Err(IdentityError::NotFound),
        ),
        (410, json!({}), Err(IdentityError::Tombstoned)),
        (
            200,
            document(BOB, "x.test"),
            Err(DocumentError::WrongId.into()),
        ),
        (200, json!("<html>"), Err(DocumentError::NotAnObject.into())),
        (
            200,
            json!("x".repeat(70_000)),
            Err(DocumentError::TooLong.into()),
        ),
        (500, json!({}), unreachable.clone()),
        (302, json!({}), unreachable),
        (200, document(ALICE, "x.test"), Ok(())),
    ] {
        plc.set(ALICE, status, body);
        let before = plc.asked();
        assert_eq!(resolve().await, want);
        assert_eq!(resolve().await, want);
        assert_eq!(plc.asked(), before + 1, "{want:?}");
        assert_eq!(identity.cached(&did(ALICE)).is_some(), want.is_ok());
        clock.advance(Duration::from_secs(120));
    }
}

#[tokio::test]
async fn retry_after_of_the_directory_is_honoured() {
    let plc = Plc::default();
    let clock = by_hand();
    let identity = with_plc(&plc, NetSettings::default(), clock.clone()).await;
    plc.set(ALICE, 429, "{}");
    plc.set(BOB, 200, document(BOB, "bob.test"));
    for (who, wait) in [(ALICE, 30), (BOB, 30)] {
        let error = identity.resolve(&did(who), Freshness::Cached).await;
        let retry_after = Some(Duration::from_secs(wait));
        assert_eq!(error, Err(IdentityError::Unreachable { retry_after }));
    }
    assert_eq!(
        plc.asked(),
        1,
        "no request is made while the directory is closed"
    );
    clock.advance(Duration::from_secs(30));
    assert!(identity.resolve(&did(BOB), Freshness::Cached).await.is_ok());
}

#[tokio::test]
async fn an_older_document_is_served_while_the_directory_is_down() {
    let plc = Plc::default();
    let clock = by_hand();
    let identity = with_plc(&plc, NetSettings::default(), clock.clone()).await;
    plc.set(ALICE, 200, document(ALICE, "alice.test"));
    identity
        .resolve(&did(ALICE), Freshness::Cached)
        .await
        .unwrap();
    plc.set(ALICE, 500, "");
    clock.advance(Duration::from_secs(2 * 3600));
    assert!(
        identity
            .resolve(&did(ALICE), Freshness::Cached)
            .await
            .is_ok()
    );
    while plc.asked() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(
        identity
            .resolve(&did(ALICE), Freshness::Refresh)
            .await
            .is_err()
    );
    assert!(
        identity
            .resolve(&did(ALICE), Freshness::Cached)
            .await
            .is_ok()
    );
    clock.advance(Duration::from_secs(22 * 3600));
    assert!(
        identity
            .resolve(&did(ALICE), Freshness::Cached)
            .await
            .is_err()
    );
}

/// An answer requested before a purge never returns to the cache.
#[tokio::test]
async fn a_purge_during_a_look_up_wins() {
    let plc = Plc {
        delay: Duration::from_millis(100),
        ..Plc::default()
    };
    plc.set(ALICE, 200, document(ALICE, "old.test"));
    let identity = with_plc(&plc, NetSettings::default(), by_hand()).await;
    let older = {
        let identity = identity.clone();
        tokio::spawn(async move { identity.resolve(&did(ALICE), Freshness::Cached).await })
    };
    while plc.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    identity.purge(&did(ALICE));
    assert!(older.await.unwrap().is_ok());
    assert_eq!(identity.cached(&did(ALICE)), None);
}

#[tokio::test]
async fn did_web_accounts() {
    let dns = NameServer::start().await;
    dns.set_address("web.test", "127.0.0.1");
    dns.set_address("inside.test", "10.0.0.1");
    let authority = Authority::generate();
    let whose = Arc::new(Mutex::new("did:web:web.test".to_owned()));
    let served = Arc::clone(&whose);
    let router = Router::new().route(
        "/.well-known/did.json",
        get(async move || document(&served.lock().unwrap(), "web.test").to_string()),
    );
    let https = authority.serve(&["web.test"], router.clone()).await;
    let http = serve(router).await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        extra_ca_file: Some(authority.file()),
        https_port: https,
        ..development()
    });
    let identity = Identity::bind(net, IdentitySettings::default(), Clock::system());
    let resolve = async |s: &str| identity.resolve(&did(s), Freshness::Cached).await.map(drop);
    assert_eq!(resolve("did:web:web.test").await, Ok(()));
    assert_eq!(
        resolve(&format!("did:web:web.test%3A{https}")).await,
        Err(DocumentError::WrongId.into())
    );
    let local = format!("did:web:localhost%3A{http}");
    whose.lock().unwrap().clone_from(&local);
    assert_eq!(resolve(&local).await, Ok(()));
    assert_eq!(
        resolve("did:web:inside.test").await,
        Err(IdentityError::Refused(Refusal::Address))
    );
    assert_eq!(
        resolve("did:web:absent.test").await,
        Err(IdentityError::Unreachable { retry_after: None })
    );
    let public = Identity::bind(
        bind(NetSettings::default()),
        IdentitySettings::default(),
        Clock::system(),
    );
    for (s, refusal) in [
        ("did:web:localhost", Refusal::HostName),
        ("did:web:pds.example.com%3A8443", Refusal::Port),
        ("did:web:pds.test", Refusal::HostName),
    ] {
        let result = public.resolve(&did(s), Freshness::Cached).await;
        assert_eq!(result, Err(IdentityError::Refused(refusal)), "{s}");
    }
}

/// The well-known page of every handle, by `Host`.
async fn well_known(
    State(pages): State<HashMap<&'static str, (u16, String)>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    // HTTP/2 has no Host header but an authority in the target.
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let host = host
        .or_else(|| uri.authority().map(|a| a.as_str()))
        .unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let (status, body) = pages.get(host).cloned().unwrap_or((404, String::new()));
    let status = StatusCode::from_u16(status).unwrap();
    if status.is_redirection() {
        return (status, [(header::LOCATION, body)]).into_response();
    }
    (status, body).into_response()
}

#[tokio::test]
async fn every_outcome_of_a_handle() {
    let dns = NameServer::start().await;
    let names: Vec<String> = ('a'..='p').map(|c| format!("{c}.test")).collect();
    let names: Vec<&str> = names.iter().map(|n| &**n).collect();
    let pages = HashMap::from([
        ("a.test", (200, BOB.to_owned())),
        ("b.test", (200, format!(" {BOB}\r\n"))),
        ("c.test", (200, BOB.to_owned())),
        ("e.test", (200, BOB.to_owned())),
        ("g.test", (200, "<html>".to_owned())),
        ("h.test", (200, "x".repeat(3000))),
        ("i.test", (500, String::new())),
        ("j.test", (302, "http://169.254.169.254/".to_owned())),
        ("k.test", (302, "/.well-known/atproto-did".to_owned())),
        ("l.test", (404, String::new())),
    ]);
    let authority = Authority::generate();
    let router = Router::new()
        .route("/.well-known/atproto-did", get(well_known))
        .with_state(pages);
    let port = authority.serve(&names, router).await;
    for name in &names {
        dns.set_address(name, "127.0.0.1");
    }
    dns.set_did("a.test", ALICE);
    dns.set("_atproto.e.test", Answer::Code(2));
    dns.set(
        "_atproto.c.test",
        Answer::Txt(vec![format!("did={ALICE}"), format!("did={BOB}")]),
    );
    dns.set("_atproto.l.test", Answer::Code(2));
    dns.set_address("m.test", "10.0.0.1");
    dns.set("n.test", Answer::Code(3));
    dns.set("o.test", Answer::Code(2));
    dns.set(
        "_atproto.p.test",
        Answer::Txt(vec!["did=did:key:x".to_owned()]),
    );
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        extra_ca_file: Some(authority.file()),
        https_port: port,
        ..development()
    });
    let identity = Identity::bind(net, IdentitySettings::default(), Clock::system());
    use HandleError::*;
    for (name, want) in [
        ("a.test", Ok(did(ALICE))),   // both answer: DNS wins
        ("b.test", Ok(did(BOB))),     // https only, with white space
        ("c.test", Err(Ambiguous)),   // no falling back to https
        ("e.test", Ok(did(BOB))),     // DNS fails, https answers
        ("g.test", Err(NotFound)),    // not a DID
        ("h.test", Err(NotFound)),    // far too long
        ("i.test", Err(Unreachable)), // fault of the server
        ("j.test", Err(NotFound)),    // redirect to a forbidden address
        ("k.test", Err(NotFound)),    // redirect without end
        ("l.test", Err(Unreachable)), // https has none, but DNS could not be asked
        ("m.test", Err(NotFound)),    // private address
        ("n.test", Err(NotFound)),    // no such host
        ("o.test", Err(Unreachable)), // its name server fails
        ("p.test", Err(NotFound)),    // TXT names no account
        ("x.onion", Err(NotResolvable)),
    ] {
        assert_eq!(identity.resolve_handle(&handle(name)).await, want, "{name}");
    }
    assert_eq!(dns.asked("_atproto.x.onion"), 0);
    let public = Identity::bind(
        bind(NetSettings::default()),
        IdentitySettings::default(),
        Clock::system(),
    );
    let test = public.resolve_handle(&handle("alice.test")).await;
    assert_eq!(test, Err(NotResolvable));
}

#[tokio::test]
async fn handles_are_cached_for_a_minute_and_verified_without_the_cache() {
    let dns = NameServer::start().await;
    let clock = by_hand();
    let settings = NetSettings {
        name_server: Some(dns.address),
        ..development()
    };
    let net = Net::bind(settings, clock.clone()).unwrap();
    let identity = Identity::bind(net, IdentitySettings::default(), clock.clone());
    let (alice, name) = (handle("alice.test"), "_atproto.alice.test");
    dns.set_did("alice.test", ALICE);
    for _ in 0..3 {
        assert_eq!(identity.resolve_handle(&alice).await, Ok(did(ALICE)));
    }
    assert_eq!(dns.asked(name), 1);
    dns.set_did("alice.test", BOB);
    clock.advance(Duration::from_secs(59));
    assert_eq!(identity.resolve_handle(&alice).await, Ok(did(ALICE)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(identity.resolve_handle(&alice).await, Ok(did(BOB)));
    // Absence is cached for five minutes, but not for verification.
    dns.set(name, Answer::Code(3));
    clock.advance(Duration::from_secs(60));
    assert_eq!(
        identity.resolve_handle(&alice).await,
        Err(HandleError::NotFound)
    );
    dns.set_did("alice.test", ALICE);
    clock.advance(Duration::from_secs(299));
    assert_eq!(
        identity.resolve_handle(&alice).await,
        Err(HandleError::NotFound)
    );
    let parse = |whose: &str, name: &str| {
        let document = document(whose, name).to_string();
        DidDocument::parse(document.as_bytes(), &did(whose), clock.now()).unwrap()
    };
    let document = parse(ALICE, "alice.test");
    assert_eq!(
        identity.verify_handle(&document).await,
        HandleCheck::Verified(alice.clone())
    );
    assert_eq!(identity.resolve_handle(&alice).await, Ok(did(ALICE)));
    // Bidirectional: a handle that leads to another account or to none, or that must not be resolved,
    // is not verified.
    for invalid in [
        parse(BOB, "alice.test"),
        parse(ALICE, "absent.test"),
        parse(ALICE, "alice.onion"),
        parse(ALICE, "not a handle"),
    ] {
        let check = identity.verify_handle(&invalid).await;
        assert_eq!(check, HandleCheck::Invalid, "{invalid:?}");
    }
    dns.set(name, Answer::Code(2));
    assert_eq!(
        identity.verify_handle(&document).await,
        HandleCheck::Inconclusive
    );
}

#[tokio::test]
async fn concurrent_callers_share_one_look_up_of_a_handle() {
    let dns = NameServer::start().await;
    dns.set_did("alice.test", ALICE);
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let identity = Identity::bind(net, IdentitySettings::default(), Clock::system());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let identity = identity.clone();
            tokio::spawn(async move { identity.resolve_handle(&handle("alice.test")).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(did(ALICE)));
    }
    assert_eq!(dns.asked("_atproto.alice.test"), 1);
}
