use serde_json::{Value, json};

use super::*;
use crate::lookup::directory::DirectoryFault;
use atcomm_net::identity::DidDocument;
use atcomm_net::net::NetError;
use atcomm_proto::syntax::{Handle, Origin, RemoteText};
use testkit::proto::account::{NOW, PDS, TestAccount, raw};
use testkit::proto::repo::peer;

fn identity(account: &TestAccount) -> AccountIdentity {
    let keys = account.keys();
    AccountIdentity {
        document: DidDocument {
            did: account.log.did(),
            claimed_handle: Some(Handle::parse("alice.example.com").unwrap()),
            pds: Ok(Origin::parse(PDS).unwrap()),
            signing_key: Ok(keys.current.clone()),
            asked_at: NOW,
        },
        keys,
        log: Some((account.verified_log(), raw(&json!(account.log.0)))),
    }
}

/// The view of an honest directory with the newest package.
fn view(account: &TestAccount) -> View {
    let package = account.proven();
    View {
        did: account.log.did(),
        handle: RemoteText::new("alice.example.com"),
        status: RemoteText::new("active"),
        cid: package.cid(),
        rev: package.rev(),
        value: package.value().clone(),
        peer: package.peer().to_owned(),
        ambiguous: false,
        mediators: Vec::new(),
        stale: false,
        proved_at: None,
        car: Some(account.repo.car()),
        plc_log: Some(raw(&json!(account.log.0))),
        answer: raw(&json!({})),
    }
}

/// The answer of the PDS in the newest state.
fn host_answer(account: &TestAccount) -> HostAnswer {
    let shown = account
        .keys()
        .prove(&account.log.did(), &account.repo.car(), NOW);
    HostAnswer::Proven(shown.unwrap())
}

/// The chosen did:peer with the warnings' codes, or the error.
fn chosen(
    account: &TestAccount,
    shown: Option<Result<View, DirectoryError>>,
    host_answer: HostAnswer,
) -> Result<(String, Vec<&'static str>), RecipientError> {
    let choice = choose(
        &account.log.did(),
        shown.as_ref(),
        &identity(account),
        host_answer,
        NOW,
    )?;
    let codes = choice.warnings.iter().map(Warning::code).collect();
    Ok((choice.package.peer().to_owned(), codes))
}

