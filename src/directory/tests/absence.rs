//! Answers that know no such account, what hides an account, and what is left of one that ended.

use super::*;
use crate::store::Takedown;

const HOUR: Duration = Duration::from_secs(3600);

async fn shown() -> (World, TestRepo) {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there).await;
    (w, repo)
}

async fn wait(w: &World, repo: &TestRepo) -> Duration {
    let entry = w.entry(repo).await.unwrap();
    entry.next_check_at.since(entry.checked_at)
}

#[tokio::test]
async fn inv5_answers_that_know_no_such_account_hide_no_account_within_an_hour() {
    let (w, repo) = shown().await;
    let mut rechecks = Vec::new();
    let begin = w.clock.now();
    // However often it is asked, by whomever.
    for _ in 0..50 {
        assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Missing);
        rechecks.push(wait(&w, &repo).await);
        assert!(w.view(ALICE).await.unwrap().is_ok());
    }
    assert!(rechecks.is_sorted() && rechecks[0] <= Duration::from_secs(60));
    assert!(rechecks[1] <= Duration::from_secs(120) && rechecks[49] <= HOUR);
    w.clock
        .advance(HOUR - Duration::from_secs(1) - w.clock.now().since(begin));
    assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Missing);
    assert!(w.view(ALICE).await.unwrap().is_ok());
    assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Inactive);
    let refused = Some(Err(LexiconError::AccountInactive));
    assert_eq!(w.view(ALICE).await, refused);
    // It is looked at again within minutes, and shown again by its next proof.
    assert!(wait(&w, &repo).await <= Duration::from_secs(60));
    assert_eq!(w.pds(&repo, repo.prove()).await, Outcome::Proven);
    assert!(w.view(ALICE).await.unwrap().is_ok());
}

#[tokio::test]
async fn inv5_any_other_answer_begins_the_hour_anew() {
    let (w, mut repo) = shown().await;
    let useless = Finding::Unverifiable {
        reason: "pds_answer",
        detail: "HTTP 404".to_owned(),
    };
    for between in [None, Some(useless)] {
        w.finding(&repo, Finding::Missing).await;
        w.clock.advance(HOUR);
        match between {
            Some(finding) => w.finding(&repo, finding).await,
            None => w.pds(&repo, repo.prove()).await,
        };
        assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Missing);
        w.pds(&repo, repo.prove()).await;
    }
    // A write in the stream is an answer, too; that no server answers is none.
    w.finding(&repo, Finding::Missing).await;
    w.clock.advance(HOUR);
    let written = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.stream(&repo, written).await;
    assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Missing);
    w.clock.advance(HOUR);
    w.finding(&repo, UNREACHABLE).await;
    assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Inactive);
}

/// The account moved, and its new PDS does not know it: nothing is proven under the new identity.
#[tokio::test]
async fn inv1_a_missing_account_with_another_key_is_not_shown() {
    let (w, mut repo) = shown().await;
    repo.rotate(2);
    assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Missing);
    let refused = Some(Err(LexiconError::UpstreamFailure));
    assert_eq!(w.view(ALICE).await, refused);
}

#[tokio::test]
async fn what_is_not_served_is_checked_with_growing_waits() {
    let takendown = || Finding::Inactive(AccountStatus::Takendown);
    for finding in [takendown(), Finding::AbsentUnproven] {
        let (w, repo) = shown().await;
        // Failures of before do not count.
        for _ in 0..20 {
            w.finding(&repo, UNREACHABLE).await;
        }
        let mut waits = Vec::new();
        for _ in 0..20 {
            w.finding(&repo, finding.clone()).await;
            waits.push(wait(&w, &repo).await);
        }
        assert!(waits[0] <= Duration::from_secs(60) && waits[1] <= Duration::from_secs(120));
        assert!(waits.is_sorted() && waits[19] > REPROVE / 2 && waits[19] <= REPROVE);
        w.pds(&repo, repo.prove()).await;
    }
    // Another status is news.
    let (w, repo) = shown().await;
    for _ in 0..10 {
        w.finding(&repo, takendown()).await;
    }
    w.finding(&repo, Finding::Inactive(AccountStatus::Suspended))
        .await;
    assert!(wait(&w, &repo).await <= Duration::from_secs(60));
}

#[tokio::test]
async fn a_regressed_package_is_checked_within_minutes() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let old = repo.put(&package(&peer(10), &[MEDIATOR]));
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, new).await;
    assert_eq!(w.pds(&repo, old).await, Outcome::Regressed);
    assert!(wait(&w, &repo).await <= Duration::from_secs(60));
}

/// A write in the stream of an account that is hidden: perhaps the event that it is back was lost.
#[tokio::test]
async fn a_write_of_a_hidden_account_leads_to_a_look_and_puts_none_off() {
    let (w, mut repo) = shown().await;
    for _ in 0..10 {
        w.finding(&repo, Finding::Inactive(AccountStatus::Deactivated))
            .await;
    }
    let due = w.entry(&repo).await.unwrap().next_check_at;
    let written = repo.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(w.stream(&repo, written.clone()).await, Outcome::Package);
    let refused = Some(Err(LexiconError::AccountInactive));
    assert_eq!(w.view(ALICE).await, refused);
    assert_eq!(w.entry(&repo).await.unwrap().next_check_at, due);
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 1);
    assert_eq!(w.pds(&repo, written).await, Outcome::Proven);
    assert_eq!(
        w.view(ALICE).await.unwrap().unwrap()["peer"]["did"],
        peer(11)
    );
}

