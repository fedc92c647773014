//! Hostile messages: each is refused or ignored, and mail is still served (invariant 8).

use atcomm_proto::didcomm::message::ReturnRoute;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{MediatorEndpoint, PeerClient, Socket, mediator, open};
use crate::http::{RUNTIME, eventually, request};
use crate::network::Network;
use crate::service::{Service, Setup};

/// Starts a mediator with one recipient.
fn with_bob(change: impl FnOnce(Setup) -> Setup) -> (Service, MediatorEndpoint, PeerClient) {
    let (service, endpoint) = mediator(Network::multikey(), |setup| change(open(setup)));
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    (service, endpoint, bob)
}

/// Asserts that mail is accepted and delivered, and that nothing panicked before.
#[track_caller]
pub(super) fn assert_works(service: &Service, endpoint: &MediatorEndpoint, bob: &PeerClient) {
    let health = request("GET", &service.url("/xrpc/_health"), &[], None);
    assert_eq!(health.status, 200, "{}", health.text());
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("well")));
    assert_eq!(bob.collect(endpoint, 1), ["well"]);
    let log = service.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

/// Encrypts a plaintext of any shape anonymously.
fn sealed(endpoint: &MediatorEndpoint, plaintext: &str) -> Vec<u8> {
    super::anoncrypt(
        plaintext.as_bytes(),
        std::slice::from_ref(&endpoint.key),
        super::ContentEncryption::Xc20p,
    )
    .expect("an envelope")
}

