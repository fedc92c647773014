//! Positions in the change log: of this log or another, and those of consumers.

use super::updates::HISTORY;
use super::*;
use crate::directory::{Consumer, CursorRefusal};

#[tokio::test]
async fn a_position_of_a_log_that_was_lost_is_none_of_this_log() {
    let mut w = World::new().await;
    w.restart().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let mut put = async |w: &World, n: u8| {
        let proven = repo.put(&package(&peer(n), &[MEDIATOR]));
        w.pds(&repo, proven).await;
        w.directory.log().await.unwrap()
    };
    put(&w, 10).await;
    let copied = put(&w, 11).await;
    w.directory.shutdown().await;
    let file = w._dir.path().join("directory.db");
    let copy = std::fs::read(&file).unwrap();
    // What is given after the copy was made, in the same run and in later ones.
    w.restart().await;
    let lost = put(&w, 12).await;
    w.restart().await;
    let lost_later = put(&w, 13).await;
    w.directory.shutdown().await;
    std::fs::write(&file, copy).unwrap();
    for seed in [14, 15] {
        w.clock.advance(Duration::from_millis(1));
        w.restart().await;
        let check = async |cursor: i64, stream: Option<&str>| {
            let stream = stream.map(str::to_owned);
            w.directory
                .check_cursor(cursor, stream)
                .await
                .unwrap()
                .err()
        };
        use CursorRefusal::{Future, StreamMismatch};
        for log in [&lost, &lost_later] {
            assert_eq!(check(log.newest, None).await, Some(StreamMismatch));
        }
        assert_eq!(check(copied.newest, Some(&copied.stream)).await, None);
        assert_eq!(check(0, Some(&copied.stream)).await, None);
        assert_eq!(check(0, Some("another")).await, Some(StreamMismatch));
        let newest = put(&w, seed).await.newest;
        assert_eq!(check(newest, None).await, None);
        assert_eq!(check(newest + 1, None).await, Some(Future));
        assert_eq!(check(copied.newest, None).await, None);
        for log in [&lost, &lost_later] {
            assert_eq!(check(log.newest, None).await, Some(StreamMismatch));
        }
    }
}

#[tokio::test]
async fn a_reader_that_may_have_missed_the_end_of_an_account_is_told_so() {
    let mut w = World::new().await;
    w.restart().await;
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    let hers = alice.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&alice, hers).await;
    let early = w.directory.log().await.unwrap().newest;
    w.finding(&alice, Finding::Deleted).await;
    let ended = w.directory.log().await.unwrap().newest;
    w.clock.advance(HISTORY * 2);
    let his = bob.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&bob, his).await;
    let refused = async |cursor| w.directory.check_cursor(cursor, None).await.unwrap().err();
    assert_eq!(refused(early).await, None);
    w.clean().await;
    assert_eq!(refused(early).await, Some(CursorRefusal::TooOld));
    assert_eq!(refused(ended).await, None);
    assert_eq!(refused(0).await, None);
    // A consumer of the channel that was away for so long is told so, too.
    assert_eq!(
        w.directory.connect_consumer("one").await.unwrap(),
        Consumer::At {
            position: 0,
            newest: w.directory.log().await.unwrap().newest
        }
    );
    w.directory.acknowledge("one", early).await.unwrap();
    let connected = w.directory.connect_consumer("one").await.unwrap();
    assert_eq!(connected, Consumer::TooOld);
    w.directory.acknowledge("one", ended).await.unwrap();
    // A position only goes forward.
    w.directory.acknowledge("one", early).await.unwrap();
    let connected = w.directory.connect_consumer("one").await.unwrap();
    assert!(matches!(connected, Consumer::At { position, .. } if position == ended));
}

#[tokio::test]
async fn consumers_are_bounded_and_the_one_unseen_for_longest_gives_way() {
    let mut w = World::new().await;
    w.restart().await;
    for n in 0..16 {
        let connected = w
            .directory
            .connect_consumer(&format!("c{n}"))
            .await
            .unwrap();
        assert!(matches!(connected, Consumer::At { position: 0, .. }));
        w.clock.advance(Duration::from_secs(60));
    }
    let connect = async |name: &str| w.directory.connect_consumer(name).await.unwrap();
    assert_eq!(connect("more").await, Consumer::Full);
    w.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert!(matches!(connect("c0").await, Consumer::At { .. }));
    assert!(matches!(connect("more").await, Consumer::At { .. }));
    let stored = async |name: &'static str| {
        let position = w.directory.store().query(move |q| q.consumer(name)).await;
        position.unwrap()
    };
    assert_eq!(stored("c1").await, None);
    assert_eq!(stored("c0").await, Some(0));
}
