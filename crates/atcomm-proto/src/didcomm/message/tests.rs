use data_encoding::BASE64URL_NOPAD as BASE64;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::didcomm::protocol::empty::Empty;
use crate::didcomm::protocol::routing::Forward;
use crate::didcomm::protocol::trust_ping::{Ping, PingResponse};

const PING: &str = "https://didcomm.org/trust-ping/2.0/ping";

fn parse(message: &Value) -> Result<Message, MessageError> {
    Message::parse(message.to_string().as_bytes())
}

/// Returns a ping with additional headers.
fn with(headers: Value) -> Value {
    let mut message = json!({"id": "1", "type": PING});
    let headers = headers.as_object().unwrap().clone();
    message.as_object_mut().unwrap().extend(headers);
    message
}

/// Returns the error about a ping with these headers.
fn refusal(headers: Value) -> String {
    parse(&with(headers)).unwrap_err().to_string()
}

#[test]
fn all_headers() {
    let message = with(json!({
        "typ": MEDIA_TYPE,
        "from": "did:example:alice",
        "to": ["did:example:bob", "did:example:carol"],
        "thid": "t",
        "pthid": "p",
        "created_time": 1_764_000_000,
        "expires_time": 1_764_003_600,
        "return_route": "all",
        "delay_milli": -500,
        "ack": ["a", "b"],
        "body": {"response_requested": false},
        "attachments": [{"id": "x", "description": "d", "filename": "f", "media_type": "m",
            "format": "o", "data": {"json": {"a": 1}}}],
        "please_ack": [""],
        "lang": "en",
        "x-unknown": {"deep": [1]},
    }));
    let message = parse(&message).unwrap();
    assert_eq!((message.id.as_str(), message.kind.as_str()), ("1", PING));
    assert_eq!(message.from.as_deref(), Some("did:example:alice"));
    assert_eq!(message.to, ["did:example:bob", "did:example:carol"]);
    assert_eq!(message.thread(), "t");
    assert_eq!(message.pthid.as_deref(), Some("p"));
    assert_eq!(message.created_time, Some(1_764_000_000));
    assert_eq!(message.expires_time, Some(1_764_003_600));
    assert_eq!(message.return_route, Some(ReturnRoute::All));
    assert_eq!(message.delay_milli, Some(-500));
    assert_eq!(message.ack, ["a", "b"]);
    assert!(!message.body_of::<Ping>().unwrap().response_requested);
    let [attachment] = message.attachments.as_slice() else {
        panic!("one attachment");
    };
    assert_eq!(attachment.id.as_deref(), Some("x"));
    assert_eq!(attachment.filename.as_deref(), Some("f"));
    assert_eq!(attachment.bytes().unwrap(), br#"{"a":1}"#.as_slice());
    assert_eq!(Message::parse(&message.to_vec()).unwrap(), message);
}

#[test]
fn id_and_type_are_enough() {
    for message in [with(json!({})), with(json!({"body": null, "to": null}))] {
        let message = parse(&message).unwrap();
        assert_eq!(message.thread(), "1");
        assert_eq!(message.body.get(), "{}");
        assert_eq!(message.return_route, None);
        assert!(message.to.is_empty() && message.attachments.is_empty());
        assert!(message.body_of::<Ping>().unwrap().response_requested);
    }
}

#[test]
fn spellings_in_use() {
    let read = |headers| parse(&with(headers)).unwrap();
    assert_eq!(
        read(json!({"to": "did:example:bob"})).to,
        ["did:example:bob"]
    );
    assert_eq!(read(json!({"ack": "a"})).ack, ["a"]);
    for time in [
        json!(1_764_000_000),
        json!(1_764_000_000.0),
        json!("1764000000"),
    ] {
        let message = read(json!({"created_time": time}));
        assert_eq!(message.created_time, Some(1_764_000_000));
    }
    for typ in [
        MEDIA_TYPE,
        "didcomm-plain+json",
        "application/DIDComm-plain+json",
    ] {
        read(json!({"typ": typ}));
    }
    for (word, route) in [
        ("none", ReturnRoute::None),
        ("all", ReturnRoute::All),
        ("thread", ReturnRoute::Thread),
        ("sideways", ReturnRoute::None),
        ("", ReturnRoute::None),
    ] {
        assert_eq!(
            read(json!({"return_route": word})).return_route,
            Some(route)
        );
    }
}

#[test]
fn refusals_name_the_header() {
    for (headers, sentence) in [
        (json!({"id": null}), "the field `id` is missing"),
        (json!({"id": 7}), "the field `id` is not a string"),
        (json!({"id": ""}), "the field `id` is empty"),
        (
            json!({"id": "i".repeat(257)}),
            "the field `id` is longer than 256 bytes",
        ),
        (json!({"type": null}), "the field `type` is missing"),
        (
            json!({"type": "t".repeat(513)}),
            "the field `type` is longer than 512 bytes",
        ),
        (
            json!({"from": ["did:example:a"]}),
            "the field `from` is not a string",
        ),
        (
            json!({"from": "d".repeat(4097)}),
            "the field `from` is longer than 4096 bytes",
        ),
        (json!({"to": {}}), "the field `to` is not an array"),
        (
            json!({"to": ["did:example:a", 1]}),
            "the field `to[1]` is not a string",
        ),
        (
            json!({"to": vec!["d"; 33]}),
            "the field `to` has more than 32 entries",
        ),
        (json!({"thid": true}), "the field `thid` is not a string"),
        (
            json!({"created_time": "soon"}),
            "the field `created_time` is not a whole number",
        ),
        (
            json!({"created_time": 1.5}),
            "the field `created_time` is not a whole number",
        ),
        (
            json!({"expires_time": 1e300}),
            "the field `expires_time` is not a whole number",
        ),
        (
            json!({"expires_time": "\"1"}),
            "the field `expires_time` is not a whole number",
        ),
        (
            json!({"return_route": 1}),
            "the field `return_route` is not a string",
        ),
        (json!({"body": []}), "the field `body` is not an object"),
        (json!({"body": "{}"}), "the field `body` is not an object"),
        (
            json!({"attachments": {}}),
            "the field `attachments` is not an array",
        ),
        (
            json!({"attachments": [1]}),
            "the field `attachments[0]` is not an object",
        ),
        (
            json!({"attachments": [{}]}),
            "the field `attachments[0].data` is missing",
        ),
        (
            json!({"attachments": [{"data": {}}, {"data": {"base64": 1}}]}),
            "the field `attachments[1].data.base64` is not a string",
        ),
        (
            json!({"attachments": vec![json!({"data": {}}); 1001]}),
            "the field `attachments` has more than 1000 entries",
        ),
        (
            json!({"typ": "application/didcomm-encrypted+json"}),
            "the header `typ` names another media type than application/didcomm-plain+json",
        ),
    ] {
        assert_eq!(refusal(headers), sentence);
    }
}

#[test]
fn what_is_no_object() {
    for text in ["", "1", "null", "[]", "\"{}\"", "{", "{}{}", "{\"id\":1,}"] {
        let parsed = Message::parse(text.as_bytes());
        assert_eq!(parsed, Err(MessageError::NotJson), "{text}");
    }
    let broken = b"{\"id\":\"\xff\",\"type\":\"t\"}";
    assert_eq!(Message::parse(broken), Err(MessageError::NotJson));
}

#[test]
fn inv7_headers_are_counted_and_stand_once() {
    let twice = br#"{"id":"1","type":"t","from":"did:example:a","from":"did:example:b"}"#;
    let sentence = Message::parse(twice).unwrap_err().to_string();
    assert_eq!(sentence, "the field `from` stands there twice");
    // The same name in another spelling is the same name.
    let escaped = br#"{"id":"1","type":"t","\u0069d":"2"}"#;
    let sentence = Message::parse(escaped).unwrap_err().to_string();
    assert_eq!(sentence, "the field `id` stands there twice");

    let content = br#"{"id":"1","type":"t","attachments":[{"data":{"json":{},"json":1}}]}"#;
    let sentence = Message::parse(content).unwrap_err().to_string();
    let expected = "the field `attachments[0].data.json` stands there twice";
    assert_eq!(sentence, expected);

    let many = |count: usize| {
        let fields = (0..count).map(|n| (format!("x{n}"), json!(n)));
        parse(&with(Value::Object(fields.collect())))
    };
    assert!(many(62).is_ok());
    assert_eq!(many(63), Err(MessageError::TooManyHeaders(64)));
    let body = (0..65).map(|n| (format!("x{n}"), json!(n)));
    let message = parse(&with(json!({"body": Value::Object(body.collect())}))).unwrap();
    let sentence = message.body_of::<Ping>().unwrap_err().to_string();
    assert_eq!(sentence, "the field `body` has more than 64 entries");
}

#[test]
fn inv8_depth_is_passed_over() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let text = format!(
        r#"{{"id":"1","type":"{PING}","x":{deep},"body":{{"x":{deep}}},
            "attachments":[{{"data":{{"json":{{"x":{deep}}}}}}}]}}"#
    );
    let message = Message::parse(text.as_bytes()).unwrap();
    assert!(message.body_of::<Ping>().unwrap().response_requested);
    assert_eq!(
        message.attachments[0].bytes().unwrap().len(),
        deep.len() + 6
    );
}

