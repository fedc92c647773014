use super::*;
use atcomm_proto::syntax::Did;

#[tokio::test]
async fn a_queue_is_purged_in_batches_and_later_mail_stays() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x", "did:peer:y"]).await;
    let (x, y) = (ids[0], ids[1]);
    for text in ["one", "two", "three"] {
        f.push(x, text).await;
    }
    let up_to = f.read(|q| q.newest_message()).await;
    f.push(x, "later").await;
    f.push(y, "another's").await;
    let waiting = || f.store.query(move |q| q.waiting_up_to(x, up_to));
    assert_eq!(waiting().await.unwrap(), (3, 11));
    let purge = |limit, bytes| f.store.transact(move |tx| tx.purge(x, up_to, limit, bytes));
    // One message at least, then as many as fit.
    assert_eq!(purge(9, 1).await.unwrap(), (1, 3));
    assert_eq!(purge(1, 99).await.unwrap(), (1, 3));
    assert_eq!(waiting().await.unwrap(), (1, 5));
    assert_eq!(purge(9, 99).await.unwrap(), (1, 5));
    assert_eq!(purge(9, 99).await.unwrap(), (0, 0));
    assert_eq!(f.read(|q| q.totals()).await, (2, 14));
    assert_eq!(f.texts(Queue::Recipient(x), 0, 9, 99).await, ["later"]);
}

#[tokio::test]
async fn the_largest_queues_come_first_with_who_claims_them() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    f.push(ids[0], "short").await;
    let claim = Claim {
        account: Did::parse("did:web:a.example.com").unwrap(),
        peer: "did:peer:unread".to_owned(),
        state: ClaimState::Current,
        since: at(0),
    };
    let put = claim.clone();
    f.write(move |tx| tx.put_claim(&put)).await;
    let unread = f.write(|tx| tx.open_queue("did:peer:unread")).await;
    f.push(unread, "much longer").await;
    let largest = f.read(|q| q.largest_queues(9)).await;
    assert_eq!(
        largest[0],
        QueueSize {
            did: "did:peer:unread".to_owned(),
            is_registered: false,
            claimants: vec![claim.account.clone()],
            messages: 1,
            bytes: 11,
            oldest: Some(at(0)),
        }
    );
    assert_eq!((largest[1].did.as_str(), largest.len()), ("did:peer:x", 2));
    assert_eq!(f.read(|q| q.largest_queues(1)).await.len(), 1);

    let other = Did::parse("did:web:b.example.com").unwrap();
    let of_others = |account: Did| {
        f.store
            .query(move |q| q.claims_of_others("did:peer:unread", &account))
    };
    assert_eq!(of_others(claim.account.clone()).await.unwrap(), []);
    assert_eq!(of_others(other).await.unwrap(), [claim]);
}

#[tokio::test]
async fn a_denied_queue_is_found_until_the_denial_ends() {
    let f = open();
    f.account("did:peer:a", &["did:peer:x"]).await;
    let deny = |denied| {
        f.store
            .transact(move |tx| tx.set_denied("did:peer:x", denied))
    };
    assert_eq!(f.read(|q| q.denied_queue()).await, None);
    deny(true).await.unwrap();
    let found = f.read(|q| q.denied_queue()).await;
    assert_eq!(found.as_deref(), Some("did:peer:x"));
    deny(false).await.unwrap();
    assert_eq!(f.read(|q| q.denied_queue()).await, None);
}
