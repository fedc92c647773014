use std::time::Duration;

use serde_json::json;

use super::*;
use crate::client::MessagingKey;
use crate::client::evidence::testing::{NOW, PDS, TestAccount};
use crate::client::succession::{FIELD, statement};
use crate::proof::testing::peer;
use crate::syntax::{Did, Rev};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn seen(package: &VerifiedPackage) -> Seen<'_> {
    Seen {
        package,
        handle: Some(Handle::parse("alice.example.com").unwrap()),
        firsthand: true,
        mediators: BTreeMap::new(),
    }
}

/// The pin of a package that was met a hundred days ago and seen yesterday.
fn pinned(package: &VerifiedPackage) -> Pin {
    let (change, pin) = follow(None, seen(package), &[], NOW.minus(DAY));
    assert_eq!(change, KeyChange::First);
    Pin {
        first_seen: NOW.minus(100 * DAY),
        ..pin
    }
}

fn put(alice: &mut TestAccount, key: &MessagingKey, word: Option<String>) -> VerifiedPackage {
    let mut more = json!({"did": key.peer.as_str()});
    if let Some(word) = word {
        more[FIELD] = json!(word);
    }
    alice.put(3, &more)
}

fn word(old: &MessagingKey, new: &MessagingKey, account: &Did) -> Option<String> {
    Some(statement(old, &new.peer, account, NOW).unwrap())
}

#[test]
fn the_same_key_moves_the_revision_on() {
    let mut alice = TestAccount::new(7);
    let first = alice.put(3, &json!({}));
    let pin = pinned(&first);
    let second = alice.put(3, &json!({"label": "other"}));
    let (change, next) = follow(Some(&pin), seen(&second), &[], NOW);
    assert_eq!(change, KeyChange::Same);
    assert!(next.rev > pin.rev && next.last_seen == NOW);
    assert_eq!(next.first_seen, pin.first_seen);
    assert!(is_rolled_back(&next, &first) && !is_rolled_back(&next, &second));
    // What the directory alone shows does not count as seen.
    let by_directory = Seen {
        firsthand: false,
        ..seen(&second)
    };
    let (_, next) = follow(Some(&pin), by_directory, &[], NOW);
    assert_eq!(next.last_seen, pin.last_seen);
    // Under another signing key revisions begin anew.
    alice.rotate(5, 9, PDS);
    let third = alice.put(3, &json!({}));
    let mut ahead = next.clone();
    ahead.rev = Rev::parse("jzzzzzzzzzzzz").unwrap();
    assert!(is_rolled_back(&ahead, &second) && !is_rolled_back(&ahead, &third));
    // A key that waited and was taken back is forgotten.
    let other = alice.put(4, &json!({}));
    let (_, waiting) = follow(Some(&next), seen(&other), &[], NOW);
    assert!(waiting.changed.is_some());
    let back = alice.put(3, &json!({}));
    let (change, next) = follow(Some(&waiting), seen(&back), &[], NOW);
    assert_eq!((change, next.changed), (KeyChange::Same, None));
}

#[test]
fn another_key_waits_to_be_accepted() {
    let mut alice = TestAccount::new(7);
    let pin = pinned(&alice.put(3, &json!({})));
    let other = alice.put(4, &json!({}));
    let (change, waiting) = follow(Some(&pin), seen(&other), &[], NOW);
    assert_eq!(change, KeyChange::Changed { before: peer(3) });
    let changed = waiting.changed.clone().unwrap();
    assert_eq!(
        (changed.peer.as_str(), changed.rev),
        (&*peer(4), other.rev())
    );
    // The record's own time is before it was last seen with the old key, so that counts.
    assert_eq!(changed.seen_at, pin.last_seen);
    let kept = Pin {
        changed: None,
        ..waiting.clone()
    };
    assert_eq!(kept, pin);
    // An older package than the one that waits is a step back too.
    let third = alice.put(4, &json!({"label": "x"}));
    let (_, later) = follow(Some(&waiting), seen(&third), &[], NOW.plus(DAY));
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
    let (change, _) = follow(Some(&accepted), seen(&third), &[], NOW);
    assert_eq!(change, KeyChange::Same);
    // To accept what is pinned changes nothing of it.
    let again = accept(Some(&accepted), seen(&third), NOW.plus(DAY));
    assert_eq!(again.previous, accepted.previous);
}

#[test]
fn a_replaced_key_is_dated_by_its_owner_within_what_was_seen() {
    let mut alice = TestAccount::new(7);
    let pin = pinned(&alice.put(3, &json!({})));
    for (said, expected) in [
        (NOW.minus(DAY / 2), NOW.minus(DAY / 2)),
        (NOW.minus(3 * DAY), NOW.minus(DAY)),
        (NOW.plus(3 * DAY), NOW),
    ] {
        let other = alice.put(4, &json!({"createdAt": said.to_string()}));
        let (_, waiting) = follow(Some(&pin), seen(&other), &[], NOW);
        assert_eq!(waiting.changed.unwrap().seen_at, expected, "{said}");
    }
}

#[test]
fn the_word_of_the_pinned_key_is_enough() {
    let mut alice = TestAccount::new(7);
    let account = alice.log.did();
    let keys: Vec<_> = (0..4).map(|_| MessagingKey::mint(NOW)).collect();
    let pin = pinned(&put(&mut alice, &keys[0], None));
    let second = put(&mut alice, &keys[1], word(&keys[0], &keys[1], &account));
    let (change, next) = follow(Some(&pin), seen(&second), &[], NOW);
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

    // Over keys that were never seen, where superseded packages bridge them.
    let third = put(&mut alice, &keys[2], word(&keys[1], &keys[2], &account));
    let fourth = put(&mut alice, &keys[3], word(&keys[2], &keys[3], &account));
    let change = |older: &[VerifiedPackage]| follow(Some(&pin), seen(&fourth), older, NOW).0;
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
fn no_other_word_is() {
    let mut alice = TestAccount::new(7);
    let account = alice.log.did();
    let other = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let keys: Vec<_> = (0..3).map(|_| MessagingKey::mint(NOW)).collect();
    let pin = pinned(&put(&mut alice, &keys[0], None));
    for word in [
        None,
        word(&keys[0], &keys[1], &other),
        word(&keys[0], &keys[2], &account),
        word(&keys[1], &keys[1], &account),
        word(&keys[2], &keys[1], &account),
        Some("{}".to_owned()),
    ] {
        let package = put(&mut alice, &keys[1], word.clone());
        let (change, _) = follow(Some(&pin), seen(&package), &[], NOW);
        assert!(matches!(change, KeyChange::Changed { .. }), "{word:?}");
    }
    // A chain that ends in a circle.
    let one = put(&mut alice, &keys[1], word(&keys[2], &keys[1], &account));
    let two = put(&mut alice, &keys[2], word(&keys[1], &keys[2], &account));
    let (change, _) = follow(Some(&pin), seen(&two), &[one, two.clone()], NOW);
    assert!(matches!(change, KeyChange::Changed { .. }));
}
