use serde_json::json;

use super::*;
use crate::testing::plc::*;

mod forks;
mod vectors;

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";

fn fault(log: &TestLog) -> (usize, Fault) {
    match verify(&log.did(), &log.to_vec()) {
        Err(LogError::Operation { index, fault }) => (index, fault),
        other => panic!("{other:?}"),
    }
}

fn verified(log: &TestLog) -> VerifiedLog {
    verify(&log.did(), &log.to_vec()).unwrap()
}

/// Returns a log of three operations: created at A, migrated to B with a new key, recovery key
/// replaced.
fn history() -> (TestLog, [Value; 3]) {
    let (high, low, other) = (p256(1), k256(2), p256(5));
    let first = low.sign(&operation(&[&high, &low], &k256(3), A, None));
    let moved = low.sign(&operation(&[&high, &low], &p256(4), B, Some(&first)));
    let third = high.sign(&operation(&[&other, &low], &p256(4), B, Some(&moved)));
    let mut log = TestLog::default();
    log.push(0, &first).push(10, &moved).push(20, &third);
    (log, [first, moved, third])
}

#[test]
fn a_log_tells_what_held_and_what_holds() {
    let (log, operations) = history();
    let read = verified(&log);
    assert_eq!(read.did(), &log.did());
    assert_eq!(read.tombstoned_at(), None);
    let expected: Vec<State> = [(k256(3), A, 0), (p256(4), B, 10), (p256(4), B, 20)]
        .into_iter()
        .zip(&operations)
        .map(|((key, pds, minute), operation)| State {
            cid: cid(operation),
            at: at(minute),
            signing_key: Some(key.public()),
            pds: Some(Origin::parse(pds).unwrap()),
            handle: Some(Handle::parse("alice.example.com").unwrap()),
        })
        .collect();
    assert_eq!(read.states(), expected);
    assert_eq!(read.current(), expected.last());
    // Entries need not repeat the account.
    let mut bare = log.clone();
    for entry in &mut bare.0 {
        entry.as_object_mut().unwrap().remove("did");
    }
    assert_eq!(verify(&log.did(), &bare.to_vec()), Ok(read));
}

#[test]
fn inv1_no_byte_of_a_log_can_be_changed_unseen() {
    let (log, _) = history();
    let (did, bytes) = (log.did(), log.to_vec());
    let truth = verified(&log);
    let mut told = 0;
    for place in 0..bytes.len() {
        for change in [1, 2, 0x20] {
            let mut changed = bytes.clone();
            changed[place] ^= change;
            let Ok(read) = verify(&did, &changed) else {
                continue;
            };
            // The times are the directory's statement. Everything else must be equal.
            told += 1;
            let timeless = |log: &VerifiedLog| {
                let states = log.states().iter().cloned();
                let states = states.map(|state| State { at: at(0), ..state });
                states.collect::<Vec<_>>()
            };
            assert_eq!(timeless(&read), timeless(&truth), "byte {place}");
        }
    }
    // The digits of three times, the name `did` three times, and letters of either case in escapes.
    assert!(told < 3 * 3 * 30, "{told} changes went unseen");
}

#[test]
fn the_first_operation_is_the_identifier() {
    let (log, [first, ..]) = history();
    let foreign = k256(2).sign(&operation(&[&k256(2)], &k256(9), A, None));
    let other = did(&foreign);
    for (account, expected) in [(&other, Fault::Genesis), (&log.did(), Fault::WrongDid)] {
        let mut forged = TestLog::default();
        forged.push(0, &first);
        if expected == Fault::WrongDid {
            forged.0[0]["did"] = json!(other);
        } else {
            forged.0[0].as_object_mut().unwrap().remove("did");
        }
        let failed = verify(account, &forged.to_vec());
        assert_eq!(
            failed,
            Err(LogError::Operation {
                index: 0,
                fault: expected
            })
        );
    }
    // An operation that its own rotation keys did not sign.
    let stray = k256(9).sign(&operation(&[&k256(2)], &k256(9), A, None));
    let mut log = TestLog::default();
    log.push(0, &stray);
    assert_eq!(fault(&log), (0, Fault::Signature));
    // A log cannot begin with a tombstone, nor with an operation that claims to follow one.
    let mut log = TestLog::default();
    log.push(0, &k256(2).sign(&tombstone(&first)));
    assert_eq!(fault(&log), (0, Fault::Prev));
    let mut log = TestLog::default();
    log.push(
        0,
        &k256(2).sign(&json!({"type": "plc_tombstone", "prev": null})),
    );
    assert_eq!(fault(&log), (0, Fault::Shape));
}

