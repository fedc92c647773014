use super::*;

#[tokio::test]
async fn mail_comes_oldest_first_of_one_recipient_or_of_all() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    let (_, others) = f.account("did:peer:b", &["did:peer:z"]).await;
    let (x, y) = (ids[0], ids[1]);
    for (to, text) in [(x, "1"), (y, "2"), (others[0], "other"), (x, "3"), (y, "4")] {
        assert!(matches!(f.push(to, text).await, Pushed::Stored(_)));
    }
    let all = Queue::Account(a);
    assert_eq!(f.texts(all, 0, 9, 99).await, ["1", "2", "3", "4"]);
    assert_eq!(f.texts(Queue::Recipient(y), 0, 9, 99).await, ["2", "4"]);
    assert_eq!(f.texts(all, 0, 3, 99).await, ["1", "2", "3"]);
    assert!(f.texts(all, 0, 0, 99).await.is_empty());
    // A reader that continues after the last id gets the rest.
    let first = f.read(move |q| q.peek(all, 0, 3, up_to(99), at(1))).await;
    assert_eq!(first[1].recipient, "did:peer:y");
    assert_eq!((first[1].stored_at, first[1].expires_at), (at(0), at(100)));
    assert_eq!(f.texts(all, first[2].id, 9, 99).await, ["4"]);
    // Reading removes nothing.
    assert_eq!(f.read(|q| q.totals()).await, (5, 9));
}

#[tokio::test]
async fn a_delivery_is_bounded_in_bytes_and_never_empty_for_it() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    for (n, text) in ["aaaaa", "bbb", "cc", "dddddd"].into_iter().enumerate() {
        f.push(ids[n % 2], text).await;
    }
    let all = Queue::Account(a);
    assert_eq!(f.texts(all, 0, 9, 0).await, ["aaaaa"]);
    assert_eq!(f.texts(all, 0, 9, 7).await, ["aaaaa"]);
    assert_eq!(f.texts(all, 0, 9, 8).await, ["aaaaa", "bbb"]);
    assert_eq!(f.texts(all, 0, 9, 15).await, ["aaaaa", "bbb", "cc"]);
    assert_eq!(f.texts(all, 0, 9, 16).await.len(), 4);
}

#[tokio::test]
async fn the_same_bytes_are_one_message_while_they_wait() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    let Pushed::Stored(first) = f.push(ids[0], "same").await else {
        panic!("not stored");
    };
    assert_eq!(f.push(ids[0], "same").await, Pushed::Duplicate);
    // A duplicate says so although the queue is full.
    let full = Quota {
        messages: 1,
        ..AMPLE
    };
    let recipient = ids[0];
    let pushed = f
        .write(move |tx| tx.push(&message(recipient, "same"), &full))
        .await;
    assert_eq!(pushed, Pushed::Duplicate);
    // For another recipient it is another message.
    assert!(matches!(f.push(ids[1], "same").await, Pushed::Stored(_)));
    assert_eq!(f.read(|q| q.totals()).await, (2, 8));
    // One acknowledgement is for all that the account reads.
    assert_eq!(f.write(move |tx| tx.ack(a, &[hash(b"same")])).await, 2);
    assert_eq!(f.read(|q| q.totals()).await, (0, 0));
    // Afterwards it is a new message with a later id.
    let again = f.push(ids[0], "same").await;
    assert!(matches!(again, Pushed::Stored(id) if id > first));
}

#[tokio::test]
async fn inv3_only_the_reading_account_can_acknowledge() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let (b, _) = f.account("did:peer:b", &["did:peer:y"]).await;
    for text in ["1", "2", "3"] {
        f.push(ids[0], text).await;
    }
    let hashes = [hash(b"1"), hash(b"3"), hash(b"unknown"), hash(b"1")];
    assert_eq!(f.write(move |tx| tx.ack(b, &hashes)).await, 0);
    assert_eq!(f.write(move |tx| tx.ack(a, &hashes)).await, 2);
    assert_eq!(f.write(move |tx| tx.ack(a, &hashes)).await, 0);
    assert_eq!(f.texts(Queue::Account(a), 0, 9, 99).await, ["2"]);
    // An account that lost the recipient lost its mail.
    f.write(move |tx| tx.rebind("did:peer:x", b)).await;
    assert_eq!(f.write(move |tx| tx.ack(a, &[hash(b"2")])).await, 0);
    assert!(f.texts(Queue::Account(a), 0, 9, 99).await.is_empty());
    assert_eq!(f.write(move |tx| tx.ack(b, &[hash(b"2")])).await, 1);
}

