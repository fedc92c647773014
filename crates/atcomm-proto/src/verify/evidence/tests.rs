use serde_json::json;

use super::*;
use crate::testing::account::*;
use crate::testing::plc::{TestLog, k256, operation, tombstone};
use crate::testing::repo::peer;

fn alice() -> TestAccount {
    let mut alice = TestAccount::new(7);
    alice.put(4, &json!({"label": "phone", "x-more": [1, "two"]}));
    alice
}

#[test]
fn a_file_proves_the_package() {
    let alice = alice();
    let file = alice.evidence().to_vec();
    let read = Evidence::read(&file).unwrap();
    assert_eq!(read.to_vec(), file);
    assert_eq!(read.car, alice.repo.car());
    let shown = verify(&read, NOW).unwrap();
    assert_eq!(*shown.package.account(), alice.log.did());
    assert_eq!(shown.package.peer(), peer(4));
    assert_eq!(shown.package.value()["x-more"], json!([1, "two"]));
    assert_eq!(shown.package.signing_key(), &k256(7).public());
    assert_eq!(
        shown.package.created_at(),
        Timestamp::parse_rfc3339("2026-06-14T00:00:00Z")
    );
    assert!(!shown.package.signed_by_previous_host());
    assert_eq!(shown.log.states().len(), 1);
    let value: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(value["atcomm"], "evidence/1");
    assert_eq!(value["askedAt"], "2026-09-21T14:13:20.000Z");
    assert!(value["plcLog"].is_array() && value["answer"].is_object());
}

#[test]
fn files_without_evidence_are_refused() {
    let good: Value = serde_json::from_slice(&alice().evidence().to_vec()).unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut file = good.clone();
        change(&mut file);
        let read = Evidence::read(file.to_string().as_bytes());
        read.and_then(|evidence| verify(&evidence, NOW))
            .unwrap_err()
    };
    let is_format = |error: EvidenceError| matches!(error, EvidenceError::Format(_));
    assert!(is_format(refused(
        &|file| file["atcomm"] = json!("evidence/2")
    )));
    assert!(is_format(refused(
        &|file| file["did"] = json!("did:key:z6Mk")
    )));
    assert!(is_format(refused(&|file| file["car"] = json!("AAAA"))));
    assert!(is_format(refused(
        &|file| file["car"]["$bytes"] = json!("?")
    )));
    assert!(is_format(refused(
        &|file| file["askedAt"] = json!("yesterday")
    )));
    assert!(is_format(refused(&|file| *file = json!([]))));
    let empty = |file: &mut Value| file["car"]["$bytes"] = json!("");
    assert!(matches!(refused(&empty), EvidenceError::Proof(_)));
    let no_log = |file: &mut Value| drop(file.as_object_mut().unwrap().shift_remove("plcLog"));
    assert_eq!(refused(&no_log), EvidenceError::NoLog);
    for log in [json!({}), json!([]), json!([1]), json!("log")] {
        let error = refused(&|file| file["plcLog"] = log.clone());
        assert!(matches!(error, EvidenceError::Log(_)), "{log}: {error:?}");
    }
    let web = refused(&|file| file["did"] = json!("did:web:alice.example.com"));
    assert_eq!(web, EvidenceError::Web);
    assert!(is_format(
        Evidence::read(&vec![b' '; MAX_FILE_LEN + 1]).unwrap_err()
    ));
}

#[test]
fn a_proof_or_log_of_another_account_is_refused() {
    let alice = alice();
    let mut mallory = TestAccount::new(8);
    mallory.put(5, &json!({}));
    // Mallory's record, said to be Alice's.
    let mut evidence = alice.evidence();
    evidence.car = mallory.repo.car();
    let error = verify(&evidence, NOW).unwrap_err();
    assert_eq!(error, EvidenceError::Proof(ProofError::WrongDid));
    // Alice's repository, signed by Mallory.
    let mut forged = crate::testing::repo::TestRepo::new(alice.log.did().as_str(), 8);
    forged.put(&crate::testing::repo::package(
        &peer(5),
        &["did:web:m.example.com"],
    ));
    evidence.car = forged.car();
    let error = verify(&evidence, NOW).unwrap_err();
    assert_eq!(error, EvidenceError::Proof(ProofError::Signature));
    // The same with Mallory's log.
    evidence.plc_log = mallory.evidence().plc_log;
    assert!(matches!(verify(&evidence, NOW), Err(EvidenceError::Log(_))));
    // The same with Alice's log and an operation that Mallory has signed.
    let mut log = TestLog(alice.log.0.clone());
    let first = alice.log.0[0]["operation"].clone();
    let own = k256(8).sign(&operation(&[&k256(8)], &k256(8), PDS, Some(&first)));
    log.push(5, &own);
    evidence.plc_log = Some(raw(&json!(log.0)));
    assert!(matches!(verify(&evidence, NOW), Err(EvidenceError::Log(_))));
}

