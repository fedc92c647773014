//! Poison: one message that the parser of a recipient's client refuses, inside a delivery that also
//! contains the mail of others.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use atcomm_proto::didcomm::envelope::unpack;
use atcomm_proto::didcomm::message::{Attachment, Message, ReturnRoute};
use atcomm_proto::didcomm::protocol::pickup;
use atcomm_proto::didcomm::protocol::routing::Forward;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::print_harm;
use crate::mail::hostile::assert_works;
use crate::mail::{MediatorEndpoint, PeerClient, Socket, id, mediator, open, plant};
use crate::network::Network;
use testkit::network::script;

/// Returns changed forms of an envelope, each unreadable to some parser.
pub(crate) fn poison(envelope: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    let good = String::from_utf8(envelope).expect("text");
    let mut deep_header: Value = serde_json::from_str(&good).expect("JSON");
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1).into_bytes();
    let deep = |open: &str, close: &str| {
        let levels = 1500;
        with(&format!(
            "\"x\":{}1{}",
            open.repeat(levels),
            close.repeat(levels)
        ))
    };
    let mut not_utf8 = with("\"x\":\"~\"");
    let at = not_utf8.iter().position(|byte| *byte == b'~').expect("it");
    not_utf8[at] = 0xff;
    let header = format!("{{\"x\":{}", "[".repeat(9000));
    deep_header["protected"] = json!(BASE64URL_NOPAD.encode(header.as_bytes()));
    vec![
        ("arrays 1,500 deep", deep("[", "]")),
        ("objects 1,500 deep", deep("{\"x\":", "}")),
        ("a text that is not UTF-8", not_utf8),
        ("half of a surrogate pair", with(r#""x":"\ud800""#)),
        ("U+0000", with(r#""x":"\u0000""#)),
        ("a number over every float", with(r#""x":1e999"#)),
        (
            "a number of 5,000 digits",
            with(&format!("\"x\":{}", "9".repeat(5000))),
        ),
        ("a member twice", with(r#""x":1,"x":2"#)),
        ("a member in another case", with(r#""Ciphertext":"AA""#)),
        ("__proto__", with(r#""__proto__":{"x":1}"#)),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes()),
        (
            "a protected header 9,000 deep",
            deep_header.to_string().into_bytes(),
        ),
    ]
}

/// Returns bodies that only an older store can hold, since none of them is an envelope.
pub(crate) fn garbage(envelope: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (half, _) = envelope.split_at(envelope.len() / 2);
    vec![
        ("no JSON", b"Guten Tag".to_vec()),
        ("nothing", Vec::new()),
        ("half an envelope", half.to_vec()),
        ("1 MiB of [", vec![b'['; 1 << 20]),
        ("a list", b"[1,2,3]".to_vec()),
        ("an empty object", b"{}".to_vec()),
    ]
}

/// Returns the error of a program that parses `text` as JSON and writes it anew.
fn fault_of(mut parser: Command, text: &[u8]) -> Option<String> {
    let mut child = parser
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a parser");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().rfind(|line| line.contains("Error"));
    (!output.status.success()).then(|| last.unwrap_or("it crashed").to_owned())
}

/// Asserts that the parsers of Python, JavaScript and Rust read `text`.
#[track_caller]
fn assert_every_reader_reads(text: &[u8], what: &str) {
    let mut python = script("../../docs/examples/python/.venv/bin/python");
    python.args([
        "-c",
        "import json,sys; json.dumps(json.loads(sys.stdin.buffer.read()))",
    ]);
    let mut node = Command::new("node");
    let program = "JSON.stringify(JSON.parse(new TextDecoder('utf-8', {fatal: true}).decode(require('fs').readFileSync(0))))";
    node.args(["-e", program]);
    assert_eq!(fault_of(python, text), None, "Python: {what}");
    assert_eq!(fault_of(node, text), None, "JavaScript: {what}");
    let read: Result<Value, _> = serde_json::from_slice(text);
    assert!(read.is_ok(), "{what}: {read:?}");
}

/// Returns the plaintext of a delivery of all that waits.
fn delivery(endpoint: &MediatorEndpoint, peer: &PeerClient) -> Vec<u8> {
    let ask = pickup::Request::Delivery {
        limit: 100,
        recipient_did: None,
    };
    let ask = ask.write(pickup::Version::V3, id());
    let answer = endpoint.post(&peer.seal(endpoint, ask.return_route(ReturnRoute::All)));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let party = |did: &str| endpoint.party.is(did).then(|| endpoint.party.clone());
    unpack(&answer.body, &peer.keys, &party)
        .expect("an answer for this peer")
        .plaintext
}

/// Returns a forward with the message as base64, in which any bytes pass.
fn in_base64(endpoint: &MediatorEndpoint, next: &str, body: &[u8]) -> Vec<u8> {
    let mut attachment = Attachment::message("1", body);
    attachment.data.json = None;
    let forward = Forward {
        next: next.to_owned(),
    };
    endpoint.seal(&Message::new(id(), &forward).attachments(vec![attachment]))
}

#[test]
fn inv8_a_message_that_some_reader_cannot_parse_is_refused() {
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let poison = poison(bob.envelope("poison"));
    let (mut requests, mut bytes, mut taken) = (0, 0, Vec::new());
    for (what, body) in poison.iter().chain(&garbage(&bob.envelope("cut"))) {
        for next in [&bob.did, "did:web:localhost%3A9"] {
            let forward = in_base64(&endpoint, next, body);
            // The same in a forward to the mediator itself, which is unwrapped here.
            let wrapped = endpoint.forward(&endpoint.did, &forward);
            for envelope in [forward, wrapped] {
                if envelope.len() > 1 << 20 {
                    continue;
                }
                (requests, bytes) = (requests + 1, bytes + envelope.len());
                let answer = endpoint.post(&envelope);
                if answer.status != 400 || answer.json()["error"] != "NotUnpackable" {
                    taken.push(format!("{what}: {}", answer.status));
                }
            }
        }
    }
    let refused = endpoint.post(&in_base64(&endpoint, &bob.did, &poison[0].1));
    let waits = bob.status(&endpoint).message_count;
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("behind")));
    let text = delivery(&endpoint, &bob);
    print_harm(
        "messages that some parser refuses",
        &format!("{requests} anonymous requests, {bytes} bytes"),
        &format!("{} taken, {waits} stored: {taken:?}", taken.len()),
    );
    assert_every_reader_reads(&text, "a delivery");
    assert!(taken.is_empty() && waits == 0, "{taken:?}, {waits} stored");
    assert!(
        refused.text().contains("nested more than"),
        "{}",
        refused.text()
    );
    assert_eq!(bob.collect(&endpoint, 1), ["behind"]);
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv8_poison_in_an_older_store_hides_no_other_message() {
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let mut bodies = poison(bob.envelope("poison"));
    bodies.extend(garbage(&bob.envelope("cut")));
    for (_, body) in &bodies {
        plant(&service, &bob.did, body);
    }
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("behind")));
    let mut found = Vec::new();
    loop {
        let text = delivery(&endpoint, &bob);
        assert_every_reader_reads(&text, "a delivery of an older store");
        let message = Message::parse(&text).expect("a message");
        let Ok(Some((_, pickup::Reply::Delivery { messages, .. }))) = pickup::Reply::of(&message)
        else {
            break;
        };
        for one in &messages {
            let bytes = one.bytes().expect("its bytes").into_owned();
            let is_bare = one.data.json.is_some();
            found.push((bytes, is_bare));
        }
        let ids = messages.into_iter().filter_map(|one| one.id).collect();
        bob.acknowledge(&endpoint, ids);
    }
    print_harm(
        "poison in a store of before",
        &format!("{} messages", bodies.len()),
        &format!("{} of {} delivered and read", found.len(), bodies.len() + 1),
    );
    assert_eq!(found.len(), bodies.len() + 1);
    // Nothing is changed on the way: every message comes with the bytes that were sent.
    for ((what, body), (bytes, _)) in bodies.iter().zip(&found) {
        assert!(body == bytes, "{what}");
    }
    let (last, is_bare) = found.pop().expect("the good one");
    assert_eq!(bob.words(&last), "behind");
    assert!(is_bare, "some clients read json alone");
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv8_live_mode_leaves_poison_for_a_delivery() {
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let mut socket = Socket::live(&endpoint, &bob);
    let bodies = poison(bob.envelope("poison"));
    // More than one look at the queue brings.
    for (_, body) in bodies.iter().cycle().take(3 * bodies.len()) {
        let spaced = [body.as_slice(), &b" ".repeat(crate::mail::number() % 512)].concat();
        plant(&service, &bob.did, &spaced);
    }
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("pushed")));
    let pushed = socket.next().expect("a message");
    assert_eq!(bob.words(&pushed), "pushed");
    assert_eq!(socket.next_within(Duration::from_secs(1)), None);
    let waits = bob.status(&endpoint).message_count;
    assert_eq!(waits as usize, 3 * bodies.len() + 1);
}
