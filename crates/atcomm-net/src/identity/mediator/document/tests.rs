use proptest::prelude::*;
use serde_json::json;

use super::*;

const DID: &str = "did:web:m.example.com";
const X25519: &str = "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";
const P256: &str = "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo";
const ED25519: &str = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";

fn parse(mut document: Value) -> (Vec<KeyAgreement>, Vec<Service>) {
    document["id"] = json!(DID);
    read(document.to_string().as_bytes(), DID, false).unwrap()
}

fn raw(multikey: &str) -> Vec<u8> {
    bs58::decode(&multikey[1..]).into_vec().unwrap()[2..].to_vec()
}

fn one_key(method: Value) -> Option<String> {
    let (keys, _) = parse(json!({"keyAgreement": [method]}));
    keys.into_iter().next().map(|key| key.public_key_multibase)
}

#[test]
fn every_shape_of_key_becomes_a_multikey() {
    let b64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let point = p256::PublicKey::from_sec1_bytes(&raw(P256)).unwrap();
    let point = p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&point, false);
    let (x, y) = (point.x().unwrap(), point.y().unwrap());
    for (method, key) in [
        (
            json!({"type": "Multikey", "publicKeyMultibase": X25519}),
            X25519,
        ),
        (
            json!({"type": "Multikey", "publicKeyMultibase": P256}),
            P256,
        ),
        (
            json!({"type": "X25519KeyAgreementKey2020", "publicKeyMultibase": X25519}),
            X25519,
        ),
        (
            json!({
                "type": "X25519KeyAgreementKey2019",
                "publicKeyBase58": bs58::encode(raw(X25519)).into_string(),
            }),
            X25519,
        ),
        (
            json!({"type": "JsonWebKey2020", "publicKeyJwk": {
                "kty": "OKP", "crv": "X25519", "x": b64(&raw(X25519)),
            }}),
            X25519,
        ),
        (
            json!({"type": "JsonWebKey2020", "publicKeyJwk": {
                "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y),
            }}),
            P256,
        ),
    ] {
        let mut method = method;
        method["id"] = json!("#k");
        assert_eq!(one_key(method.clone()).as_deref(), Some(key), "{method}");
    }
    for method in [
        json!({"type": "Multikey", "publicKeyMultibase": ED25519}),
        json!({"type": "X25519KeyAgreementKey2020", "publicKeyMultibase": P256}),
        json!({"type": "X25519KeyAgreementKey2019", "publicKeyBase58": "1111"}),
        json!({"type": "X25519KeyAgreementKey2019", "publicKeyBase58": "1".repeat(32)}),
        json!({"type": "JsonWebKey2020", "publicKeyJwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}}),
        // Not on the curve.
        json!({"type": "JsonWebKey2020", "publicKeyJwk": {
            "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(x),
        }}),
        json!({"type": "Other", "publicKeyMultibase": X25519}),
        json!({"type": "Multikey"}),
        json!({}),
    ] {
        let mut method = method;
        method["id"] = json!("#k");
        assert_eq!(one_key(method.clone()), None, "{method}");
    }
}

#[test]
fn keys_are_embedded_or_named_and_their_ids_absolute() {
    let multikey =
        |id: &str, key: &str| json!({"id": id, "type": "Multikey", "publicKeyMultibase": key});
    let full = format!("{DID}#b");
    let (keys, _) = parse(json!({
        "verificationMethod": [
            multikey("#a", X25519),
            multikey(&full, P256),
            multikey("#twice", X25519),
            multikey("#twice", P256),
        ],
        "keyAgreement": [
            "#b", format!("{DID}#a"), "#absent", "#twice", "did:web:other.example.com#a", 7,
            multikey("did:web:other.example.com#x", X25519),
            multikey("#c", X25519),
            multikey("#d", X25519),
            multikey("#d", P256),
        ],
    }));
    let ids: Vec<&str> = keys.iter().map(|key| &*key.id).collect();
    assert_eq!(
        ids,
        [&*full, "did:web:m.example.com#a", "did:web:m.example.com#c"]
    );
    assert_eq!(keys[0].public_key_multibase, P256);
}

fn services_of(service: Value) -> Vec<Service> {
    parse(json!({"service": service})).1
}

#[test]
fn endpoints_are_objects_arrays_or_text() {
    let want = |uri: &str, accept: &[&str], routing: &[&str]| Service {
        uri: uri.to_owned(),
        accept: accept.iter().map(|s| (*s).to_owned()).collect(),
        routing_keys: routing.iter().map(|s| (*s).to_owned()).collect(),
    };
    let object = json!({"uri": "https://m.example.com/didcomm", "accept": ["didcomm/v2"],
        "routingKeys": ["did:key:z6LS#z6LS"]});
    let first = want(
        "https://m.example.com/didcomm",
        &["didcomm/v2"],
        &["did:key:z6LS#z6LS"],
    );
    let socket = json!({"uri": "wss://m.example.com/ws"});
    let found = services_of(json!([
        {"id": "#a", "type": "LinkedDomains", "serviceEndpoint": "https://m.example.com"},
        {"id": "#b", "type": "DIDCommMessaging", "serviceEndpoint": object},
        {"id": "#c", "type": ["X", "DIDCommMessaging"], "serviceEndpoint": [object, socket, "https://t"]},
        {"id": "#d", "type": "DIDCommMessaging", "serviceEndpoint": "https://old", "accept": ["a"],
            "routingKeys": ["k"]},
        {"id": "#e", "type": "DIDCommMessaging", "serviceEndpoint": {"uri": "did:web:next.example.com"}},
    ]));
    assert_eq!(
        found,
        [
            first.clone(),
            first,
            want("wss://m.example.com/ws", &[], &[]),
            want("https://t", &[], &[]),
            want("https://old", &["a"], &["k"]),
            want("did:web:next.example.com", &[], &[]),
        ]
    );
}

#[test]
fn white_space_and_capitals_around_an_endpoint_mean_nothing() {
    let read = |uri: &str| {
        let endpoint = json!({"uri": uri, "accept": [" didcomm/v2\n"],
            "routingKeys": ["\u{feff}did:key:z6LS#z6LS "]});
        services_of(json!([{"type": "DIDCommMessaging", "serviceEndpoint": endpoint}]))
    };
    for (uri, wanted) in [
        (
            " https://m.example.com/didcomm\r\n",
            "https://m.example.com/didcomm",
        ),
        (
            "HTTPS://M.example.com/Didcomm",
            "https://m.example.com/Didcomm",
        ),
        (
            "\u{feff}wss://m.example.com/ws\u{200b}",
            "wss://m.example.com/ws",
        ),
        (
            "https://bücher.example/x",
            "https://xn--bcher-kva.example/x",
        ),
        ("\tdid:web:next.example.com ", "did:web:next.example.com"),
    ] {
        let found = read(uri);
        assert_eq!(found.len(), 1, "{uri:?}");
        assert_eq!(found[0].uri, wanted, "{uri:?}");
        assert_eq!(found[0].accept, ["didcomm/v2"]);
        assert_eq!(found[0].routing_keys, ["did:key:z6LS#z6LS"]);
    }
    // What only some readers repair leads some of them elsewhere.
    for uri in [
        "https://m.exa\nmple.com",
        "https://m.example.com\\@x",
        "https://m .example.com",
        "https:\\\\m.example",
    ] {
        assert_eq!(read(uri), [], "{uri:?}");
    }
}

#[test]
fn inv7_unusable_and_excess_services_are_left_out() {
    let endpoint = |endpoint: Value| {
        services_of(json!([{"type": "DIDCommMessaging", "serviceEndpoint": endpoint}])).len()
    };
    assert_eq!(endpoint(json!({"uri": "https://x"})), 1);
    for bad in [
        json!({"uri": "file:///etc/passwd"}),
        json!({"uri": "javascript:0"}),
        json!({"uri": "http://x"}),
        json!({"uri": "https://user@x"}),
        json!({"uri": "did:web:x y"}),
        json!({"uri": "https://"}),
        json!({"uri": 7}),
        json!({"uri": format!("https://{}", "x".repeat(3000))}),
        json!({"uri": "https://x", "routingKeys": vec!["k"; 9]}),
        json!({"uri": "https://x", "routingKeys": [7]}),
        json!({}),
        json!(7),
        json!([[["https://x"]]]),
    ] {
        assert_eq!(endpoint(bad.clone()), 0, "{bad}");
    }
    assert_eq!(endpoint(json!(vec!["https://x"; 100])), MAX_SERVICES);
    let many: Vec<_> = (0..100)
        .map(|i| json!({"id": format!("#k{i}"), "type": "Multikey", "publicKeyMultibase": X25519}))
        .collect();
    assert_eq!(parse(json!({"keyAgreement": many})).0.len(), MAX_KEYS);
}

/// Every bound that the lexicon of the view names holds for the longest document, and what fits it
/// is kept.
#[test]
fn inv7_the_views_lexicon_bounds_what_is_read() {
    let lexicon = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../lexicons/at/didcomm/directory/defs.json"
    ));
    let lexicon: Value = serde_json::from_str(&lexicon.unwrap()).unwrap();
    let bound = |path: &str| -> usize {
        let bound = lexicon.pointer(&format!("/defs/{path}/maxLength"));
        bound.unwrap().as_u64().unwrap().try_into().unwrap()
    };
    let of_service = |name: &str| bound(&format!("serviceView/properties/{name}"));
    assert_eq!(of_service("uri"), MAX_URI_LEN);
    assert_eq!(of_service("accept"), MAX_PROFILES);
    assert_eq!(of_service("accept/items"), MAX_PROFILE_LEN);
    assert_eq!(of_service("routingKeys"), MAX_ROUTING_KEYS);
    assert_eq!(of_service("routingKeys/items"), MAX_ROUTING_KEY_LEN);
    assert_eq!(bound("mediatorView/properties/keyAgreement"), MAX_KEYS);
    assert_eq!(bound("mediatorView/properties/services"), MAX_SERVICES);

    let service = |uri: &str, accept: Value, routing_keys: Value| {
        let endpoint = json!({"uri": uri, "accept": accept, "routingKeys": routing_keys});
        services_of(json!([{"type": "DIDCommMessaging", "serviceEndpoint": endpoint}])).pop()
    };
    let uri = format!("https://x/{}", "x".repeat(MAX_URI_LEN - 10));
    let accept = vec!["a".repeat(MAX_PROFILE_LEN); MAX_PROFILES];
    let keys = vec!["k".repeat(MAX_ROUTING_KEY_LEN); MAX_ROUTING_KEYS];
    let longest = service(&uri, json!(accept), json!(keys)).unwrap();
    assert_eq!((longest.uri.len(), longest.accept), (MAX_URI_LEN, accept));
    assert_eq!(longest.routing_keys, keys);
    assert_eq!(service(&format!("{uri}x"), json!([]), json!([])), None);
    let key = "k".repeat(MAX_ROUTING_KEY_LEN + 1);
    assert_eq!(service("https://x", json!([]), json!([key])), None);
    // Profiles that do not fit are left out; a service of which none is left would seem to take all.
    let long = "a".repeat(MAX_PROFILE_LEN + 1);
    let some = service("https://x", json!([&long, 7, "didcomm/v2"]), json!([])).unwrap();
    assert_eq!(some.accept, ["didcomm/v2"]);
    let many: Vec<_> = (0..100).map(|i| i.to_string()).collect();
    let some = service("https://x", json!(many), json!([])).unwrap();
    assert_eq!(some.accept, many[..MAX_PROFILES]);
    assert_eq!(service("https://x", json!([long]), json!([])), None);

    let id = format!("#{}", "k".repeat(256));
    let key = json!({"id": id, "type": "Multikey", "publicKeyMultibase": P256});
    let (keys, _) = parse(json!({"keyAgreement": [key]}));
    let of_key = |name: &str| bound(&format!("verificationMethod/properties/{name}"));
    let longest_did = atcomm_proto::syntax::MAX_DID_LEN;
    assert!(keys[0].id.len() - DID.len() + longest_did <= of_key("id"));
    assert!(keys[0].kind.len() <= of_key("type"));
    assert!(keys[0].public_key_multibase.len() <= of_key("publicKeyMultibase"));
}

