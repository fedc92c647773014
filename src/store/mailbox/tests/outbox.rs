use super::*;
use atcomm_proto::syntax::RemoteText;

const AMPLE_OUT: OutboxQuota = OutboxQuota {
    per_destination_messages: 1 << 40,
    per_destination_bytes: 1 << 40,
    total_messages: 1 << 40,
    total_bytes: 1 << 40,
    destinations: 1 << 40,
};

fn outbound<'a>(destination: &'a str, text: &'a str) -> NewOutbound<'a> {
    NewOutbound {
        destination,
        route: "{}",
        hash: hash(text.as_bytes()),
        body: text.as_bytes(),
        sender: Some("did:peer:sender"),
        thread: None,
        now: at(0),
        next_at: at(0),
        expires_at: at(100),
        domain: destination,
        senders: ONE,
    }
}

async fn push(f: &Fixture, destination: &str, text: &str, next_at: i64) -> OutPushed {
    let (destination, text) = (destination.to_owned(), text.to_owned());
    f.write(move |tx| {
        let new = NewOutbound {
            next_at: at(next_at),
            ..outbound(&destination, &text)
        };
        tx.outbox_push(&new, &AMPLE_OUT)
    })
    .await
}

async fn due(f: &Fixture, destination: &'static str, now: i64, limit: usize) -> Vec<String> {
    f.read(move |q| q.outbox_due(destination, at(now), limit, 1 << 40))
        .await
        .into_iter()
        .map(|row| String::from_utf8(row.body).unwrap())
        .collect()
}

async fn take(f: &Fixture, destination: &'static str, now: i64) -> Option<i64> {
    f.write(move |tx| {
        let due = tx.outbox_due(destination, at(now), 1, 1 << 40)?;
        let Some(row) = due.first() else {
            return Ok(None);
        };
        Ok(tx
            .outbox_take(row.id, at(now), at(now + 90))?
            .then_some(row.id))
    })
    .await
}

#[tokio::test]
async fn a_message_is_tried_deferred_and_ended() {
    let f = open();
    let OutPushed::Stored(id) = push(&f, "did:web:m", "one", 5).await else {
        panic!("not stored");
    };
    assert_eq!(push(&f, "did:web:m", "one", 5).await, OutPushed::Duplicate);
    assert!(due(&f, "did:web:m", 4, 9).await.is_empty());
    let rows = f
        .read(|q| q.outbox_due("did:web:m", at(5), 9, 1 << 40))
        .await;
    let expected = Outbound {
        id,
        destination: "did:web:m".to_owned(),
        route: "{}".to_owned(),
        hash: hash(b"one"),
        body: b"one".to_vec(),
        sender: Some("did:peer:sender".to_owned()),
        thread: None,
        attempts: 0,
        next_at: at(5),
        created_at: at(0),
        expires_at: at(100),
    };
    assert_eq!(rows, [expected]);

    let long = RemoteText::new(&"é".repeat(1000));
    let kept = long.clone();
    f.write(move |tx| tx.outbox_retry(id, at(50), &long, at(6)))
        .await;
    assert!(due(&f, "did:web:m", 49, 9).await.is_empty());
    let rows = f
        .read(|q| q.outbox_due("did:web:m", at(50), 9, 1 << 40))
        .await;
    assert_eq!(rows[0].attempts, 1);
    let outcome = f.read(|q| q.relay_outcomes(9)).await.remove(0);
    assert_eq!((outcome.waiting, outcome.failed), (1, 1));
    assert_eq!(outcome.last_error, Some(kept));
    assert_eq!(outcome.last_at, Some(at(6)));

    assert!(
        f.write(move |tx| tx.outbox_done(id, Outcome::Delivered, None, at(51)))
            .await
    );
    assert!(
        !f.write(move |tx| tx.outbox_done(id, Outcome::GivenUp, None, at(52)))
            .await
    );
    // What is gone is not counted any more.
    f.write(move |tx| tx.outbox_retry(id, at(50), &RemoteText::new("late"), at(53)))
        .await;
    let outcome = f.read(|q| q.relay_outcomes(9)).await.remove(0);
    assert_eq!((outcome.waiting, outcome.waiting_bytes), (0, 0));
    assert_eq!(
        (outcome.delivered, outcome.given_up, outcome.failed),
        (1, 0, 1)
    );
    assert_eq!(outcome.last_at, Some(at(51)));
    assert_eq!(f.read(|q| q.outbox_totals()).await, (0, 0));
}

