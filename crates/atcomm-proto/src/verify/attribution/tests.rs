use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::syntax::Rev;
use crate::verify::pin::Changed;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

const ALICE: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const BOB: &str = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb";
const CAROL: &str = "did:web:carol.example.com";

const K1: &str = "did:peer:2.Ez1";
const K2: &str = "did:peer:2.Ez2";
const K3: &str = "did:peer:2.Ez3";

fn did(text: &str) -> Did {
    Did::parse(text).unwrap()
}

fn handle() -> Option<Handle> {
    Some(Handle::parse("alice.example.com").unwrap())
}

/// The claim of a message to Bob that it is from Alice.
fn claim(peer: &str) -> Claim {
    Claim {
        sender_peer: Some(peer.to_owned()),
        sender_did: Some(ALICE.to_owned()),
        recipient_did: Some(BOB.to_owned()),
        recipient: did(BOB),
    }
}

fn previous(peer: &str, ago: Duration) -> Previous {
    Previous {
        peer: peer.to_owned(),
        replaced_at: NOW.minus(ago),
    }
}

fn enrolled(peer: &str, previous: &[Previous]) -> AccountState {
    AccountState::Enrolled {
        peer: peer.to_owned(),
        handle: handle(),
        known_of: None,
        previous: previous.to_vec(),
    }
}

fn pin(peer: &str) -> Pin {
    Pin {
        account: did(ALICE),
        handle: handle(),
        known_as: Vec::new(),
        peer: peer.to_owned(),
        rev: Rev::parse("3n2wo76pa3k2w").unwrap(),
        signing_key: "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc".to_owned(),
        mediators: BTreeMap::new(),
        previous: None,
        changed: None,
        first_seen: NOW.minus(1000 * HOUR),
        last_seen: NOW.minus(HOUR),
    }
}

fn changed(mut pin: Pin, peer: &str, ago: Duration) -> Pin {
    pin.changed = Some(Changed {
        peer: peer.to_owned(),
        rev: pin.rev,
        signing_key: None,
        seen_at: NOW.minus(ago),
    });
    pin
}

fn verified(unaccepted: bool) -> Attribution {
    Attribution::Verified {
        account: did(ALICE),
        handle: handle(),
        unaccepted,
        known_of: None,
    }
}

fn verified_previous(ago: Duration) -> Attribution {
    Attribution::VerifiedPrevious {
        account: did(ALICE),
        handle: handle(),
        replaced_at: NOW.minus(ago),
        known_of: None,
    }
}

fn mismatch(ago: Option<Duration>) -> Attribution {
    Attribution::Mismatch {
        claimed: did(ALICE),
        replaced_at: ago.map(|ago| NOW.minus(ago)),
    }
}

fn unverified(reason: UnverifiedReason, pinned: bool) -> Attribution {
    Attribution::Unverified {
        claimed: ALICE.to_owned(),
        reason,
        pinned,
    }
}

