use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::net::{NetError, NetSettings, Request, Trust};
use crate::testing::bind;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const K256: &str = "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc";
const P256: &str = "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo";

/// Returns the point without multicodec, as in the legacy types.
fn legacy(multikey: &str, compressed: bool) -> String {
    let bytes = bs58::decode(&multikey[1..]).into_vec().unwrap();
    let point = match SigningKey::from_multikey(multikey).unwrap().curve() {
        Curve::K256 => {
            let key = k256::PublicKey::from_sec1_bytes(&bytes[2..]).unwrap();
            k256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&key, compressed)
                .as_bytes()
                .to_vec()
        }
        Curve::P256 => {
            let key = p256::PublicKey::from_sec1_bytes(&bytes[2..]).unwrap();
            p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&key, compressed)
                .as_bytes()
                .to_vec()
        }
    };
    format!("z{}", bs58::encode(point).into_string())
}

fn method(id: &str, kind: &str, key: &str) -> Value {
    json!({"id": id, "type": kind, "controller": DID, "publicKeyMultibase": key})
}

fn service(id: &str, endpoint: &str) -> Value {
    json!({"id": id, "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint})
}

fn parse(mut document: Value) -> DidDocument {
    document["id"] = json!(DID);
    let did = Did::parse(DID).unwrap();
    DidDocument::parse(document.to_string().as_bytes(), &did, NOW).unwrap()
}

fn with_method(method: Value) -> Result<String, Unusable> {
    let document = parse(json!({"verificationMethod": [method]}));
    document.signing_key.map(|key| key.multikey())
}

#[test]
fn both_document_shapes() {
    let old = parse(json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "alsoKnownAs": ["at://alice.test"],
        "verificationMethod": [
            method("#atproto", "EcdsaSecp256k1VerificationKey2019", &legacy(K256, false)),
        ],
        "service": [service("#atproto_pds", "http://localhost:2583")],
    }));
    let new = parse(json!({
        "alsoKnownAs": ["at://alice.test"],
        "verificationMethod": [method(&format!("{DID}#atproto"), "Multikey", K256)],
        "service": [service(&format!("{DID}#atproto_pds"), "http://localhost:2583/")],
    }));
    assert_eq!(old, new);
    assert_eq!(new.signing_key.unwrap().multikey(), K256);
    assert_eq!(new.pds.unwrap().as_str(), "http://localhost:2583");
    assert_eq!(new.claimed_handle.unwrap().as_str(), "alice.test");
}

#[test]
fn a_claimed_handle_is_read_in_every_spelling() {
    for name in [
        "at://alice.test",
        " at://Alice.Test/\r\n",
        "\u{feff}at://alice.test.\u{200e}",
    ] {
        let claimed = parse(json!({"alsoKnownAs": ["https://alice.test", name, "at://b.test"]}));
        let handle = claimed.claimed_handle.unwrap();
        assert_eq!(handle.as_str(), "alice.test", "{name:?}");
    }
    for name in ["at://alice test", "alice.test", "at://"] {
        let claimed = parse(json!({"alsoKnownAs": [name]}));
        assert_eq!(claimed.claimed_handle, None, "{name:?}");
    }
}

#[test]
fn every_shape_of_key() {
    let (k1, r1) = (
        "EcdsaSecp256k1VerificationKey2019",
        "EcdsaSecp256r1VerificationKey2019",
    );
    for (kind, text, key) in [
        ("Multikey", K256.to_owned(), K256),
        ("Multikey", P256.to_owned(), P256),
        (k1, legacy(K256, false), K256),
        (k1, legacy(K256, true), K256),
        (r1, legacy(P256, false), P256),
        (k1, K256.to_owned(), K256),
        (r1, P256.to_owned(), P256),
    ] {
        assert_eq!(
            with_method(method("#atproto", kind, &text)).as_deref(),
            Ok(key),
            "{kind}"
        );
    }
    for (kind, text) in [
        // A key of the other curve, or without its multicodec, is no key of this type.
        (k1, P256.to_owned()),
        (r1, K256.to_owned()),
        ("Multikey", legacy(K256, false)),
        (
            "Multikey",
            "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK".to_owned(),
        ),
        ("Multikey", String::new()),
        ("Multikey", "z".repeat(10_000)),
    ] {
        let found = with_method(method("#atproto", kind, &text));
        assert!(matches!(found, Err(Unusable::Key(_))), "{kind} {found:?}");
    }
    assert_eq!(
        with_method(method("#atproto", "Ed25519VerificationKey2020", K256)),
        Err(Unusable::WrongType)
    );
    assert_eq!(
        with_method(json!({"id": "#atproto", "type": "Multikey", "publicKeyJwk": {}})),
        Err(Unusable::NoValue)
    );
    for other in [
        "#atproto_label",
        "atproto",
        "did:plc:z72i7hdynmk6r22z27h6tvur#atproto",
        "",
    ] {
        assert_eq!(
            with_method(method(other, "Multikey", K256)),
            Err(Unusable::Missing)
        );
    }
}