#[tokio::test]
async fn what_is_due_is_told_for_each_destination() {
    let f = open();
    for n in 0..5 {
        push(&f, "did:web:busy", &format!("busy{n}"), n).await;
    }
    push(&f, "did:web:a", "a0", 60).await;
    push(&f, "did:web:b", "b0", 62).await;
    assert_eq!(
        due(&f, "did:web:busy", 3, 3).await,
        ["busy0", "busy1", "busy2"]
    );
    assert_eq!(due(&f, "did:web:busy", 1, 9).await, ["busy0", "busy1"]);
    assert!(due(&f, "did:web:a", 59, 9).await.is_empty());
    let next = |destination: &'static str| f.read(move |q| q.outbox_next(destination));
    assert_eq!(next("did:web:a").await, Some(at(60)));
    assert_eq!(next("did:web:none").await, None);
    let waiting = |after: &'static str, limit| f.read(move |q| q.outbox_waiting(after, limit));
    let all = [
        ("did:web:a".to_owned(), at(60)),
        ("did:web:b".to_owned(), at(62)),
        ("did:web:busy".to_owned(), at(0)),
    ];
    assert_eq!(waiting("", 9).await, all);
    assert_eq!(waiting("", 2).await, all[..2]);
    assert_eq!(waiting("did:web:b", 2).await, all[2..]);
}

#[tokio::test]
async fn a_probe_is_the_smallest_of_those_tried_least() {
    let f = open();
    let mut ids = Vec::new();
    for text in ["rather long", "short", "longer"] {
        let OutPushed::Stored(id) = push(&f, "did:web:m", text, 0).await else {
            panic!("not stored");
        };
        ids.push(id);
    }
    let probe = |now| f.read(move |q| q.outbox_probe("did:web:m", at(now), true));
    assert_eq!(probe(1).await.unwrap().body, b"short");
    let id = ids[1];
    f.write(move |tx| tx.outbox_retry(id, at(2), &RemoteText::new("no"), at(1)))
        .await;
    assert_eq!(probe(3).await.unwrap().body, b"longer");
    let none = f.read(|q| q.outbox_probe("did:web:none", at(3), true));
    assert_eq!(none.await, None);
    // Small messages cannot keep all others from being tried.
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let any = f.read(|q| q.outbox_probe("did:web:m", at(3), false));
        others.insert(any.await.unwrap().body);
    }
    assert_eq!(others.len(), 2);
}

#[tokio::test]
async fn messages_that_expire_are_found_with_the_last_failure() {
    let f = open();
    for (text, n) in [("1", 0), ("2", 0), ("3", 0)] {
        push(&f, "did:web:m", text, n).await;
    }
    let expired = |now| f.read(move |q| q.outbox_expired(at(now), 9));
    assert!(expired(99).await.is_empty());
    let taken = take(&f, "did:web:m", 50).await.unwrap();
    let found = expired(100).await;
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|row| row.id != taken && row.body.is_empty())
    );
    let last_error = || f.read(|q| q.outbox_last_error("did:web:m"));
    assert_eq!(last_error().await, None);
    let why = RemoteText::new("it hangs");
    f.write(move |tx| tx.outbox_retry(taken, at(90), &why, at(51)))
        .await;
    assert_eq!(last_error().await, Some(RemoteText::new("it hangs")));
    assert_eq!(expired(100).await.len(), 3);
}

#[tokio::test]
async fn one_answer_of_what_is_due_is_bounded_in_bytes() {
    let f = open();
    f.write(|tx| {
        for n in 0..12_u8 {
            let body = vec![n; 1 << 20];
            let new = NewOutbound {
                hash: hash(&body),
                body: &body,
                ..outbound("did:web:m", "")
            };
            tx.outbox_push(&new, &AMPLE_OUT)?;
        }
        Ok(())
    })
    .await;
    let read = |max_bytes| f.read(move |q| q.outbox_due("did:web:m", at(0), 99, max_bytes));
    assert_eq!(read(8 << 20).await.len(), 8);
    assert_eq!(read(1).await.len(), 1);
}

