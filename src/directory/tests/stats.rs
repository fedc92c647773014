//! The numbers of accounts, and lists as they are shown.

use serde_json::{Value, json};

use super::*;
use crate::store::directory::AccountFilter;
use atcomm_proto::syntax::MediatorDid;

async fn numbers(w: &World) -> Value {
    let statistics = w.directory.statistics().await.unwrap();
    serde_json::from_slice(&statistics.body).unwrap()
}

/// Writes an enrolled account of its own PDS.
async fn put(w: &World, n: u64, pds: u64) {
    let tail: String = (0..24)
        .map(|i| char::from(b'a' + u8::try_from((n >> (i * 2)) & 3).unwrap()))
        .collect();
    let entry = Entry {
        pds: Origin::parse(&format!("https://pds{pds:0>3}.example")).ok(),
        state: PackageState::Present,
        peer: Some(peer(u8::try_from(n % 200).unwrap())),
        handle: Handle::parse(&format!("user{n}.example.com")).ok(),
        handle_at: Some(w.clock.now()),
        mediators: vec![
            MediatorDid::parse(MEDIATOR).unwrap(),
            MediatorDid::parse("did:example:mediator").unwrap(),
        ],
        ..Entry::empty(
            Did::parse(&format!("did:plc:{tail}")).unwrap(),
            "test",
            w.clock.now(),
        )
    };
    w.directory
        .store()
        .transact(move |tx| tx.put_entry(&entry))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_is_given_again_for_a_second() {
    let w = World::new().await;
    put(&w, 0, 0).await;
    let first = w.directory.statistics().await.unwrap();
    put(&w, 1, 0).await;
    w.clock.advance(Duration::from_millis(999));
    let again = w.directory.statistics().await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    w.clock.advance(Duration::from_millis(1));
    let next = w.directory.statistics().await.unwrap();
    assert_ne!(first.etag, next.etag);
    assert_eq!(numbers(&w).await["totals"]["enrolled"], 2);
    // Numbers that did not change have the same tag at any time.
    w.clock.advance(Duration::from_secs(60));
    let later = w.directory.statistics().await.unwrap();
    assert_eq!(later.etag, next.etag);
    assert_ne!(later.body, next.body);
}

#[tokio::test]
async fn groups_after_the_largest_are_summed_up() {
    let w = World::new().await;
    // Twice as many accounts at the first ten.
    for n in 0..140 {
        put(&w, n, n).await;
    }
    for n in 0..10 {
        put(&w, 140 + n, n).await;
    }
    let numbers = numbers(&w).await;
    let by_pds = &numbers["byPds"];
    assert_eq!(by_pds["groups"], 140);
    let largest = by_pds["largest"].as_array().unwrap();
    assert_eq!(largest.len(), 100);
    assert_eq!(
        largest[9],
        json!({"name": "https://pds009.example", "accounts": 2})
    );
    assert_eq!(
        largest[10],
        json!({"name": "https://pds010.example", "accounts": 1})
    );
    assert_eq!(by_pds["others"], 40);
    // Each account names both.
    let by_mediator = json!({
        "groups": 2,
        "largest": [
            {"name": "did:example:mediator", "accounts": 150},
            {"name": MEDIATOR, "accounts": 150},
        ],
        "others": 0,
    });
    assert_eq!(numbers["byMediator"], by_mediator);
}

#[tokio::test]
async fn a_handle_is_listed_while_it_is_confirmed() {
    let w = World::new().await;
    put(&w, 0, 0).await;
    let handle = async || {
        let list = w.directory.list_accounts(AccountFilter::default(), None, 9);
        list.await.unwrap().items.pop().unwrap().handle
    };
    assert!(handle().await.is_some());
    w.clock.advance(STALE);
    assert!(handle().await.is_some());
    w.clock.advance(Duration::from_secs(1));
    assert!(handle().await.is_none());
}

#[tokio::test]
async fn mediators_that_were_never_looked_up_are_listed() {
    let w = World::new().await;
    put(&w, 0, 0).await;
    let list = w.directory.list_mediators(None, 9).await.unwrap();
    let states: Vec<(u64, MediatorState)> = list
        .items
        .iter()
        .map(|mediator| (mediator.recipients, mediator.document.state))
        .collect();
    let expected = [
        (1, MediatorState::Unsupported),
        (1, MediatorState::Unchecked),
    ];
    assert_eq!(states, expected);
}