#[test]
fn two_entries_of_one_id_are_none() {
    let full = format!("{DID}#atproto");
    for (first, second) in [
        ("#atproto", "#atproto"),
        ("#atproto", &*full),
        (&*full, "#atproto"),
    ] {
        let document = parse(json!({"verificationMethod": [
            method(first, "Multikey", K256),
            method(second, "Multikey", K256),
        ]}));
        assert_eq!(document.signing_key, Err(Unusable::Ambiguous));
    }
    let document = parse(json!({"service": [
        service("#atproto_pds", "https://a.example.com"),
        {"id": "#atproto_pds", "type": "Other", "serviceEndpoint": "https://b.example.com"},
    ]}));
    assert_eq!(document.pds, Err(Unusable::Ambiguous));
}

#[test]
fn the_pds_is_an_origin() {
    let pds = |endpoint: Value| {
        let service = json!({
            "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint
        });
        parse(json!({"service": [service]})).pds
    };
    assert_eq!(
        pds(json!("https://PDS.example.com:443/")).unwrap().as_str(),
        "https://pds.example.com"
    );
    assert_eq!(
        pds(json!("HTTPS://pds.example.com./")).unwrap().as_str(),
        "https://pds.example.com"
    );
    for bad in [
        "https://pds .example.com",
        " https://pds.example.com",
        "https://pds.example.com\r\n",
        "https://pds\t.example.com",
        "https:\\\\pds.example.com",
        "https://pds.example.com\n.evil.example",
        "https://pds\u{200b}.example.com",
    ] {
        assert_eq!(pds(json!(bad)), Err(Unusable::Spelling), "{bad:?}");
    }
    for bad in [
        "https://pds.example.com/x",
        "ftp://pds.example.com",
        "pds.example.com",
        "",
    ] {
        assert!(
            matches!(pds(json!(bad)), Err(Unusable::Address(_))),
            "{bad}"
        );
    }
    for bad in [
        json!({"uri": "https://pds.example.com"}),
        json!(["https://a.b"]),
        json!(null),
    ] {
        assert_eq!(pds(bad), Err(Unusable::NoValue));
    }
    let other = json!({"id": "#atproto_pds", "type": "Other", "serviceEndpoint": "https://a.b"});
    assert_eq!(
        parse(json!({"service": [other]})).pds,
        Err(Unusable::WrongType)
    );
    assert_eq!(parse(json!({})).pds, Err(Unusable::Missing));
    assert_eq!(
        parse(json!({"service": {"id": "#atproto_pds"}})).pds,
        Err(Unusable::Missing)
    );
}

#[test]
fn the_first_valid_name_is_the_handle() {
    let claimed = |names: Value| {
        let document = parse(json!({"alsoKnownAs": names}));
        document.claimed_handle.map(|handle| handle.to_string())
    };
    assert_eq!(
        claimed(json!(["at://Alice.Test", "at://bob.test"])).unwrap(),
        "alice.test"
    );
    let mixed = json!([
        7,
        null,
        "https://alice.test",
        "at://",
        "at://alice",
        "at://a.test/x",
        "at://did:plc:x",
        "AT://x.test",
        "at://carol.test"
    ]);
    assert_eq!(claimed(mixed).unwrap(), "carol.test");
    for none in [
        json!([]),
        json!("at://alice.test"),
        json!(null),
        json!({"0": "at://a.b"}),
    ] {
        assert_eq!(claimed(none), None);
    }
}