/// Pushes a message of a sender to a destination.
async fn push_of(
    f: &Fixture,
    sender: Sender,
    (destination, domain): (String, &'static str),
    number: u64,
    quota: OutboxQuota,
) -> OutPushed {
    f.write(move |tx| {
        let body = number.to_be_bytes();
        let new = NewOutbound {
            hash: hash(&body),
            body: &body,
            domain,
            senders: &[sender],
            ..outbound(&destination, "")
        };
        tx.outbox_push(&new, &quota)
    })
    .await
}

#[tokio::test]
async fn quotas_of_the_outbox_may_be_reached_and_not_passed() {
    let f = open();
    // Eight bytes with the route and the sender's DID.
    let counted = 8 + 2 + 15;
    let (each, wide) = (counted + OUTBOUND_OVERHEAD, 1 << 40);
    let mut number = 0;
    let mut push = async |destination: &str, quota: [u64; 4]| {
        number += 1;
        let [messages, bytes, total_bytes, destinations] = quota;
        let quota = OutboxQuota {
            per_destination_messages: messages,
            per_destination_bytes: bytes,
            total_bytes,
            destinations,
            ..AMPLE_OUT
        };
        // Every message is of another sender, so only the quotas themselves count.
        let of = sender(number, SenderClass::Local);
        push_of(
            &f,
            of,
            (destination.to_owned(), "m.example"),
            number.into(),
            quota,
        )
        .await
    };
    let (full, all_full) = (OutPushed::DestinationFull, OutPushed::StoreFull);
    assert_eq!(push("did:web:a", [0, wide, wide, 9]).await, full);
    assert_eq!(push("did:web:a", [9, each - 1, wide, 9]).await, full);
    assert_eq!(push("did:web:a", [9, wide, each - 1, 9]).await, all_full);
    assert_eq!(push("did:web:a", [9, wide, wide, 0]).await, all_full);
    let stored = push("did:web:a", [1, wide, wide, 9]).await;
    assert!(matches!(stored, OutPushed::Stored(_)));
    assert_eq!(push("did:web:a", [1, wide, wide, 9]).await, full);
    assert_eq!(push("did:web:b", [1, wide, wide, 1]).await, all_full);
    let other = push("did:web:b", [1, wide, wide, 9]).await;
    assert!(matches!(other, OutPushed::Stored(_)));
    assert_eq!(f.read(|q| q.outbox_of("did:web:a")).await, (1, counted));
    assert_eq!(f.read(|q| q.outbox_of("did:web:none")).await, (0, 0));
    assert_eq!(f.read(|q| q.outbox_totals()).await, (2, 2 * counted));
}

/// One sender, then one domain with many senders, fill what they may; then others come.
#[tokio::test]
async fn inv7_neither_a_sender_nor_a_domain_takes_the_outbox_from_others() {
    let quotas = [
        OutboxQuota {
            total_messages: 1000,
            ..AMPLE_OUT
        },
        OutboxQuota {
            total_bytes: 1 << 20,
            ..AMPLE_OUT
        },
        OutboxQuota {
            destinations: 1000,
            ..AMPLE_OUT
        },
    ];
    for quota in quotas {
        let f = open();
        let mut number = 0;
        let mut fill = async |sender: Sender, domain: &'static str| {
            for stored in 0.. {
                number += 1;
                let to = format!("did:web:{number}.{domain}");
                let pushed = push_of(&f, sender, (to, domain), number, quota).await;
                if pushed == OutPushed::StoreFull {
                    return stored;
                }
            }
            0
        };
        let one = fill(sender(1, SenderClass::Other), "evil.example").await;
        let mut domain = one;
        for n in 2..40 {
            domain += fill(sender(n, SenderClass::Other), "evil.example").await;
        }
        let honest = fill(sender(40, SenderClass::Other), "good.example").await;
        let registered = fill(sender(41, SenderClass::Registered), "good.example").await;
        println!("{one}, a domain {domain}, then {honest}, an account {registered}");
        // With the class's three quarters: three eighths for a sender, half for a domain.
        assert!(one > 200 && domain < 2 * one, "{one}, {domain}");
        assert!(honest > 20 && registered > honest, "{honest}, {registered}");
    }
}

#[tokio::test]
async fn inv7_no_sender_takes_a_destination_from_others() {
    let f = open();
    let quota = OutboxQuota {
        per_destination_messages: 100,
        ..AMPLE_OUT
    };
    let mut number = 0;
    let mut fill = async |sender: Sender| {
        for stored in 0.. {
            number += 1;
            let to = ("did:web:m".to_owned(), "m");
            if push_of(&f, sender, to, number, quota).await == OutPushed::DestinationFull {
                return stored;
            }
        }
        0
    };
    let one = fill(sender(1, SenderClass::Other)).await;
    assert!((20..30).contains(&one), "{one}");
    for n in 2..12 {
        assert!(fill(sender(n, SenderClass::Other)).await > 0, "{n}");
    }
    // What has left makes room again.
    let due_rows = f.read(|q| q.outbox_due("did:web:m", at(0), 999, 1 << 40));
    for id in due_rows.await {
        f.write(move |tx| tx.outbox_done(id.id, Outcome::Delivered, None, at(1)))
            .await;
    }
    assert_eq!(fill(sender(1, SenderClass::Other)).await, one);
}