#[test]
fn a_key_counts_from_its_operation_on_and_a_log_cut_short_shows_the_past() {
    let mut alice = alice();
    let before = alice.evidence();
    alice.rotate(5, 9, PDS);
    alice.put(6, &json!({}));
    assert_eq!(
        verify(&alice.evidence(), NOW).unwrap().package.peer(),
        peer(6)
    );
    // The old proof does not hold under the new key.
    let mut mixed = before.clone();
    mixed.plc_log = alice.evidence().plc_log;
    let error = verify(&mixed, NOW).unwrap_err();
    assert_eq!(error, EvidenceError::Proof(ProofError::Signature));
    // Nor does the new proof under the old log. The old pair still shows the past, which is why a
    // client asks the account's own servers.
    mixed.car = alice.repo.car();
    mixed.plc_log = before.plc_log.clone();
    assert!(verify(&mixed, NOW).is_err());
    assert_eq!(verify(&before, NOW).unwrap().package.peer(), peer(4));
}

#[test]
fn the_key_of_a_host_that_was_left_counts_until_the_account_writes_again() {
    let mut alice = alice();
    let car = alice.repo.car();
    // The times of the log lie before the repository's revisions, the migration after them.
    let minutes = 60 * 24 * 365 * 50;
    alice.rotate(minutes, 9, "https://other.example.com");
    let mut evidence = alice.evidence();
    evidence.car = car.clone();
    let shown = verify(&evidence, NOW).unwrap();
    assert!(shown.package.signed_by_previous_host());
    assert_eq!(shown.package.signing_key(), &k256(7).public());
    // A commit by that key from after the migration is not the account's.
    let mut early = TestAccount::new(7);
    early.rotate(1, 9, "https://other.example.com");
    evidence.plc_log = early.evidence().plc_log;
    let error = verify(&evidence, NOW).unwrap_err();
    assert_eq!(error, EvidenceError::Proof(ProofError::Signature));
    // A key that was replaced without a migration does not count.
    let mut stayed = TestAccount::new(7);
    stayed.rotate(minutes, 9, PDS);
    evidence.plc_log = stayed.evidence().plc_log;
    assert!(verify(&evidence, NOW).is_err());
}

#[test]
fn absence_invalid_packages_and_ended_accounts_are_told_apart() {
    let mut alice = alice();
    alice
        .repo
        .put(&json!({"$type": "at.didcomm.keyPackage", "did": 42}));
    let error = verify(&alice.evidence(), NOW).unwrap_err();
    assert!(matches!(error, EvidenceError::Invalid(_)), "{error:?}");
    alice.repo.delete();
    assert_eq!(
        verify(&alice.evidence(), NOW).unwrap_err(),
        EvidenceError::Absent
    );
    let last = alice.log.0[0]["operation"].clone();
    let end = k256(99).sign(&tombstone(&last));
    alice.log.push(3, &end);
    assert_eq!(
        verify(&alice.evidence(), NOW).unwrap_err(),
        EvidenceError::Tombstoned
    );
}

#[test]
fn damage_anywhere_is_noticed() {
    let alice = alice();
    let good = verify(&alice.evidence(), NOW).unwrap();
    let car = alice.repo.car();
    for at in 0..car.len() {
        let mut evidence = alice.evidence();
        evidence.car[at] ^= 1;
        let shown = verify(&evidence, NOW);
        assert!(shown.is_err() || shown == Ok(good.clone()), "{at}");
    }
}
