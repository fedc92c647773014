//! Damaged messages are refused without a panic.

use proptest::collection::vec;
use serde_json::Value;

use super::forge::{encode, json_of};
use super::*;

/// Returns a valid message of each kind, from Alice for Bob.
fn sound(alice: &Actor, bob: &Actor) -> Vec<Vec<u8>> {
    let plaintext = message(alice, bob);
    let authcrypted = authcrypt(&plaintext, &alice.agreement, &bob.to()).unwrap();
    let signed = sign(&plaintext, &alice.signing).unwrap();
    let mut all: Vec<Vec<u8>> = ENCRYPTIONS
        .iter()
        .map(|enc| anoncrypt(&plaintext, &bob.to(), *enc).unwrap())
        .collect();
    all.extend([authcrypted, signed]);
    all
}

#[test]
fn no_bit_can_be_flipped() {
    let (alice, bob) = (alice(), bob());
    for packed in sound(&alice, &bob) {
        unpack(&packed, &bob.ring(), &knowing(&[&alice])).unwrap();
        for at in 0..packed.len() {
            for bit in 0..8 {
                let mut damaged = packed.clone();
                damaged[at] ^= 1 << bit;
                let opened = unpack(&damaged, &bob.ring(), &knowing(&[&alice]));
                assert!(
                    opened.is_err(),
                    "{at} {bit}: {}",
                    String::from_utf8_lossy(&damaged)
                );
            }
        }
    }
}

#[test]
fn no_end_and_no_byte_can_be_missing() {
    let (alice, bob) = (alice(), bob());
    for packed in sound(&alice, &bob) {
        for at in 0..packed.len() {
            let cut = unpack(&packed[..at], &bob.ring(), &knowing(&[&alice]));
            assert!(cut.is_err(), "{at}");
            let mut without = packed.clone();
            without.remove(at);
            let opened = unpack(&without, &bob.ring(), &knowing(&[&alice]));
            assert!(
                opened.is_err(),
                "{at}: {}",
                String::from_utf8_lossy(&without)
            );
        }
    }
}

/// Returns the message with each of its members in turn replaced by `value`.
fn replaced(message: &Value, value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    let mut push = |edit: &dyn Fn(&mut Value)| {
        let mut copy = message.clone();
        edit(&mut copy);
        all.push(copy);
    };
    for (name, member) in message.as_object().unwrap() {
        push(&|copy| copy[name] = value.clone());
        let Some(list) = member.as_array() else {
            continue;
        };
        for (name_in, member) in list[0].as_object().unwrap() {
            push(&|copy| copy[name][0] = value.clone());
            push(&|copy| copy[name][0][name_in] = value.clone());
            for name_within in member
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                push(&|copy| copy[name][0][name_in][name_within] = value.clone());
            }
        }
    }
    all
}

#[test]
fn no_member_can_be_of_another_type() {
    let (alice, bob) = (alice(), bob());
    let others = [
        json!(null),
        json!(1),
        json!(true),
        json!({}),
        json!([]),
        json!([[]]),
        json!(""),
    ];
    for packed in sound(&alice, &bob) {
        for value in &others {
            for damaged in replaced(&json_of(&packed), value) {
                let text = damaged.to_string();
                let opened = unpack(text.as_bytes(), &bob.ring(), &knowing(&[&alice]));
                assert!(opened.is_err(), "{text}");
                sender_did(text.as_bytes());
                recipient_kids(text.as_bytes());
            }
        }
    }
}

#[test]
fn deep_nesting_ends_in_an_error() {
    let bob = bob();
    for brackets in [
        "[",
        "{\"a\":",
        "{\"epk\":",
        "{\"unprotected\":",
        "{\"recipients\":[",
    ] {
        let deep = brackets.repeat(100_000);
        assert!(unpack(deep.as_bytes(), &bob.ring(), &knowing(&[])).is_err());
        let packed = anoncrypt(deep.as_bytes(), &bob.to(), ContentEncryption::A256CbcHs512);
        let opened = unpack(&packed.unwrap(), &bob.ring(), &knowing(&[]));
        assert_eq!(opened.unwrap_err(), EnvelopeError::Plaintext);
    }
}

#[test]
fn inv8_only_what_every_reader_parses_is_taken_for_others() {
    use crate::didcomm::i_json::IJsonError;
    let (alice, bob) = (alice(), bob());
    let packed = authcrypt(&message(&alice, &bob), &alice.agreement, &bob.to()).unwrap();
    assert_eq!(check_encrypted(&packed), Ok(()));
    let signed = sign(&message(&alice, &bob), &alice.signing).unwrap();
    assert_eq!(check_encrypted(&signed), Err(EnvelopeError::NotAnEnvelope));
    let with = |member: &str| {
        let packed = String::from_utf8(packed.clone()).unwrap();
        check_encrypted(packed.replacen('{', &format!("{{{member},"), 1).as_bytes())
    };
    assert_eq!(with(r#""x":[1,{"y":null}]"#), Ok(()));
    let deep = format!("\"x\":{}{}", "[".repeat(9), "]".repeat(9));
    assert_eq!(with(&deep), Err(IJsonError::Depth.into()));
    assert_eq!(with(r#""x":"\udc00""#), Err(IJsonError::Surrogate.into()));
    let header = |protected: &str| {
        let mut packed = json_of(&packed);
        packed["protected"] = protected.into();
        check_encrypted(packed.to_string().as_bytes())
    };
    assert_eq!(header(&encode("{\"alg\":\"of the future\"}")), Ok(()));
    assert_eq!(
        header(&encode("[".repeat(9000))),
        Err(IJsonError::Syntax.into())
    );
    assert_eq!(
        header(&encode(format!("{{{deep}}}"))),
        Err(IJsonError::Depth.into())
    );
    assert_eq!(header("e30="), Err(EnvelopeError::Base64));
    let mut nameless = json_of(&packed);
    nameless["recipients"][0]["header"] = json!({});
    let nameless = check_encrypted(nameless.to_string().as_bytes());
    assert_eq!(nameless, Err(EnvelopeError::KeyId));
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in vec(any::<u8>(), 0..400), text in "[{}\\[\\]\",:a-z0-9]{0,200}") {
        for garbage in [&bytes[..], text.as_bytes()] {
            prop_assert!(unpack(garbage, &Vec::new(), &SelfCertified).is_err());
            prop_assert_eq!(sender_did(garbage), None);
            prop_assert!(recipient_kids(garbage).is_empty());
        }
    }
}
