//! Calls that a PDS passes on in the name of an account (`atproto-proxy`), and the tokens in them.

use serde_json::{Value, json};

use crate::http::{Answer, request};
use crate::lexicon::assert_valid;
use crate::mail::free_port;
use crate::network::{Account, Network, text};
use crate::service::{RESOLVE, Service, Setup, XrpcError, checked};

/// A service that is no mediator, with an address of its own. Returns it with its DID.
fn addressed(network: &'static Network) -> (Service, String) {
    let port = free_port();
    let service = Setup::new(network)
        .pds(network, 0)
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("http.public_url", json!(format!("http://localhost:{port}")))
        .start();
    (service, format!("did:web:localhost%3A{port}"))
}

/// Calls the account's PDS, signed in as the account.
fn through_pds(account: &Account, path: &str, headers: &[(&str, &str)]) -> Answer {
    let session = account.op("session", json!({}));
    let bearer = format!("Bearer {}", text(&session, "/accessJwt"));
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend(headers);
    request(
        "GET",
        &format!("{}/xrpc/{path}", account.network.pds_url(0)),
        &all,
        None,
    )
}

/// Has the PDS make a token for a service and a method.
fn token(account: &Account, aud: &str, lxm: &str) -> String {
    let aud = aud.replace('%', "%25").replace('#', "%23");
    let path = format!("com.atproto.server.getServiceAuth?aud={aud}&lxm={lxm}");
    let answer = through_pds(account, &path, &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    text(&answer.json(), "/token").to_owned()
}

/// Resolves a recipient with a token.
fn with_token(service: &Service, actor: &str, token: &str) -> Result<Value, XrpcError> {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    checked(
        RESOLVE,
        &service.query_with(RESOLVE, &[("actor", actor)], &headers),
    )
}

#[test]
fn a_pds_passes_the_calls_of_its_users_on() {
    let network = Network::multikey();
    let (service, did) = addressed(network);
    let document = request("GET", &service.url("/.well-known/did.json"), &[], None).json();
    assert_eq!(document["id"], *did);
    assert_eq!(
        document["service"][0]["id"],
        format!("{did}#atcomm_directory")
    );

    let (caller, alice) = (
        network.account("caller", 0),
        network.enrolled("alice", 0, json!({})),
    );
    service.until(&alice.did, "the package", |_| true);
    let proxy = format!("{did}#atcomm_directory");
    let headers = [("atproto-proxy", proxy.as_str())];
    for actor in [&alice.did, &alice.handle] {
        let answer = through_pds(&caller, &format!("{RESOLVE}?actor={actor}"), &headers);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_valid(RESOLVE, "output", &answer.json());
        assert_eq!(answer.json()["did"], *alice.did);
    }
    // Errors come through as they are.
    let answer = through_pds(
        &caller,
        &format!("{RESOLVE}?actor={}", caller.did),
        &headers,
    );
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"], "NotEnrolled");
}

#[test]
fn tokens_are_verified_and_calls_without_one_are_answered() {
    let network = Network::multikey();
    let (service, did) = addressed(network);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let caller = network.account("caller", 0);
    // The view is cached by now, and each token is verified all the same.
    for aud in [did.clone(), format!("{did}#atcomm_directory")] {
        let token = token(&caller, &aud, RESOLVE);
        with_token(&service, &alice.did, &token).expect("the package");
        let again = with_token(&service, &alice.did, &token).expect_err("a replay");
        assert_eq!((again.status, again.name.as_str()), (401, "BadJwt"));
        assert!(again.message.contains("used before"), "{}", again.message);
    }
    let other = token(&caller, "did:web:other.example.com", RESOLVE);
    let refused = with_token(&service, &alice.did, &other).expect_err("another's token");
    assert_eq!(
        (refused.status, refused.name.as_str()),
        (401, "BadJwtAudience")
    );
    assert!(refused.message.contains(&did), "{}", refused.message);

    let method = token(&caller, &did, "at.didcomm.directory.getProof");
    let refused = with_token(&service, &alice.did, &method).expect_err("another method");
    assert_eq!(refused.name, "BadJwtLexiconMethod");

    let good = token(&caller, &did, RESOLVE);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let turned: String = signature.chars().rev().collect();
    for bad in [
        format!("{signed}.{turned}"),
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(6000),
    ] {
        let refused = with_token(&service, &alice.did, &bad).expect_err("no token");
        assert_eq!(refused.status, 401);
        assert!(refused.name.starts_with("BadJwt"), "{}", refused.name);
    }
    // The good one was not used up by the bad ones.
    with_token(&service, &alice.did, &good).expect("the package");
    service.recipient(&alice.did).expect("the package");
}

/// The account has a new signing key, and this server knows the one before.
#[test]
fn a_token_under_a_new_key_leads_to_a_look_at_the_document() {
    let network = Network::multikey();
    let (service, did) = addressed(network);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    // Not in the directory, which would see the new key by itself.
    let caller = network.account("caller", 0);
    let before = token(&caller, &did, RESOLVE);
    with_token(&service, &alice.did, &before).expect("the package");
    caller.op("account.rotate", json!({}));
    let after = token(&caller, &did, RESOLVE);
    with_token(&service, &alice.did, &after).expect("the package");
}

#[test]
fn a_token_that_cannot_be_verified_now_is_not_taken() {
    const HISTORY: &str = "at.didcomm.directory.getHistory";
    let network = Network::multikey();
    let port = free_port();
    let service = Setup::new(network)
        .set("http.public_url", json!(format!("http://localhost:{port}")))
        .set("identity.plc_url", json!("http://localhost:9"))
        .start();
    let caller = network.account("caller", 0);
    let params = [("did", caller.did.as_str())];
    let token = token(&caller, &format!("did:web:localhost%3A{port}"), HISTORY);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let refused = checked(HISTORY, &service.query_with(HISTORY, &params, &headers));
    let refused = refused.expect_err("no document");
    assert_eq!(
        (refused.status, refused.name.as_str()),
        (502, "UpstreamFailure")
    );
    assert!(refused.retry_after.is_some());
    checked(HISTORY, &service.query(HISTORY, &params)).expect("an empty history");
}
