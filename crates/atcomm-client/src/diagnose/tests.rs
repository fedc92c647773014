//! The decisions of the checks; `tests/it/client/check.rs` has the checks of a running network.

use ipld_core::cid::Cid;
use serde_json::Value;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn mediators(names: &[&str]) -> Vec<MediatorDid> {
    let dids = names
        .iter()
        .map(|name| MediatorDid::parse(&format!("did:web:{name}")));
    dids.collect::<Result<_, _>>().unwrap()
}

fn record(value: Value) -> Published {
    Published {
        cid: Cid::default(),
        value,
    }
}

#[test]
fn only_a_published_key_passes() {
    let mut key = MessagingKey::mint(NOW);
    for (state, passes) in [
        (KeyState::Minted, false),
        (KeyState::Published { at: NOW }, true),
        (KeyState::Replaced { at: NOW }, false),
    ] {
        key.state = state;
        assert_eq!(about_key(&key).is_ok(), passes, "{state:?}");
    }
}

#[test]
fn an_account_needs_a_pds_and_a_handle_that_leads_back() {
    let pds = Origin::parse("https://pds.example.com").unwrap();
    let handle = Handle::parse("alice.example.com").unwrap();
    let identified = |pds, handle| Identified {
        document: DidDocument {
            did: Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap(),
            claimed_handle: None,
            pds,
            signing_key: Err(Unusable::Missing),
            asked_at: NOW,
        },
        handle,
    };
    let verified = || HandleCheck::Verified(handle.clone());
    let found = identified(Ok(pds.clone()), verified()).check();
    let wanted = ConfirmedAccount {
        handle: handle.clone(),
        pds: pds.clone(),
    };
    assert_eq!(found, Ok(wanted));
    let found = identified(Err(Unusable::Missing), verified()).check();
    assert_eq!(found, Err(AccountProblem::NoPds(Unusable::Missing)));
    let found = identified(Ok(pds.clone()), HandleCheck::Inconclusive).check();
    assert_eq!(found, Err(AccountProblem::HandleUnknown));
    let found = identified(Ok(pds.clone()), HandleCheck::Invalid).check();
    assert_eq!(found, Err(AccountProblem::HandleInvalid { pds }));
}

#[test]
fn a_record_has_to_name_the_wallets_key_and_its_mediators_in_order() {
    let own = mediators(&["one.example", "two.example"]);
    let check = |value: Value| compare_record(Some(&record(value)), "did:peer:2.Ez", &own);
    let both = json!(["did:web:one.example", "did:web:two.example"]);
    assert!(check(json!({"did": "did:peer:2.Ez", "mediators": both, "label": "x"})).is_ok());
    for value in [
        json!({"did": "did:peer:2.Vz", "mediators": both}),
        json!({}),
        json!(7),
    ] {
        let found = check(value.clone());
        assert!(matches!(found, Err(RecordProblem::OtherKey)), "{value}");
    }
    let turned = json!(["did:web:two.example", "did:web:one.example"]);
    for mediators in [turned, json!(["did:web:one.example"]), json!(null)] {
        let found = check(json!({"did": "did:peer:2.Ez", "mediators": mediators}));
        assert!(
            matches!(found, Err(RecordProblem::OtherMediators)),
            "{mediators}"
        );
    }
    let found = compare_record(None, "did:peer:2.Ez", &own);
    assert!(matches!(found, Err(RecordProblem::Missing)));
}

#[test]
fn the_gravest_problem_of_a_proof_is_found() {
    let warnings = || vec![Warning::NoMediator];
    assert_eq!(compare_proof(true, false, Vec::new()), Ok(Vec::new()));
    let names = mediators(&["did:web:mail.example.com"]);
    let outdated = Warning::DirectoryMediator(names[0].clone());
    let found = compare_proof(true, false, vec![outdated.clone()]);
    assert_eq!(found, Ok(names), "the mediator's own keys count");
    let found = compare_proof(true, false, vec![outdated, Warning::NoMediator]);
    assert_eq!(found, Err(ProofProblem::Warnings(warnings())));
    for (found, wanted) in [
        (
            compare_proof(false, true, warnings()),
            ProofProblem::OtherKey,
        ),
        (
            compare_proof(true, true, warnings()),
            ProofProblem::Ambiguous,
        ),
        (
            compare_proof(true, false, warnings()),
            ProofProblem::Warnings(warnings()),
        ),
    ] {
        assert_eq!(found, Err(wanted));
    }
}
