//! Messages that are kept: each once, in the words that came, and none in the way of another.

use super::super::file::Placed;
use super::super::messages::Stored;
use super::super::undecryptable::Unopened;
use super::*;

const DAY: i64 = 24 * 3600 * 1000;
const BOB: Option<&str> = Some("did:peer:2.Ez6LSbob");

fn saying(from: Option<&str>, id: &str, words: &str, received_at: i64) -> Kept {
    Kept {
        message: json!({"id": id, "body": {"text": words}}).to_string(),
        ..kept(from, id, received_at)
    }
}

/// Every message that is kept.
pub(super) fn messages(drawer: &Drawer) -> Vec<Kept> {
    let stored = drawer.received(None).unwrap();
    stored
        .map(|one| match one.unwrap() {
            Stored::Message(kept) => *kept,
            Stored::Unopened(unopened) => panic!("{unopened:?}"),
        })
        .collect()
}

fn keep(drawer: &Drawer, message: &Kept) -> bool {
    match drawer.keep_message(message).unwrap() {
        Placed::New => true,
        Placed::Copy => false,
        Placed::InPlaceOf(path) => panic!("{path:?}"),
    }
}

#[test]
fn a_message_is_kept_once() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
    let first = kept(BOB, "1", 5);
    assert!(keep(&drawer, &first));
    let reworded = saying(BOB, "1", "something else", 30 * DAY);
    assert!(!keep(&drawer, &first) && !keep(&drawer, &reworded));
    assert_eq!(messages(&drawer), [first]);
    // Others are others: by id, by writer.
    let other = kept(BOB, "2", 4);
    let eve = kept(Some("did:peer:2.Ez6LSeve"), "1", 6);
    assert!(keep(&drawer, &other) && keep(&drawer, &eve));
    assert!(messages(&wallet.drawer(&did("bob"))).is_empty());
    let received: Vec<i64> = messages(&drawer)
        .iter()
        .map(|m| m.received_at.millis())
        .collect();
    assert_eq!(received, [5, 4, 6], "in the order in which they came");
    // Nobody can take the place of an anonymous message by its id.
    let anonymous = kept(None, "3", 7);
    assert!(keep(&drawer, &anonymous) && keep(&drawer, &saying(None, "3", "else", 8)));
    assert!(!keep(&drawer, &anonymous));
    assert_eq!(drawer.received(Some(1)).unwrap().count(), 1);
    assert_eq!(drawer.received(Some(100)).unwrap().count(), 5);
    assert!(!format!("{anonymous:?}").contains("dich"));
}

#[test]
fn the_same_words_are_a_copy_for_ever_and_others_after_thirty_days_are_new() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
    let one = |at| saying(BOB, "1", "one", at);
    let two = |at| saying(BOB, "1", "two", at);
    assert!(keep(&drawer, &one(0)));
    assert!(!keep(&drawer, &one(31 * DAY)), "the same, handed in again");
    assert!(keep(&drawer, &two(32 * DAY)));
    for at in [33, 100, 1000] {
        assert!(!keep(&drawer, &one(at * DAY)), "{at}");
        assert!(!keep(&drawer, &two(at * DAY)), "{at}");
    }
    // The thirty days are those after the last of them.
    assert!(!keep(&drawer, &saying(BOB, "1", "three", 61 * DAY)));
    assert!(keep(&drawer, &saying(BOB, "1", "three", 62 * DAY)));
    assert!(!keep(&drawer, &two(63 * DAY)));
    assert_eq!(messages(&drawer).len(), 3);
    assert!(!keep(&drawer, &saying(None, "1", "x", 0)) || messages(&drawer).len() == 4);
    assert!(!keep(&drawer, &saying(None, "1", "x", 100 * DAY)));
}

#[test]
fn a_message_comes_out_as_it_went_in_whatever_it_is() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
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
        assert!(keep(&drawer, &message), "{n}");
        assert!(!keep(&drawer, &message), "{n}");
        assert!(messages(&drawer).last() == Some(&message), "{n}");
    }
}

#[test]
fn what_is_found_out_later_takes_no_other_place() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
    let all = [
        saying(BOB, "1", "one", 0),
        saying(BOB, "2", "two", 1),
        saying(BOB, "1", "three", 31 * DAY),
    ];
    for message in &all {
        assert!(keep(&drawer, message));
    }
    let mut later = all.clone();
    for message in &mut later {
        message.attribution = json!("verified");
        drawer.reattribute(message).unwrap();
    }
    assert_eq!(messages(&drawer), later);
    // What is not kept does not come about.
    drawer.reattribute(&saying(BOB, "1", "four", 5)).unwrap();
    drawer.reattribute(&saying(BOB, "9", "one", 5)).unwrap();
    assert_eq!(messages(&drawer), later);
}

#[test]
fn a_damaged_message_is_in_nobodys_way() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
    for id in ["1", "2", "3"] {
        assert!(keep(&drawer, &kept(BOB, id, 1)));
    }
    let file = files(wallet.home())
        .into_iter()
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"id\": \"2\"")))
        .unwrap();
    std::fs::write(&file, "{").unwrap();
    let read: Vec<bool> = drawer
        .received(None)
        .unwrap()
        .map(|one| one.is_ok())
        .collect();
    assert_eq!(read.iter().filter(|ok| **ok).count(), 2);
    assert_eq!(read.len(), 3);
    let Placed::InPlaceOf(aside) = drawer.keep_message(&kept(BOB, "2", 5)).unwrap() else {
        panic!("it is new, and something was there")
    };
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "{");
    assert_eq!(messages(&drawer).len(), 3);
    assert!(!keep(&drawer, &kept(BOB, "2", 6)));
    // The same of what was sent.
    drawer.keep_sent("1", &json!("one")).unwrap();
    drawer.keep_sent("2", &json!("two")).unwrap();
    let file = files(wallet.home())
        .into_iter()
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"one\"")));
    std::fs::write(file.unwrap(), "").unwrap();
    assert_eq!(drawer.sent::<serde_json::Value>().unwrap(), [json!("two")]);
}

#[test]
fn what_cannot_be_opened_is_kept_once_and_not_without_end() {
    let (_dir, wallet) = wallet();
    let drawer = wallet.drawer(&did("alice"));
    let unopened = |n: u32, len: usize| {
        let mut envelope = vec![0xff; len];
        envelope.extend(n.to_be_bytes());
        Unopened::new(&envelope, "did:peer:2.Ez6LSbob", at(i64::from(n)), "why")
    };
    let kept = |drawer: &Drawer| -> Vec<i64> {
        let stored = drawer.received(None).unwrap();
        stored
            .map(|one| match one.unwrap() {
                Stored::Unopened(one) => {
                    assert!(one.envelope().unwrap().starts_with(&[0xff; 3]));
                    one.received_at.millis()
                }
                Stored::Message(kept) => panic!("{kept:?}"),
            })
            .collect()
    };
    assert_eq!(drawer.keep_unopened(&unopened(0, 3)).unwrap(), Placed::New);
    assert_eq!(drawer.keep_unopened(&unopened(0, 3)).unwrap(), Placed::Copy);
    for n in 1..=510 {
        drawer.keep_unopened(&unopened(n, 3)).unwrap();
    }
    assert_eq!(kept(&drawer), (11..=510).collect::<Vec<i64>>());
    // The longest that a mediator can hand out, again and again.
    for n in 511..=520 {
        drawer.keep_unopened(&unopened(n, 12 << 20)).unwrap();
    }
    let left = kept(&drawer);
    assert!(left.len() < 5 && left.last() == Some(&520), "{left:?}");
}