#[test]
fn the_table() {
    let attributed =
        |claim: &Claim, state: &AccountState, pin: Option<&Pin>| attribute(claim, state, pin, NOW);
    let by = |peer, state: &AccountState| attributed(&claim(peer), state, None);
    let by_pinned =
        |peer, state: &AccountState, pin: &Pin| attributed(&claim(peer), state, Some(pin));

    // The current key.
    assert_eq!(by(K1, &enrolled(K1, &[])), verified(false));
    assert_eq!(by_pinned(K1, &enrolled(K1, &[]), &pin(K1)), verified(false));
    let waiting = changed(pin(K1), K2, HOUR);
    assert_eq!(by_pinned(K2, &enrolled(K2, &[]), &waiting), verified(true));

    // A key before the current one, shown by a superseded proof.
    let replaced = enrolled(K2, &[previous(K3, 90 * HOUR), previous(K1, HOUR)]);
    assert_eq!(by(K1, &replaced), verified_previous(HOUR));
    assert_eq!(by(K3, &replaced), verified_previous(90 * HOUR));
    // Shown by the pin: as its previous key, and as the pinned key while another waits.
    let mut moved_on = pin(K2);
    moved_on.previous = Some(previous(K1, 2 * HOUR));
    assert_eq!(
        by_pinned(K1, &enrolled(K2, &[]), &moved_on),
        verified_previous(2 * HOUR)
    );
    assert_eq!(
        by_pinned(K1, &enrolled(K2, &[]), &waiting),
        verified_previous(HOUR)
    );
    // The time at which the pinned key was last seen in use counts, whatever proofs show.
    let long_unseen = changed(pin(K1), K2, 700 * HOUR);
    assert_eq!(
        by_pinned(K1, &enrolled(K2, &[]), &long_unseen),
        mismatch(Some(700 * HOUR))
    );
    assert_eq!(
        by_pinned(K1, &replaced, &long_unseen),
        mismatch(Some(700 * HOUR))
    );
    // The replacement that this client has seen counts, else the earliest proof.
    assert_eq!(
        by_pinned(K1, &replaced, &moved_on),
        verified_previous(2 * HOUR)
    );
    let twice = enrolled(K2, &[previous(K1, HOUR), previous(K1, 3 * HOUR)]);
    assert_eq!(by(K1, &twice), verified_previous(3 * HOUR));
    // Too long ago.
    let long_ago = enrolled(K2, &[previous(K1, 169 * HOUR)]);
    assert_eq!(by(K1, &long_ago), mismatch(Some(169 * HOUR)));
    // Fewer proofs do not make the message look like fraud, and more proofs do not excuse fraud.
    assert_eq!(
        by_pinned(K1, &long_ago, &moved_on),
        verified_previous(2 * HOUR)
    );
    moved_on.previous = Some(previous(K1, 170 * HOUR));
    assert_eq!(
        by_pinned(K1, &replaced, &moved_on),
        mismatch(Some(170 * HOUR))
    );

    // A handle by which the client knows another account comes with that account.
    for peer in [K1, K2] {
        let mut state = replaced.clone();
        if let AccountState::Enrolled { known_of, .. } = &mut state {
            *known_of = Some(did(CAROL));
        }
        match by(peer, &state) {
            Attribution::Verified { known_of, .. }
            | Attribution::VerifiedPrevious { known_of, .. } => {
                assert_eq!(known_of, Some(did(CAROL)));
            }
            other => panic!("{other:?}"),
        }
    }

    // Another key.
    assert_eq!(by(K3, &enrolled(K1, &[])), mismatch(None));
    assert_eq!(by_pinned(K3, &enrolled(K1, &[]), &pin(K1)), mismatch(None));
    // A pinned key that the account does not publish, with no time of its replacement.
    assert_eq!(by_pinned(K1, &enrolled(K2, &[]), &pin(K1)), mismatch(None));
    // The pin of another account does not count.
    let mut other = waiting.clone();
    other.account = did(CAROL);
    assert_eq!(by_pinned(K1, &enrolled(K2, &[]), &other), mismatch(None));
    assert_eq!(by_pinned(K2, &enrolled(K2, &[]), &other), verified(false));

    // The key package is removed, even if the key was the account's until then.
    let revoked = Attribution::Revoked {
        claimed: did(ALICE),
    };
    assert_eq!(by(K1, &AccountState::Removed), revoked);
    assert_eq!(by_pinned(K1, &AccountState::Removed, &pin(K1)), revoked);
    assert_eq!(by_pinned(K1, &AccountState::Removed, &moved_on), revoked);

    // The state is unknown: the pin is no proof.
    for reason in REASONS {
        let unknown = AccountState::Unknown(reason);
        assert_eq!(by(K1, &unknown), unverified(reason, false));
        assert_eq!(by_pinned(K1, &unknown, &pin(K1)), unverified(reason, true));
        assert_eq!(by_pinned(K2, &unknown, &pin(K1)), unverified(reason, false));
        assert_eq!(
            by_pinned(K1, &unknown, &moved_on),
            unverified(reason, false)
        );
    }

    // No claim, and a claim that is not the DID of an account.
    let mut unclaimed = claim(K1);
    unclaimed.sender_did = None;
    assert_eq!(
        attributed(&unclaimed, &enrolled(K1, &[]), None),
        Attribution::Unattributed
    );
    assert_eq!(unclaimed.account(), None);
    for text in ["", "alice.example.com", "did:key:z6Mk", "did:plc:short", K1] {
        let mut odd = claim(K1);
        odd.sender_did = Some(text.to_owned());
        let expected = Attribution::Unverified {
            claimed: text.to_owned(),
            reason: UnverifiedReason::NotAnAccount,
            pinned: false,
        };
        assert_eq!(
            attributed(&odd, &enrolled(K1, &[]), Some(&pin(K1))),
            expected
        );
        assert_eq!(odd.account(), None);
    }

    // No proof of a sender.
    let mut unsigned = claim(K1);
    unsigned.sender_peer = None;
    assert_eq!(
        attributed(&unsigned, &enrolled(K1, &[]), None),
        Attribution::Anonymous
    );
    unsigned.sender_did = None;
    assert_eq!(
        attributed(&unsigned, &AccountState::Removed, None),
        Attribution::Anonymous
    );
    assert_eq!(unsigned.account(), None);

    // For another account, whatever the sender.
    for mut elsewhere in [claim(K1), unclaimed, unsigned] {
        for meant in [CAROL, "", "none", "DID:plc:bbbbbbbbbbbbbbbbbbbbbbbb"] {
            elsewhere.recipient_did = Some(meant.to_owned());
            let expected = Attribution::Misdirected {
                meant: meant.to_owned(),
            };
            assert_eq!(
                attributed(&elsewhere, &enrolled(K1, &[]), Some(&pin(K1))),
                expected
            );
            assert_eq!(elsewhere.account(), None);
        }
    }
    let mut unaddressed = claim(K1);
    unaddressed.recipient_did = None;
    assert_eq!(
        attributed(&unaddressed, &enrolled(K1, &[]), None),
        verified(false)
    );
    assert_eq!(unaddressed.account(), Some(did(ALICE)));
}

