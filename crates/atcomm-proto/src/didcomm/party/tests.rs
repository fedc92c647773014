use serde_json::Value;

use super::*;

const X25519: &str = "z6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v";
const ED25519: &str = "z6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2";

fn fixture(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../fixtures/did-peer/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_spelling_of_a_did_peer_2_key_finds_it() {
    let mut tried = 0;
    for vector in fixture("valid.json") {
        let did = vector["did"].as_str().unwrap();
        let party = Party::resolve(did).unwrap();
        assert_eq!((party.did(), party.canonical()), (did, did));
        assert!(party.is(did) && !party.is("did:example:other"));
        let peer = PeerDid::parse(did).unwrap();
        for (spellings, key) in vector["kids"].as_array().unwrap().iter().zip(peer.keys()) {
            let is_used = Curve::of(key.key_type).is_some_and(|curve| match key.purpose {
                Purpose::KeyAgreement => curve != Curve::Ed25519,
                Purpose::Authentication => curve != Curve::X25519,
                _ => false,
            });
            for spelling in spellings.as_array().unwrap() {
                let fragment = spelling.as_str().unwrap();
                for kid in [fragment.to_owned(), format!("{did}{fragment}")] {
                    let found = party.key(&kid).map(PublicKey::as_bytes);
                    assert_eq!(found, is_used.then_some(key.as_bytes()), "{kid}");
                    tried += 1;
                }
                assert_eq!(party.key(&format!("did:example:other{fragment}")), None);
            }
        }
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn uses_of_keys_are_kept_apart() {
    let party = Party::resolve(&format!("did:peer:2.E{X25519}.V{ED25519}")).unwrap();
    assert!(
        party.agreement_key("#key-1").is_some() && party.authentication_key("#key-1").is_none()
    );
    assert!(
        party.agreement_key("#key-2").is_none() && party.authentication_key("#key-2").is_some()
    );
    assert_eq!(
        party.key_agreement()[0].kid(),
        format!("{}#key-1", party.did())
    );
    // A key with both uses is found for both, by its number and by its text.
    let p256 = "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169";
    let party = Party::resolve(&format!("did:peer:2.E{X25519}.E{p256}.V{p256}")).unwrap();
    for kid in ["#key-2", "#key-3", &format!("#{p256}")] {
        assert!(party.agreement_key(kid).is_some(), "{kid}");
        assert!(party.authentication_key(kid).is_some(), "{kid}");
    }
}

#[test]
fn a_did_peer_4_is_named_by_its_short_form() {
    let mut tried = 0;
    for vector in fixture("four.json") {
        let long = vector["did"].as_str().unwrap();
        let Some(short) = vector.get("short").and_then(Value::as_str) else {
            assert!(Party::resolve(long).is_err());
            continue;
        };
        assert_eq!(Party::resolve(short).unwrap_err(), PartyError::ShortForm);
        assert_eq!((canonical(long), canonical(short)), (short, short));
        let party = Party::resolve(long).unwrap();
        assert_eq!((party.did(), party.canonical()), (long, short));
        assert!(party.is(long) && party.is(short));
        for key in party.key_agreement() {
            let (_, fragment) = key.kid().split_once('#').unwrap();
            for did in ["", long, short] {
                let kid = format!("{did}#{fragment}");
                assert_eq!(party.key(&kid), Some(key), "{kid}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 3, "{tried}");
}

#[test]
fn a_did_key_is_its_own_document() {
    // The key pair of the did:key specification's example.
    let did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
    let party = Party::resolve(did).unwrap();
    let signing = &party.authentication()[0];
    assert_eq!(signing.kid(), format!("{did}#{}", &did["did:key:".len()..]));
    let derived = "z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW";
    let agreement = &party.key_agreement()[0];
    assert_eq!(agreement.multikey(), derived);
    assert_eq!(agreement.kid(), format!("{did}#{derived}"));
    assert_eq!(party.key(&format!("#{derived}")), Some(agreement));
    let party = Party::resolve(&format!("did:key:{X25519}")).unwrap();
    assert_eq!(
        (party.key_agreement().len(), party.authentication().len()),
        (1, 0)
    );
    let p256 = "zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169";
    let party = Party::resolve(&format!("did:key:{p256}")).unwrap();
    assert_eq!(
        (party.key_agreement().len(), party.authentication().len()),
        (1, 1)
    );
    let k256 = "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";
    assert_eq!(
        Party::resolve(k256).unwrap_err(),
        PartyError::Key(KeyError::Unsupported)
    );
}

#[test]
fn other_dids_give_no_party() {
    for (did, code) in [
        ("", "syntax"),
        ("did:", "syntax"),
        ("did:key", "syntax"),
        ("did:web:example.org", "method"),
        ("did:peer:0z6Mk", "method"),
        (
            "did:peer:2.Vz6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2",
            "no_x25519",
        ),
        ("did:peer:4x", "peer_4"),
        ("did:key:z", "key"),
        ("did:key:z6LS", "key"),
        ("did:example:a#b", "syntax"),
    ] {
        assert_eq!(Party::resolve(did).unwrap_err().code(), code, "{did}");
    }
    let kid = format!("did:key:{X25519}#{X25519}");
    assert_eq!(Party::resolve(&kid).unwrap_err(), PartyError::Syntax);
}

#[test]
fn a_document_gives_its_keys_for_the_uses_that_fit() {
    let did = "did:web:m.example";
    let key = |name: &str, multikey: &str| {
        PublicKey::from_multikey(format!("{did}#{name}"), multikey).unwrap()
    };
    let both = vec![key("enc", X25519), key("sig", ED25519)];
    let party = Party::from_document(did, both.clone(), both);
    assert_eq!(
        (party.key_agreement().len(), party.authentication().len()),
        (1, 1)
    );
    assert_eq!(
        party.agreement_key("#enc"),
        party.agreement_key("did:web:m.example#enc")
    );
    assert!(party.agreement_key("#enc").is_some());
    for kid in ["enc", "#", "#sig", "did:web:other.example#enc", ""] {
        assert_eq!(party.agreement_key(kid), None, "{kid}");
    }
    // A key of another DID that the document lists is not found under this DID's name.
    let foreign = PublicKey::from_multikey("did:web:other.example#enc", X25519).unwrap();
    let party = Party::from_document(did, vec![foreign], Vec::new());
    assert_eq!(party.agreement_key("#enc"), None);
}