#[test]
fn inv7_bodies_and_frames_over_the_limit_are_refused() {
    const LIMIT: usize = 32 * 1024;
    let (service, endpoint, bob) =
        with_bob(|setup| setup.set("mediator.max_message", json!(LIMIT)));
    let garbage = |len: usize| vec![b'x'; len];
    assert_eq!(endpoint.refuse(&garbage(LIMIT), 400), "NotUnpackable");
    assert_eq!(endpoint.refuse(&garbage(LIMIT + 1), 413), "MessageTooLarge");
    // The head announces no length of the body.
    let status = |len: usize| {
        let chunks = (0..len / 1024).map(move |_| Ok::<_, std::io::Error>(garbage(1024)));
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let request = super::CLIENT.post(endpoint.url()).body(body);
        let answer = RUNTIME.block_on(async { request.send().await });
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(status(LIMIT), 400);
    assert_eq!(status(LIMIT + 1024), 413);
    // A message of the greatest length, and a longer one.
    let forward = |len: usize| endpoint.forward(&bob.did, &bob.envelope(&"x".repeat(len)));
    let room = (0..LIMIT / 2).rev().step_by(64);
    let longest = room.map(forward).find(|sealed| sealed.len() <= LIMIT);
    endpoint.take(&longest.expect("one fits"));
    assert_eq!(bob.empty(&endpoint).len(), 1);
    endpoint.refuse(&forward(LIMIT), 413);

    let mut socket = Socket::live(&endpoint, &bob);
    let long = Frame::Binary(garbage(LIMIT + 1).into());
    // The service may close the connection before the whole frame is written.
    drop(RUNTIME.block_on(socket.0.send(long)));
    assert_eq!(socket.next(), None);
    assert_works(&service, &endpoint, &bob);
}

/// A connection is reused, as mediators do, while the server reads ahead.
#[test]
fn bodies_of_any_length_follow_each_other_on_one_connection() {
    let (service, endpoint, bob) = with_bob(|setup| setup);
    let mut chance = PseudoRandom(0x5eed);
    let lengths = [1000, 20_000, 45_000, 150_000, 700_000];
    let envelopes =
        lengths.map(|len| endpoint.forward(&bob.did, &bob.envelope(&"x".repeat(len / 3))));
    for n in 0..150 {
        let envelope = &envelopes[chance.below(envelopes.len())];
        let answer = RUNTIME.block_on(super::post(endpoint.url(), envelope.clone()));
        let answer = answer.unwrap_or_else(|e| panic!("{n}: {} bytes: {e:?}", envelope.len()));
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(bob.empty(&endpoint).len(), envelopes.len());
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv8_forwards_inside_forwards_end_after_one_layer() {
    let (service, endpoint, bob) = with_bob(|setup| setup);
    let mut layers = endpoint.forward(&bob.did, &bob.envelope("at the core"));
    let mut count = 0;
    // As many layers as the limit on messages allows; each layer is longer by a third.
    loop {
        let next = endpoint.forward(&endpoint.did, &layers);
        if next.len() > 1 << 20 {
            break;
        }
        (layers, count) = (next, count + 1);
    }
    assert!(count > 12, "{count} layers");
    endpoint.refuse(&layers, 400);
    let outcome =
        |outcome| service.metric("atcomm_mediator_forwards_total", &[("outcome", outcome)]);
    assert_eq!((outcome("looped"), outcome("kept")), (1.0, 0.0));
    assert_eq!(bob.status(&endpoint).message_count, 0);
    // A forward with a hundred messages.
    let envelope: Value = serde_json::from_slice(&bob.envelope("one of many")).expect("JSON");
    let many = |count: usize| {
        let forward = json!({
            "id": "many", "type": "https://didcomm.org/routing/2.0/forward",
            "body": {"next": bob.did},
            "attachments": vec![json!({"data": {"json": envelope}}); count],
        });
        sealed(&endpoint, &forward.to_string())
    };
    endpoint.refuse(&many(100), 400);
    endpoint.refuse(&many(17), 400);
    endpoint.take(&many(16));
    assert_eq!(bob.collect(&endpoint, 1), ["one of many"]);
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv8_fields_of_wrong_types_end_in_a_refusal_or_in_silence() {
    let (service, endpoint, bob) = with_bob(|setup| setup);
    let envelope: Value = serde_json::from_slice(&bob.envelope("hidden")).expect("JSON");
    let good = json!({
        "id": "f", "type": "https://didcomm.org/routing/2.0/forward", "typ": "application/didcomm-plain+json",
        "body": {"next": bob.did}, "attachments": [{"data": {"json": envelope}}],
    });
    let with = |field: &str, value: Value| {
        let mut message = good.clone();
        message[field] = value;
        message.to_string()
    };
    let data = |data: Value| with("attachments", json!([{ "data": data }]));
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    for plaintext in [
        with("body", json!({})),
        with("body", json!([])),
        with("body", json!("next")),
        with("body", json!({"next": 42})),
        with("body", json!({"next": [bob.did]})),
        with("body", json!({"next": null})),
        with("body", json!({"next": ""})),
        with("body", json!({"next": "x".repeat(5000)})),
        with(
            "body",
            json!({"next": format!("did:peer:2.E{}", "z".repeat(3000))}),
        ),
        with("body", json!({"next": "did:peer:4zQm:z"})),
        with("body", json!({"next": "did:web:"})),
        with("attachments", json!({})),
        with("attachments", json!([])),
        with("attachments", json!([42])),
        with("attachments", json!([[]])),
        data(json!({})),
        data(json!({"json": 42})),
        data(json!({"json": []})),
        data(json!({"json": {}})),
        data(
            json!({"json": {"protected": "x", "recipients": [], "iv": "", "tag": "", "ciphertext": ""}}),
        ),
        data(json!({"base64": "***"})),
        data(json!({"base64": ""})),
        data(json!({"base64": 42})),
        data(json!({"links": ["http://localhost/x"], "hash": "y"})),
        with("id", json!(42)),
        with("id", json!("x".repeat(100_000))),
        with("type", json!(42)),
        with("type", json!("https://didcomm.org/routing/99.0/forward")),
        with("type", json!("https://didcomm.org//")),
        with("type", json!("x".repeat(100_000))),
        with("to", json!(42)),
        with("to", json!(["did:peer:2.Ez6LSnobody"])),
        with("from", json!(bob.did)),
        with("expires_time", json!("soon")),
        with("expires_time", json!(1)),
        with("expires_time", json!(i64::MIN)),
        with("created_time", json!(1e300)),
        with("return_route", json!({"all": true})),
        with("ack", json!([1, 2, 3])),
        with("thid", json!([])),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        String::new(),
        "{".to_owned(),
        good.to_string()
            .replace("\"id\":\"f\"", "\"id\":\"f\",\"id\":\"g\""),
        good.to_string()
            .replacen("{\"next\"", &format!("{{\"deep\":{deep},\"next\""), 1),
    ] {
        let answer = endpoint.post(&sealed(&endpoint, &plaintext));
        let about = &plaintext[..plaintext.len().min(300)];
        assert!(
            [202, 400].contains(&answer.status),
            "{}: {about}",
            answer.text()
        );
        if answer.status == 202 {
            assert!(answer.body.is_empty(), "{about}");
        } else {
            assert_eq!(answer.json()["error"], "NotUnpackable");
        }
    }
    // None of them is delivered, except where the fault has no meaning.
    let envelopes = bob.empty(&endpoint);
    assert!(envelopes.len() <= 1, "{} letters", envelopes.len());
    // A registered sender gets reports for the same messages, and never an error of the service.
    for (kind, body) in [
        ("messagepickup/3.0/delivery-request", json!({"limit": -1})),
        (
            "messagepickup/3.0/delivery-request",
            json!({"limit": "many"}),
        ),
        (
            "messagepickup/3.0/messages-received",
            json!({"message_id_list": {}}),
        ),
        (
            "messagepickup/3.0/messages-received",
            json!({"message_id_list": vec!["x"; 2000]}),
        ),
        (
            "messagepickup/3.0/status-request",
            json!({"recipient_did": 42}),
        ),
        (
            "messagepickup/3.0/live-delivery-change",
            json!({"live_delivery": "perhaps"}),
        ),
        (
            "coordinate-mediation/3.0/recipient-update",
            json!({"updates": 42}),
        ),
        (
            "coordinate-mediation/3.0/recipient-update",
            json!({"updates": vec![json!({}); 500]}),
        ),
        (
            "coordinate-mediation/3.0/recipient-query",
            json!({"paginate": {"limit": -5}}),
        ),
        (
            "discover-features/2.0/queries",
            json!({"queries": vec![json!({}); 500]}),
        ),
        ("trust-ping/99.0/ping", json!({})),
    ] {
        let message = json!({
            "id": super::id(), "type": format!("https://didcomm.org/{kind}"), "body": body,
        });
        let message = super::Message::parse(message.to_string().as_bytes()).expect("a message");
        let told = bob.ask(&endpoint, message.return_route(ReturnRoute::All));
        assert!(
            told.kind.ends_with("/problem-report"),
            "{kind} {body}: {}",
            told.kind
        );
    }
    assert_works(&service, &endpoint, &bob);
}

/// Pseudo-random numbers, the same in every run.
struct PseudoRandom(u64);

impl PseudoRandom {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("a number below the limit")
    }
}

#[test]
fn inv8_500_mutilated_envelopes_do_nothing() {
    let (service, endpoint, bob) = with_bob(|setup| setup);
    let sound = endpoint.forward(&bob.did, &bob.envelope("sound"));
    let mut chance = PseudoRandom(0x5eed);
    let mut mutilated = Vec::new();
    for n in 0..500 {
        let mut bytes = sound.clone();
        let at = chance.below(bytes.len());
        match n % 5 {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + chance.below(40) + 1).min(bytes.len()))),
            3 => {
                let piece = bytes[chance.below(at + 1)..=at].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                bytes[at] = u8::try_from(chance.below(256)).expect("a byte");
            }
        }
        mutilated.push(bytes);
    }
    let deep = |open: &str, close: &str| {
        format!("{}{}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
    };
    mutilated.extend([
        Vec::new(),
        vec![0; 1000],
        vec![0xff; 1000],
        b"{}".to_vec(),
        b"{\"protected\":\"e30\",\"recipients\":[],\"iv\":\"\",\"ciphertext\":\"\",\"tag\":\"\"}"
            .to_vec(),
        deep("[", "]"),
        deep("{\"a\":", "}"),
        "🦜".repeat(1000).into_bytes(),
    ]);
    let mut taken = 0;
    for bytes in mutilated {
        let answer = endpoint.post(&bytes);
        match answer.status {
            400 => assert_eq!(answer.json()["error"], "NotUnpackable"),
            // The changed byte is outside of the message, which is intact.
            202 => taken += 1,
            _ => panic!("{}: {}", answer.text(), String::from_utf8_lossy(&bytes)),
        }
    }
    // The changed byte got its old value, or JSON ignores the change.
    assert!(taken < 10, "{taken} of 508 were taken");
    let envelopes = bob.empty(&endpoint);
    assert!(envelopes.len() <= 1, "{} letters", envelopes.len());
    assert!(
        envelopes
            .iter()
            .all(|envelope| bob.words(envelope) == "sound")
    );
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv7_a_flood_by_socket_harms_neither_others_nor_what_is_sound_in_it() {
    let (service, endpoint, bob) = with_bob(|setup| setup);
    let mut flood = Socket::open(&endpoint);
    let sound: Vec<_> = (0..200)
        .map(|n| endpoint.forward(&bob.did, &bob.envelope(&format!("letter {n:03}"))))
        .collect();
    let sending = std::thread::spawn(move || {
        RUNTIME.block_on(async {
            for (n, envelope) in sound.into_iter().enumerate() {
                for size in 0..9 {
                    let garbage = Frame::Binary(vec![b'{'; 100 * size + n].into());
                    flood.0.feed(garbage).await.expect("an open socket");
                }
                flood
                    .0
                    .feed(Frame::Binary(envelope.into()))
                    .await
                    .expect("an open socket");
            }
            flood.0.flush().await.expect("an open socket");
        });
        flood
    });
    let alice = PeerClient::new();
    alice.enter(&endpoint);
    for n in 0..20 {
        let words = format!("beside {n}");
        endpoint.take(&endpoint.forward(&alice.did, &alice.envelope(&words)));
    }
    assert_eq!(alice.collect(&endpoint, 20).len(), 20);
    let _flood = sending.join().expect("a sender");
    let mut words = bob.collect(&endpoint, 200);
    words.sort();
    words.dedup();
    assert_eq!(words.len(), 200);
    eventually("the garbage is counted", || {
        let reason = [("reason", "unreadable")];
        (service.metric("atcomm_mediator_refused_total", &reason) >= 1800.0).then_some(())
    });
    assert_works(&service, &endpoint, &bob);
}