/// Pushes a message of a sender and so many bytes.
async fn push_of(
    f: &Fixture,
    recipient: i64,
    sender: Sender,
    (number, len): (u64, usize),
    quota: Quota,
) -> Pushed {
    f.write(move |tx| {
        let mut body = vec![b'x'; len.max(8)];
        body[..8].copy_from_slice(&number.to_be_bytes());
        let push = Push {
            hash: hash(&body),
            body: &body,
            senders: &[sender],
            ..message(recipient, "")
        };
        tx.push(&push, &quota)
    })
    .await
}

fn is_stored(pushed: Pushed) -> bool {
    matches!(pushed, Pushed::Stored(_))
}

#[tokio::test]
async fn quotas_may_be_reached_and_not_passed() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    let (x, y) = (ids[0], ids[1]);
    let each = 744 + MESSAGE_OVERHEAD;
    let mut number = 0;
    let mut push = async |recipient, messages, bytes, total_bytes| {
        number += 1;
        let quota = Quota {
            messages,
            bytes,
            total_bytes,
            ..AMPLE
        };
        // Every message is of another sender, so only the quotas themselves count.
        let sender = sender(number, SenderClass::Local);
        push_of(&f, recipient, sender, (number.into(), 744), quota).await
    };
    let wide = 1 << 40;
    assert_eq!(push(x, 0, wide, wide).await, Pushed::RecipientFull);
    assert_eq!(push(x, 9, each - 1, wide).await, Pushed::RecipientFull);
    assert_eq!(push(x, 9, wide, each - 1).await, Pushed::StoreFull);
    assert!(is_stored(push(x, 1, wide, each).await));
    assert_eq!(push(x, 1, wide, wide).await, Pushed::RecipientFull);
    assert_eq!(push(x, 2, each * 2 - 1, wide).await, Pushed::RecipientFull);
    assert_eq!(push(y, 1, wide, each * 2 - 1).await, Pushed::StoreFull);
    assert!(is_stored(push(y, 1, wide, each * 2).await));
    // Quotas so large that a sum would overflow.
    assert!(is_stored(push(y, u64::MAX, u64::MAX, u64::MAX).await));
    assert_eq!(f.read(|q| q.totals()).await, (3, 3 * 744));
}

/// One sender, then one network, fill what they may; then others come.
#[tokio::test]
async fn inv7_no_sender_takes_a_queue_from_others() {
    let quota = Quota {
        messages: 1000,
        bytes: 1 << 30,
        ..AMPLE
    };
    let many = Quota {
        messages: 1 << 40,
        bytes: 1 << 20,
        ..AMPLE
    };
    for (quota, len) in [(quota, 10), (many, 1000)] {
        let f = open();
        let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
        let mut number = 0;
        let mut fill = async |sender: Sender| {
            let mut stored = 0;
            loop {
                number += 1;
                let pushed = push_of(&f, ids[0], sender, (number, len), quota).await;
                if !is_stored(pushed) {
                    assert_eq!(pushed, Pushed::RecipientFull);
                    return stored;
                }
                stored += 1;
            }
        };
        let one = fill(sender(1, SenderClass::Other)).await;
        let second = fill(sender(2, SenderClass::Other)).await;
        assert!(
            one > 200 && second > one / 3 && second < one,
            "{one}, {second}"
        );
        // Eight of one network together hold little more than one.
        let mut network = 0;
        for n in 1..=8 {
            let mut of_network = sender(3, SenderClass::Other);
            of_network.group.0[8] = n;
            network += fill(of_network).await;
        }
        assert!(network < 2 * second, "{network}");
        for n in 10..20 {
            assert!(fill(sender(n, SenderClass::Other)).await > 0);
        }
        // What others leave to those with an account is there.
        let registered = fill(sender(20, SenderClass::Registered)).await;
        assert!(registered > 0);
        assert!(fill(sender(21, SenderClass::Local)).await > registered);
        println!("{one}, {second}, a network {network}, an account {registered}");
    }
}