#[test]
fn attached_json_comes_out_as_it_was_sent() {
    // A tree would lose the spaces, the second key, the exponent and the escape.
    let filler = "x".repeat(2048);
    let inner = format!(r#"{{ "a" : 1.0e5,"a":2,  "b":"\u0041\/", "c" :"{filler}" }}"#);
    let text = format!(
        r#"{{"id":"1","type":"https://didcomm.org/routing/2.0/forward",
            "body":{{"next":"did:example:bob"}},"attachments":[{{"data":{{"json": {inner} }}}}]}}"#
    );
    let message = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(message.attachments[0].bytes().unwrap(), inner.as_bytes());
    let again = Message::parse(&message.to_vec()).unwrap();
    assert_eq!(again.attachments[0].bytes().unwrap(), inner.as_bytes());
}

#[test]
fn attached_base64_in_every_spelling() {
    let attached = |data: Value| {
        let message = with(json!({"attachments": [{"data": data}]}));
        let message = parse(&message).unwrap();
        message.attachments[0].bytes().map(Into::into)
    };
    let bytes: Vec<u8> = vec![0xfb, 0xff, 0xfe, 0x01];
    for text in [
        "-__-AQ",
        "-__-AQ==",
        "+//+AQ",
        "+//+AQ==",
        "+//+\r\nAQ==\n",
        "-/_+AQ=",
    ] {
        let read: Result<Vec<u8>, _> = attached(json!({"base64": text}));
        assert_eq!(read, Ok(bytes.clone()), "{text:?}");
    }
    for text in ["-__-A", "-__-AR", "-__*AQ", "=AQ", "A=AQ", "\u{e9}"] {
        let read: Result<Vec<u8>, _> = attached(json!({"base64": text}));
        assert_eq!(read, Err(MessageError::Base64), "{text:?}");
    }
    assert_eq!(attached(json!({"base64": ""})), Ok(Vec::new()));
    let links = json!({"links": ["https://files.example/1"], "hash": "zQm"});
    assert_eq!(attached(links), Err(MessageError::Links));
    assert_eq!(attached(json!({})), Err(MessageError::NoContent));
    assert_eq!(
        attached(json!({"json": null})),
        Err(MessageError::NoContent)
    );
}

