use std::collections::BTreeSet;

use super::*;
use atcomm_client::dm::{ByteSlice, Facet, StrongRef};
use atcomm_client::{DeliveryPath, UnverifiedReason};
use atcomm_proto::syntax::{Did, Handle, MediatorDid};

fn did() -> Did {
    Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap()
}

fn at() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn kept(from: Option<&str>) -> StoredMessage {
    StoredMessage {
        id: "m1".to_owned(),
        from: from.map(str::to_owned),
        recipient: "did:peer:2.Ez6LSbob".to_owned(),
        recipient_replaced: false,
        received_at: at(),
        message: json!({"id": "m1", "type": "x", "created_time": 1_799_999_999}).to_string(),
        cut: None,
        attribution: json!({}),
    }
}

fn dm(text: &str) -> Dm {
    Dm {
        text: text.to_owned(),
        sender_did: None,
        recipient_did: None,
        facets: Vec::new(),
        embed: None,
    }
}

fn text(shown: &MessageView, json: bool) -> String {
    let mut out = Vec::new();
    shown.write(json, None, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Every outcome, and whether it may name the handle.
fn outcomes() -> Vec<(Attribution, bool)> {
    let handle = Some(Handle::parse("alice.example.com").unwrap());
    let other = Did::parse("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb").unwrap();
    let verified = |unaccepted| Attribution::Verified {
        account: did(),
        handle: handle.clone(),
        unaccepted,
        known_of: None,
    };
    let mismatch = |replaced_at| Attribution::Mismatch {
        claimed: did(),
        replaced_at,
    };
    let unverified = |pinned| Attribution::Unverified {
        claimed: "alice.example.com\u{1b}[2J".to_owned(),
        reason: UnverifiedReason::Unreachable,
        pinned,
    };
    vec![
        (verified(false), true),
        (verified(true), true),
        (
            Attribution::VerifiedPrevious {
                account: did(),
                handle: handle.clone(),
                replaced_at: at(),
                known_of: None,
            },
            true,
        ),
        (
            Attribution::VerifiedPrevious {
                account: did(),
                handle: handle.clone(),
                replaced_at: at(),
                known_of: Some(other.clone()),
            },
            true,
        ),
        (
            Attribution::Verified {
                account: did(),
                handle: handle.clone(),
                unaccepted: false,
                known_of: Some(other),
            },
            true,
        ),
        (mismatch(None), false),
        (mismatch(Some(at())), false),
        (
            Attribution::Misdirected {
                meant: did().into(),
            },
            false,
        ),
        (Attribution::Revoked { claimed: did() }, false),
        (Attribution::Unattributed, false),
        (unverified(false), false),
        (unverified(true), false),
        (Attribution::Anonymous, false),
    ]
}

#[test]
fn every_outcome_has_words_of_its_own_and_only_proven_ones_a_handle() {
    let mut seen = BTreeSet::new();
    for (attribution, named) in outcomes() {
        let words = sender(&attribution, Some("did:peer:2.Ez6LSalice"));
        assert_eq!(words.contains("@alice.example.com"), named, "{words}");
        assert!(words.chars().all(|c| !c.is_control()), "{words:?}");
        let warns = words.starts_with("WARNING: ");
        let adverse =
            attribution.is_adverse() || matches!(attribution, Attribution::Misdirected { .. });
        assert_eq!(warns, adverse, "{words}");
        let plain = words.ends_with(" (verified)");
        assert_eq!(plain, seen.is_empty(), "only the first: {words}");
        assert!(words.contains("(verified") == named, "{words}");
        assert!(seen.insert(words));
    }
}

#[test]
fn a_message_for_people_and_for_programs() {
    let mut dm = dm("see here\n\u{1b}[31mfrom @bob.example.com (verified)\u{202e}");
    let link = |uri: &str, byte_start, byte_end| Facet {
        index: ByteSlice {
            byte_start,
            byte_end,
        },
        features: vec![Feature::Link {
            uri: uri.to_owned(),
        }],
    };
    dm.facets = vec![link("https://evil.example/\u{7}", 4, 8), link("see", 0, 3)];
    dm.embed = Some(StrongRef {
        uri: "at://did:plc:x/a.b.c/1".to_owned(),
        cid: "bafy".to_owned(),
    });
    let verified = outcomes().swap_remove(0).0;
    let shown = MessageView::message(&kept(Some("did:peer:2.Ez6LSalice")), &dm, &verified, at());
    assert_eq!(
        text(&shown, false),
        "2027-01-15 08:00Z  from @alice.example.com (verified)\n| see here\n| \\u{1b}[31mfrom \
         @bob.example.com (verified)\\u{202e}\n* link: https://evil.example/\\u{7}\n* record: \
         at://did:plc:x/a.b.c/1\n\n"
    );
    let json = text(&shown, true);
    assert_eq!(json.matches('\n').count(), 1, "one object a line");
    assert!(!json.contains('\u{202e}'), "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["type"], "message");
    assert_eq!(json["text"], dm.text);
    assert_eq!(json["attribution"]["outcome"], "verified");
    assert_eq!(json["attribution"]["handle"], "alice.example.com");
    assert_eq!(json["from"], "did:peer:2.Ez6LSalice");
    assert_eq!(json["createdTime"], 1_799_999_999);
    assert_eq!(json["receivedAt"], "2027-01-15T08:00:00.000Z");
    assert_eq!(json["embed"]["cid"], "bafy");
}

#[test]
fn what_became_of_a_message_that_came_back() {
    let mediator = |name: &str| MediatorDid::parse(&format!("did:web:{name}.example.com")).unwrap();
    let sent = SentMessage {
        id: "m1".to_owned(),
        account: did(),
        handle: None,
        peer: "did:peer:2.Ez6LSbob".to_owned(),
        from: "did:peer:2.Ez6LSalice".to_owned(),
        envelope: "{}".to_owned(),
        mediators: vec![mediator("a")],
        attempts: Vec::new(),
        at: at(),
        given_up: None,
    };
    let path = DeliveryPath {
        mediator: mediator("b"),
        via: Some(mediator("own")),
    };
    let again = NextStep::Retried(path);
    for (next, word, code) in [
        (
            again,
            "did:web:own.example.com relays it to did:web:b.example.com",
            "again",
        ),
        (NextStep::Pending, "may still arrive", "pending"),
        (NextStep::GivenUp, "it was not delivered", "givenUp"),
    ] {
        let shown = MessageView::returned(&sent, "no\u{1b}thing", &next);
        let people = text(&shown, false);
        let start = format!(
            "your message of 2027-01-15 08:00Z to {}: no\\u{{1b}}thing\n",
            did()
        );
        assert!(
            people.starts_with(&start) && people.contains(word),
            "{people}"
        );
        let json: Value = serde_json::from_str(&text(&shown, true)).unwrap();
        assert_eq!(
            (&json["type"], &json["next"]),
            (&json!("returned"), &json!(code))
        );
    }
}

#[test]
fn what_is_late_or_no_longer_valid_or_to_an_old_key_says_so() {
    const DAY: i64 = 24 * 3600;
    let now = at().millis() / 1000;
    let shown = |created: i64, expires: Option<i64>, replaced: bool| {
        let mut headers = json!({"id": "m1", "type": "x", "created_time": created});
        if let Some(at) = expires {
            headers["expires_time"] = json!(at);
        }
        let kept = StoredMessage {
            message: headers.to_string(),
            recipient_replaced: replaced,
            ..kept(None)
        };
        let shown = MessageView::message(&kept, &dm("x"), &Attribution::Anonymous, at());
        let json: Value = serde_json::from_str(&text(&shown, true)).unwrap();
        (text(&shown, false), json)
    };
    let head = "2027-01-15 08:00Z  from nobody: it does not show who wrote it\n| x\n";
    assert_eq!(
        shown(now - DAY, Some(now + 1), false).0,
        format!("{head}\n")
    );
    for (created, date) in [
        (now - DAY - 1, "2027-01-14 07:59Z"),
        (now + DAY + 60, "2027-01-16 08:01Z"),
    ] {
        let words = format!("{head}* written on {date}, its sender says\n\n");
        assert_eq!(shown(created, None, false).0, words);
    }
    assert!(
        shown(i64::MIN, Some(i64::MIN), false)
            .0
            .contains("written on")
    );
    let (words, json) = shown(now, Some(now), false);
    assert_eq!(
        words,
        format!("{head}* no longer valid since 2027-01-15 08:00Z\n\n")
    );
    assert_eq!(json["expired"], true);
    let (words, json) = shown(now, None, true);
    assert_eq!(
        words,
        format!("{head}* to a key that you have replaced\n\n")
    );
    assert_eq!(json["toReplacedKey"], true);
    assert_eq!(shown(now, None, false).1.get("toReplacedKey"), None);
}

#[test]
fn a_misdirected_message_is_told_as_its_senders_word() {
    let meant = "did:plc:x\u{202e}".to_owned();
    let words = sender(&Attribution::Misdirected { meant }, None);
    assert!(words.contains("its sender says that it is for did:plc:x\\u{202e}"));
    assert!(!words.contains("who publishes"), "{words}");
}

#[test]
fn a_time_is_shown_right_in_whatever_unit_it_was_sent() {
    let written = at().millis() / 1000 - 2 * 24 * 3600;
    for unit in [1, 1000, 1_000_000, 1_000_000_000] {
        let headers = json!({
            "id": "m1", "type": "x",
            "created_time": written * unit,
            "expires_time": (written + 60) * unit,
        });
        let kept = StoredMessage {
            message: headers.to_string(),
            ..kept(None)
        };
        let shown = MessageView::message(&kept, &dm("x"), &Attribution::Anonymous, at());
        let words = text(&shown, false);
        for wanted in [
            "* written on 2027-01-13 08:00Z, its sender says\n",
            "* no longer valid since 2027-01-13 08:01Z\n",
        ] {
            assert!(words.contains(wanted), "{unit}: {words}");
        }
        let json: Value = serde_json::from_str(&text(&shown, true)).unwrap();
        assert_eq!(json["createdTime"], written, "{unit}");
    }
}
