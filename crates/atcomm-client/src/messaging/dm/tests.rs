use proptest::prelude::*;
use serde_json::json;

use super::*;

fn did(name: &str) -> Did {
    Did::parse(&format!("did:web:{name}.example.com")).unwrap()
}

fn read(body: Value) -> Result<Dm, FieldError> {
    Dm::read(&serde_json::value::to_raw_value(&body).unwrap())
}

fn found(text: &str) -> Vec<(&str, String)> {
    let shown = |span: &Span| {
        let part = &text[span.index.byte_start..span.index.byte_end];
        let kind = match &span.kind {
            SpanKind::Link(uri) => format!("link {uri}"),
            SpanKind::Mention(handle) => format!("mention {handle}"),
        };
        (part, kind)
    };
    spans(text).iter().map(shown).collect()
}

#[test]
fn a_message_says_who_wrote_it_to_whom() {
    let mut dm = Dm::new("see https://example.com", &did("alice"), &did("bob")).unwrap();
    dm.facets = facets(&spans(&dm.text), |_| None);
    dm.embed = Some(StrongRef {
        uri: "at://did:web:alice.example.com/app.bsky.feed.post/1".to_owned(),
        cid: "bafy".to_owned(),
    });
    let message = dm.message("m1", "did:peer:2.a", "did:peer:2.b", 1_800_000_000);
    let wire: Value = serde_json::from_slice(&message.to_vec()).unwrap();
    assert_eq!(
        wire,
        json!({
            "id": "m1",
            "type": "https://didcomm.at/dm/1.0/message",
            "typ": "application/didcomm-plain+json",
            "from": "did:peer:2.a",
            "to": ["did:peer:2.b"],
            "created_time": 1_800_000_000,
            "body": {
                "text": "see https://example.com",
                "senderDid": "did:web:alice.example.com",
                "recipientDid": "did:web:bob.example.com",
                "facets": [{
                    "index": {"byteStart": 4, "byteEnd": 23},
                    "features": [{
                        "$type": "app.bsky.richtext.facet#link", "uri": "https://example.com",
                    }],
                }],
                "embed": {
                    "$type": "app.bsky.embed.record",
                    "record": {
                        "uri": "at://did:web:alice.example.com/app.bsky.feed.post/1",
                        "cid": "bafy",
                    },
                },
            },
        })
    );
    assert_eq!(message.body_of::<Dm>().unwrap(), dm);
    // What is not there is not written as null.
    let bare = Dm::new("x", &did("alice"), &did("bob")).unwrap();
    let keys: Value = serde_json::from_str(bare.write().get()).unwrap();
    assert_eq!(keys.as_object().unwrap().len(), 3);
}

#[test]
fn texts_have_their_limits_when_they_are_written_and_when_they_are_read() {
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
    for (text, error) in [
        (String::new(), Some(TextError::Empty)),
        (" \n\t".to_owned(), Some(TextError::Empty)),
        ("x".repeat(1000), None),
        ("x".repeat(1001), Some(TextError::Graphemes(1001))),
        ("\u{fc}".repeat(1000), None),
        // One grapheme of 18 bytes, 555 times.
        (family.repeat(555), None),
        (family.repeat(556), Some(TextError::Bytes(10_008))),
        ("x".repeat(10_001), Some(TextError::Bytes(10_001))),
    ] {
        assert_eq!(check_text(&text).err(), error, "{} bytes", text.len());
        let readable = read(json!({"text": text})).is_ok();
        // Nothing to read is no reason to refuse what came.
        assert_eq!(readable, matches!(error, None | Some(TextError::Empty)));
        assert_eq!(Dm::new(text, &did("a"), &did("b")).is_ok(), error.is_none());
    }
}

