use super::*;

use atcomm_proto::syntax::Did;

use super::super::page::Repo;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn begun() -> BackfillRow {
    BackfillRow::begun("relay x".to_owned(), NOW)
}

fn done_at(at: Timestamp) -> BackfillRow {
    BackfillRow {
        done_at: Some(at),
        ..begun()
    }
}

fn before(ago: Duration) -> Timestamp {
    Timestamp::from_millis(NOW.millis() - i64::try_from(ago.as_millis()).unwrap())
}

fn page(accounts: usize, cursor: Option<&str>) -> Page {
    let repo = Repo {
        did: Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap(),
        active: None,
    };
    Page {
        cursor: cursor.map(str::to_owned),
        repos: vec![repo; accounts],
        bad_entries: 0,
    }
}

/// Reads the pages of a server until the end, a failure, or `most` pages.
fn read(server: impl Fn(Option<&str>) -> Page, most: usize) -> (usize, Option<PageError>) {
    let (mut row, mut course) = (begun(), Course::default());
    for pages in 1..=most {
        let page = server(row.position.as_deref());
        let failure = on_page(&mut row, &page, &mut course, NOW);
        if failure.is_some() || row.done_at.is_some() {
            return (pages, failure);
        }
    }
    (most, None)
}

#[test]
fn the_pages_of_the_backfill_before_are_no_circle() {
    let mut course = Course::default();
    for _ in 0..3 {
        let mut row = begun();
        for cursor in [Some("a"), Some("b"), Some("c"), None] {
            assert_eq!(on_page(&mut row, &page(1, cursor), &mut course, NOW), None);
        }
        assert_eq!(row.complete_at, Some(NOW));
    }
}

#[test]
fn a_backfill_begins_where_there_was_none_and_goes_on_where_it_was_left() {
    let next = |row: Option<&BackfillRow>| next(row, true, Urgency::None, NOW);
    assert_eq!(next(None), Next::Begin);
    assert_eq!(next(Some(&begun())), Next::Page);
    assert_eq!(next(Some(&done_at(NOW))), Next::Wait(DAY));
}

#[test]
fn a_daily_backfill_comes_a_day_after_the_end_of_the_last_one() {
    let ended = |ago| done_at(before(ago));
    for (row, daily, expected) in [
        (ended(HOUR), true, Next::Wait(DAY - HOUR)),
        (ended(DAY), true, Next::Begin),
        (ended(DAY), false, Next::Idle),
        // The clock was ahead at that time.
        (done_at(NOW.plus(400 * DAY)), true, Next::Begin),
    ] {
        assert_eq!(next(Some(&row), daily, Urgency::None, NOW), expected);
    }
}

#[test]
fn events_missed_meanwhile_lead_to_one_more_backfill_and_to_one_an_hour_after_that() {
    let again = |restarted_at| BackfillRow {
        again: true,
        restarted_at,
        ..done_at(NOW)
    };
    let next = |row: &BackfillRow| next(Some(row), false, Urgency::Awake, NOW);
    assert_eq!(next(&again(None)), Next::Begin);
    assert_eq!(
        next(&again(Some(before(MINUTE)))),
        Next::Wait(HOUR - MINUTE)
    );
    assert_eq!(next(&again(Some(before(HOUR)))), Next::Begin);
}

