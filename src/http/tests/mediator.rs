//! The paths of the mediator, and the other responses that a mediator changes.

use serde_json::json;

use super::harness::{Setup, TestServer, ask, exchange};
use crate::mediator::MediatorSettings;
use crate::store::StoreError;

async fn with_mediator() -> TestServer {
    Setup {
        mediator: Some(MediatorSettings::default()),
        ..Setup::default()
    }
    .start()
    .await
}

#[tokio::test]
async fn documents_are_public_and_cached_for_a_while() {
    let server = with_mediator().await;
    let document = server.get("/.well-known/did.json").await;
    assert_eq!(
        (document.status, document.headers["content-type"].as_str()),
        (200, "application/did+json")
    );
    assert_eq!(document.headers["cache-control"], "public, max-age=300");
    assert_eq!(document.headers["access-control-allow-origin"], "*");
    let document: serde_json::Value = serde_json::from_slice(&document.body).unwrap();
    assert_eq!(document["id"], "did:web:mail.example.com");
    let uris: Vec<_> = document["service"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| (&service["id"], &service["serviceEndpoint"]))
        .collect();
    let endpoint = |uri| json!({"uri": uri, "accept": ["didcomm/v2"], "routingKeys": []});
    assert_eq!(
        uris,
        [
            (
                &json!("did:web:mail.example.com#didcomm"),
                &endpoint("https://mail.example.com/didcomm")
            ),
            (
                &json!("did:web:mail.example.com#didcomm-ws"),
                &endpoint("wss://mail.example.com/didcomm")
            ),
            (
                &json!("did:web:mail.example.com#atcomm_directory"),
                &json!("https://mail.example.com")
            ),
        ]
    );
    let invitation = server.get("/invitation").await.json();
    assert_eq!(
        invitation["type"],
        "https://didcomm.org/out-of-band/2.0/invitation"
    );
    assert_eq!(invitation["body"]["goal_code"], "request-mediate");
    assert!(
        invitation["from"]
            .as_str()
            .unwrap()
            .starts_with("did:peer:2.")
    );
    // The invitation in an URL is returned only if it is one of this mediator.
    let text = data_encoding::BASE64URL_NOPAD.encode(invitation.to_string().as_bytes());
    let carried = server.get(&format!("/invitation?_oob={text}")).await;
    assert_eq!(carried.json(), invitation);
    // A caller's words are not repeated under the mediator's name.
    let mut forged = invitation.clone();
    forged["id"] = json!("forged");
    forged["body"]["goal"] = json!("send money to mallory");
    forged["attachments"] = json!([{"data": {"links": ["https://mallory.example"]}}]);
    forged["x-more"] = json!("mallory");
    let text = data_encoding::BASE64URL_NOPAD.encode(forged.to_string().as_bytes());
    let carried = server.get(&format!("/invitation?_oob={text}")).await;
    assert_eq!(carried.json(), invitation);
    forged["from"] = json!("did:web:mail.example.com");
    let of_web = forged.to_string();
    let other = invitation.to_string().replace(".Vz6Mk", ".Vz6Mm");
    let [other, of_web] =
        [other, of_web].map(|message| data_encoding::BASE64URL_NOPAD.encode(message.as_bytes()));
    for text in [other.as_str(), &of_web, "e30", "%20"] {
        let refused = server.get(&format!("/invitation?_oob={text}")).await;
        assert_eq!(refused.error(), (400, "InvalidRequest".to_owned()));
    }
}

