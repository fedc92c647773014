use super::*;
use atcomm_proto::syntax::Did;

#[tokio::test]
async fn an_account_keeps_its_id_over_updates_and_no_id_comes_twice() {
    let f = open();
    let mut written = account("did:peer:a");
    written.provisional_until = Some(at(900));
    written.address_group = Some([7; 16]);
    let put = written.clone();
    written.id = f.write(move |tx| tx.put_account(&put)).await;
    let read = f.read(|q| q.account("did:peer:a")).await;
    assert_eq!(read.as_ref(), Some(&written));
    let id = written.id;
    assert_eq!(f.read(move |q| q.account_by_id(id)).await, read);

    // Granted for good.
    written.provisional_until = None;
    written.address_group = None;
    written.seen_at = at(5);
    let put = written.clone();
    assert_eq!(f.write(move |tx| tx.put_account(&put)).await, id);
    assert_eq!(f.read(|q| q.account("did:peer:a")).await, Some(written));
    assert_eq!(f.read(|q| q.account_count()).await, 1);

    assert!(f.write(move |tx| tx.delete_account(id)).await);
    assert!(!f.write(move |tx| tx.delete_account(id)).await);
    assert_eq!(f.read(|q| q.account("did:peer:a")).await, None);
    let (again, _) = f.account("did:peer:a", &[]).await;
    assert!(
        again > id,
        "a socket of the old account reads nothing of the new one"
    );
}

#[tokio::test]
async fn provisional_grants_are_counted_by_group_and_found_when_they_lapse() {
    let f = open();
    f.write(|tx| {
        for (n, group, until) in [
            (1, 1, Some(10)),
            (2, 1, Some(20)),
            (3, 2, Some(30)),
            (4, 1, None),
        ] {
            let mut put = account(&format!("did:peer:{n}"));
            put.address_group = Some([group; 16]);
            put.provisional_until = until.map(at);
            tx.put_account(&put)?;
        }
        Ok(())
    })
    .await;
    let count = |group: Option<u8>, now| {
        f.store
            .query(move |q| q.provisional_count(group.map(|group| [group; 16]).as_ref(), at(now)))
    };
    assert_eq!(count(None, 0).await.unwrap(), 3);
    assert_eq!(count(Some(1), 0).await.unwrap(), 2);
    assert_eq!(count(Some(1), 10).await.unwrap(), 1);
    assert_eq!(count(Some(9), 0).await.unwrap(), 0);
    let lapsed = f.read(|q| q.lapsed_accounts(at(20), 9)).await;
    let lapsed: Vec<_> = lapsed.iter().map(|account| account.did.as_str()).collect();
    assert_eq!(lapsed, ["did:peer:1", "did:peer:2"]);
    assert_eq!(f.read(|q| q.lapsed_accounts(at(20), 1)).await.len(), 1);
}

#[tokio::test]
async fn an_account_is_seen_to_the_minute() {
    let f = open();
    let (id, _) = f.account("did:peer:a", &[]).await;
    for (now, seen) in [(59, 0), (60, 60), (10, 60), (119, 60), (500, 500)] {
        f.write(move |tx| tx.touch_account(id, at(now))).await;
        let account = f.read(move |q| q.account_by_id(id)).await.unwrap();
        assert_eq!(account.seen_at, at(seen), "{now}");
    }
    assert!(f.read(|q| q.idle_accounts(at(500), 9)).await.is_empty());
    assert_eq!(f.read(|q| q.idle_accounts(at(501), 9)).await.len(), 1);
}

