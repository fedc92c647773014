//! HTTP below the messages: types, sizes, verbs, and browsers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use super::{Client, Mediator, assert_refusal, get};
use crate::http::{Answer, request};
use crate::network::text;

const ENCRYPTED: &str = "application/didcomm-encrypted+json";

/// Packs a ping without sending it.
fn packed(client: &Client) -> String {
    let ping = client.tell("ping", json!({"post": false}));
    text(&ping, "/packed").to_owned()
}

fn post(mediator: &Mediator, media_type: Option<&str>, body: impl Into<Vec<u8>>) -> Answer {
    let headers: Vec<_> = media_type
        .map(|kind| ("content-type", kind))
        .into_iter()
        .collect();
    request(
        "POST",
        &mediator.url("/didcomm"),
        &headers,
        Some(body.into()),
    )
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_refusal(&answer.text());
    assert_eq!(answer.json()["error"], error);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[test]
fn types_of_content_are_accepted_and_refused() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for accepted in [
        Some(ENCRYPTED),
        Some("application/didcomm-encrypted+json; charset=utf-8"),
        Some("Application/DIDComm-Encrypted+JSON;charset=UTF-8"),
        Some("application/json"),
        Some("application/octet-stream"),
        Some("text/plain; charset=utf-8"),
        None,
    ] {
        let answer = post(&mediator, accepted, packed(&client));
        assert_eq!(answer.status, 200, "{accepted:?}: {}", answer.text());
        assert_eq!(answer.header("content-type"), ENCRYPTED);
        let opened = client
            .script()
            .op("unpack", json!({"packed": answer.text()}));
        assert!(text(&opened["message"], "/type").ends_with("/ping-response"));
    }
    for foreign in [
        "application/didcomm-plain+json",
        "application/didcomm-signed+json",
        "application/didcomm-envelope-enc",
        "application/ssi-agent-wire",
        "text/html",
        "image/png",
    ] {
        let plain = client.tell("ping", json!({"plain": true, "post": false}));
        let answer = post(&mediator, Some(foreign), text(&plain, "/packed").to_owned());
        assert_refused(&answer, 415, "UnsupportedMediaType");
        // The body decides: agents have many names for the type of an encrypted message.
        let answer = post(&mediator, Some(foreign), packed(&client));
        assert_eq!(answer.status, 200, "{foreign}: {}", answer.text());
    }
}

#[test]
fn what_is_no_message_for_it_is_refused() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let other = client.generate();
    let elsewhere = client.tell("ping", json!({"to": other, "post": false}));
    let plain = client.tell("ping", json!({"plain": true, "post": false}));
    let sound = packed(&client);
    let mut forged: serde_json::Value = serde_json::from_str(&sound).expect("JSON");
    let tag = text(&forged, "/tag");
    let changed = if tag.starts_with('A') { "B" } else { "A" };
    forged["tag"] = json!(format!("{changed}{}", &tag[1..]));
    for garbage in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "hello".to_owned(),
        "\u{0}".to_owned(),
        "[".repeat(100_000),
        sound[..sound.len() - 1].to_owned(),
        text(&elsewhere, "/packed").to_owned(),
        text(&plain, "/packed").to_owned(),
        forged.to_string(),
    ] {
        let answer = post(&mediator, Some(ENCRYPTED), garbage);
        assert_refused(&answer, 400, "NotUnpackable");
    }
    let answer = post(&mediator, Some(ENCRYPTED), vec![0xff; 64]);
    assert_refused(&answer, 400, "NotUnpackable");
    // None of these requests used up the message itself.
    assert_eq!(post(&mediator, Some(ENCRYPTED), sound).status, 200);
}

#[test]
fn what_is_too_long_is_refused_before_it_is_read() {
    let mediator = Mediator::open();
    let max = 1 << 20;
    let answer = post(&mediator, Some(ENCRYPTED), vec![b' '; max]);
    assert_refused(&answer, 400, "NotUnpackable");
    let answer = post(&mediator, Some(ENCRYPTED), vec![b' '; max + 1]);
    assert_refused(&answer, 413, "MessageTooLarge");

    // A body of unknown length.
    let address = mediator.url("").replace("http://localhost", "127.0.0.1");
    let mut stream = TcpStream::connect(&address).expect("a connection");
    write!(
        stream,
        "POST /didcomm HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\nContent-Type: {ENCRYPTED}\r\n\r\n{:x}\r\n",
        max + 1
    )
    .expect("a request");
    // The service may close the connection before the whole body is written.
    drop(stream.write_all(&vec![b' '; max + 1]));
    drop(stream.write_all(b"\r\n0\r\n\r\n"));
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 413");

    // A message of the greatest length is accepted.
    let client = mediator.member();
    let message = client.pack_words_for(&client.did, &"long ".repeat(100_000));
    client.forward(&client.did, &message);
    assert_eq!(client.fetch(json!({}))[0]["message"], message.plain);
}

#[test]
fn other_verbs_and_paths_are_refused() {
    let mediator = Mediator::open();
    for (method, path, status) in [
        ("PUT", "/didcomm", 405),
        ("DELETE", "/didcomm", 405),
        ("POST", "/invitation", 405),
        ("POST", "/.well-known/did.json", 405),
        ("GET", "/didcomm/", 404),
        ("POST", "/", 405),
        ("GET", "/didcomm", 426),
    ] {
        let body = (method == "POST").then(|| b"{}".to_vec());
        let answer = request(method, &mediator.url(path), &[], body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_refusal(&answer.text());
    }
    for path in ["/invitation", "/.well-known/did.json"] {
        let head = request("HEAD", &mediator.url(path), &[], None);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(
            get(&mediator, path).header("cache-control"),
            "public, max-age=300"
        );
    }
}

#[test]
fn browsers_may_ask() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let page = ("origin", "https://app.example.com");
    for (path, method) in [
        ("/didcomm", "POST"),
        ("/.well-known/did.json", "GET"),
        ("/invitation", "GET"),
    ] {
        let headers = [
            page,
            ("access-control-request-method", method),
            ("access-control-request-headers", "content-type"),
        ];
        let answer = request("OPTIONS", &mediator.url(path), &headers, None);
        assert!(
            (200..300).contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let methods = answer.header("access-control-allow-methods");
        assert!(
            methods.split(", ").any(|allowed| allowed == method),
            "{methods}"
        );
        let allowed = answer.header("access-control-allow-headers");
        assert!(
            allowed.split(", ").any(|name| name == "content-type"),
            "{allowed}"
        );
    }
    // The page may read responses, also refusals and their headers.
    for (body, status) in [(packed(&client), 200), ("{}".to_owned(), 400)] {
        let headers = [page, ("content-type", ENCRYPTED)];
        let url = mediator.url("/didcomm");
        let answer = request("POST", &url, &headers, Some(body.into_bytes()));
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(
            answer
                .header("access-control-expose-headers")
                .contains("Retry-After")
        );
    }
}