#[tokio::test]
async fn inv7_a_queue_without_a_reader_holds_less() {
    let f = open();
    let quota = Quota {
        messages: 100,
        seen_since: at(50),
        ..AMPLE
    };
    // The reader was last here before that.
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let unread = f.write(|tx| tx.open_queue("did:peer:never")).await;
    let fill = async |recipient, first: u8| {
        for n in first.. {
            let sender = sender(n, SenderClass::Local);
            let pushed = push_of(&f, recipient, sender, (n.into(), 10), quota).await;
            if !is_stored(pushed) {
                return n;
            }
        }
        0
    };
    assert_eq!(fill(ids[0], 0).await, 25);
    assert_eq!(fill(unread, 0).await, 25);
    f.write(|tx| tx.touch_account(1, at(100))).await;
    assert_eq!(fill(ids[0], 25).await, 100);
}

/// A sender has the shares of all that it is.
#[tokio::test]
async fn a_sender_without_room_as_an_account_has_that_of_its_address() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let quota = Quota {
        messages: 1000,
        ..AMPLE
    };
    let parties = [
        sender(1, SenderClass::Registered),
        sender(2, SenderClass::Other),
    ];
    let (recipient, mut stored) = (ids[0], 0);
    loop {
        let text = format!("letter {stored}");
        let pushed = f
            .write(move |tx| {
                let push = Push {
                    senders: &parties,
                    ..message(recipient, &text)
                };
                tx.push(&push, &quota)
            })
            .await;
        if !is_stored(pushed) {
            break;
        }
        stored += 1;
    }
    // Each party by itself: 334, and then 129.
    assert!((400..500).contains(&stored), "{stored}");
}

#[tokio::test]
async fn delayed_mail_waits_for_its_time_and_then_comes_last() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let x = ids[0];
    let late = move |text: &'static str, at_second| {
        move |tx: &Tx<'_>| {
            let push = Push {
                available_at: at(at_second),
                ..message(x, text)
            };
            tx.push(&push, &AMPLE)
        }
    };
    f.write(late("later", 50)).await;
    f.write(late("early", 20)).await;
    f.push(x, "now").await;
    let all = Queue::Account(a);
    assert_eq!(f.texts(all, 0, 9, 99).await, ["now"]);
    let status = f.read(move |q| q.queue(all, at(1))).await;
    assert_eq!((status.messages, status.bytes), (1, 3));
    assert_eq!(f.write(late("later", 60)).await, Pushed::Duplicate);
    let last = f.read(move |q| q.peek(all, 0, 9, up_to(99), at(1))).await[0].id;

    let release = |now, limit| f.store.transact(move |tx| tx.release(at(now), limit));
    assert!(release(19, 9).await.unwrap().is_empty());
    assert_eq!(release(20, 9).await.unwrap(), [x]);
    assert!(release(20, 9).await.unwrap().is_empty());
    let early = f
        .read(move |q| q.peek(all, last, 9, up_to(99), at(20)))
        .await;
    assert_eq!(early.len(), 1, "found by who reads on from the last id");
    assert_eq!(
        (&*early[0].body, early[0].stored_at),
        (&b"early"[..], at(20))
    );
    assert_eq!(f.read(|q| q.totals()).await, (3, 13));
    // Its time counts although it was not released.
    let due = f.read(move |q| q.peek(all, 0, 9, up_to(99), at(50))).await;
    assert_eq!(due.len(), 3);
    assert_eq!(f.write(move |tx| tx.ack(a, &[hash(b"later")])).await, 1);
    assert!(release(99, 9).await.unwrap().is_empty());
}