#[tokio::test]
async fn a_recipient_belongs_to_one_account_and_its_owner_wins() {
    let f = open();
    let (a, _) = f.account("did:peer:a", &["did:peer:x"]).await;
    let (b, _) = f.account("did:peer:b", &[]).await;
    let bind = |account| f.store.transact(move |tx| tx.bind("did:peer:x", account));
    assert_eq!(bind(a).await.unwrap(), Bound::Already);
    assert_eq!(bind(b).await.unwrap(), Bound::Taken(a));
    assert!(!f.write(move |tx| tx.unbind("did:peer:x", b)).await);
    let rebind = |account| f.store.transact(move |tx| tx.rebind("did:peer:x", account));
    assert_eq!(rebind(b).await.unwrap(), Some(a));
    assert_eq!(rebind(b).await.unwrap(), None);
    assert_eq!(bind(a).await.unwrap(), Bound::Taken(b));
    assert!(f.write(move |tx| tx.unbind("did:peer:x", b)).await);
    assert!(!f.write(move |tx| tx.unbind("did:peer:x", b)).await);
    assert_eq!(bind(a).await.unwrap(), Bound::New);
    // An account that is not there gets nothing, and the recipient keeps its own.
    assert!(rebind(999).await.is_err());
    assert_eq!(bind(a).await.unwrap(), Bound::Already);
    assert!(f.store.is_healthy());
}

#[tokio::test]
async fn inv3_a_closed_queue_stays_readable_and_opens_again() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:a", "did:peer:x"]).await;
    let own = ids[0];
    f.push(own, "one").await;
    let close = |now| {
        f.store
            .transact(move |tx| tx.close("did:peer:a", a, at(now)))
    };
    assert!(close(5).await.unwrap());
    assert!(!close(6).await.unwrap());
    let row = f.read(|q| q.recipient("did:peer:a")).await.unwrap();
    assert_eq!((row.account, row.closed_at), (Some(a), Some(at(5))));
    let reader = f.read(|q| q.reader("did:peer:a")).await.unwrap();
    let closed = Reader {
        account: a,
        is_closed: true,
        seen_at: at(0),
    };
    assert_eq!(reader, (own, Some(closed)));
    // Listed no more, and read and acknowledged as before.
    assert_eq!(f.read(move |q| q.recipient_count(a)).await, 1);
    let listed = f.read(move |q| q.recipients_of(a, 9, 0)).await;
    assert_eq!(listed[0].did, "did:peer:x");
    assert_eq!(f.texts(Queue::Account(a), 0, 9, 99).await, ["one"]);
    assert_eq!(f.write(move |tx| tx.ack(a, &[hash(b"one")])).await, 1);
    assert_eq!(f.write(|tx| tx.drop_idle_recipients(9)).await, 0);
    let bind = || f.store.transact(move |tx| tx.bind("did:peer:a", a));
    assert_eq!(bind().await.unwrap(), Bound::New);
    assert_eq!(bind().await.unwrap(), Bound::Already);
    assert_eq!(f.read(move |q| q.recipient_count(a)).await, 2);
    // A queue that does not exist yet is made closed.
    let (b, _) = f.account("did:peer:b", &[]).await;
    assert!(!f.write(move |tx| tx.close("did:peer:b", b, at(7))).await);
    let (_, reader) = f.read(|q| q.reader("did:peer:b")).await.unwrap();
    assert!(reader.unwrap().is_closed);
}

#[test]
fn inv3_queues_that_were_removed_in_the_first_schema_are_readable_again() {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    let migrations = schema::MAILBOX.migrations;
    schema::migrate(&conn, &migrations[..1]).unwrap();
    conn.execute_batch(
        "INSERT INTO account (id, did, long, granted_at, seen_at) VALUES
           (1, 'did:peer:a', 'did:peer:a', 10, 20), (2, 'did:peer:b', 'did:peer:b', 10, 30);
         INSERT INTO recipient (did, account) VALUES
           ('did:peer:a', NULL), ('did:peer:b', 2), ('did:peer:nobody', NULL);",
    )
    .unwrap();
    schema::migrate(&conn, migrations).unwrap();
    let mut query = conn
        .prepare("SELECT account, closed_at FROM recipient ORDER BY id")
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(Option<i64>, Option<i64>)> = rows.unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [(Some(1), Some(20)), (Some(2), None), (None, None)]);
}

