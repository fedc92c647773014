use super::*;
use crate::testing::key;
use atcomm_proto::didcomm::envelope::{ContentEncryption, anoncrypt, authcrypt, sign};
use atcomm_proto::didcomm::protocol::trust_ping::Ping;
use testkit::mediator::TestMediator;

const ENC: ContentEncryption = ContentEncryption::A256CbcHs512;

#[test]
fn the_stacks_of_mail_and_the_anonymous_one() {
    let (alice, bob) = (key(), key());
    let to = [bob.agreement.public()];
    let plain = Message::new("1", &Ping::default())
        .from(alice.peer.as_str())
        .to(bob.peer.as_str())
        .to_vec();
    let authcrypted = authcrypt(&plain, &alice.agreement, &to).unwrap();
    let signed = sign(&plain, &alice.signing).unwrap();
    let wrapped = |inner: &[u8]| anoncrypt(inner, &to, ENC).unwrap();
    for (envelope, proven) in [
        (authcrypted.clone(), true),
        (wrapped(&authcrypted), true),
        (wrapped(&signed), true),
        (authcrypt(&signed, &alice.agreement, &to).unwrap(), true),
        (wrapped(&plain), false),
    ] {
        let unpacked = unpack(&envelope, &bob, &[]).unwrap();
        assert_eq!(unpacked.sender.is_some(), proven);
        if proven {
            assert_eq!(unpacked.sender.as_deref(), Some(alice.peer.as_str()));
        }
        assert_eq!(unpacked.recipient, bob.peer.as_str());
        assert_eq!(unpacked.message.id, "1");
    }
    // An envelope without encryption is no mail, nor is one whose layers are of two parties.
    assert_eq!(unpack(&signed, &bob, &[]).unwrap_err(), UnpackError::Layers);
    let of_two = authcrypt(&signed, &key().agreement, &to).unwrap();
    assert_eq!(
        unpack(&of_two, &bob, &[]).unwrap_err(),
        UnpackError::Envelope(EnvelopeError::From)
    );
}

#[test]
fn writers_are_held_to_their_keys() {
    let (alice, bob, mallory) = (key(), key(), key());
    let to = [bob.agreement.public()];
    let plain = |from: &str, to: &str| {
        Message::new("1", &Ping::default())
            .from(from)
            .to(to)
            .to_vec()
    };
    // The name of another account under one's own key, and a message for another recipient.
    let forged = plain(alice.peer.as_str(), bob.peer.as_str());
    let forged = authcrypt(&forged, &mallory.agreement, &to).unwrap();
    let passed_on = plain(mallory.peer.as_str(), alice.peer.as_str());
    let passed_on = authcrypt(&passed_on, &mallory.agreement, &to).unwrap();
    for (envelope, error) in [
        (forged, EnvelopeError::From),
        (passed_on, EnvelopeError::To),
    ] {
        let refused = unpack(&envelope, &bob, &[]).unwrap_err();
        assert_eq!(refused, UnpackError::Envelope(error));
    }
    let ours = plain(mallory.peer.as_str(), bob.peer.as_str());
    let ours = authcrypt(&ours, &mallory.agreement, &to).unwrap();
    let refused = unpack(&ours, &alice, &[]).unwrap_err();
    assert_eq!(refused, UnpackError::Envelope(EnvelopeError::NotForUs));
}

#[test]
fn a_mediator_is_known_when_it_is_named() {
    let (bob, ours) = (key(), TestMediator::new("ours"));
    let envelope = ours.write(Message::new("1", &Ping::default()), &bob.agreement);
    let known = [ours.party.clone()];
    let unpacked = unpack(&envelope, &bob, &known).unwrap();
    assert_eq!(unpacked.sender.as_deref(), Some(&*ours.did));
    let did = ours.did.clone();
    let unknown = unpack(&envelope, &bob, &[TestMediator::new("other").party]).unwrap_err();
    assert_eq!(
        unknown,
        UnpackError::Envelope(EnvelopeError::Unresolved { did })
    );
    // Another one of that name.
    let refused = unpack(&envelope, &bob, &[TestMediator::new("ours").party]).unwrap_err();
    assert!(matches!(refused, UnpackError::Envelope(_)), "{refused}");
}

#[test]
fn inv8_what_is_no_mail_is_an_error() {
    let bob = key();
    for envelope in [&b""[..], b"{}", b"[]", b"\xff", &[b' '; MAX_ENVELOPE + 1]] {
        assert!(unpack(envelope, &bob, &[]).is_err());
    }
}