#[tokio::test]
async fn wrong_verbs_are_told_the_right_one() {
    let server = with_mediator().await;
    for (line, allow) in [
        ("PUT /didcomm", "GET,HEAD,POST"),
        ("DELETE /didcomm", "GET,HEAD,POST"),
        ("POST /invitation", "GET,HEAD"),
        ("PUT /.well-known/did.json", "GET,HEAD"),
        ("POST /", "GET,HEAD"),
    ] {
        let answer = ask(server.address, line, &[], "").await;
        assert_eq!(answer.error().0, 405, "{line}");
        assert_eq!(answer.headers["allow"], allow, "{line}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        for verb in allow.split(',').filter(|verb| *verb != "HEAD") {
            assert!(message.contains(verb), "{line}: {message}");
        }
    }
    // A browser that opens the endpoint, and a HEAD request.
    let opened = server.get("/didcomm").await;
    assert_eq!(opened.error(), (426, "UpgradeRequired".to_owned()));
    assert_eq!(opened.headers["upgrade"], "websocket");
    for (line, status) in [
        ("HEAD /didcomm", 426),
        ("HEAD /invitation", 200),
        ("HEAD /.well-known/did.json", 200),
    ] {
        let head = ask(server.address, line, &[], "").await;
        assert_eq!((head.status, head.body.len()), (status, 0), "{line}");
    }
    let preflight = ask(server.address, "OPTIONS /didcomm", &[], "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(server.get("/didcomm/").await.error().0, 404);
}

#[tokio::test]
async fn a_body_that_is_not_a_message_is_refused_by_name() {
    let settings = MediatorSettings {
        max_message: 5000,
        ..MediatorSettings::default()
    };
    let server = Setup {
        mediator: Some(settings),
        ..Setup::default()
    }
    .start()
    .await;
    let long = "x".repeat(5001);
    for (media_type, body, status, name) in [
        ("application/json", "{}", 400, "NotUnpackable"),
        (
            "application/didcomm-encrypted+json",
            "",
            400,
            "NotUnpackable",
        ),
        ("image/png", "{}", 415, "UnsupportedMediaType"),
        (
            "image/png",
            "[{\"ciphertext\": 1}]",
            415,
            "UnsupportedMediaType",
        ),
        ("image/png", "{\"ciphertext\": \"x\"}", 400, "NotUnpackable"),
        ("image/png", &long, 413, "MessageTooLarge"),
        ("application/json", &long, 413, "MessageTooLarge"),
    ] {
        let headers = [("content-type", media_type)];
        let answer = ask(server.address, "POST /didcomm", &headers, body).await;
        assert_eq!(answer.error(), (status, name.to_owned()), "{media_type}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_well_formed_is_told_so() {
    let server = with_mediator().await;
    for body in [
        "zz\r\n",
        "ffffffffffffffffff\r\n",
        &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(40_000)),
        &format!("0\r\n{}\r\n", "x-y: z\r\n".repeat(10_000)),
        "2\r\n{}}}\r\n0\r\n\r\n",
    ] {
        let request = format!(
            "POST /didcomm HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        );
        let answer = exchange(server.address, request.as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        let begin = &body[..body.len().min(20)];
        assert!(answer.starts_with("HTTP/1.1 400 "), "{begin}: {answer}");
    }
}

#[tokio::test]
async fn without_a_mediator_its_paths_are_unknown() {
    let server = TestServer::new().await;
    for line in [
        "POST /didcomm",
        "GET /didcomm",
        "GET /.well-known/did.json",
        "GET /invitation",
    ] {
        let answer = ask(server.address, line, &[], "").await;
        assert_eq!(answer.error(), (404, "NotFound".to_owned()), "{line}");
    }
    let index = String::from_utf8(server.get("/").await.body).unwrap();
    assert!(!index.contains("/didcomm"), "{index}");
}

#[tokio::test]
async fn pages_describe_the_mediator() {
    let server = with_mediator().await;
    let index = server.get("/").await;
    assert_eq!(index.headers["cache-control"], "public, max-age=60");
    let index = String::from_utf8(index.body).unwrap();
    for wanted in [
        "\ndid:web:mail.example.com\n",
        "POST /didcomm",
        "GET /.well-known/did.json",
        "GET /invitation",
    ] {
        assert!(index.contains(wanted), "{wanted} in {index}");
    }
    let robots = String::from_utf8(server.get("/robots.txt").await.body).unwrap();
    let disallowed: Vec<_> = robots
        .lines()
        .filter_map(|line| line.strip_prefix("Disallow: "))
        .collect();
    assert_eq!(
        disallowed,
        ["/xrpc/", "/account", "/didcomm", "/invitation"]
    );
}

#[tokio::test]
async fn health_is_that_of_both_stores() {
    let server = with_mediator().await;
    let health = async || server.get("/xrpc/_health").await;
    assert_eq!(health().await.status, 200);
    // A write that fails because the disk is full, and one that succeeds afterwards.
    let mailbox = server.mediator.as_ref().unwrap().mailbox();
    let full = mailbox.transact(|_| Err::<(), _>(StoreError::Full)).await;
    assert!(matches!(full, Err(StoreError::Full)));
    assert_eq!(
        health().await.error(),
        (503, "ServiceUnavailable".to_owned())
    );
    let written = mailbox.transact(|tx| tx.set_meta("a", "test")).await;
    written.unwrap();
    assert_eq!(health().await.status, 200);
    let store = server.resolver.directory().store();
    let full = store.transact(|_| Err::<(), _>(StoreError::Full)).await;
    assert!(matches!(full, Err(StoreError::Full)));
    assert_eq!(health().await.error().0, 503);
}
