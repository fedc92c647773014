//! Saved messages: each once, with its plaintext unchanged, and none blocks another.

use super::super::file::Saved;
use super::super::messages::StoredItem;
use super::super::undecryptable::Undecryptable;
use super::*;

const DAY: i64 = 24 * 3600 * 1000;
const BOB: Option<&str> = Some("did:peer:2.Ez6LSbob");

fn saying(from: Option<&str>, id: &str, words: &str, received_at: i64) -> StoredMessage {
    StoredMessage {
        message: json!({"id": id, "body": {"text": words}}).to_string(),
        ..kept(from, id, received_at)
    }
}

/// Reads all saved messages.
pub(super) fn messages(store: &AccountStore) -> Vec<StoredMessage> {
    let stored = store.received(None).unwrap();
    stored
        .map(|one| match one.unwrap() {
            StoredItem::Message(kept) => *kept,
            StoredItem::Undecryptable(undecryptable) => panic!("{undecryptable:?}"),
        })
        .collect()
}

fn keep(store: &AccountStore, message: &StoredMessage) -> bool {
    match store.save_message(message).unwrap() {
        Saved::New => true,
        Saved::Duplicate => false,
        Saved::DamagedSetAside(path) => panic!("{path:?}"),
    }
}

#[test]
fn a_message_is_kept_once() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let first = kept(BOB, "1", 5);
    assert!(keep(&store, &first));
    let reworded = saying(BOB, "1", "something else", 30 * DAY);
    assert!(!keep(&store, &first) && !keep(&store, &reworded));
    assert_eq!(messages(&store), [first]);
    // Another id or another sender makes another message.
    let other = kept(BOB, "2", 4);
    let eve = kept(Some("did:peer:2.Ez6LSeve"), "1", 6);
    assert!(keep(&store, &other) && keep(&store, &eve));
    assert!(messages(&wallet.account_store(&did("bob"))).is_empty());
    let received: Vec<i64> = messages(&store)
        .iter()
        .map(|m| m.received_at.millis())
        .collect();
    assert_eq!(received, [5, 4, 6], "in the order in which they came");
    // No other message takes the place of an anonymous one by its id.
    let anonymous = kept(None, "3", 7);
    assert!(keep(&store, &anonymous) && keep(&store, &saying(None, "3", "else", 8)));
    assert!(!keep(&store, &anonymous));
    assert_eq!(store.received(Some(1)).unwrap().count(), 1);
    assert_eq!(store.received(Some(100)).unwrap().count(), 5);
    assert!(!format!("{anonymous:?}").contains("dich"));
}

#[test]
fn the_same_words_are_a_copy_for_ever_and_others_after_thirty_days_are_new() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let one = |at| saying(BOB, "1", "one", at);
    let two = |at| saying(BOB, "1", "two", at);
    assert!(keep(&store, &one(0)));
    assert!(!keep(&store, &one(31 * DAY)), "the same, handed in again");
    assert!(keep(&store, &two(32 * DAY)));
    for at in [33, 100, 1000] {
        assert!(!keep(&store, &one(at * DAY)), "{at}");
        assert!(!keep(&store, &two(at * DAY)), "{at}");
    }
    // The thirty days begin with the last of them.
    assert!(!keep(&store, &saying(BOB, "1", "three", 61 * DAY)));
    assert!(keep(&store, &saying(BOB, "1", "three", 62 * DAY)));
    assert!(!keep(&store, &two(63 * DAY)));
    assert_eq!(messages(&store).len(), 3);
    assert!(!keep(&store, &saying(None, "1", "x", 0)) || messages(&store).len() == 4);
    assert!(!keep(&store, &saying(None, "1", "x", 100 * DAY)));
}