/// Large messages that become due, or expire, together are moved and deleted a few at a time.
#[tokio::test]
async fn inv7_a_batch_is_bounded_in_bytes() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let recipient = ids[0];
    f.write(move |tx| {
        for n in 0..20_u8 {
            let body = vec![n; 1 << 20];
            let push = Push {
                hash: hash(&body),
                body: &body,
                available_at: at(10),
                ..message(recipient, "")
            };
            tx.push(&push, &AMPLE)?;
        }
        Ok(())
    })
    .await;
    for moved in [8, 8, 4, 0] {
        let released = f.write(|tx| tx.release(at(20), 200)).await;
        assert_eq!(released, vec![recipient; moved]);
    }
    // The next message has a later id than all that moved.
    let newest = f.read(|q| q.newest_message()).await;
    let Pushed::Stored(next) = f.push(recipient, "next").await else {
        panic!("not stored");
    };
    assert_eq!(next, newest + 1);
    f.write(move |tx| tx.ack(1, &[hash(b"next")])).await;
    for deleted in [8, 8, 4, 0] {
        assert_eq!(f.write(|tx| tx.expire(at(200), 200)).await, deleted);
    }
}

#[tokio::test]
async fn a_repeated_message_has_the_longer_of_both_lives() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let x = ids[0];
    let push = move |available, expires| {
        move |tx: &Tx<'_>| {
            let push = Push {
                available_at: at(available),
                expires_at: at(expires),
                ..message(x, "one")
            };
            tx.push(&push, &AMPLE)
        }
    };
    let waiting = async |second| {
        let all = f.read(move |q| q.peek(Queue::Account(a), 0, 9, up_to(99), at(second)));
        all.await.len()
    };
    assert!(matches!(f.write(push(50, 60)).await, Pushed::Stored(_)));
    assert_eq!(
        (waiting(40).await, waiting(55).await, waiting(60).await),
        (0, 1, 0)
    );
    assert_eq!(f.write(push(80, 90)).await, Pushed::Duplicate);
    assert_eq!(
        (waiting(40).await, waiting(55).await, waiting(89).await),
        (0, 1, 1)
    );
    // Sooner, too. A reader that continues after the last id finds it after its release.
    assert_eq!(f.write(push(10, 20)).await, Pushed::Duplicate);
    assert_eq!(
        (waiting(9).await, waiting(10).await, waiting(89).await),
        (0, 1, 1)
    );
    assert_eq!(f.write(move |tx| tx.release(at(10), 9)).await, [x]);
    assert_eq!(waiting(10).await, 1);
}

#[tokio::test]
async fn expired_mail_is_not_delivered_and_deleted_in_batches() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let x = ids[0];
    f.write(move |tx| {
        for n in 0..10 {
            let text = n.to_string();
            let push = Push {
                now: at(n),
                expires_at: at(100 - n),
                ..message(x, &text)
            };
            tx.push(&push, &AMPLE)?;
        }
        Ok(())
    })
    .await;
    let all = Queue::Account(a);
    let status = f.read(move |q| q.queue(all, at(95))).await;
    let expected = QueueStatus {
        messages: 5,
        bytes: 5,
        oldest: Some(at(0)),
        newest: Some(at(4)),
    };
    assert_eq!(status, expected);
    let left = f.read(move |q| q.peek(all, 0, 99, up_to(99), at(95))).await;
    assert_eq!(left.len(), 5);
    let expire = |now, limit| f.store.transact(move |tx| tx.expire(at(now), limit));
    assert_eq!(expire(90, 9).await.unwrap(), 0);
    assert_eq!(expire(95, 3).await.unwrap(), 3);
    assert_eq!(expire(95, 3).await.unwrap(), 2);
    assert_eq!(expire(95, 3).await.unwrap(), 0);
    assert_eq!(f.read(|q| q.totals()).await, (5, 5));
    let nothing = f.read(move |q| q.queue(all, at(200))).await;
    assert_eq!(nothing, QueueStatus::default());
}
