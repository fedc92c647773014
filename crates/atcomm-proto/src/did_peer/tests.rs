use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const PLAIN: &str = "did:peer:2.Ez6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v.\
                     Vz6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2";

fn vectors(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../fixtures/did-peer/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    let items = value.as_array().unwrap();
    items.iter().map(|v| v.as_str().unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn vectors_made_by_foreign_libraries_are_read_alike() {
    for v in vectors("valid.json") {
        let name = v["name"].as_str().unwrap();
        let text = v["did"].as_str().unwrap();
        let did = PeerDid::parse(text).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(did.as_str(), text);
        // The earlier library numbers neither keys nor services; compare what it found, and that
        // its ids find the same keys.
        let numbered = v["reader"].as_str().unwrap().starts_with("did-peer-2");
        for (field, keys) in [
            ("keyAgreement", did.key_agreement()),
            ("authentication", did.authentication()),
        ] {
            let expected = v[field].as_array().unwrap();
            assert_eq!(expected.len(), keys.len(), "{name}: {field}");
            for (want, key) in expected.iter().zip(keys) {
                assert_eq!(want["publicKeyMultibase"], key.multibase, "{name}");
                assert_eq!(want["publicKeyHex"], hex(key.as_bytes()), "{name}");
                let id = want["id"].as_str().unwrap();
                assert_eq!(did.key(id), Some(key), "{name}: {id}");
                if numbered {
                    assert_eq!(key.id, format!("{text}{id}"), "{name}");
                }
            }
        }
        let messaging: Vec<&PeerService> = did
            .services()
            .iter()
            .filter(|s| s.service_type == "DIDCommMessaging")
            .collect();
        let expected = v["services"].as_array().unwrap();
        assert_eq!(expected.len(), messaging.len(), "{name}: services");
        for (want, service) in expected.iter().zip(messaging) {
            if numbered {
                assert_eq!(want["id"], service.id, "{name}");
            }
            let endpoints = serde_json::to_value(&service.endpoints).unwrap();
            assert_eq!(want["endpoints"], endpoints, "{name}");
        }
        for (spellings, key) in v["kids"].as_array().unwrap().iter().zip(did.keys()) {
            for kid in texts(spellings) {
                assert_eq!(did.key(kid), Some(key), "{name}: {kid}");
                assert_eq!(did.key(&format!("{text}{kid}")), Some(key), "{name}: {kid}");
                assert_eq!(
                    did.key(&format!("did:peer:2.E{kid}")),
                    None,
                    "{name}: {kid}"
                );
            }
        }
    }
}

#[test]
fn vectors_of_unusable_dids_are_refused_for_their_reason() {
    for v in vectors("invalid.json") {
        let name = v["name"].as_str().unwrap();
        let expected = match v["reason"].as_str().unwrap() {
            "no agreement key" => "no_x25519".to_owned(),
            other => other.replace(' ', "_"),
        };
        match PeerDid::parse(v["did"].as_str().unwrap()) {
            Ok(_) => panic!("{name} was read"),
            Err(err) => assert_eq!(err.reason(), expected, "{name}"),
        }
    }
}

#[test]
fn keys_are_shown_as_multikey_methods() {
    let did = PeerDid::parse(PLAIN).unwrap();
    assert_eq!(
        serde_json::to_value(did.key_agreement()).unwrap(),
        serde_json::json!([{
            "id": format!("{PLAIN}#key-1"),
            "type": "Multikey",
            "publicKeyMultibase": "z6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v",
        }])
    );
    let text = serde_json::to_string(&did).unwrap();
    assert_eq!(text, format!("\"{PLAIN}\""));
    assert_eq!(serde_json::from_str::<PeerDid>(&text).unwrap(), did);
}

#[test]
fn key_ids_have_no_second_spelling_by_number() {
    let did = PeerDid::parse(PLAIN).unwrap();
    assert!(did.key("#key-2").is_some());
    for other in [
        "#key-0",
        "#key-3",
        "#key-01",
        "#key-+1",
        "#key-",
        "#",
        "",
        "#6LS",
        "#z6LS",
        "##key-1",
        "#key-18446744073709551616",
    ] {
        assert_eq!(did.key(other), None, "{other}");
    }
}

#[test]
fn an_abbreviated_id_that_fits_two_keys_finds_none() {
    // Keys that share their high bytes share their first characters.
    let text = |last: u8| {
        let mut key = vec![0xec, 0x01];
        key.extend([7; 31]);
        key.push(last);
        bs58::encode(key).into_string()
    };
    let (one, two) = (text(1), text(2));
    let did = PeerDid::parse(&format!("did:peer:2.Ez{one}.Ez{two}")).unwrap();
    assert_eq!(one[..8], two[..8]);
    assert_eq!(did.key(&one[..8]), None);
    assert_eq!(did.key(&one), did.keys().first());
    assert_eq!(did.key(&format!("z{two}")), did.keys().get(1));
}

#[test]
fn odd_services_are_let_through_without_their_odd_parts() {
    let with = |json: &str| {
        let encoded = data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        PeerDid::parse(&format!("{PLAIN}.S{encoded}"))
            .unwrap()
            .services()
            .to_vec()
    };
    assert!(with("[]").is_empty());
    let empty = with("{}");
    assert_eq!(empty[0].service_type, "");
    assert!(empty[0].endpoints.is_empty());
    let odd = with(r##"{"t":5,"id":7,"s":[3,{"uri":1},{"uri":"u","a":"x","r":["k",2]}]}"##);
    assert_eq!(odd[0].id, "#service");
    assert_eq!(odd[0].endpoints.len(), 1);
    assert_eq!(odd[0].endpoints[0].uri, "u");
    assert!(odd[0].endpoints[0].accept.is_empty());
    assert_eq!(odd[0].endpoints[0].routing_keys, ["k"]);
    let own = with(r##"[{"id":"#service-1"},{},{}]"##);
    let ids: Vec<_> = own.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["#service-1", "#service", "#service-1"]);
}

#[test]
fn the_deepest_service_that_fits_does_not_exhaust_the_stack() {
    for open in ["[", "{\"s\":"] {
        let json = open.repeat(1300 / open.len());
        let encoded = data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        assert_eq!(
            PeerDid::parse(&format!("{PLAIN}.S{encoded}")),
            Err(PeerDidError::Service)
        );
    }
}

/// Generates a DID in the canonical spelling.
fn any_did() -> impl Strategy<Value = String> {
    let key = ("[ADEIV]", 0_usize..4, vec(any::<u8>(), 33)).prop_map(|(code, kind, raw)| {
        let (_, codec, len) = KeyType::KNOWN[kind];
        let bytes = [&codec, &raw[..len]].concat();
        format!(".{code}z{}", bs58::encode(bytes).into_string())
    });
    let service = "[a-z{}\\[\\]\": ]{0,40}".prop_map(|uri| {
        let json = serde_json::json!({"t": "dm", "s": {"uri": uri}}).to_string();
        let text = data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        format!(".S{text}")
    });
    let element = prop_oneof![key, service];
    vec(element, 0..7).prop_map(|elements| {
        let own = "Ez6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v";
        format!("did:peer:2.{own}{}", elements.concat())
    })
}

proptest! {
    #[test]
    fn parse_then_display_is_identity(text in any_did()) {
        let did = PeerDid::parse(&text).unwrap();
        prop_assert_eq!(did.to_string(), text.clone());
        prop_assert!(!did.key_agreement().is_empty());
        for key in did.keys() {
            prop_assert_eq!(did.key(&key.id), Some(key));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = PeerDid::parse(&text);
        let _ = PeerDid::parse(&format!("did:peer:2.{text}"));
        let _ = PeerDid::parse(&format!("{PLAIN}.S{text}"));
    }

    #[test]
    fn a_changed_character_gives_another_did_or_none(
        text in any_did(), at in any::<prop::sample::Index>(), to in any::<char>(),
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars[at] = to;
        let changed: String = chars.into_iter().collect();
        if let Ok(did) = PeerDid::parse(&changed) {
            prop_assert_eq!(did.as_str(), changed);
        }
    }
}