#[test]
fn documents_of_others_or_without_form_are_refused() {
    let did = Did::parse(DID).unwrap();
    let parse = |text: &str| DidDocument::parse(text.as_bytes(), &did, NOW).unwrap_err();
    assert_eq!(
        parse(r#"{"id":"did:plc:z72i7hdynmk6r22z27h6tvur"}"#),
        DocumentError::WrongId
    );
    assert_eq!(parse("{}"), DocumentError::WrongId);
    assert_eq!(
        parse(r#"{"id":["did:plc:ewvi7nxzyoun6zhxrhs64oiz"]}"#),
        DocumentError::WrongId
    );
    for text in [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "<html>",
        &"[".repeat(60_000),
    ] {
        assert_eq!(parse(text), DocumentError::NotAnObject);
    }
    let deep = format!(
        r#"{{"id":"{DID}","x":{}{}}}"#,
        "[".repeat(1000),
        "]".repeat(1000)
    );
    assert_eq!(parse(&deep), DocumentError::NotAnObject);
    assert_eq!(
        parse(&" ".repeat(MAX_DOCUMENT_LEN + 1)),
        DocumentError::TooLong
    );
}

proptest! {
    #[test]
    fn inv8_no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = DidDocument::parse(&bytes, &Did::parse(DID).unwrap(), NOW);
    }

    #[test]
    fn inv8_no_entry_makes_it_panic(id in ".{0,60}", kind in ".{0,40}", key in "z?.{0,100}") {
        let document = parse(json!({
            "alsoKnownAs": [format!("at://{id}"), &kind],
            "verificationMethod": [method("#atproto", &kind, &key), method(&id, "Multikey", &key)],
            "service": [service("#atproto_pds", &key), service(&id, &kind)],
        }));
        prop_assert!(document.signing_key.is_err());
    }
}

/// The accounts among `fixtures/did-documents`.
#[tokio::test]
async fn fixtures_of_accounts() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Expected {
        kind: String,
        did: String,
        pds: Option<String>,
        pds_in_development: Option<String>,
        signing_key: Option<String>,
        handle: Option<String>,
        reason: Option<String>,
        or_else: Option<serde_json::Map<String, Value>>,
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/did-documents");
    let expected = std::fs::read_to_string(format!("{dir}/expected.json")).unwrap();
    let expected: std::collections::BTreeMap<String, Expected> =
        serde_json::from_str(&expected).unwrap();
    let public = bind(NetSettings::default());
    let mut seen = 0;
    for (name, want) in expected.iter().filter(|(_, want)| want.kind == "account") {
        seen += 1;
        let bytes = std::fs::read(format!("{dir}/{name}.json")).unwrap();
        let found = DidDocument::parse(&bytes, &Did::parse(&want.did).unwrap(), NOW);
        if matches!(want.reason.as_deref(), Some("id" | "document")) {
            assert!(found.is_err(), "{name}");
            continue;
        }
        let found = found.unwrap();
        let stricter = |part: &str| want.or_else.as_ref().is_some_and(|e| e.contains_key(part));
        // The policy decides whether an address is dialled, not the document.
        let mut pds = found.pds.as_ref().ok().map(ToString::to_string);
        if let Some(address) = &pds
            && want.pds.is_none()
        {
            let url = url::Url::parse(address).unwrap();
            let answer = public.get(&Request::new(url, Trust::Untrusted, 1)).await;
            assert!(
                matches!(answer, Err(NetError::Refused(_))),
                "{name}: {address}"
            );
            let development = want.pds_in_development.clone();
            assert!(development.is_none() || development == pds, "{name}");
            pds = None;
        }
        assert!(
            pds == want.pds || (pds.is_none() && stricter("pds")),
            "{name}: {pds:?}"
        );
        // A claim under a reserved domain is never verified.
        let handle = found.claimed_handle;
        match &want.handle {
            Some(want) => assert_eq!(handle.unwrap().as_str(), want, "{name}"),
            None => assert!(handle.is_none_or(|h| !h.is_resolvable(true)), "{name}"),
        }
        let key = found.signing_key.ok().map(|key| key.did_key());
        // The one shape that this reader accepts and the reference does not.
        if name == "bad-key-modern-key-older-type" {
            assert!(key.is_some() && want.signing_key.is_none());
            continue;
        }
        let strict = key.is_none() && stricter("signingKey");
        assert!(key == want.signing_key || strict, "{name}: {key:?}");
    }
    assert!(seen >= 100);
}