fn is(key: u8, codes: &[&'static str]) -> Result<(String, Vec<&'static str>), RecipientError> {
    Ok((peer(key), codes.to_vec()))
}

fn alice() -> TestAccount {
    let mut alice = TestAccount::new(7);
    alice.put(3, &json!({}));
    alice
}

fn denied(name: LexiconError) -> DirectoryError {
    DirectoryError::Refused {
        name,
        message: RemoteText::new("no"),
    }
}

#[test]
fn both_show_the_same() {
    let mut alice = alice();
    let shown = view(&alice);
    assert_eq!(
        chosen(&alice, Some(Ok(shown.clone())), host_answer(&alice)),
        is(3, &[])
    );
    assert_eq!(chosen(&alice, None, host_answer(&alice)), is(3, &[]));
    // The PDS proves the package in a later revision.
    alice.repo.touch(1);
    let host_answer = host_answer(&alice);
    let choice = choose(
        &alice.log.did(),
        Some(&Ok(shown.clone())),
        &identity(&alice),
        host_answer,
        NOW,
    );
    assert!(choice.unwrap().package.rev() > shown.rev);
}

#[test]
fn what_is_newer_counts() {
    let mut alice = alice();
    let (old, old_word) = (view(&alice), host_answer(&alice));
    alice.put(4, &json!({}));
    let (new, new_word) = (view(&alice), host_answer(&alice));
    assert_eq!(
        chosen(&alice, Some(Ok(old)), new_word),
        is(4, &["directoryOutdated"])
    );
    assert_eq!(
        chosen(&alice, Some(Ok(new.clone())), old_word),
        is(4, &["hostBehind"])
    );
    alice.repo.delete();
    let gone = || host_answer(&alice);
    let error = chosen(&alice, Some(Ok(new.clone())), gone()).unwrap_err();
    assert!(
        matches!(error, RecipientError::NotEnrolled { .. }),
        "{error:?}"
    );
    let error = chosen(&alice, None, gone()).unwrap_err();
    assert!(
        matches!(error, RecipientError::NotEnrolled { .. }),
        "{error:?}"
    );
    // The absence is older than the package.
    let absence = gone();
    alice.put(4, &json!({}));
    assert_eq!(
        chosen(&alice, Some(Ok(view(&alice))), absence),
        is(4, &["hostBehind"])
    );
}

#[test]
fn a_key_that_was_replaced_proves_nothing_any_more() {
    let mut alice = alice();
    let old = view(&alice);
    alice.rotate(5, 9, PDS);
    alice.put(4, &json!({}));
    let codes = ["directoryLog", "directoryOutdated"];
    assert_eq!(
        chosen(&alice, Some(Ok(old.clone())), host_answer(&alice)),
        is(4, &codes)
    );
    // The PDS does not answer, either.
    let silent = HostAnswer::Silent("HTTP 503".to_owned());
    let error = chosen(&alice, Some(Ok(old)), silent).unwrap_err();
    assert!(matches!(error, RecipientError::Unreachable(_)), "{error:?}");
}

/// A previous PDS signs a package of the account with a did:peer and a revision of its choice. Only
/// what the present PDS shows counts.
#[test]
fn what_an_old_host_s_key_signs_counts_where_the_present_host_shows_it() {
    let mut alice = TestAccount::new(7);
    alice.put(3, &json!({}));
    let (genuine, genuine_car) = (alice.proven(), alice.repo.car());
    let mut forged = TestAccount::new(7);
    forged.repo.touch(5);
    forged.put(6, &json!({}));
    let forged_car = forged.repo.car();
    let mut absent = TestAccount::new(7);
    absent.put(3, &json!({}));
    absent.repo.delete();
    let absent_car = absent.repo.car();
    alice.rotate(5, 9, "https://other.example.com");
    let identity = |account: &TestAccount| {
        let mut identity = identity(account);
        // The test's revisions are later than the operation that moved the account.
        identity.keys.pre_migration_key =
            identity.keys.pre_migration_key.map(|(key, _)| (key, NOW));
        identity
    };
    let did = alice.log.did();
    let prove = |car: &[u8]| identity(&alice).keys.prove(&did, car, NOW).unwrap();
    let view = |car: &[u8]| {
        let ProofResult::Package(package) = prove(car) else {
            panic!("no package")
        };
        assert!(package.signed_by_previous_host());
        View {
            cid: package.cid(),
            rev: package.rev(),
            value: package.value().clone(),
            peer: package.peer().to_owned(),
            car: Some(car.to_vec()),
            ..view(&forged)
        }
    };
    let chosen = |car: &[u8], host_answer: HostAnswer| {
        let choice = choose(
            &did,
            Some(&Ok(view(car))),
            &identity(&alice),
            host_answer,
            NOW,
        )?;
        Ok((choice.package.peer().to_owned(), choice.unconfirmed))
    };
    let by_host = |car: &[u8]| HostAnswer::Proven(prove(car));
    let genuine_one = Ok((genuine.peer().to_owned(), None));
    assert_ne!(genuine.peer(), peer(6));
    assert_eq!(chosen(&genuine_car, by_host(&genuine_car)), genuine_one);
    // The revision is later than that of the present PDS.
    assert_eq!(chosen(&forged_car, by_host(&genuine_car)), genuine_one);
    let error = chosen(&forged_car, by_host(&absent_car)).unwrap_err();
    assert!(
        matches!(error, RecipientError::NotEnrolled { .. }),
        "{error:?}"
    );
    // Without an answer of the present PDS there is a warning.
    let silent = HostAnswer::Silent("HTTP 503".to_owned());
    let why = Some(Unconfirmed::HostSilent);
    assert_eq!(chosen(&forged_car, silent), Ok((peer(6), why)));
    let useless = HostAnswer::Useless(EvidenceError::Proof(ProofError::Malformed));
    let why = Some(Unconfirmed::HostUseless);
    assert_eq!(chosen(&forged_car, useless), Ok((peer(6), why)));
}

#[test]
fn a_host_that_says_nothing_useful() {
    let alice = alice();
    let useless = EvidenceError::Proof(ProofError::Malformed);
    let shown = || Some(Ok(view(&alice)));
    let silent = || HostAnswer::Silent("HTTP 503".to_owned());
    assert_eq!(chosen(&alice, shown(), silent()), is(3, &["hostSilent"]));
    assert_eq!(
        chosen(&alice, shown(), HostAnswer::Useless(useless.clone())),
        is(3, &["hostUseless"])
    );
    let refused = |host_answer: HostAnswer| chosen(&alice, shown(), host_answer).unwrap_err();
    assert_eq!(
        refused(HostAnswer::NotThere),
        RecipientError::NotEnrolledUnproven
    );
    let inactive = RecipientError::Inactive("suspended".to_owned());
    assert_eq!(refused(HostAnswer::Inactive("suspended")), inactive);

    let alone = |host_answer: HostAnswer| chosen(&alice, None, host_answer).unwrap_err();
    assert!(matches!(alone(silent()), RecipientError::Unreachable(_)));
    let by = |error| match error {
        RecipientError::Unproven { by, .. } => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(by(alone(HostAnswer::Useless(useless))), Source::Host);
    assert_eq!(
        alone(HostAnswer::NotThere),
        RecipientError::NotEnrolledUnproven
    );
    assert_eq!(alone(HostAnswer::Inactive("suspended")), inactive);
    let mut invalid = TestAccount::new(8);
    invalid
        .repo
        .put(&json!({"$type": "at.didcomm.keyPackage", "did": 42}));
    let error = invalid
        .keys()
        .prove(&invalid.log.did(), &invalid.repo.car(), NOW)
        .unwrap_err();
    assert!(matches!(
        alone(HostAnswer::Useless(error.clone())),
        RecipientError::Invalid(_)
    ));
    assert!(matches!(
        refused(HostAnswer::Useless(error)),
        RecipientError::Invalid(_)
    ));
}

#[test]
fn a_directory_that_shows_nothing() {
    let alice = alice();
    for (error, code) in [
        (denied(LexiconError::NotEnrolled), "directoryDenies"),
        (denied(LexiconError::HandleNotFound), "directoryDenies"),
        (
            DirectoryError::Busy { retry_after: None },
            "directorySilent",
        ),
        (
            DirectoryError::Unreachable(NetError::Connect.into()),
            "directorySilent",
        ),
        (
            DirectoryError::Malformed(DirectoryFault::NoTime),
            "directorySilent",
        ),
    ] {
        assert_eq!(
            chosen(&alice, Some(Err(error.clone())), host_answer(&alice)),
            is(3, &[code])
        );
        let silent = HostAnswer::Silent("HTTP 503".to_owned());
        let nothing = chosen(&alice, Some(Err(error)), silent).unwrap_err();
        assert!(
            matches!(nothing, RecipientError::Unreachable(_)),
            "{nothing:?}"
        );
    }
}

#[test]
fn a_lie_is_not_made_good_by_the_host_s_truth() {
    let alice = alice();
    let mut mallory = TestAccount::new(8);
    mallory.put(5, &json!({}));
    type Lie<'a> = &'a dyn Fn(&mut View);
    let lies: [(&str, Lie<'_>); 9] = [
        ("another account", &|view| view.did = mallory.log.did()),
        ("another account", &|view| {
            view.car = Some(mallory.repo.car())
        }),
        ("it has no proof", &|view| view.car = None),
        ("not a well-formed CAR", &|view| {
            view.car = Some(b"no".to_vec())
        }),
        ("peer.did", &|view| view.peer = peer(5)),
        ("keyPackage.value", &|view| {
            view.value["did"] = json!(peer(5))
        }),
        ("keyPackage.value", &|view| view.value["more"] = Value::Null),
        ("keyPackage.cid", &|view| view.cid = mallory.proven().cid()),
        ("keyPackage.rev", &|view| view.rev = mallory.proven().rev()),
    ];
    for (why, lie) in lies {
        let mut shown = view(&alice);
        lie(&mut shown);
        match chosen(&alice, Some(Ok(shown)), host_answer(&alice)) {
            Err(RecipientError::Unproven {
                by: Source::Directory,
                why: said,
            }) => {
                assert!(said.to_string().contains(why), "{said}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn smaller_lies_are_told() {
    let mut alice = alice();
    alice.rotate(5, 9, PDS);
    alice.put(3, &json!({}));
    let warned = |lie: &dyn Fn(&mut View), codes: &[&'static str]| {
        let mut shown = view(&alice);
        lie(&mut shown);
        assert_eq!(
            chosen(&alice, Some(Ok(shown)), host_answer(&alice)),
            is(3, codes)
        );
    };
    warned(&|_| {}, &[]);
    warned(&|view| view.plc_log = None, &[]);
    warned(&|view| view.handle = RemoteText::new("handle.invalid"), &[]);
    warned(
        &|view| view.handle = RemoteText::new("bob.example.com"),
        &["directoryHandle"],
    );
    let log = |entries: Value| Some(raw(&entries));
    warned(
        &|view| view.plc_log = log(json!([alice.log.0[0]])),
        &["directoryLog"],
    );
    warned(&|view| view.plc_log = log(json!([])), &["directoryLog"]);
    warned(&|view| view.plc_log = log(json!("no")), &["directoryLog"]);
    // The log is valid, and has an operation that the PLC directory does not show.
    let mut longer = alice.log.clone();
    let rotation = testkit::proto::plc::k256(99);
    let last = longer.0[1]["operation"].clone();
    let next = testkit::proto::plc::operation(
        &[&rotation],
        &testkit::proto::plc::k256(10),
        PDS,
        Some(&last),
    );
    longer.push(9, &rotation.sign(&next));
    warned(
        &|view| view.plc_log = log(json!(longer.0)),
        &["directoryLog"],
    );
}