#[test]
fn a_message_is_handed_over_in_both_forms() {
    let envelope = br#"{"protected":"e30", "ciphertext":"AA"}"#;
    let attachment = Attachment::message("42", envelope);
    let shown = serde_json::to_string(&attachment).unwrap();
    let base64 = BASE64.encode(envelope);
    let envelope_text = std::str::from_utf8(envelope).unwrap();
    assert_eq!(
        shown,
        format!(r#"{{"id":"42","data":{{"base64":"{base64}","json":{envelope_text}}}}}"#)
    );
    assert_eq!(attachment.bytes().unwrap(), envelope.as_slice());
    // Either form alone gives the same bytes.
    for lost in ["base64", "json"] {
        let mut shown: Value = json!({"id": "1", "type": "t", "attachments": [attachment]});
        shown["attachments"][0]["data"]
            .as_object_mut()
            .unwrap()
            .remove(lost);
        // Through text, since a tree would rewrite the JSON.
        let text = shown.to_string().replace("\"e30\",\"", "\"e30\", \"");
        let read = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(read.attachments[0].bytes().unwrap(), envelope.as_slice());
    }
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(1500), "]".repeat(1500));
    for other in [
        b"[1]".as_slice(),
        b"{",
        b"",
        b"\xff",
        b"{} {}",
        deep.as_bytes(),
        br#"{"x":"\ud800"}"#,
        br#"{"x":1e999}"#,
        b"{\"x\":\"\xff\"}",
    ] {
        let attachment = Attachment::message("1", other);
        assert!(attachment.data.json.is_none(), "{other:?}");
        assert_eq!(attachment.bytes().unwrap(), other);
    }
}

