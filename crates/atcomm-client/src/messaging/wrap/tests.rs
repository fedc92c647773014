use didcomm::did::resolvers::ExampleDIDResolver;
use didcomm::did::{DIDDoc, VerificationMaterial, VerificationMethod, VerificationMethodType};
use didcomm::secrets::resolvers::ExampleSecretsResolver;
use didcomm::secrets::{Secret, SecretMaterial, SecretType};
use didcomm::{Message as Foreign, UnpackMetadata, UnpackOptions};
use futures_util::FutureExt as _;
use serde_json::json;

use super::super::dm::Dm;
use super::super::unpack;
use super::*;
use crate::testing::key;
use atcomm_proto::didcomm::envelope::SecretKey;
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::syntax::Did;
use testkit::mediator::TestMediator;

const NOW: i64 = 1_800_000_000;

fn wrapped(
    envelope: &[u8],
    peer: &str,
    theirs: &MediatorDocument,
    own: &MediatorDocument,
    key: &MessagingKey,
    now: i64,
) -> WrappedMessage {
    let made = wrap(envelope, peer, theirs, own, key, now, &|_| None).unwrap();
    made.done().unwrap()
}

fn letter(from: &MessagingKey, to: &MessagingKey) -> (Dm, Vec<u8>) {
    let (alice, bob) = (
        Did::parse("did:web:alice.example.com").unwrap(),
        Did::parse("did:web:bob.example.com").unwrap(),
    );
    let dm = Dm::new("grüß dich", &alice, &bob).unwrap();
    let message = dm.message("m1", from.peer.as_str(), to.peer.as_str(), NOW);
    let sealed = seal(message, from, &to.peer).unwrap();
    (dm, sealed)
}

fn assert_letter(envelope: &[u8], dm: &Dm, from: &MessagingKey, to: &MessagingKey) {
    let unpacked = unpack::unpack(envelope, to, &[]).unwrap();
    assert_eq!(unpacked.sender.as_deref(), Some(from.peer.as_str()));
    assert_eq!(unpacked.recipient, to.peer.as_str());
    assert_eq!(unpacked.message.from.as_deref(), Some(from.peer.as_str()));
    assert_eq!(unpacked.message.to, [to.peer.as_str()]);
    assert_eq!(unpacked.message.id, "m1");
    assert_eq!(unpacked.message.created_time, Some(NOW));
    assert_eq!(unpacked.message.body_of::<Dm>().unwrap(), *dm);
}

#[test]
fn two_mediators_see_one_layer_each_and_the_second_no_writer() {
    let (alice, bob) = (key(), key());
    let (near, far) = (TestMediator::new("near"), TestMediator::new("far"));
    let (dm, sealed) = letter(&alice, &bob);
    let wrapped = wrapped(
        &sealed,
        bob.peer.as_str(),
        &far.document,
        &near.document,
        &alice,
        NOW,
    );
    assert_eq!(wrapped.url.as_str(), "https://near.example.com/didcomm");
    assert_eq!(wrapped.via.as_ref().unwrap().as_str(), near.did);
    assert_eq!(wrapped.mediator.as_str(), far.did);
    let (sender, id, next, inner) = near.forward(&wrapped.body);
    assert_eq!(sender.as_deref(), Some(alice.peer.as_str()));
    assert_eq!((id, next.as_str()), (wrapped.forward_id, far.did.as_str()));
    // What the second is sent names its writer nowhere.
    let (sender, _, next, inner) = far.forward(&inner);
    assert_eq!((sender, next.as_str()), (None, bob.peer.as_str()));
    assert_eq!(inner, sealed);
    assert_letter(&inner, &dm, &alice, &bob);
}

#[test]
fn a_mediator_of_both_gets_one_layer() {
    let (alice, bob) = (key(), key());
    let both = TestMediator::new("both");
    let (dm, sealed) = letter(&alice, &bob);
    let peer = bob.peer.as_str();
    let made = |n| {
        let (theirs, own) = (&both.document, &both.document);
        let wrapped = wrapped(&sealed, peer, theirs, own, &alice, NOW + n);
        assert_eq!(
            (&wrapped.via, wrapped.mediator.as_str()),
            (&None, &*both.did)
        );
        wrapped
    };
    let wrapped = made(0);
    let (sender, id, next, inner) = both.forward(&wrapped.body);
    assert_eq!((sender, next.as_str()), (None, peer));
    assert_eq!(id, wrapped.forward_id);
    assert_letter(&inner, &dm, &alice, &bob);
    // Each wrap is a new one.
    let again = made(1);
    assert_ne!(again.forward_id, id);
    assert_ne!(again.body, wrapped.body);
}