/// What a look found before a write in the stream says nothing about the account after it.
#[tokio::test]
async fn inv4_a_status_that_was_overtaken_hides_no_account() {
    let (w, mut repo) = shown().await;
    let mut late = Vec::new();
    for finding in [
        Finding::Inactive(AccountStatus::Deactivated),
        Finding::Missing,
        Finding::Deleted,
    ] {
        late.push(w.seen(&repo, finding, Authority::Pds).await);
    }
    let written = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.stream(&repo, written).await;
    for seen in late {
        assert_eq!(w.apply(seen).await, Outcome::Ignored);
    }
    assert!(w.view(ALICE).await.unwrap().is_ok());
    assert_eq!(w.entry(&repo).await.unwrap().missing_since, None);
}

#[tokio::test]
async fn an_unknown_account_is_not_shown_by_a_stream_alone() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    assert_eq!(w.stream(&repo, there.clone()).await, Outcome::Ignored);
    assert!(w.view(ALICE).await.is_none() && !w.directory.is_tracked(ALICE));
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 1);
    assert_eq!(w.pds(&repo, there).await, Outcome::Package);
}

#[tokio::test]
async fn the_proof_of_an_absence_ends_with_the_key_it_was_made_under() {
    let (w, mut repo) = shown().await;
    let gone = repo.delete();
    w.pds(&repo, gone).await;
    repo.rotate(2);
    w.finding(&repo, UNREACHABLE).await;
    let entry = w.entry(&repo).await.unwrap();
    assert_eq!(entry.state, PackageState::Unverifiable);
    assert_eq!(w.proof(&repo).await, None);
}

#[tokio::test]
async fn an_account_that_ended_leaves_one_mark_and_nothing_else() {
    for by_age in [false, true] {
        let (w, mut repo) = shown().await;
        let old = repo.prove();
        let second = repo.put(&package(&peer(11), &[MEDIATOR]));
        w.pds(&repo, second).await;
        assert_eq!(w.pds(&repo, old).await, Outcome::Regressed);
        if by_age {
            // Hidden as deleted, and so for as long as an entry is kept.
            w.finding(&repo, Finding::Missing).await;
            w.clock.advance(HOUR);
            assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Inactive);
            w.clock.advance(DROP);
            assert_eq!(w.finding(&repo, Finding::Missing).await, Outcome::Deleted);
        } else {
            assert_eq!(w.finding(&repo, Finding::Deleted).await, Outcome::Deleted);
        }
        assert!(w.view(ALICE).await.is_none() && !w.directory.is_tracked(ALICE));
        let did = repo.did.clone();
        let (changes, evidence) = w
            .directory
            .store()
            .query(move |q| Ok((q.changes(&did, 100)?, q.evidence_count(&did)?)))
            .await
            .unwrap();
        let [mark] = &changes[..] else {
            panic!("{changes:?}")
        };
        let mut bare =
            crate::store::Change::bare(repo.did.clone(), ChangeKind::Deleted, mark.seen_at);
        bare.seq = mark.seq;
        assert_eq!((mark, evidence), (&bare, 0));
        // Followers of the log see the end, whatever place they had.
        let after = w.directory.store().query(|q| q.changes_after(1, 9)).await;
        assert_eq!(after.unwrap(), [(mark.seq, repo.did.clone())]);
        // Enrolled again, the account has no history of before.
        let mut again = TestRepo::new(ALICE, 3);
        let there = again.put(&package(&peer(12), &[MEDIATOR]));
        assert_eq!(w.pds(&again, there).await, Outcome::Package);
        let page = Page {
            before: None,
            limit: 100,
            with_proof: false,
            log: None,
        };
        let history = w.directory.history(&repo.did, page).await.unwrap().unwrap();
        let history: serde_json::Value = serde_json::from_slice(&history.body).unwrap();
        assert_eq!(history["changes"].as_array().unwrap().len(), 1, "{history}");
        assert_eq!(history["changes"][0]["kind"], "package");
    }
}

/// The operator lets the word of a relay count beside that of the PDS.
#[tokio::test]
async fn the_word_of_a_relay_hides_an_account_until_the_relay_takes_it_back() {
    let (w, mut repo) = shown().await;
    let did = repo.did.clone();
    let say = async |status: Option<AccountStatus>| {
        let batch = Batch {
            takedowns: vec![Takedown {
                did: did.clone(),
                source: "relay x".to_owned(),
                status,
            }],
            ..Batch::default()
        };
        w.directory.apply_batch(batch).await.unwrap();
    };
    let hidden = Some(Err(LexiconError::AccountInactive));
    w.view(ALICE).await;
    say(Some(AccountStatus::Takendown)).await;
    assert!(w.directory.cached_view(ALICE).is_none());
    assert_eq!(w.view(ALICE).await, hidden);
    // Its PDS says that it is active.
    w.pds(&repo, repo.prove()).await;
    assert_eq!(w.view(ALICE).await, hidden);
    w.finding(&repo, Finding::Inactive(AccountStatus::Deactivated))
        .await;
    w.pds(&repo, repo.prove()).await;
    let status = w.entry(&repo).await.unwrap().status;
    assert_eq!(status, AccountStatus::Takendown);
    // Taken back, or said by a relay that is configured no more.
    say(None).await;
    w.pds(&repo, repo.prove()).await;
    assert!(w.view(ALICE).await.unwrap().is_ok());
    say(Some(AccountStatus::Takendown)).await;
    let keep = |name: &str| w.directory.keep_takedowns_of(vec![name.to_owned()]);
    keep("relay x").await.unwrap();
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 0);
    keep("relay y").await.unwrap();
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 1);
    let written = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, written).await;
    assert!(w.view(ALICE).await.unwrap().is_ok());
    // Nothing is kept of accounts without an entry.
    w.finding(&repo, Finding::Deleted).await;
    say(Some(AccountStatus::Takendown)).await;
    let there = repo.prove();
    w.pds(&repo, there).await;
    assert!(w.view(ALICE).await.unwrap().is_ok());
}
