use std::time::Duration;

use serde_json::json;

use super::*;
use crate::syntax::Rev;
use crate::testing::account::{NOW, PDS, TestAccount, TestKey};
use crate::testing::repo::peer;
use crate::verify::succession::FIELD;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn seen(package: &VerifiedPackage) -> VerifiedAccount<'_> {
    VerifiedAccount {
        package,
        handle: Some(Handle::parse("alice.example.com").unwrap()),
        authoritative: true,
        mediators: BTreeMap::new(),
    }
}

/// Returns the pin of a package, first seen a hundred days ago and last seen yesterday.
fn pinned(package: &VerifiedPackage) -> Pin {
    let (change, pin) = update(None, seen(package), &[], NOW.minus(DAY));
    assert_eq!(change, KeyChange::First);
    Pin {
        first_seen: NOW.minus(100 * DAY),
        ..pin
    }
}

fn put(alice: &mut TestAccount, key: &TestKey, statement: Option<String>) -> VerifiedPackage {
    let mut more = json!({"did": key.peer.as_str()});
    if let Some(statement) = statement {
        more[FIELD] = json!(statement);
    }
    alice.put(3, &more)
}

fn statement(old: &TestKey, new: &TestKey, account: &Did) -> Option<String> {
    statement_at(old, new, account, NOW)
}

fn statement_at(old: &TestKey, new: &TestKey, account: &Did, at: Timestamp) -> Option<String> {
    Some(old.vouch(new, account, at))
}

#[test]
fn the_same_key_moves_the_revision_on() {
    let mut alice = TestAccount::new(7);
    let first = alice.put(3, &json!({}));
    let pin = pinned(&first);
    let second = alice.put(3, &json!({"label": "other"}));
    let (change, next) = update(Some(&pin), seen(&second), &[], NOW);
    assert_eq!(change, KeyChange::Same);
    assert!(next.rev > pin.rev && next.last_seen == NOW);
    assert_eq!(next.first_seen, pin.first_seen);
    assert!(is_rolled_back(&next, &first) && !is_rolled_back(&next, &second));
    // A package that only the directory shows does not count as seen.
    let by_directory = VerifiedAccount {
        authoritative: false,
        ..seen(&second)
    };
    let (_, next) = update(Some(&pin), by_directory, &[], NOW);
    assert_eq!(next.last_seen, pin.last_seen);
    // Under another signing key revisions begin anew.
    alice.rotate(5, 9, PDS);
    let third = alice.put(3, &json!({}));
    let mut ahead = next.clone();
    ahead.rev = Rev::parse("jzzzzzzzzzzzz").unwrap();
    assert!(is_rolled_back(&ahead, &second) && !is_rolled_back(&ahead, &third));
    // The revision of a waiting key counts under its own signing key alone.
    let mut waits = next.clone();
    waits.changed = Some(Changed {
        peer: peer(4),
        rev: Rev::parse("jzzzzzzzzzzzz").unwrap(),
        signing_key: Some("did:key:zOther".to_owned()),
        seen_at: NOW,
    });
    assert!(!is_rolled_back(&waits, &second));
    waits.changed.as_mut().unwrap().signing_key = Some(third.signing_key().did_key());
    assert!(is_rolled_back(&waits, &third) && !is_rolled_back(&waits, &second));
    waits.changed.as_mut().unwrap().signing_key = None;
    assert!(is_rolled_back(&waits, &second) && !is_rolled_back(&waits, &third));
    // A waiting key that was taken back leaves the pin.
    let other = alice.put(4, &json!({}));
    let (_, waiting) = update(Some(&next), seen(&other), &[], NOW);
    assert!(waiting.changed.is_some());
    let back = alice.put(3, &json!({}));
    let (change, next) = update(Some(&waiting), seen(&back), &[], NOW);
    assert_eq!((change, next.changed), (KeyChange::Same, None));
}

#[test]
fn another_key_waits_to_be_accepted() {
    let mut alice = TestAccount::new(7);
    let pin = pinned(&alice.put(3, &json!({})));
    let other = alice.put(4, &json!({}));
    let (change, waiting) = update(Some(&pin), seen(&other), &[], NOW);
    assert_eq!(change, KeyChange::Changed { before: peer(3) });
    let changed = waiting.changed.clone().unwrap();
    assert_eq!(
        (changed.peer.as_str(), changed.rev),
        (&*peer(4), other.rev())
    );
    // Other keys may have come between the two, so the record's own time says nothing.
    assert_eq!(changed.seen_at, pin.last_seen);
    let kept = Pin {
        changed: None,
        ..waiting.clone()
    };
    assert_eq!(kept, pin);
    // A package older than the waiting one is rolled back too.
    let third = alice.put(4, &json!({"label": "x"}));
    let (_, later) = update(Some(&waiting), seen(&third), &[], NOW.plus(DAY));
    let again = later.changed.clone().unwrap();
    assert_eq!((again.seen_at, again.rev), (changed.seen_at, third.rev()));
    assert!(is_rolled_back(&later, &other));

    let accepted = accept(Some(&later), seen(&third), NOW.plus(DAY));
    assert_eq!(
        (accepted.peer.as_str(), accepted.rev),
        (&*peer(4), third.rev())
    );
    assert_eq!(accepted.first_seen, pin.first_seen);
    let previous = accepted.previous.clone().unwrap();
    assert_eq!(
        (previous.peer, previous.replaced_at),
        (peer(3), changed.seen_at)
    );
    assert_eq!(accepted.changed, None);
    let (change, _) = update(Some(&accepted), seen(&third), &[], NOW);
    assert_eq!(change, KeyChange::Same);
    // Accepting the pinned key changes nothing of the pin.
    let again = accept(Some(&accepted), seen(&third), NOW.plus(DAY));
    assert_eq!(again.previous, accepted.previous);
}