#[test]
fn each_is_signed_by_a_rotation_key_of_the_one_before() {
    let (high, low, signing, new) = (p256(1), k256(2), k256(3), k256(6));
    let first = low.sign(&operation(&[&high, &low], &signing, A, None));
    let next = operation(&[&new], &signing, A, Some(&first));
    // Neither the account's signing key, nor an unrelated key, nor the key that the operation adds.
    for key in [&signing, &k256(8), &new] {
        let mut log = TestLog::default();
        log.push(0, &first).push(1, &key.sign(&next));
        assert_eq!(fault(&log), (1, Fault::Signature));
    }
    for key in [&high, &low] {
        let signed = key.sign(&next);
        let mut log = TestLog::default();
        log.push(0, &first).push(1, &signed);
        verified(&log);
        // A replaced key cannot sign any more.
        let after = operation(&[&new], &signing, B, Some(&signed));
        let mut gone = log.clone();
        gone.push(2, &key.sign(&after));
        assert_eq!(fault(&gone), (2, Fault::Signature));
        log.push(2, &new.sign(&after));
        verified(&log);
    }
}

#[test]
fn signatures_have_one_form() {
    let key = k256(2);
    let first = key.sign(&operation(&[&key], &key, A, None));
    let mut log = TestLog::default();
    log.push(0, &first);
    verified(&log);
    let text = first["sig"].as_str().unwrap();
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(text.as_bytes())
        .unwrap();
    let high = k256::ecdsa::Signature::from_slice(&bytes).unwrap();
    let high = k256::ecdsa::Signature::from_scalars(high.r(), -high.s()).unwrap();
    let p = p256(2);
    let with_p = p.sign(&operation(&[&p], &p, A, None));
    let raw = data_encoding::BASE64URL_NOPAD
        .decode(with_p["sig"].as_str().unwrap().as_bytes())
        .unwrap();
    let high_p = p256::ecdsa::Signature::from_slice(&raw).unwrap();
    let high_p = p256::ecdsa::Signature::from_scalars(high_p.r(), -high_p.s()).unwrap();
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    for (operation, signature) in [
        (&first, encode(&high.to_bytes())),
        (&with_p, encode(&high_p.to_bytes())),
        (&first, encode(&bytes[..63])),
        (&first, encode(&[&bytes[..], &[0]].concat())),
        (&first, encode(&[0; 64])),
        (&first, String::new()),
        (&first, format!("{text}==")),
        (&first, format!("{}_", &text[..85])),
        (&first, encode(high.to_der().as_bytes())),
    ] {
        let mut operation = operation.clone();
        operation["sig"] = json!(signature);
        let mut log = TestLog::default();
        log.push(0, &operation);
        assert_eq!(fault(&log), (0, Fault::Signature), "{signature}");
    }
}

