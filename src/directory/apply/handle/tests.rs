use super::*;
use crate::store::{Entry, Trigger};
use atcomm_proto::syntax::Did;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn handle(name: &str) -> Handle {
    Handle::parse(name).unwrap()
}

fn verified(name: &str) -> HandleCheck {
    HandleCheck::Verified(handle(name))
}

/// An entry whose account has claimed a handle since `NOW`, and nothing was checked.
fn claiming(name: &str) -> Entry {
    let did = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let mut entry = Entry::empty(did, Trigger::Request.source(), NOW);
    claim(&mut entry, Some(&handle(name)), NOW);
    entry
}

fn next(entry: &Entry) -> Timestamp {
    entry.handle_next_at.unwrap()
}

#[test]
fn a_claim_is_due_at_once_and_shows_nothing() {
    let mut entry = claiming("old.example.com");
    assert_eq!((next(&entry), entry.handle_news), (NOW, true));
    assert_eq!(shown(&entry, NOW), None);
    assert!(check(&mut entry, &verified("old.example.com"), NOW, NOW));
    assert_eq!(shown(&entry, NOW), Some(&handle("old.example.com")));
    let wait = next(&entry).since(NOW);
    assert!(wait >= REPROVE.mul_f64(0.75) && wait <= REPROVE);
    assert!(!entry.handle_news);
    // Another claim takes the name away, whatever becomes of the claim.
    let later = NOW.plus(HOUR);
    claim(&mut entry, Some(&handle("new.example.com")), later);
    assert_eq!((entry.handle.clone(), shown(&entry, later)), (None, None));
    assert_eq!((next(&entry), entry.handle_news), (later, true));
    // So does none.
    check(&mut entry, &verified("new.example.com"), later, later);
    claim(&mut entry, None, later);
    assert_eq!((entry.handle.clone(), entry.handle_next_at), (None, None));
}

#[test]
fn a_check_without_a_result_keeps_the_name_for_72_hours() {
    let mut entry = claiming("a.example.com");
    check(&mut entry, &verified("a.example.com"), NOW, NOW);
    let mut at = NOW;
    let mut waits = Vec::new();
    loop {
        at = next(&entry).max(at.plus(SECOND));
        let before = shown(&entry, at).is_some();
        check(&mut entry, &HandleCheck::Inconclusive, at, at);
        assert_eq!(shown(&entry, at).is_some(), before);
        assert_eq!(before, at.since(NOW) <= STALE);
        if !before {
            break;
        }
        waits.push(next(&entry).since(at));
    }
    assert_eq!((entry.handle.clone(), entry.handle_at), (None, None));
    assert!(
        waits.is_sorted() && waits[0] <= Duration::from_secs(120),
        "{waits:?}"
    );
    assert!(waits.last().unwrap() <= &LONGEST_UNANSWERED, "{waits:?}");
    // Its age counts where no check was made at all.
    let mut entry = claiming("a.example.com");
    check(&mut entry, &verified("a.example.com"), NOW, NOW);
    assert!(shown(&entry, NOW.plus(STALE)).is_some());
    assert!(shown(&entry, NOW.plus(STALE + SECOND)).is_none());
    // A time to come is a clock that was wrong.
    assert!(shown(&entry, NOW.minus(HOUR)).is_none());
}

#[test]
fn a_handle_that_leads_elsewhere_is_gone_at_once_and_tried_again_up_to_daily() {
    let mut entry = claiming("a.example.com");
    check(&mut entry, &verified("a.example.com"), NOW, NOW);
    let mut at = NOW;
    let mut waits = Vec::new();
    for _ in 0..20 {
        at = at.plus(HOUR);
        check(&mut entry, &HandleCheck::Invalid, at, at);
        assert_eq!((entry.handle.clone(), entry.handle_at), (None, None));
        waits.push(next(&entry).since(at));
        at = next(&entry);
    }
    assert!(
        waits.is_sorted() && waits[0] <= Duration::from_secs(120),
        "{waits:?}"
    );
    assert!(
        waits[19] >= REPROVE / 2 && waits[19] <= REPROVE,
        "{waits:?}"
    );
    check(&mut entry, &verified("a.example.com"), at, at);
    assert_eq!(
        (shown(&entry, at).is_some(), entry.handle_failures),
        (true, 0)
    );
}

#[test]
fn news_bring_a_check_forward_and_not_more_often_than_it_is_worth() {
    let mut entry = claiming("a.example.com");
    check(&mut entry, &verified("a.example.com"), NOW, NOW);
    make_due(&mut entry, NOW.plus(HOUR));
    assert_eq!((next(&entry), entry.handle_news), (NOW.plus(HOUR), true));
    let again = NOW.plus(HOUR + SECOND);
    check(&mut entry, &verified("a.example.com"), again, again);
    make_due(&mut entry, again);
    assert_eq!(next(&entry), again.plus(LEAST_WAIT));
    // An account that owns none of the names that it claims does not get a check for each.
    for n in 0..10 {
        let at = again.plus(HOUR + SECOND * n);
        claim(&mut entry, Some(&handle(&format!("n{n}.example.com"))), at);
        let is_urgent = n < MAX_URGENT_FAILURES;
        let wait = if is_urgent { Duration::ZERO } else { NEWS_WAIT };
        assert_eq!(
            (next(&entry), entry.handle_news),
            (at.plus(wait), is_urgent)
        );
        check(&mut entry, &HandleCheck::Invalid, at, at);
    }
}

#[test]
fn an_earlier_check_does_not_overrule_a_later_one() {
    let mut entry = claiming("a.example.com");
    let later = NOW.plus(SECOND * 5);
    assert!(check(&mut entry, &HandleCheck::Invalid, later, later));
    let due = next(&entry);
    for late in [verified("a.example.com"), HandleCheck::Inconclusive] {
        assert!(!check(&mut entry, &late, NOW, later));
    }
    assert_eq!((entry.handle.clone(), next(&entry)), (None, due));
    // A check that began before the news does not do as the check for the news.
    let news = later.plus(HOUR);
    make_due(&mut entry, news);
    let landed = news.plus(SECOND);
    check(
        &mut entry,
        &verified("a.example.com"),
        news.minus(SECOND),
        landed,
    );
    assert!(shown(&entry, landed).is_some());
    assert_eq!((next(&entry), entry.handle_news), (news, true));
    // A clock that was ahead once does not end all checks.
    let behind = later.minus(HOUR * 24);
    assert!(check(&mut entry, &HandleCheck::Invalid, behind, behind));
}

#[test]
fn a_name_that_a_client_asked_by_just_before_the_claim_was_read_is_confirmed() {
    let mut entry = claiming("a.example.com");
    let asked_at = NOW.minus(SECOND);
    assert!(check(&mut entry, &verified("a.example.com"), asked_at, NOW));
    assert!(shown(&entry, NOW).is_some());
    assert!(next(&entry) > NOW.plus(HOUR));
    // A failure before the claim says nothing about it.
    let mut entry = claiming("a.example.com");
    check(
        &mut entry,
        &HandleCheck::Inconclusive,
        asked_at,
        NOW.plus(SECOND),
    );
    assert_eq!((next(&entry), entry.handle_news), (NOW, true));
}