/// The time of a replacement is that of the old key's statement, unless the record or its proof is
/// older, and lies between the last sight of the old key and now.
#[test]
fn a_replaced_key_is_dated_by_its_own_statement() {
    let mut alice = TestAccount::new(7);
    let account = alice.log.did();
    let keys: Vec<_> = (0..3).map(|_| TestKey::generate()).collect();
    let first = put(&mut alice, &keys[0], None);
    // The revisions of the test repository are of today, so the times of the pins lie around them.
    let today = first.proven_at();
    let (_, fresh) = update(None, seen(&first), &[], today.minus(9 * DAY));
    let dated = |package: &VerifiedPackage, older: &[VerifiedPackage], now| {
        let (change, next) = update(Some(&fresh), seen(package), older, now);
        assert!(matches!(change, KeyChange::Vouched { .. }));
        next.previous.unwrap().replaced_at
    };
    let seconds = |at: Timestamp| Timestamp::from_millis(at.millis() / 1000 * 1000);
    for (stated_at, expected) in [
        (today.minus(DAY), seconds(today.minus(DAY))),
        (today.minus(30 * DAY), fresh.last_seen),
    ] {
        let mut more = json!({"did": keys[1].peer.as_str(), "createdAt": today.to_string()});
        more[FIELD] = json!(statement_at(&keys[0], &keys[1], &account, stated_at));
        let second = alice.put(3, &more);
        assert_eq!(
            dated(&second, &[], today.plus(DAY)),
            expected,
            "{stated_at}"
        );
        // Neither a later update of the record nor a later key changes that time.
        more["createdAt"] = json!(today.plus(DAY).to_string());
        let again = alice.put(3, &more);
        assert_eq!(dated(&again, &[], today.plus(DAY)), expected, "{stated_at}");
        let third = put(
            &mut alice,
            &keys[2],
            statement(&keys[1], &keys[2], &account),
        );
        assert_eq!(
            dated(&third, &[second], today.plus(DAY)),
            expected,
            "{stated_at}"
        );
    }
    // A statement from the future is not later than its record, nor the record than its proof.
    let made = today.minus(2 * DAY);
    let mut more = json!({"did": keys[1].peer.as_str(), "createdAt": made.to_string()});
    more[FIELD] = json!(statement_at(&keys[0], &keys[1], &account, NOW));
    let second = alice.put(3, &more);
    assert_eq!(dated(&second, &[], today.plus(DAY)), made);
    more["createdAt"] = json!(NOW.to_string());
    let second = alice.put(3, &more);
    assert_eq!(dated(&second, &[], today.plus(DAY)), second.proven_at());
    assert_eq!(dated(&second, &[], today.minus(DAY)), today.minus(DAY));

    // The directory leaves out the package by which the first key was replaced long ago: the
    // present key does not tell the time of that, nor does a key that waits after another one.
    let third = put(
        &mut alice,
        &keys[2],
        statement(&keys[1], &keys[2], &account),
    );
    let (change, waiting) = update(Some(&fresh), seen(&third), &[], today);
    assert!(matches!(change, KeyChange::Changed { .. }));
    assert_eq!(waiting.changed.as_ref().unwrap().seen_at, fresh.last_seen);
    let fourth = put(&mut alice, &keys[1], None);
    let later = Pin {
        last_seen: today,
        ..waiting
    };
    let (_, waiting) = update(Some(&later), seen(&fourth), &[], today);
    assert_eq!(waiting.changed.unwrap().seen_at, fresh.last_seen);
}