#[test]
fn bodies_are_read_by_type() {
    let mut message = Message::new("1", &PingResponse);
    assert_eq!(message.kind, PingResponse::TYPE);
    assert_eq!(message.body_of::<PingResponse>(), Ok(PingResponse));
    assert_eq!(message.body_of::<Ping>(), Err(BodyError::Type(Ping::TYPE)));
    message.kind = "https://didcomm.org/trust-ping/2.9/ping-response".to_owned();
    assert_eq!(message.body_of::<PingResponse>(), Ok(PingResponse));
    message.kind = "https://didcomm.org/trust-ping/3.0/ping-response".to_owned();
    assert!(message.body_of::<PingResponse>().is_err());
    message.kind = "nonsense".to_owned();
    assert!(message.body_of::<PingResponse>().is_err());

    message.kind = Forward::TYPE.to_owned();
    let missing = message.body_of::<Forward>().unwrap_err();
    assert_eq!(missing.to_string(), "the field `next` is missing");
}

#[test]
fn setters() {
    let message = Message::new("1", &Empty)
        .from("did:example:a")
        .to("did:example:b")
        .to("did:example:c")
        .thid("t")
        .pthid("p")
        .created_time(1)
        .expires_time(2)
        .return_route(ReturnRoute::Thread)
        .ack("x")
        .attachments(vec![Attachment::default()]);
    let shown: Value = serde_json::from_slice(&message.to_vec()).unwrap();
    let expected = json!({
        "id": "1", "type": Empty::TYPE, "typ": MEDIA_TYPE,
        "from": "did:example:a", "to": ["did:example:b", "did:example:c"],
        "thid": "t", "pthid": "p", "created_time": 1, "expires_time": 2,
        "return_route": "thread", "ack": ["x"], "body": {}, "attachments": [{"data": {}}],
    });
    assert_eq!(shown, expected);
    // Only headers that were set are written.
    let bare: Value = serde_json::from_slice(&Message::new("1", &Empty).to_vec()).unwrap();
    let expected = json!({"id": "1", "type": Empty::TYPE, "typ": MEDIA_TYPE, "body": {}});
    assert_eq!(bare, expected);
}