#[test]
fn each_names_the_one_before_by_its_hash() {
    let (log, [first, moved, third]) = history();
    // One left out, two exchanged, one repeated, two beginnings.
    for (order, expected) in [
        (vec![&first, &third], (1, Fault::Prev)),
        (vec![&first, &third, &moved], (1, Fault::Prev)),
        (vec![&moved, &third], (0, Fault::Prev)),
        (vec![&first, &moved, &moved], (2, Fault::Signature)),
        (vec![&first, &first], (1, Fault::Prev)),
    ] {
        let mut made = TestLog::default();
        for (minute, operation) in (0..).zip(order) {
            made.push(minute, operation);
        }
        made.0
            .iter_mut()
            .for_each(|entry| entry["did"] = json!(log.did()));
        assert_eq!(fault(&made), expected);
    }
    // The CID of every entry is checked, the last one included.
    for index in 0..3 {
        let mut wrong = log.clone();
        wrong.0[index]["cid"] = json!(cid(&json!({})));
        assert_eq!(fault(&wrong), (index, Fault::Cid));
    }
    // A truncated log verifies: a log does not prove that it is complete.
    let mut cut = log.clone();
    cut.0.truncate(2);
    assert_eq!(verified(&cut).states(), &verified(&log).states()[..2]);
}

#[test]
fn accounts_that_began_with_the_older_operation() {
    let (recovery, key, new) = (p256(1), k256(2), k256(3));
    for (service, handle) in [
        ("a.example.com", "alice.example.com"),
        ("https://a.example.com", "at://alice.example.com"),
    ] {
        let create = json!({
            "type": "create",
            "signingKey": key.text(),
            "recoveryKey": recovery.text(),
            "handle": handle,
            "service": service,
            "prev": null,
        });
        for signer in [&recovery, &key] {
            let first = signer.sign(&create);
            let mut log = TestLog::default();
            log.push(0, &first);
            let read = verified(&log);
            let state = read.current().unwrap();
            assert_eq!(state.signing_key, Some(key.public()));
            assert_eq!(state.pds, Some(Origin::parse(A).unwrap()));
            assert_eq!(state.handle, Handle::parse("alice.example.com").ok());
            // The recovery key has the higher authority.
            let next = operation(&[&recovery, &key], &new, B, Some(&first));
            log.push(1, &key.sign(&next)).nullify(1);
            let back = operation(&[&recovery], &new, A, Some(&first));
            log.push(2, &recovery.sign(&back));
            assert_eq!(verified(&log).states().len(), 2);
        }
        let mut log = TestLog::default();
        log.push(0, &new.sign(&create));
        assert_eq!(fault(&log), (0, Fault::Signature));
    }
    // The legacy form is valid for the first operation only.
    let (log, [first, ..]) = history();
    let mut again = log.clone();
    let create = json!({
        "type": "create",
        "signingKey": key.text(),
        "recoveryKey": recovery.text(),
        "handle": "alice.example.com",
        "service": A,
        "prev": cid(&first),
    });
    again.push(30, &k256(2).sign(&create));
    assert_eq!(fault(&again), (3, Fault::Shape));
}

#[test]
fn a_tombstone_is_the_end() {
    let (log, [_, _, third]) = history();
    let stone = p256(5).sign(&tombstone(&third));
    let mut dead = log.clone();
    dead.push(30, &stone);
    let read = verified(&dead);
    assert_eq!(read.current(), None);
    assert_eq!(read.tombstoned_at(), Some(at(30)));
    assert_eq!(read.states().len(), 3);
    assert_eq!(read.pre_migration_key(), None);
    // No operation follows a tombstone.
    let mut after = dead.clone();
    after.push(
        31,
        &p256(5).sign(&operation(&[&p256(5)], &p256(4), B, Some(&stone))),
    );
    assert_eq!(fault(&after), (4, Fault::Prev));
    let mut forged = log.clone();
    forged.push(30, &k256(9).sign(&tombstone(&third)));
    assert_eq!(fault(&forged), (3, Fault::Signature));
    // A higher key undoes a lower key's tombstone.
    let mut undone = log.clone();
    undone
        .push(30, &k256(2).sign(&tombstone(&third)))
        .nullify(3);
    undone.push(
        40,
        &p256(5).sign(&operation(&[&p256(5)], &p256(4), B, Some(&third))),
    );
    let read = verified(&undone);
    assert_eq!(read.states().len(), 4);
    assert!(read.current().is_some());
    assert_eq!(read.tombstoned_at(), None);
}