#[test]
fn documents_of_others_are_refused() {
    let read = |text: &str| read(text.as_bytes(), DID, false).unwrap_err();
    assert_eq!(
        read(r#"{"id":"did:web:other.example.com"}"#),
        DocumentError::WrongId
    );
    assert_eq!(read("[]"), DocumentError::NotAnObject);
}

proptest! {
    #[test]
    fn inv8_no_method_makes_it_panic(
        kind in "(Multikey|JsonWebKey2020|X25519KeyAgreementKey20(19|20))",
        name in "(publicKeyMultibase|publicKeyBase58|publicKeyJwk)",
        text in "z?[1-9A-Za-z_-]{0,60}",
    ) {
        let jwk = json!({"kty": "OKP", "crv": "X25519", "x": &text, "y": &text});
        let value = if name == "publicKeyJwk" { jwk } else { json!(&text) };
        let _ = one_key(json!({"id": &text, "type": kind, name: value}));
    }
}

/// The mediators among `fixtures/did-documents`.
#[test]
fn fixtures_of_mediators() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Expected {
        kind: String,
        did: String,
        #[serde(default)]
        key_agreement: Vec<ExpectedKey>,
        #[serde(default)]
        endpoints: Vec<Service>,
        #[serde(default)]
        in_development: bool,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ExpectedKey {
        id: String,
        public_key_multibase: String,
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/did-documents");
    let expected = std::fs::read_to_string(format!("{dir}/expected.json")).unwrap();
    let expected: std::collections::BTreeMap<String, Expected> =
        serde_json::from_str(&expected).unwrap();
    let mut seen = 0;
    for (name, want) in expected.iter().filter(|(_, want)| want.kind == "mediator") {
        seen += 1;
        let bytes = std::fs::read(format!("{dir}/{name}.json")).unwrap();
        let (keys, services) = read(&bytes, &want.did, false).unwrap_or_default();
        let ids = |key: &KeyAgreement| (key.id.clone(), key.public_key_multibase.clone());
        let wanted = want.key_agreement.iter();
        let wanted: Vec<_> = wanted
            .map(|key| (key.id.clone(), key.public_key_multibase.clone()))
            .collect();
        assert_eq!(keys.iter().map(ids).collect::<Vec<_>>(), wanted, "{name}");
        assert_eq!(services, want.endpoints, "{name}");
        let (_, services) = read(&bytes, &want.did, true).unwrap_or_default();
        let more = services.len() > want.endpoints.len();
        assert_eq!(more, want.in_development, "{name}");
    }
    assert!(seen >= 30);
}