fn text() -> impl Strategy<Value = String> {
    "[ -~\u{e4}\u{1f600}\"\\\\\n]{1,20}"
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn any_attachment() -> impl Strategy<Value = Attachment> {
    let data = (
        option::of("[A-Za-z0-9_=+/-]{0,20}"),
        // Null is read like a missing field.
        option::of(any_json().prop_filter("null", |json| !json.is_null())),
        vec(text(), 0..3),
    );
    let labels = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
    );
    (option::of(text()), labels, data).prop_map(|(id, labels, (base64, json, links))| Attachment {
        id,
        description: labels.0,
        filename: labels.1,
        media_type: labels.2,
        format: labels.3,
        data: AttachmentData {
            base64,
            json: json.map(|json| raw(&json)),
            links,
        },
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let route = prop_oneof![
        Just(ReturnRoute::None),
        Just(ReturnRoute::All),
        Just(ReturnRoute::Thread)
    ];
    let names = (text(), text(), option::of(text()), vec(text(), 0..4));
    let threads = (option::of(text()), option::of(text()), vec(text(), 0..4));
    let times = (
        any::<Option<i64>>(),
        any::<Option<i64>>(),
        any::<Option<i64>>(),
    );
    let content = (vec((text(), any_json()), 0..4), vec(any_attachment(), 0..4));
    (names, threads, times, option::of(route), content).prop_map(
        |(names, threads, times, return_route, (body, attachments))| Message {
            id: names.0,
            kind: names.1,
            from: names.2,
            to: names.3,
            thid: threads.0,
            pthid: threads.1,
            created_time: times.0,
            expires_time: times.1,
            return_route,
            delay_milli: times.2,
            relayed: times.0.is_some_and(|time| time % 2 == 0),
            ack: threads.2,
            body: raw(&serde_json::Map::from_iter(body)),
            attachments,
        },
    )
}

/// Reads level by level, as the one pass must agree with.
fn layered(bytes: &[u8]) -> Result<Message, MessageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| MessageError::NotJson)?;
    Message::read(headers::read_by_level(text)?)
}

/// Calls every function that takes messages of unauthenticated senders.
fn use_all(message: &Message) {
    let _ = message.attachments.iter().map(Attachment::bytes).count();
    let _ = message.body_of::<Forward>();
    let _ = crate::didcomm::protocol::Request::read(message);
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in any_message()) {
        let read = Message::parse(&message.to_vec()).unwrap();
        // Equality compares the written forms, so the decisive parts are compared by themselves
        // too.
        prop_assert_eq!(&read.attachments, &message.attachments);
        prop_assert_eq!(&read.to, &message.to);
        prop_assert_eq!(read.return_route, message.return_route);
        prop_assert_eq!(read, message);
    }

    #[test]
    fn inv8_no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn inv8_no_change_makes_it_panic(
        message in any_message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = message.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let read = Message::parse(&bytes);
        prop_assert_eq!(&read, &layered(&bytes));
        if let Ok(message) = read {
            use_all(&message);
            prop_assert_eq!(Message::parse(&message.to_vec()).unwrap(), message);
        }
    }

    #[test]
    fn inv8_no_headers_make_it_panic(headers in vec((header(), any_json()), 0..8)) {
        let message = with(Value::Object(headers.into_iter().collect()));
        let read = parse(&message);
        prop_assert_eq!(&read, &layered(message.to_string().as_bytes()));
        if let Ok(message) = read {
            use_all(&message);
        }
    }
}

fn header() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "typ",
        "from",
        "to",
        "thid",
        "pthid",
        "created_time",
        "expires_time",
        "return_route",
        "delay_milli",
        "atcomm_relayed",
        "ack",
        "body",
        "attachments",
    ])
    .prop_map(str::to_owned)
}

#[test]
fn fresh_ids_are_32_characters_and_differ() {
    let ids: std::collections::BTreeSet<String> = (0..100).map(|_| fresh_id()).collect();
    assert_eq!(ids.len(), 100);
    for id in ids {
        let hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(hex && id.len() == 32, "{id}");
    }
}