#[test]
fn times_are_times_in_order() {
    let (log, _) = history();
    for (index, text) in [
        (1, "2025-12-31T23:59:59.999Z"),
        (2, "2026-01-01T00:05:00.000Z"),
        (0, "yesterday"),
        (0, ""),
        (0, "2026-02-30T00:00:00.000Z"),
    ] {
        let mut wrong = log.clone();
        wrong.0[index]["createdAt"] = json!(text);
        assert_eq!(fault(&wrong), (index, Fault::Time), "{text}");
    }
    let of_length = |length: usize| {
        let mut log = log.clone();
        let zeros = "0".repeat(length - "2026-01-01T00:00:00.Z".len());
        log.0[0]["createdAt"] = json!(format!("2026-01-01T00:00:00.{zeros}Z"));
        log
    };
    assert_eq!(fault(&of_length(MAX_TIME_LEN + 1)), (0, Fault::Time));
    verified(&of_length(MAX_TIME_LEN));
}

#[test]
fn operations_have_a_shape() {
    let key = k256(2);
    let good = operation(&[&key], &key, A, None);
    let changed = |path: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let six: Vec<String> = (1..=6).map(|seed| k256(seed).text()).collect();
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    let extra = |value: Value| {
        let mut changed = good.clone();
        changed["extra"] = value;
        changed
    };
    for (operation, expected) in [
        (without("type"), Fault::Shape),
        (without("prev"), Fault::Shape),
        (without("rotationKeys"), Fault::Shape),
        (without("verificationMethods"), Fault::Shape),
        (without("alsoKnownAs"), Fault::Shape),
        (without("services"), Fault::Shape),
        (changed("/type", json!("plc_wish")), Fault::Shape),
        (changed("/prev", json!(1)), Fault::Shape),
        (changed("/prev", json!("")), Fault::Prev),
        (changed("/rotationKeys", json!(six)), Fault::RotationKeys),
        (changed("/rotationKeys", json!([])), Fault::RotationKeys),
        (
            changed("/rotationKeys", json!(["did:key:z6Mk"])),
            Fault::RotationKeys,
        ),
        (changed("/rotationKeys", json!([1])), Fault::Shape),
        (changed("/alsoKnownAs", json!([1])), Fault::Shape),
        (changed("/services", json!([])), Fault::Shape),
        (extra(deep), Fault::Shape),
        (extra(json!(0.5)), Fault::Shape),
        (extra(json!(1_u64 << 53)), Fault::Shape),
    ] {
        let signed = key.sign(&operation);
        let mut log = TestLog::default();
        log.push(0, &signed);
        assert_eq!(fault(&log), (0, expected), "{operation}");
    }
    // The same value as a whole number, and unknown members, are signed like any other.
    for value in [
        json!(1),
        json!(null),
        json!([true, {"bb": -1, "a": "ö", "": []}]),
    ] {
        let mut log = TestLog::default();
        log.push(0, &key.sign(&extra(value)));
        verified(&log);
    }
}