#[test]
fn a_key_counts_for_seven_days_to_the_millisecond() {
    let tick = Duration::from_millis(1);
    let replaced = |at: Timestamp, now| {
        let previous = Previous {
            peer: K1.to_owned(),
            replaced_at: at,
        };
        attribute(&claim(K1), &enrolled(K2, &[previous]), None, now)
            .account()
            .is_some()
    };
    let week = 168 * HOUR;
    assert_eq!(PREVIOUS_KEY_GRACE, week);
    assert!(replaced(NOW, NOW));
    assert!(replaced(NOW, NOW.plus(week)));
    assert!(!replaced(NOW, NOW.plus(week + tick)));
    // A clock that is a little behind does not make a key look like fraud; a clock that is set back
    // does not make a key good for ever.
    assert!(replaced(NOW, NOW.minus(SKEW)));
    assert!(!replaced(NOW, NOW.minus(SKEW + tick)));
    assert!(!replaced(NOW, Timestamp::from_millis(0)));
    assert!(!replaced(Timestamp::from_millis(i64::MIN), NOW));
    assert!(!replaced(Timestamp::from_millis(i64::MAX), NOW));
    assert!(!replaced(NOW, Timestamp::from_millis(i64::MAX)));
}

#[test]
fn an_attribution_survives_json() {
    for attribution in [
        verified(true),
        verified_previous(HOUR),
        mismatch(None),
        mismatch(Some(HOUR)),
        Attribution::Misdirected {
            meant: CAROL.to_owned(),
        },
        Attribution::Revoked {
            claimed: did(ALICE),
        },
        Attribution::Unattributed,
        unverified(UnverifiedReason::RolledBack, true),
        Attribution::Anonymous,
    ] {
        let json = serde_json::to_string(&attribution).unwrap();
        assert_eq!(
            serde_json::from_str::<Attribution>(&json).unwrap(),
            attribution,
            "{json}"
        );
    }
    let shown = serde_json::to_value(verified_previous(HOUR)).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({
            "outcome": "verifiedPrevious",
            "account": ALICE,
            "handle": "alice.example.com",
            "replacedAt": "2026-09-21T13:13:20.000Z",
        })
    );
}

const REASONS: [UnverifiedReason; 7] = [
    UnverifiedReason::NotAnAccount,
    UnverifiedReason::Unreachable,
    UnverifiedReason::NoAccount,
    UnverifiedReason::Inactive,
    UnverifiedReason::Unproven,
    UnverifiedReason::RolledBack,
    UnverifiedReason::Invalid,
];

fn peers() -> impl Strategy<Value = String> {
    prop::sample::select(vec![K1, K2, K3, "did:peer:2.Ez1.V", ""]).prop_map(str::to_owned)
}

fn accounts() -> impl Strategy<Value = String> {
    prop::sample::select(vec![ALICE, BOB, CAROL, "did:key:z6Mk", "alice.test", ""])
        .prop_map(str::to_owned)
}

prop_compose! {
    fn claims()(
        sender_peer in prop::option::of(peers()),
        sender_did in prop::option::of(accounts()),
        recipient_did in prop::option::of(accounts()),
        recipient in prop::sample::select(vec![ALICE, BOB]),
    ) -> Claim {
        Claim { sender_peer, sender_did, recipient_did, recipient: did(recipient) }
    }
}

fn times() -> impl Strategy<Value = Timestamp> {
    let week = 7 * 24 * 3_600_000_i64;
    prop_oneof![
        any::<i64>().prop_map(Timestamp::from_millis),
        (-2 * week..2 * week).prop_map(|by| Timestamp::from_millis(NOW.millis() + by)),
    ]
}

fn many_previous() -> impl Strategy<Value = Vec<Previous>> {
    let one = (peers(), times()).prop_map(|(peer, replaced_at)| Previous { peer, replaced_at });
    prop::collection::vec(one, 0..4)
}

