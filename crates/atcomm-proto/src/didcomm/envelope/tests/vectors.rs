//! Messages made by foreign implementations (`fixtures/didcomm/`).

use serde_json::Value;

use super::*;

fn fixture(name: &str) -> Value {
    let path = format!(
        "{}/../../fixtures/didcomm/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns a layer as the fixtures write it.
fn layer(layer: &Layer) -> String {
    match layer {
        Layer::Authcrypt => "authcrypt".to_owned(),
        Layer::Anoncrypt(enc) => format!("anoncrypt {}", enc.name()),
        Layer::Signed => "signed".to_owned(),
    }
}

/// Opens every message and compares the result with the fixture.
fn check(messages: &[Value], ring: &[SecretKey], parties: &[Party], plaintext: Option<&Value>) {
    let resolve = |did: &str| parties.iter().find(|party| party.is(did)).cloned();
    let (mut opened, mut refused) = (0, 0);
    for vector in messages {
        let name = text(vector, "name");
        let packed = vector["message"].to_string();
        let result = unpack(packed.as_bytes(), &ring, &resolve);
        // A mediator takes whatever the recipient can open, and is not the judge of the rest.
        if result
            .as_ref()
            .is_ok_and(|opened| opened.layers[0] != Layer::Signed)
        {
            assert_eq!(check_encrypted(packed.as_bytes()), Ok(()), "{name}");
        }
        match text(vector, "expect") {
            "opened" => {
                let unpacked = result.unwrap_or_else(|err| panic!("{name}: {err}"));
                let layers: Vec<String> = unpacked.layers.iter().map(layer).collect();
                assert_eq!(Value::from(layers.clone()), vector["layers"], "{name}");
                let found: Value = serde_json::from_slice(&unpacked.plaintext).unwrap();
                let expected = plaintext.unwrap_or(&vector["plaintext"]);
                assert_eq!(&found, expected, "{name}");
                let proven =
                    |by: &Option<Authenticated>| by.as_ref().map(|by| by.party.did().to_owned());
                let has = |wanted: &str| layers.iter().any(|layer| layer == wanted);
                let alice = Some("did:example:alice".to_owned());
                assert_eq!(
                    proven(&unpacked.sender),
                    alice.clone().filter(|_| has("authcrypt")),
                    "{name}"
                );
                assert_eq!(
                    proven(&unpacked.signer),
                    alice.filter(|_| has("signed")),
                    "{name}"
                );
                opened += 1;
            }
            "refused" => {
                let err = result.map(drop).expect_err(name);
                assert_eq!(err.code(), text(vector, "reason"), "{name}");
                refused += 1;
            }
            other => panic!("{name}: {other}"),
        }
    }
    assert!(
        opened >= 6 && refused >= 4,
        "{opened} opened, {refused} refused"
    );
}

#[test]
fn examples_of_the_specification_are_opened() {
    let keys = fixture("appendix-c/keys.json");
    let public = |who: &str, purpose: &str| -> Vec<PublicKey> {
        let methods = list(&keys[who]["document"][purpose]);
        let read = methods.iter().filter_map(|method| {
            match PublicKey::from_jwk(text(method, "id"), &method["publicKeyJwk"]) {
                Ok(key) => Some(key),
                Err(KeyError::Unsupported) => None,
                Err(err) => panic!("{}: {err}", text(method, "id")),
            }
        });
        read.collect()
    };
    let party = |who: &str| {
        let did = text(&keys[who]["document"], "id");
        Party::from_document(
            did,
            public(who, "keyAgreement"),
            public(who, "authentication"),
        )
    };
    let (alice, bob) = (party("alice"), party("bob"));
    assert_eq!(
        (alice.key_agreement().len(), alice.authentication().len()),
        (2, 2)
    );
    assert_eq!(
        (bob.key_agreement().len(), bob.authentication().len()),
        (5, 0)
    );
    let secrets = list(&keys["bob"]["secrets"]).iter().filter_map(|secret| {
        let curve = match text(secret, "crv") {
            "X25519" => Curve::X25519,
            "P-256" => Curve::P256,
            _ => return None,
        };
        let bytes = data_encoding::BASE64URL_NOPAD
            .decode(text(secret, "d").as_bytes())
            .unwrap();
        let key = SecretKey::from_bytes(curve, text(secret, "kid"), &bytes).unwrap();
        assert_eq!(Some(&key.public()), bob.key(key.kid()), "{}", key.kid());
        Some(key)
    });
    let ring: Vec<SecretKey> = secrets.collect();
    assert_eq!(ring.len(), 5);
    let messages = fixture("appendix-c/messages.json");
    let plaintext = fixture("appendix-c/plaintext.json");
    check(
        list(&messages),
        &ring,
        &[alice.clone(), bob.clone()],
        Some(&plaintext),
    );
    // Each of the keys alone opens the message.
    for key in ring {
        let mut used = 0;
        for vector in list(&messages).iter().filter(|v| v["expect"] == "opened") {
            let packed = vector["message"].to_string();
            if recipient_kids(packed.as_bytes())
                .iter()
                .any(|kid| kid == key.kid())
            {
                let resolve = |_: &str| Some(alice.clone());
                let opened =
                    unpack(packed.as_bytes(), &std::slice::from_ref(&key), &resolve).unwrap();
                assert_eq!(opened.recipient.as_deref(), Some(key.kid()));
                used += 1;
            }
        }
        assert_eq!(used, 2, "{}", key.kid());
    }
}

#[test]
fn messages_of_affinidi_are_read_and_their_mistakes_refused() {
    let fixture = fixture("affinidi/messages.json");
    let keys = |name: &str| -> Vec<SecretKey> {
        let known = list(&fixture[name]).iter().filter_map(|key| {
            let curve = match text(key, "curve") {
                "X25519" => Curve::X25519,
                "Ed25519" => Curve::Ed25519,
                "P-256" => Curve::P256,
                _ => return None,
            };
            let secret = data_encoding::HEXLOWER
                .decode(text(key, "secretHex").as_bytes())
                .unwrap();
            Some(SecretKey::from_bytes(curve, text(key, "kid"), &secret).unwrap())
        });
        known.collect()
    };
    let (agreement, signing) = (keys("keyAgreement"), keys("authentication"));
    let parties = ["did:example:alice", "did:example:bob", "did:example:carol"].map(|did| {
        let own = |keys: &[SecretKey]| -> Vec<PublicKey> {
            let own = keys.iter().filter(|key| did_of(key.kid()) == Ok(did));
            own.map(SecretKey::public).collect()
        };
        Party::from_document(did, own(&agreement), own(&signing))
    });
    let ring: Vec<SecretKey> = agreement
        .into_iter()
        .filter(|key| key.kid().starts_with("did:example:bob#"))
        .collect();
    check(list(&fixture["messages"]), &ring, &parties, None);
}