#[test]
fn bodies_are_read_leniently_but_for_the_text() {
    for body in [
        json!({}),
        json!({"text": 1}),
        json!({"text": null}),
        json!({"Text": "x"}),
    ] {
        assert_eq!(read(body).unwrap_err().field, "text");
    }
    let dm = read(json!({
        "text": "x", "senderDid": "did:web:alice.example.com", "recipientDid": null,
        "facets": "none", "embed": {"$type": "app.bsky.embed.images", "images": []},
        "more": {"than": ["was", "known"]},
    }))
    .unwrap();
    assert_eq!(dm.sender_did.as_deref(), Some("did:web:alice.example.com"));
    assert_eq!((dm.recipient_did, dm.embed), (None, None));
    assert!(dm.facets.is_empty());
    // A claim of any kind is one.
    for (claim, text) in [
        (json!(""), ""),
        (json!(7), "7"),
        (json!({"did": 1}), r#"{"did":1}"#),
        (json!(false), "false"),
    ] {
        let dm = read(json!({"text": "x", "senderDid": claim, "recipientDid": claim})).unwrap();
        assert_eq!(dm.sender_did.as_deref(), Some(text));
        assert_eq!(dm.recipient_did.as_deref(), Some(text));
    }
    let long = read(json!({"text": "x", "senderDid": "\u{e4}".repeat(5000)})).unwrap();
    assert!(long.sender_did.unwrap().len() <= MAX_CLAIM);
    let record = |uri: &str, cid: &str| {
        let embed = json!({"$type": EMBED_RECORD, "record": {"uri": uri, "cid": cid}});
        read(json!({"text": "x", "embed": embed})).unwrap().embed
    };
    assert!(record("at://did:web:a.example.com/x/y", "bafy").is_some());
    assert!(record("https://example.com", "bafy").is_none());
    assert!(record(&format!("at://{}", "x".repeat(9000)), "bafy").is_none());
    assert!(record("at://x", &"x".repeat(300)).is_none());
}

#[test]
fn inv7_facets_of_others_are_bounded_and_lie_within_the_text() {
    let link = json!({"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com"});
    let other = json!({"$type": "org.example#bold"});
    let facet = |start: i64, end: i64, features: Value| json!({"index": {"byteStart": start, "byteEnd": end}, "features": features});
    let of = |facets: Value| {
        read(json!({"text": "a\u{fc}b", "facets": facets}))
            .unwrap()
            .facets
    };
    assert_eq!(of(json!([facet(1, 3, json!([link]))])).len(), 1);
    for bad in [
        facet(1, 2, json!([link])),
        facet(2, 4, json!([link])),
        facet(0, 5, json!([link])),
        facet(3, 3, json!([link])),
        facet(3, 1, json!([link])),
        facet(-1, 1, json!([link])),
        facet(0, 1, json!([])),
        facet(0, 1, json!([other])),
        json!({"features": [link]}),
        json!("x"),
    ] {
        let facets = of(json!([bad, facet(0, 1, json!([other, link]))]));
        assert_eq!(facets.len(), 1, "{bad}");
        assert_eq!(facets[0].features.len(), 1);
    }
    let one = facet(0, 1, json!(vec![link.clone(); 50]));
    let many = of(json!(vec![one; 500]));
    assert_eq!(
        (many.len(), many[0].features.len()),
        (MAX_FACETS, MAX_FEATURES)
    );
}

/// As in `dm/facet.rs`.
const MAX_FEATURES: usize = 8;

#[test]
fn links_and_mentions_are_found() {
    for (text, expected) in [
        ("", vec![]),
        (
            "https://example.com",
            vec![("https://example.com", "link https://example.com")],
        ),
        (
            "(see https://example.com/a_(b)?q=1#x), or \u{201c}https://b.example\u{201d}!",
            vec![
                (
                    "https://example.com/a_(b)?q=1#x",
                    "link https://example.com/a_(b)?q=1#x",
                ),
                ("https://b.example", "link https://b.example"),
            ],
        ),
        (
            "gr\u{fc}\u{df} @Alice.example.com.",
            vec![("@Alice.example.com", "mention alice.example.com")],
        ),
        (
            "(@a.example.com)\n@b.example.com,@c.example.com",
            vec![
                ("@a.example.com", "mention a.example.com"),
                ("@b.example.com", "mention b.example.com"),
            ],
        ),
        // Nothing of the kind.
        (
            "mail me@example.com http://example.com xhttps://example.com",
            vec![],
        ),
        ("@alice @ @. @-.example.com https:// https://.", vec![]),
        ("https://???", vec![]),
    ] {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(part, kind): (&str, &str)| (part, kind.to_owned()))
            .collect();
        assert_eq!(found(text), expected, "{text}");
    }
    let many = "https://a.example ".repeat(300);
    assert_eq!(spans(&many).len(), MAX_FACETS);
}

#[test]
fn a_mention_without_an_account_stays_text() {
    let text = "@a.example.com @b.example.com";
    let known = |handle: &atcomm_proto::syntax::Handle| {
        (handle.as_str() == "b.example.com").then(|| did("b"))
    };
    let facets = facets(&spans(text), known);
    let [facet] = facets.as_slice() else {
        panic!("one facet")
    };
    assert_eq!(
        &text[facet.index.byte_start..facet.index.byte_end],
        "@b.example.com"
    );
    let mention = Feature::Mention {
        did: "did:web:b.example.com".to_owned(),
    };
    assert_eq!(facet.features, [mention]);
}

proptest! {
    /// What is found lies on the text's characters, in order and apart, and is read back.
    #[test]
    fn what_is_found_can_be_cut_out(
        text in "([a-z\u{fc}\u{1f600} .,()]|https://|@|\\.example\\.com|\n|\u{201c}){0,40}",
    ) {
        let spans = spans(&text);
        let mut end = 0;
        for span in &spans {
            let ByteSlice { byte_start, byte_end } = span.index;
            prop_assert!(byte_start >= end && byte_start < byte_end);
            let part = text.get(byte_start..byte_end).unwrap();
            match &span.kind {
                SpanKind::Link(uri) => prop_assert_eq!(part, uri),
                SpanKind::Mention(handle) => {
                    prop_assert_eq!(part[1..].to_ascii_lowercase(), handle.as_str());
                }
            }
            end = byte_end;
        }
        let facets = facets(&spans, |_| Some(did("x")));
        let dm = Dm { text, sender_did: None, recipient_did: None, facets, embed: None };
        prop_assert_eq!(Dm::read(&dm.write()).unwrap(), dm);
    }

    #[test]
    fn inv8_any_body_is_read_or_refused(body in "\\{[a-zA-Z0-9\":{}\\[\\],\\\\ ]{0,80}\\}") {
        if let Ok(body) = RawValue::from_string(body) {
            let _ = Dm::read(&body);
        }
    }
}