#[test]
fn a_source_that_refuses_is_asked_again_for_ever_with_pauses_up_to_an_hour() {
    for status in [400, 401, 403, 404, 405, 410, 501] {
        let failure = PageError::of_status(status, false);
        assert_eq!(failure, PageError::NotOffered(status));
        let (mut row, mut now, mut asked) = (begun(), NOW, 0);
        while now.since(NOW) < DAY {
            match next(Some(&row), true, Urgency::None, now) {
                Next::Page => {
                    asked += 1;
                    on_failure(&mut row, &failure, None, now);
                }
                Next::Wait(wait) => {
                    assert!(wait <= HOUR && (asked > 1 || wait <= 5 * Duration::from_secs(1)));
                    now = now.plus(wait);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((24..60).contains(&asked), "{asked}");
        // A page brings it back at once.
        let failure = on_page(&mut row, &page(1, None), &mut Course::default(), now);
        assert_eq!((failure, row.failures, row.done_at), (None, 0, Some(now)));
    }
}

#[test]
fn a_connection_or_a_start_shortens_a_pause() {
    let mut row = begun();
    for _ in 0..20 {
        on_failure(&mut row, &PageError::NotOffered(404), None, NOW);
    }
    let next = |urgency, now| next(Some(&row), true, urgency, now);
    assert!(matches!(next(Urgency::None, NOW), Next::Wait(wait) if wait > 20 * MINUTE));
    assert_eq!(next(Urgency::Awake, NOW), Next::Wait(MINUTE));
    assert_eq!(next(Urgency::Awake, NOW.plus(MINUTE)), Next::Page);
    assert_eq!(next(Urgency::Start, NOW), Next::Page);
    // The clock was ahead when the pause was written.
    let early = before(400 * DAY);
    assert!(matches!(next(Urgency::None, early), Next::Wait(wait) if wait <= HOUR));
}

#[test]
fn a_pause_that_the_source_asks_for_is_kept_up_to_an_hour() {
    for (asked, expected) in [(10 * MINUTE, 10 * MINUTE), (DAY, HOUR)] {
        let mut row = begun();
        on_failure(&mut row, &PageError::Status(429), Some(asked), NOW);
        assert_eq!(
            next(Some(&row), true, Urgency::None, NOW),
            Next::Wait(expected)
        );
    }
}

#[test]
fn a_refused_cursor_is_given_up_once_a_day() {
    let refused = PageError::of_status(400, true);
    assert_eq!(refused, PageError::CursorRefused(400));
    for status in [408, 429, 500, 503] {
        assert_eq!(
            PageError::of_status(status, true),
            PageError::Status(status)
        );
    }
    let mut row = begun();
    row.position = Some("x".to_owned());
    row.seen = 7;
    on_failure(&mut row, &PageError::Status(500), None, NOW);
    assert_eq!(row.position.as_deref(), Some("x"));
    on_failure(&mut row, &refused, None, NOW);
    assert_eq!((row.position.clone(), row.seen), (None, 0));
    row.position = Some("y".to_owned());
    let later = NOW.plus(HOUR);
    on_failure(&mut row, &refused, None, later);
    assert_eq!(row.position.as_deref(), Some("y"));
    on_failure(&mut row, &refused, None, NOW.plus(DAY));
    assert_eq!(row.position, None);
}

#[test]
fn an_empty_page_ends_nothing_while_its_cursor_is_new() {
    let pages = |cursor: Option<&str>| match cursor {
        None => page(0, Some("1")),
        Some("1") => page(3, Some("2")),
        Some("2") => page(0, Some("3")),
        _ => page(0, None),
    };
    assert_eq!(read(pages, 10), (4, None));
    // A list whose last page repeats the cursor.
    let repeats = |cursor: Option<&str>| match cursor {
        None => page(3, Some("1")),
        _ => page(0, Some("1")),
    };
    assert_eq!(read(repeats, 10), (2, None));
}

#[test]
fn inv7_every_list_ends() {
    let number = |cursor: Option<&str>| cursor.map_or(0, |c| c.parse::<i64>().unwrap());
    let stands = |_: Option<&str>| page(3, Some("1"));
    assert_eq!(read(stands, 1000), (2, Some(PageError::Circle)));
    for (head, length) in [(0, 1), (0, 2), (5, 3), (100, 1), (1000, 777)] {
        let circle = |cursor: Option<&str>| {
            let next = number(cursor) + 1;
            let next = if next >= head + length { head } else { next };
            page(1, Some(&next.to_string()))
        };
        let (pages, failure) = read(circle, 100_000);
        let bound = usize::try_from(4 * (head + length) + 4).unwrap();
        println!("a circle of {length} behind {head} pages ends after {pages}");
        assert_eq!(failure, Some(PageError::Circle), "{head} {length}");
        assert!(pages <= bound, "{head} {length}: {pages}");
    }
    let ever_new = |accounts| {
        move |cursor: Option<&str>| page(accounts, Some(&(number(cursor) + 1).to_string()))
    };
    let most = usize::try_from(MAX_PAGES).unwrap();
    assert_eq!(
        read(ever_new(1), 2 * most),
        (most, Some(PageError::Endless))
    );
    let empty = usize::try_from(MAX_EMPTY_PAGES).unwrap() + 1;
    assert_eq!(
        read(ever_new(0), 2 * most),
        (empty, Some(PageError::Endless))
    );
}

#[test]
fn a_list_that_does_not_end_is_read_again_after_an_hour() {
    let mut row = begun();
    row.position = Some("x".to_owned());
    on_failure(&mut row, &PageError::Circle, None, NOW);
    assert_eq!((row.position.clone(), row.done_at), (None, None));
    assert_eq!(next(Some(&row), true, Urgency::None, NOW), Next::Wait(HOUR));
}