#[test]
fn a_reader_with_several_keys_is_written_to_by_the_first() {
    use atcomm_proto::did_peer::{KeyType, Purpose};
    let (alice, first, second) = (key(), key(), key());
    let keys = [&first, &second].map(|key| key.agreement.public());
    let peer = PeerDid::build(
        &keys
            .each_ref()
            .map(|key| (Purpose::KeyAgreement, KeyType::X25519, key.as_bytes())),
        &[],
    )
    .unwrap();
    let message = letter_message(&alice, peer.as_str());
    let sealed = seal(message, &alice, &peer).unwrap();
    let kids = envelope::recipient_kids(&sealed);
    assert_eq!(kids, [format!("{}#key-1", peer.as_str())]);
}

fn letter_message(from: &MessagingKey, to: &str) -> Message {
    let did = Did::parse("did:web:alice.example.com").unwrap();
    let dm = Dm::new("hello", &did, &did).unwrap();
    // Whatever ends it names, the keys decide.
    dm.message("m1", from.peer.as_str(), to, NOW)
        .from("did:peer:2.wrong")
        .to("did:peer:2.wrong")
}

#[test]
fn ends_are_those_of_the_keys() {
    let (alice, bob) = (key(), key());
    let message = letter_message(&alice, bob.peer.as_str());
    let sealed = seal(message, &alice, &bob.peer).unwrap();
    let unpacked = unpack::unpack(&sealed, &bob, &[]).unwrap();
    assert_eq!(unpacked.message.from.as_deref(), Some(alice.peer.as_str()));
    assert_eq!(unpacked.message.to, [bob.peer.as_str()]);
}

// A library that others wrote opens every layer.

fn jwk(key: &SecretKey) -> serde_json::Value {
    let x = data_encoding::BASE64URL_NOPAD.encode(key.public().as_bytes());
    json!({"kty": "OKP", "crv": "X25519", "x": x})
}

fn document(key: &SecretKey) -> DIDDoc {
    let did = key.kid().split_once('#').unwrap().0.to_owned();
    DIDDoc {
        id: did.clone(),
        key_agreement: vec![key.kid().to_owned()],
        authentication: Vec::new(),
        verification_method: vec![VerificationMethod {
            id: key.kid().to_owned(),
            type_: VerificationMethodType::JsonWebKey2020,
            controller: did,
            verification_material: VerificationMaterial::JWK {
                public_key_jwk: jwk(key),
            },
        }],
        service: Vec::new(),
    }
}

fn read(packed: &[u8], keys: &[&SecretKey]) -> (Foreign, UnpackMetadata) {
    let documents = ExampleDIDResolver::new(keys.iter().map(|key| document(key)).collect());
    let secret = |key: &&SecretKey| {
        let mut private_key_jwk = jwk(key);
        private_key_jwk["d"] = data_encoding::BASE64URL_NOPAD
            .encode(&key.to_bytes())
            .into();
        Secret {
            id: key.kid().to_owned(),
            type_: SecretType::JsonWebKey2020,
            secret_material: SecretMaterial::JWK { private_key_jwk },
        }
    };
    let secrets = ExampleSecretsResolver::new(keys.iter().map(secret).collect());
    let options = UnpackOptions {
        unwrap_re_wrapping_forward: false,
        ..UnpackOptions::default()
    };
    let text = std::str::from_utf8(packed).unwrap();
    Foreign::unpack(text, &documents, &secrets, &options)
        .now_or_never()
        .unwrap()
        .unwrap()
}

fn forwarded(message: &Foreign) -> Vec<u8> {
    let value = serde_json::to_value(message).unwrap();
    assert_eq!(value["type"], Forward::TYPE);
    value["attachments"][0]["data"]["json"]
        .to_string()
        .into_bytes()
}

#[test]
fn others_open_what_we_pack() {
    let (alice, bob) = (key(), key());
    let (near, far): (TestMediator, TestMediator) =
        (TestMediator::new("near"), TestMediator::new("far"));
    let (_, sealed) = letter(&alice, &bob);
    let peer = bob.peer.as_str();
    let (theirs, own) = (&far.document, &near.document);
    let wrapped = wrapped(&sealed, peer, theirs, own, &alice, NOW);

    let (outer, metadata) = read(&wrapped.body, &[&near.key, &alice.agreement]);
    assert!(metadata.authenticated && metadata.encrypted);
    assert_eq!(
        metadata.encrypted_from_kid.as_deref(),
        Some(alice.agreement.kid())
    );
    assert_eq!(outer.body["next"], far.did);
    let (inner, metadata) = read(&forwarded(&outer), &[&far.key]);
    assert!(metadata.anonymous_sender && !metadata.authenticated);
    assert_eq!(inner.body["next"], peer);
    let (message, metadata) = read(&forwarded(&inner), &[&bob.agreement, &alice.agreement]);
    assert!(metadata.authenticated && !metadata.non_repudiation);
    assert_eq!(message.type_, "https://didcomm.at/dm/1.0/message");
    assert_eq!(message.from.as_deref(), Some(alice.peer.as_str()));
    assert_eq!(
        message.body,
        json!({
            "text": "grüß dich",
            "senderDid": "did:web:alice.example.com",
            "recipientDid": "did:web:bob.example.com",
        })
    );
}