/// Behind [`SendBlocker::HandleMoved`](atcomm_client::SendBlocker::HandleMoved).
#[test]
fn earlier_handles_stay_in_the_pin() {
    let mut alice = TestAccount::new(7);
    let package = alice.put(3, &json!({}));
    let pin = pinned(&package);
    let handle = |text: &str| Handle::parse(text).unwrap();
    let alice_s = handle("alice.example.com");
    let with = |pin: &Pin, handle: Option<Handle>| {
        let seen = VerifiedAccount {
            handle,
            ..seen(&package)
        };
        update(Some(pin), seen, &[], NOW).1
    };
    let lost = with(&pin, None);
    assert_eq!(
        (&lost.handle, &*lost.known_as),
        (&None, &[alice_s.clone()][..])
    );
    assert!(lost.is_known_by(&alice_s));
    // It stays without limit of time, and beside a new handle.
    let renamed = with(&with(&lost, None), Some(handle("a.example.com")));
    assert!(renamed.is_known_by(&alice_s) && renamed.is_known_by(&handle("a.example.com")));
    // It leaves when the same account proves it again, or when it is given up.
    let back = with(&renamed, Some(alice_s.clone()));
    assert_eq!(back.known_as, [handle("a.example.com")]);
    assert!(
        !renamed
            .clone()
            .without_handle(&alice_s)
            .is_known_by(&alice_s)
    );
    assert!(!pin.clone().without_handle(&alice_s).is_known_by(&alice_s));
    // Accepting another key does not accept another handle.
    let seen = VerifiedAccount {
        handle: None,
        ..seen(&package)
    };
    assert!(accept(Some(&pin), seen, NOW).is_known_by(&alice_s));
    let mut many = pin;
    for number in 0..2 * MAX_KNOWN_AS {
        many = with(&many, Some(handle(&format!("a{number}.example.com"))));
    }
    assert_eq!(many.known_as.len(), MAX_KNOWN_AS);
    assert!(many.is_known_by(&handle("a30.example.com")));
    // Pins from before the field existed.
    let mut json = serde_json::to_value(&back).unwrap();
    json.as_object_mut().unwrap().remove("knownAs").unwrap();
    let read: Pin = serde_json::from_value(json).unwrap();
    assert_eq!((read.known_as.len(), read.handle), (0, back.handle));
}

#[test]
fn a_statement_of_the_pinned_key_is_enough() {
    let mut alice = TestAccount::new(7);
    let account = alice.log.did();
    let keys: Vec<_> = (0..4).map(|_| TestKey::generate()).collect();
    let pin = pinned(&put(&mut alice, &keys[0], None));
    let second = put(
        &mut alice,
        &keys[1],
        statement(&keys[0], &keys[1], &account),
    );
    let (change, next) = update(Some(&pin), seen(&second), &[], NOW);
    let before = keys[0].peer.as_str().to_owned();
    assert_eq!(
        change,
        KeyChange::Vouched {
            before: before.clone()
        }
    );
    assert_eq!(next.peer, keys[1].peer.as_str());
    assert_eq!(next.previous.unwrap().peer, before);
    assert_eq!((next.changed, next.first_seen), (None, pin.first_seen));

    // Superseded packages bridge keys that were never seen.
    let third = put(
        &mut alice,
        &keys[2],
        statement(&keys[1], &keys[2], &account),
    );
    let fourth = put(
        &mut alice,
        &keys[3],
        statement(&keys[2], &keys[3], &account),
    );
    let change = |older: &[VerifiedPackage]| update(Some(&pin), seen(&fourth), older, NOW).0;
    assert!(matches!(
        change(&[third.clone(), second.clone()]),
        KeyChange::Vouched { .. }
    ));
    assert!(matches!(
        change(std::slice::from_ref(&third)),
        KeyChange::Changed { .. }
    ));
    assert!(matches!(
        change(std::slice::from_ref(&second)),
        KeyChange::Changed { .. }
    ));
    assert!(matches!(change(&[]), KeyChange::Changed { .. }));
}

#[test]
fn no_other_statement_is_enough() {
    let mut alice = TestAccount::new(7);
    let account = alice.log.did();
    let other = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let keys: Vec<_> = (0..3).map(|_| TestKey::generate()).collect();
    let pin = pinned(&put(&mut alice, &keys[0], None));
    for statement in [
        None,
        statement(&keys[0], &keys[1], &other),
        statement(&keys[0], &keys[2], &account),
        statement(&keys[1], &keys[1], &account),
        statement(&keys[2], &keys[1], &account),
        Some("{}".to_owned()),
    ] {
        let package = put(&mut alice, &keys[1], statement.clone());
        let (change, _) = update(Some(&pin), seen(&package), &[], NOW);
        assert!(matches!(change, KeyChange::Changed { .. }), "{statement:?}");
    }
    // A chain that ends in a circle.
    let one = put(
        &mut alice,
        &keys[1],
        statement(&keys[2], &keys[1], &account),
    );
    let two = put(
        &mut alice,
        &keys[2],
        statement(&keys[1], &keys[2], &account),
    );
    let (change, _) = update(Some(&pin), seen(&two), &[one, two.clone()], NOW);
    assert!(matches!(change, KeyChange::Changed { .. }));
}