#[test]
fn a_message_comes_out_as_it_went_in_whatever_it_is() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let deep = |depth: usize, inner: &str| {
        let inner = format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"id":"1","type":"x","x":{inner}}}"#)
    };
    let many = vec!["1"; 200_000].join(",");
    for (n, plaintext) in [
        deep(120, &many),
        deep(126, ""),
        deep(127, ""),
        deep(100_000, ""),
        r#"{"id":"1","x":1e999,"x":12345678901234567890.0}"#.to_owned(),
        format!(r#"{{"id":"1","x":"{}"}}"#, r#"\""#.repeat(1_500_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut message = kept(BOB, &n.to_string(), 1);
        message.message = plaintext;
        assert!(keep(&store, &message), "{n}");
        assert!(!keep(&store, &message), "{n}");
        assert!(messages(&store).last() == Some(&message), "{n}");
    }
}

#[test]
fn what_is_found_out_later_takes_no_other_place() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let all = [
        saying(BOB, "1", "one", 0),
        saying(BOB, "2", "two", 1),
        saying(BOB, "1", "three", 31 * DAY),
    ];
    for message in &all {
        assert!(keep(&store, message));
    }
    let mut later = all.clone();
    for message in &mut later {
        message.attribution = json!("verified");
        store.reattribute(message).unwrap();
    }
    assert_eq!(messages(&store), later);
    // A message that is not stored stays so.
    store.reattribute(&saying(BOB, "1", "four", 5)).unwrap();
    store.reattribute(&saying(BOB, "9", "one", 5)).unwrap();
    assert_eq!(messages(&store), later);
}

#[test]
fn a_damaged_message_blocks_no_other() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    for id in ["1", "2", "3"] {
        assert!(keep(&store, &kept(BOB, id, 1)));
    }
    let file = files(wallet.home())
        .into_iter()
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"id\": \"2\"")))
        .unwrap();
    std::fs::write(&file, "{").unwrap();
    let read: Vec<bool> = store
        .received(None)
        .unwrap()
        .map(|one| one.is_ok())
        .collect();
    assert_eq!(read.iter().filter(|ok| **ok).count(), 2);
    assert_eq!(read.len(), 3);
    let Saved::DamagedSetAside(aside) = store.save_message(&kept(BOB, "2", 5)).unwrap() else {
        panic!("it is new, and something was there")
    };
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "{");
    assert_eq!(messages(&store).len(), 3);
    assert!(!keep(&store, &kept(BOB, "2", 6)));
    // The same holds for sent messages.
    store.save_sent("1", &json!("one")).unwrap();
    store.save_sent("2", &json!("two")).unwrap();
    let file = files(wallet.home())
        .into_iter()
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"one\"")));
    std::fs::write(file.unwrap(), "").unwrap();
    assert_eq!(store.sent::<serde_json::Value>().unwrap(), [json!("two")]);
}

#[test]
fn what_cannot_be_opened_is_kept_once_and_not_without_end() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let undecryptable = |n: u32, len: usize| {
        let mut envelope = vec![0xff; len];
        envelope.extend(n.to_be_bytes());
        Undecryptable::new(&envelope, "did:peer:2.Ez6LSbob", at(i64::from(n)), "why")
    };
    let kept = |store: &AccountStore| -> Vec<i64> {
        let stored = store.received(None).unwrap();
        stored
            .map(|one| match one.unwrap() {
                StoredItem::Undecryptable(one) => {
                    assert!(one.envelope().unwrap().starts_with(&[0xff; 3]));
                    one.received_at.millis()
                }
                StoredItem::Message(kept) => panic!("{kept:?}"),
            })
            .collect()
    };
    assert_eq!(
        store.save_undecryptable(&undecryptable(0, 3)).unwrap(),
        Saved::New
    );
    assert_eq!(
        store.save_undecryptable(&undecryptable(0, 3)).unwrap(),
        Saved::Duplicate
    );
    for n in 1..=510 {
        store.save_undecryptable(&undecryptable(n, 3)).unwrap();
    }
    assert_eq!(kept(&store), (11..=510).collect::<Vec<i64>>());
    // The longest envelopes that a mediator can deliver.
    for n in 511..=520 {
        store
            .save_undecryptable(&undecryptable(n, 12 << 20))
            .unwrap();
    }
    let left = kept(&store);
    assert!(left.len() < 5 && left.last() == Some(&520), "{left:?}");
}