fn states() -> impl Strategy<Value = AccountState> {
    prop_oneof![
        (peers(), many_previous()).prop_map(|(peer, previous)| AccountState::Enrolled {
            peer,
            handle: handle(),
            known_of: None,
            previous,
        }),
        Just(AccountState::Removed),
        prop::sample::select(REASONS.to_vec()).prop_map(AccountState::Unknown),
    ]
}

prop_compose! {
    fn pins()(
        account in prop::sample::select(vec![ALICE, BOB, CAROL]),
        peer in peers(),
        previous in many_previous(),
        waits in prop::option::of((peers(), times())),
    ) -> Pin {
        let mut pin = pin(&peer);
        pin.account = did(account);
        pin.previous = previous.into_iter().next();
        pin.changed = waits.map(|(peer, seen_at)| Changed { peer, rev: pin.rev, signing_key: None, seen_at });
        pin
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn verified_are_only_keys_of_the_claimed_account(
        claim in claims(),
        state in states(),
        pin in prop::option::of(pins()),
        now in times(),
    ) {
        let found = attribute(&claim, &state, pin.as_ref(), now);
        let names = |peer: &String| Some(peer) == claim.sender_peer.as_ref();
        if let Some(account) = found.account() {
            prop_assert_eq!(Some(account.as_str()), claim.sender_did.as_deref());
            prop_assert!(claim.recipient_did.as_deref().is_none_or(|to| to == claim.recipient.as_str()));
            let AccountState::Enrolled { peer, previous, .. } = &state else {
                return Err(TestCaseError::fail("no package, and a name"));
            };
            match &found {
                Attribution::Verified { .. } => prop_assert!(names(peer)),
                Attribution::VerifiedPrevious { replaced_at, .. } => {
                    prop_assert!(!names(peer));
                    prop_assert!(now.since(*replaced_at) <= PREVIOUS_KEY_GRACE);
                    prop_assert!(*replaced_at <= now.plus(SKEW));
                    let of_account = pin.iter().filter(|pin| pin.account == *account);
                    let by_pin = of_account.into_iter().any(|pin| {
                        names(&pin.peer) || pin.previous.iter().any(|p| names(&p.peer))
                    });
                    prop_assert!(by_pin || previous.iter().any(|p| names(&p.peer)));
                }
                other => prop_assert!(false, "{other:?} has an account"),
            }
        }
        // The account that is looked up is the one under whose name the message can be shown.
        if let Some(account) = found.account() {
            prop_assert_eq!(claim.account(), Some(account.clone()));
        }
    }

    #[test]
    fn another_recipient_wins_over_everything(
        mut claim in claims(),
        meant in accounts(),
        state in states(),
        pin in prop::option::of(pins()),
        now in times(),
    ) {
        claim.recipient_did = Some(meant.clone());
        let found = attribute(&claim, &state, pin.as_ref(), now);
        let misdirected = matches!(found, Attribution::Misdirected { .. });
        prop_assert_eq!(misdirected, meant != claim.recipient.as_str());
    }

    #[test]
    fn no_failed_lookup_upgrades(
        claim in claims(),
        reason in prop::sample::select(REASONS.to_vec()),
        state in states(),
        pin in prop::option::of(pins()),
        now in times(),
    ) {
        let unknown = attribute(&claim, &AccountState::Unknown(reason), pin.as_ref(), now);
        prop_assert_eq!(unknown.account(), None);
        prop_assert!(!unknown.is_adverse());
        // Without a proven sender or a claimed account no state changes the attribution.
        if claim.account().is_none() {
            prop_assert_eq!(&unknown, &attribute(&claim, &state, pin.as_ref(), now));
        }
    }

    #[test]
    fn more_proofs_only_shorten_a_grace(
        claim in claims(),
        state in states(),
        more in many_previous(),
        pin in prop::option::of(pins()),
        now in times(),
    ) {
        let AccountState::Enrolled { peer, handle, known_of, previous } = state.clone() else {
            return Ok(());
        };
        let before = attribute(&claim, &state, pin.as_ref(), now);
        let with_more = AccountState::Enrolled {
            peer,
            handle,
            known_of,
            previous: previous.into_iter().chain(more).collect(),
        };
        let after = attribute(&claim, &with_more, pin.as_ref(), now);
        if let (
            Attribution::VerifiedPrevious { replaced_at: before, .. }
            | Attribution::Mismatch { replaced_at: Some(before), .. },
            Attribution::VerifiedPrevious { replaced_at: after, .. }
            | Attribution::Mismatch { replaced_at: Some(after), .. },
        ) = (before, after)
        {
            prop_assert!(after <= before);
        }
    }
}
