use super::*;

async fn row(store: &DirectoryStore) -> BackfillRow {
    store.query(|q| q.backfill("relay")).await.unwrap().unwrap()
}

async fn request(store: &DirectoryStore, seconds: i64) {
    store
        .transact(move |tx| tx.request_backfill("relay", at(seconds)))
        .await
        .unwrap();
}

#[tokio::test]
async fn events_missed_during_a_backfill_lead_to_another_one_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
    request(&store, 0).await;
    let mut under_way = row(&store).await;
    assert_eq!(under_way, BackfillRow::begun("relay".to_owned(), at(0)));
    under_way.position = Some("page 2".to_owned());
    under_way.seen = 500;
    let advance = |row: &BackfillRow| {
        let row = row.clone();
        store.transact(move |tx| tx.advance_backfill(&row))
    };
    advance(&under_way).await.unwrap();
    // It goes on where it is, however often events are missed.
    for second in 1..5 {
        request(&store, second).await;
        let now = row(&store).await;
        assert_eq!(now.position.as_deref(), Some("page 2"));
        assert_eq!((now.seen, now.started_at, now.again), (500, at(0), true));
    }
    // The end does not take away what was noted meanwhile.
    under_way.done_at = Some(at(6));
    under_way.complete_at = Some(at(6));
    advance(&under_way).await.unwrap();
    assert!(row(&store).await.again);
    request(&store, 7).await;
    assert_eq!(row(&store).await.done_at, Some(at(6)));
    let begin = |seconds| store.transact(move |tx| tx.begin_backfill("relay", at(seconds)));
    begin(8).await.unwrap();
    let again = row(&store).await;
    assert_eq!(
        (again.position, again.done_at, again.again),
        (None, None, false)
    );
    assert_eq!(again.restarted_at, Some(at(8)));
    assert_eq!(again.complete_at, Some(at(6)));
    // A page of the backfill before changes nothing of this one.
    advance(&under_way).await.unwrap();
    assert_eq!(row(&store).await.done_at, None);
    // One that nothing was missed during is no restart.
    let mut done = row(&store).await;
    done.done_at = Some(at(9));
    advance(&done).await.unwrap();
    request(&store, 10).await;
    let begun = row(&store).await;
    assert_eq!(
        (begun.started_at, begun.restarted_at),
        (at(10), Some(at(8)))
    );
}
