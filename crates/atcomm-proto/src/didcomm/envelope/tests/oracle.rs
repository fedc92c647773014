//! A foreign implementation, the crate `didcomm`, reads what we write and writes what we read.

use data_encoding::BASE64URL_NOPAD;
use didcomm::algorithms::{AnonCryptAlg, AuthCryptAlg};
use didcomm::did::resolvers::ExampleDIDResolver;
use didcomm::did::{DIDDoc, VerificationMaterial, VerificationMethod, VerificationMethodType};
use didcomm::secrets::resolvers::ExampleSecretsResolver;
use didcomm::secrets::{Secret, SecretMaterial, SecretType};
use didcomm::{Message, PackEncryptedOptions, UnpackMetadata, UnpackOptions};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::*;

const BOTH: [Curve; 2] = [Curve::X25519, Curve::P256];

/// The library's names for our encryptions.
const ANONYMOUS: [(ContentEncryption, AnonCryptAlg); 3] = [
    (
        ContentEncryption::A256CbcHs512,
        AnonCryptAlg::A256cbcHs512EcdhEsA256kw,
    ),
    (
        ContentEncryption::A256Gcm,
        AnonCryptAlg::A256gcmEcdhEsA256kw,
    ),
    (ContentEncryption::Xc20p, AnonCryptAlg::Xc20pEcdhEsA256kw),
];

fn public_jwk(key: &SecretKey) -> Value {
    match key.curve() {
        Curve::Ed25519 => json!({
            "kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(key.public().as_bytes()),
        }),
        _ => serde_json::to_value(pack::jwk(key.pair()).unwrap()).unwrap(),
    }
}

fn secret(key: &SecretKey) -> Secret {
    let mut private_key_jwk = public_jwk(key);
    private_key_jwk["d"] = BASE64URL_NOPAD.encode(&key.to_bytes()).into();
    Secret {
        id: key.kid().to_owned(),
        type_: SecretType::JsonWebKey2020,
        secret_material: SecretMaterial::JWK { private_key_jwk },
    }
}

fn document(actor: &Actor) -> DIDDoc {
    let method = |key: &SecretKey| VerificationMethod {
        id: key.kid().to_owned(),
        type_: VerificationMethodType::JsonWebKey2020,
        controller: actor.party.did().to_owned(),
        verification_material: VerificationMaterial::JWK {
            public_key_jwk: public_jwk(key),
        },
    };
    DIDDoc {
        id: actor.party.did().to_owned(),
        key_agreement: vec![actor.agreement.kid().to_owned()],
        authentication: vec![actor.signing.kid().to_owned()],
        verification_method: vec![method(&actor.agreement), method(&actor.signing)],
        service: Vec::new(),
    }
}

/// The library with the documents and the secrets of both parties.
struct Library {
    documents: ExampleDIDResolver,
    secrets: ExampleSecretsResolver,
}

impl Library {
    fn new(actors: [&Actor; 2]) -> Self {
        Self {
            documents: ExampleDIDResolver::new(actors.map(document).to_vec()),
            secrets: ExampleSecretsResolver::new(
                actors
                    .iter()
                    .flat_map(|actor| [secret(&actor.agreement), secret(&actor.signing)])
                    .collect(),
            ),
        }
    }

    /// The library's futures wait only for our resolvers, which answer at once.
    fn read(&self, packed: &[u8]) -> (Message, UnpackMetadata) {
        let options = UnpackOptions {
            unwrap_re_wrapping_forward: false,
            ..UnpackOptions::default()
        };
        let text = std::str::from_utf8(packed).unwrap();
        Message::unpack(text, &self.documents, &self.secrets, &options)
            .now_or_never()
            .unwrap()
            .unwrap()
    }

    fn encrypt(
        &self,
        message: &Message,
        from: Option<&Actor>,
        signed_by: Option<&Actor>,
        options: &PackEncryptedOptions,
    ) -> String {
        let from = from.map(|actor| actor.party.did());
        let signed_by = signed_by.map(|actor| actor.party.did());
        let (documents, secrets) = (&self.documents, &self.secrets);
        message
            .pack_encrypted(
                "did:example:bob",
                from,
                signed_by,
                documents,
                secrets,
                options,
            )
            .now_or_never()
            .unwrap()
            .unwrap()
            .0
    }
}

fn options() -> PackEncryptedOptions {
    PackEncryptedOptions {
        forward: false,
        ..PackEncryptedOptions::default()
    }
}

fn actors(curve: Curve, signing: Curve) -> (Actor, Actor) {
    (
        Actor::new("did:example:alice", curve, signing),
        Actor::new("did:example:bob", curve, signing),
    )
}

fn greeting() -> Message {
    Message::build(
        "id-1".to_owned(),
        "https://example.org/a/1.0/b".to_owned(),
        json!({"n": 1}),
    )
    .from("did:example:alice".to_owned())
    .to("did:example:bob".to_owned())
    .created_time(1_700_000_000)
    .finalize()
}

fn plaintext() -> Vec<u8> {
    serde_json::to_vec(&greeting()).unwrap()
}

fn opened(packed: &str, alice: &Actor, bob: &Actor) -> Unpacked {
    let opened = unpack(packed.as_bytes(), &bob.ring(), &knowing(&[alice])).unwrap();
    let read: Message = serde_json::from_slice(&opened.plaintext).unwrap();
    assert_eq!(read, greeting());
    opened
}