#[test]
fn what_an_account_lacks_is_no_fault_of_the_log() {
    let key = k256(2);
    let good = operation(&[&key], &key, A, None);
    let read = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        let mut log = TestLog::default();
        log.push(0, &key.sign(&changed));
        verified(&log).current().unwrap().clone()
    };
    let ed25519 = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH";
    assert_eq!(
        read(&|op| op["verificationMethods"]["atproto"] = json!(ed25519)).signing_key,
        None
    );
    assert_eq!(
        read(&|op| op["verificationMethods"] = json!({})).signing_key,
        None
    );
    assert_eq!(read(&|op| op["services"] = json!({})).pds, None);
    for endpoint in [
        " https://a.example.com",
        "https:\\\\a.example.com",
        "ftp://a",
        "https://a/b",
    ] {
        let state = read(&|op| op["services"]["atproto_pds"]["endpoint"] = json!(endpoint));
        assert_eq!(state.pds, None, "{endpoint}");
    }
    assert_eq!(
        read(&|op| op["services"]["atproto_pds"]["type"] = json!("Other")).pds,
        None
    );
    let names = json!([
        "https://x.example.com",
        "at://-",
        "at://b.example.com",
        "at://c.example.com"
    ]);
    let state = read(&|op| op["alsoKnownAs"] = names.clone());
    assert_eq!(state.handle, Handle::parse("b.example.com").ok());
}

#[test]
fn inv7_logs_are_bounded() {
    let (log, _) = history();
    let did = log.did();
    let web = Did::parse("did:web:a.example.com").unwrap();
    assert_eq!(verify(&web, &log.to_vec()), Err(LogError::NotPlc));
    assert_eq!(verify(&did, b"[]"), Err(LogError::Empty));
    for text in ["", "{}", "null", "[1]", "[[]]", "[{}]", "[null]", "<html>"] {
        assert_eq!(
            verify(&did, text.as_bytes()),
            Err(LogError::NotALog),
            "{text}"
        );
    }
    let long = [&log.to_vec()[..], &vec![b' '; MAX_LOG_LEN]].concat();
    assert_eq!(verify(&did, &long), Err(LogError::TooLong));
    let mut fits = log.to_vec();
    fits.resize(MAX_LOG_LEN, b' ');
    verify(&did, &fits).unwrap();
    let entry = r#"{"cid":"","createdAt":"","nullified":false,"operation":{}}"#;
    let many = format!("[{}]", vec![entry; MAX_OPERATIONS + 1].join(","));
    assert_eq!(verify(&did, many.as_bytes()), Err(LogError::TooMany));
    let nested = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    assert_eq!(verify(&did, &nested), Err(LogError::NotALog));
}

mod moves {
    use super::*;

    /// Returns the key before the migration in a log of states, each given by key and PDS, a minute
    /// apart.
    fn pre_migration_key(states: &[(u8, &str)]) -> Option<(SigningKey, Timestamp)> {
        let owner = p256(1);
        let mut log = TestLog::default();
        let mut last: Option<Value> = None;
        for (minute, (seed, pds)) in (0..).zip(states) {
            let next = operation(&[&owner], &k256(*seed), pds, last.as_ref());
            let next = owner.sign(&next);
            log.push(minute, &next);
            last = Some(next);
        }
        let read = verified(&log);
        read.pre_migration_key().map(|(key, at)| (key.clone(), at))
    }

    #[test]
    fn a_move_that_replaced_the_key_names_the_key_before() {
        let found = Some((k256(2).public(), at(1)));
        assert_eq!(pre_migration_key(&[(2, A), (3, B)]), found);
        // Later operations that change neither key nor PDS are passed over.
        assert_eq!(pre_migration_key(&[(2, A), (3, B), (3, B)]), found);
        assert_eq!(
            pre_migration_key(&[(2, A), (2, A), (3, B)]),
            Some((k256(2).public(), at(2)))
        );
    }

    #[test]
    fn a_key_replaced_in_place_is_gone_for_good() {
        assert_eq!(pre_migration_key(&[(2, A)]), None);
        assert_eq!(pre_migration_key(&[(2, A), (3, A)]), None);
        // The key was replaced again after the migration, or before it.
        assert_eq!(pre_migration_key(&[(2, A), (3, B), (4, B)]), None);
        assert_eq!(pre_migration_key(&[(2, A), (3, A), (3, B)]), None);
        // A migration away from the PDS to which the key migrated is another migration.
        assert_eq!(
            pre_migration_key(&[(2, A), (3, B), (3, "https://c.example.com")]),
            None
        );
    }
}