#[tokio::test]
async fn outcomes_are_counted_and_deleted_when_nothing_waits() {
    let f = open();
    let mut ids = Vec::new();
    for (destination, text) in [
        ("did:web:a", "1"),
        ("did:web:a", "2"),
        ("did:web:b", "3"),
        ("did:web:c", "4"),
    ] {
        let OutPushed::Stored(id) = push(&f, destination, text, 0).await else {
            panic!("not stored");
        };
        ids.push(id);
    }
    for (id, outcome, now) in [
        (ids[0], Outcome::Refused, 10),
        (ids[2], Outcome::GivenUp, 20),
    ] {
        let why = RemoteText::new("it says no");
        f.write(move |tx| tx.outbox_done(id, outcome, Some(&why), at(now)))
            .await;
    }
    let outcomes = f.read(|q| q.relay_outcomes(9)).await;
    let outcomes: Vec<_> = outcomes
        .iter()
        .map(|o| (o.destination.as_str(), o.waiting, o.refused, o.given_up))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("did:web:b", 0, 0, 1),
            ("did:web:a", 1, 1, 0),
            ("did:web:c", 1, 0, 0)
        ]
    );
    let why = f.read(|q| q.relay_outcomes(9)).await;
    let why: Vec<_> = why
        .iter()
        .map(|o| o.last_error.as_ref().map(RemoteText::as_str))
        .collect();
    assert_eq!(why, [Some("it says no"), Some("it says no"), None]);
    // Something waits for a; nothing was tried with c.
    assert_eq!(f.write(|tx| tx.prune_outcomes(at(20), 9)).await, 0);
    assert_eq!(f.write(|tx| tx.prune_outcomes(at(21), 9)).await, 1);
    assert_eq!(f.read(|q| q.relay_outcomes(9)).await.len(), 2);
}

#[tokio::test]
async fn inv10_a_taken_message_is_not_taken_again_before_its_lease_ends_or_a_restart() {
    let f = open();
    for text in ["1", "2"] {
        push(&f, "did:web:a", text, 0).await;
    }
    let first = take(&f, "did:web:a", 1).await.unwrap();
    assert!(
        !f.write(move |tx| tx.outbox_take(first, at(90), at(180)))
            .await
    );
    assert_eq!(due(&f, "did:web:a", 1, 9).await, ["2"]);
    assert_eq!(due(&f, "did:web:a", 91, 9).await.len(), 2);
    // Deferred for our own reasons: no attempt is counted, and it is due at the given time.
    f.write(move |tx| tx.outbox_defer(first, at(5))).await;
    assert_eq!(f.read(|q| q.relay_outcomes(9)).await[0].failed, 0);
    assert_eq!(due(&f, "did:web:a", 5, 9).await, ["2", "1"]);
    take(&f, "did:web:a", 5).await.unwrap();
    assert_eq!(due(&f, "did:web:a", 5, 9).await, ["1"]);
    assert_eq!(f.write(|tx| tx.outbox_recover(at(6))).await, 1);
    assert_eq!(due(&f, "did:web:a", 6, 9).await.len(), 2);
}

#[tokio::test]
async fn a_message_that_comes_again_has_the_longer_of_both_lives() {
    let f = open();
    let push = |next_at, expires_at, sender: Option<&'static str>| {
        f.store.transact(move |tx| {
            let new = NewOutbound {
                next_at: at(next_at),
                expires_at: at(expires_at),
                sender,
                ..outbound("did:web:a", "one")
            };
            tx.outbox_push(&new, &AMPLE_OUT)
        })
    };
    assert!(matches!(
        push(50, 60, None).await.unwrap(),
        OutPushed::Stored(_)
    ));
    assert_eq!(
        push(10, 90, Some("did:peer:b")).await.unwrap(),
        OutPushed::Duplicate
    );
    assert_eq!(
        push(70, 20, Some("did:peer:c")).await.unwrap(),
        OutPushed::Duplicate
    );
    let rows = f.read(|q| q.outbox_due("did:web:a", at(10), 9, 1 << 40));
    let row = rows.await.remove(0);
    assert_eq!((row.next_at, row.expires_at), (at(10), at(90)));
    assert_eq!(row.sender.as_deref(), Some("did:peer:b"));
}