#[tokio::test]
async fn recipients_are_listed_in_order_and_in_pages() {
    let f = open();
    let (a, ids) = f
        .account("did:peer:a", &["did:peer:z", "did:peer:y", "did:peer:x"])
        .await;
    f.account("did:peer:b", &["did:peer:w"]).await;
    assert_eq!(f.read(move |q| q.recipient_count(a)).await, 3);
    let page = f.read(move |q| q.recipients_of(a, 2, 1)).await;
    let page: Vec<_> = page.into_iter().map(|row| (row.id, row.did)).collect();
    assert_eq!(
        page,
        [
            (ids[1], "did:peer:y".to_owned()),
            (ids[2], "did:peer:x".to_owned())
        ]
    );
}

#[tokio::test]
async fn mail_outlives_its_account_and_idle_recipients_go() {
    let f = open();
    let (a, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    let x = ids[0];
    f.push(x, "one").await;
    assert_eq!(f.write(|tx| tx.drop_idle_recipients(9)).await, 0);
    f.write(move |tx| tx.delete_account(a)).await;
    assert_eq!(f.write(|tx| tx.drop_idle_recipients(9)).await, 1);
    assert_eq!(f.read(|q| q.recipient("did:peer:y")).await, None);
    let left = f.read(|q| q.recipient("did:peer:x")).await.unwrap();
    assert_eq!((left.account, left.messages), (None, 1));
    // The next account that the DID is bound to reads the mail.
    let (b, _) = f.account("did:peer:b", &["did:peer:x"]).await;
    assert_eq!(f.texts(Queue::Account(b), 0, 9, 99).await, ["one"]);
    f.write(move |tx| tx.delete_account(b)).await;
    f.write(|tx| tx.expire(at(100), 9)).await;
    assert_eq!(f.write(|tx| tx.drop_idle_recipients(9)).await, 1);
    // A caller that still holds the old id gets an error, and writes to no other recipient.
    let id = f.write(|tx| tx.open_queue("did:peer:new")).await;
    assert!(id > x);
    assert_eq!(f.push(x, "two").await, Pushed::Gone);
    assert_eq!(f.write(|tx| tx.open_queue("did:peer:new")).await, id);
}

#[tokio::test]
async fn claims_that_stand_come_first() {
    let f = open();
    let claim = |n: u8, peer: &str, state, since| Claim {
        account: Did::parse(&format!("did:web:a{n}.example.com")).unwrap(),
        peer: peer.to_owned(),
        state,
        since: at(since),
    };
    let all = [
        claim(1, "did:peer:x", ClaimState::Replaced, 10),
        claim(2, "did:peer:x", ClaimState::Current, 20),
        claim(3, "did:peer:x", ClaimState::Dropped, 30),
        claim(4, "did:peer:x", ClaimState::Inactive, 40),
        claim(1, "did:peer:y", ClaimState::Current, 50),
    ];
    let put = all.clone();
    f.write(move |tx| put.iter().try_for_each(|claim| tx.put_claim(claim)))
        .await;
    let claims = f.read(|q| q.claims("did:peer:x")).await;
    assert_eq!(claims.len(), 4);
    assert_eq!(claims[0], all[1]);
    let first = all[0].account.clone();
    let of = {
        let first = first.clone();
        f.read(move |q| q.claims_of(&first)).await
    };
    assert_eq!(of, [all[0].clone(), all[4].clone()]);
    let old = |before| {
        f.store
            .query(move |q| q.claims_before(ClaimState::Replaced, at(before), 9))
    };
    assert!(old(10).await.unwrap().is_empty());
    assert_eq!(old(11).await.unwrap(), [all[0].clone()]);
    // A claim changes in place.
    let changed = claim(1, "did:peer:x", ClaimState::Current, 60);
    let put = changed.clone();
    f.write(move |tx| tx.put_claim(&put)).await;
    assert!(old(99).await.unwrap().is_empty());
    assert!(f.read(|q| q.claims("did:peer:x")).await.contains(&changed));
    let gone = first.clone();
    assert!(
        f.write(move |tx| tx.delete_claim(&gone, "did:peer:x"))
            .await
    );
    assert!(
        !f.write(move |tx| tx.delete_claim(&first, "did:peer:x"))
            .await
    );
    assert_eq!(f.read(|q| q.claims("did:peer:x")).await.len(), 3);
}