#[test]
fn it_reads_our_authcrypt_and_we_read_its() {
    for curve in BOTH {
        let (alice, bob) = actors(curve, Curve::Ed25519);
        let library = Library::new([&alice, &bob]);
        let packed = authcrypt(&plaintext(), &alice.agreement, &bob.to()).unwrap();
        let (message, metadata) = library.read(&packed);
        assert_eq!(message, greeting());
        assert!(metadata.authenticated && metadata.encrypted && !metadata.anonymous_sender);
        assert_eq!(
            metadata.enc_alg_auth,
            Some(AuthCryptAlg::A256cbcHs512Ecdh1puA256kw)
        );
        assert_eq!(
            metadata.encrypted_from_kid.as_deref(),
            Some("did:example:alice#enc")
        );
        let packed = library.encrypt(&greeting(), Some(&alice), None, &options());
        let opened = opened(&packed, &alice, &bob);
        assert_eq!(opened.layers, [Layer::Authcrypt]);
        assert_eq!(opened.sender.unwrap().kid, "did:example:alice#enc");
    }
}

#[test]
fn it_reads_our_anoncrypt_and_we_read_its_in_every_encryption() {
    for curve in BOTH {
        for (enc, enc_alg_anon) in ANONYMOUS {
            let (alice, bob) = actors(curve, Curve::Ed25519);
            let library = Library::new([&alice, &bob]);
            let packed = anoncrypt(&plaintext(), &bob.to(), enc).unwrap();
            let (message, metadata) = library.read(&packed);
            assert_eq!(message, greeting());
            assert!(!metadata.authenticated && metadata.anonymous_sender);
            assert_eq!(metadata.enc_alg_anon.as_ref(), Some(&enc_alg_anon));
            let options = PackEncryptedOptions {
                enc_alg_anon,
                ..options()
            };
            let packed = library.encrypt(&greeting(), None, None, &options);
            let opened = opened(&packed, &alice, &bob);
            assert_eq!(opened.layers, [Layer::Anoncrypt(enc)]);
        }
    }
}

#[test]
fn it_checks_our_signatures_and_we_check_its() {
    for signing in [Curve::Ed25519, Curve::P256] {
        let (alice, bob) = actors(Curve::X25519, signing);
        let library = Library::new([&alice, &bob]);
        let (message, metadata) = library.read(&sign(&plaintext(), &alice.signing).unwrap());
        assert_eq!(message, greeting());
        assert!(metadata.non_repudiation);
        assert_eq!(metadata.sign_from.as_deref(), Some("did:example:alice#sig"));
        let packed = greeting()
            .pack_signed("did:example:alice", &library.documents, &library.secrets)
            .now_or_never()
            .unwrap()
            .unwrap()
            .0;
        let opened = opened(&packed, &alice, &bob);
        assert_eq!(opened.layers, [Layer::Signed]);
        assert_eq!(opened.signer.unwrap().kid, "did:example:alice#sig");
    }
}

#[test]
fn layers_in_an_anoncrypt_are_read_in_both_directions() {
    for curve in BOTH {
        let (alice, bob) = actors(curve, Curve::Ed25519);
        let library = Library::new([&alice, &bob]);
        for (enc, enc_alg_anon) in ANONYMOUS {
            let inner = sign(&plaintext(), &alice.signing).unwrap();
            let (message, metadata) = library.read(&anoncrypt(&inner, &bob.to(), enc).unwrap());
            assert_eq!(message, greeting());
            assert!(metadata.non_repudiation && metadata.encrypted);
            let inner = authcrypt(&plaintext(), &alice.agreement, &bob.to()).unwrap();
            let (message, metadata) = library.read(&anoncrypt(&inner, &bob.to(), enc).unwrap());
            assert_eq!(message, greeting());
            assert!(metadata.authenticated && metadata.anonymous_sender);

            let anonymous = Layer::Anoncrypt(enc);
            let options = PackEncryptedOptions {
                enc_alg_anon,
                protect_sender: true,
                ..options()
            };
            let packed = library.encrypt(&greeting(), None, Some(&alice), &options);
            let signed = opened(&packed, &alice, &bob);
            assert_eq!(signed.layers, [anonymous, Layer::Signed]);
            assert!(signed.signer.is_some());
            let packed = library.encrypt(&greeting(), Some(&alice), None, &options);
            let protected = opened(&packed, &alice, &bob);
            assert_eq!(protected.layers, [anonymous, Layer::Authcrypt]);
            assert!(protected.sender.is_some());
        }
        let packed = library.encrypt(&greeting(), Some(&alice), Some(&alice), &options());
        let both = opened(&packed, &alice, &bob);
        assert_eq!(both.layers, [Layer::Authcrypt, Layer::Signed]);
    }
}

#[test]
fn forgeries_that_it_takes_are_refused_here() {
    let (alice, bob) = actors(Curve::X25519, Curve::Ed25519);
    let library = Library::new([&alice, &bob]);
    let mut forged = greeting();
    forged.from = Some("did:example:bob".to_owned());
    let forged = serde_json::to_vec(&forged).unwrap();
    let packed = authcrypt(&forged, &alice.agreement, &bob.to()).unwrap();
    assert_eq!(
        library.read(&packed).0.from.as_deref(),
        Some("did:example:bob")
    );
    let opened = unpack(&packed, &bob.ring(), &knowing(&[&alice, &bob]));
    assert_eq!(opened.unwrap_err(), EnvelopeError::From);
}
