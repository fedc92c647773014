use proptest::prelude::*;
use serde_json::json;

use super::*;

const KEY: &str = "z6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v";

fn vectors() -> Vec<Value> {
    let path = format!(
        "{}/../../fixtures/did-peer/four.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the long form for a document.
fn long(document: &Value) -> String {
    let coded = [&JSON[..], document.to_string().as_bytes()].concat();
    let encoded = format!("z{}", bs58::encode(coded).into_string());
    let multihash = [&SHA2_256[..], &Sha256::digest(encoded.as_bytes())].concat();
    format!(
        "{PREFIX}{}:{encoded}",
        bs58::encode(multihash).into_string()
    )
}

fn agreement(methods: Value) -> Result<Vec<PeerKey>, PeerDid4Error> {
    let did = PeerDid4::parse(&long(&json!({"keyAgreement": methods})))?;
    Ok(did.key_agreement().to_vec())
}

#[test]
fn vectors_made_by_a_foreign_library_are_read_alike() {
    let (mut read, mut refused) = (0, 0);
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        let text = vector["did"].as_str().unwrap();
        let Some(document) = vector.get("document") else {
            assert!(PeerDid4::parse(text).is_err(), "{name}");
            refused += 1;
            continue;
        };
        if text == vector["short"] {
            assert_eq!(
                PeerDid4::parse(text),
                Err(PeerDid4Error::ShortForm),
                "{name}"
            );
            continue;
        }
        let did = PeerDid4::parse(text).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(did.long(), text, "{name}");
        assert_eq!(did.short(), vector["short"], "{name}");
        for (purpose, keys) in [
            ("keyAgreement", did.key_agreement()),
            ("authentication", did.authentication()),
        ] {
            let ids = document[purpose].as_array().into_iter().flatten();
            let expected: Vec<String> = ids
                .map(|id| id.as_str().or_else(|| id["id"].as_str()).unwrap())
                .map(|id| format!("{text}#{}", id.split_once('#').unwrap().1))
                .collect();
            let found: Vec<&String> = keys.iter().map(|key| &key.id).collect();
            assert_eq!(
                found,
                expected.iter().collect::<Vec<_>>(),
                "{name}: {purpose}"
            );
            for key in keys {
                let methods = document["verificationMethod"].as_array().unwrap();
                let embedded = document[purpose].as_array().unwrap();
                let is_it = |method: &&Value| {
                    let id = method["id"].as_str();
                    id.is_some_and(|id| key.id.ends_with(id))
                };
                let method = methods.iter().chain(embedded).find(is_it).unwrap();
                assert_eq!(method["publicKeyMultibase"], key.multibase, "{name}");
            }
        }
        let services = document.get("service").and_then(Value::as_array);
        assert_eq!(did.services().len(), services.map_or(0, Vec::len), "{name}");
        read += 1;
    }
    assert!(read >= 2 && refused >= 2, "{read} read, {refused} refused");
}

#[test]
fn a_hash_of_another_document_is_refused() {
    let one = long(&json!({"keyAgreement": []}));
    let other = long(&json!({"keyAgreement": [], "a": 1}));
    let (short, _) = one.rsplit_once(':').unwrap();
    let (_, document) = other.rsplit_once(':').unwrap();
    let mixed = format!("{short}:{document}");
    assert_eq!(PeerDid4::parse(&mixed), Err(PeerDid4Error::Hash));
    assert_eq!(PeerDid4::parse(short), Err(PeerDid4Error::ShortForm));
    assert!(PeerDid4::parse(&one).is_ok());
}

#[test]
fn texts_that_are_no_did_peer_4_are_refused() {
    let sound = long(&json!({}));
    for text in [
        "",
        "did:peer:4",
        "did:peer:4z",
        "did:peer:4z:",
        "did:peer:2.Vz6Mk",
        "did:web:a.example",
    ] {
        assert_eq!(PeerDid4::parse(text), Err(PeerDid4Error::Syntax), "{text}");
    }
    for tail in ["#key-1", "?a=b", "/path", ":z", " "] {
        let text = format!("{sound}{tail}");
        assert_eq!(PeerDid4::parse(&text), Err(PeerDid4Error::Syntax), "{tail}");
    }
    let long = format!("{sound}{}", "1".repeat(MAX_LEN_4));
    assert_eq!(PeerDid4::parse(&long), Err(PeerDid4Error::TooLong));
    for end in 0..sound.len() {
        assert!(PeerDid4::parse(&sound[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_document_is_an_object_under_the_codec_of_json() {
    let with = |coded: &[u8]| {
        let encoded = format!("z{}", bs58::encode(coded).into_string());
        let multihash = [&SHA2_256[..], &Sha256::digest(encoded.as_bytes())].concat();
        let hash = bs58::encode(multihash).into_string();
        PeerDid4::parse(&format!("{PREFIX}{hash}:{encoded}")).map(drop)
    };
    assert_eq!(with(b"\x80\x04{}"), Ok(()));
    for coded in [
        &b"\x80\x04[]"[..],
        b"\x80\x04",
        b"\x80\x04{",
        b"\x00{}",
        b"{}",
        b"\x00\x80\x04{}",
    ] {
        assert_eq!(with(coded), Err(PeerDid4Error::Document), "{coded:?}");
    }
}

#[test]
fn every_type_of_key_is_read_and_unknown_ones_are_left_out() {
    let x = "GDTrI66K0pFfO54tlCSvfjjNapIs44dzpneBgyx0S3E";
    let (p_x, p_y) = (
        "FQVaTOksf-XsCUrt4J1L2UGvtWaDwpboVlqbKBY2AIo",
        "6XFB9PYo7dyC5ViJSO9uXNYkxTJWn0d_mqJ__ZYhcNY",
    );
    let keys = agreement(json!([
        {"id": "#a", "type": "Multikey", "publicKeyMultibase": KEY},
        {"id": "#b", "type": "X25519KeyAgreementKey2020", "publicKeyMultibase": KEY},
        {"id": "#c", "type": "JsonWebKey2020", "publicKeyJwk": {"kty": "OKP", "crv": "X25519", "x": x}},
        {"id": "#d", "type": "JsonWebKey2020", "publicKeyJwk": {"kty": "EC", "crv": "P-256", "x": p_x, "y": p_y}},
        {"id": "#e", "type": "JsonWebKey2020", "publicKeyJwk": {"kty": "EC", "crv": "P-384", "x": x, "y": x}},
        {"id": "#f", "type": "JsonWebKey2020", "publicKeyJwk": {"kty": "EC", "crv": "P-256", "x": p_x, "y": p_x}},
        {"id": "#g", "type": "SomethingElse2030", "publicKeyMultibase": KEY},
        {"id": "did:example:other#h", "type": "Multikey", "publicKeyMultibase": KEY},
    ]));
    let keys = keys.unwrap();
    let found: Vec<(&str, KeyType)> = keys
        .iter()
        .map(|key| (key.id.rsplit_once('#').unwrap().1, key.key_type))
        .collect();
    let x = KeyType::X25519;
    assert_eq!(found, [("a", x), ("b", x), ("c", x), ("d", KeyType::P256)]);
    assert_eq!(keys[0].multibase, KEY);
}

#[test]
fn keys_stand_under_the_use_that_names_them() {
    let did = PeerDid4::parse(&long(&json!({
        "verificationMethod": [
            {"id": "#enc", "type": "Multikey", "publicKeyMultibase": KEY},
            {"id": "#sig", "type": "Ed25519VerificationKey2020",
             "publicKeyMultibase": "z6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2"},
        ],
        "keyAgreement": ["#enc", "#sig", "#none"],
        "authentication": ["#sig", "#enc"],
        "service": [{"id": "#s", "type": "DIDCommMessaging", "serviceEndpoint": {"uri": "did:web:m.example"}}],
    })))
    .unwrap();
    assert_eq!(did.key_agreement().len(), 1);
    assert_eq!(did.key_agreement()[0].id, format!("{}#enc", did.long()));
    assert_eq!(did.authentication().len(), 1);
    assert_eq!(did.authentication()[0].id, format!("{}#sig", did.long()));
    assert_eq!(did.services()[0].endpoints[0].uri, "did:web:m.example");
}

#[test]
fn weak_keys_and_many_keys_are_refused() {
    let zeros = format!(
        "z{}",
        bs58::encode([&[0xec, 0x01][..], &[0; 32]].concat()).into_string()
    );
    let weak = json!([{"id": "#a", "type": "Multikey", "publicKeyMultibase": zeros}]);
    assert_eq!(
        agreement(weak),
        Err(PeerDid4Error::Key(PeerDidError::WeakKey))
    );
    let bad = json!([{"id": "#a", "type": "Multikey", "publicKeyMultibase": "z0"}]);
    assert_eq!(
        agreement(bad),
        Err(PeerDid4Error::Key(PeerDidError::Base58))
    );
    let one = json!({"id": "#a", "type": "Multikey", "publicKeyMultibase": KEY});
    assert_eq!(
        agreement(vec![one.clone(); MAX_ELEMENTS].into())
            .unwrap()
            .len(),
        MAX_ELEMENTS
    );
    let many = agreement(vec![one; MAX_ELEMENTS + 1].into());
    assert_eq!(many, Err(PeerDid4Error::TooManyElements));
    assert_eq!(agreement(json!("#a")), Err(PeerDid4Error::Document));
}

proptest! {
    #[test]
    fn digits_are_decoded_as_the_library_does(bytes in prop::collection::vec(any::<u8>(), 0..200), zeros in 0_usize..4) {
        let bytes = [vec![0; zeros], bytes].concat();
        let digits = bs58::encode(&bytes).into_string();
        prop_assert_eq!(base58(&digits), Some(bytes));
    }

    #[test]
    fn any_text_is_decoded_as_the_library_does(text in "[0-9A-Za-z]{0,60}") {
        prop_assert_eq!(base58(&text), bs58::decode(&text).into_vec().ok());
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,100}") {
        prop_assert!(PeerDid4::parse(&text).is_err());
        let text = format!("{PREFIX}{text}");
        prop_assert!(PeerDid4::parse(&text).is_err());
    }
}
