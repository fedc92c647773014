use super::*;

use SourceKind::{Jetstream, Pds, Relay};

const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// The time of day in all tests that do not move it.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOW_US: i64 = NOW.millis() * 1000;

fn position(seq: i64, time: Option<&str>) -> Position {
    Position {
        seq,
        time: time.map(str::to_owned),
    }
}

/// The state of a stream with a stored cursor, and the time at which it began.
fn state(kind: SourceKind, cursor: Option<i64>) -> (StreamState, Instant) {
    let at = Instant::now();
    let cursor = cursor.map(|seq| position(seq, None));
    (StreamState::new(kind, cursor, at), at)
}

fn event(state: &mut StreamState, seq: u64) -> Action {
    state.on_event(StreamEvent::At { seq, time: None }, NOW)
}

fn gap(reason: GapReason, position: Option<i64>) -> Gap {
    Gap { reason, position }
}

fn lost() -> End {
    End::Lost("broken".to_owned())
}

fn unreadable() -> End {
    End::Unreadable("nonsense".to_owned())
}

/// The end of a short connection, which is no good one. Returns the gap.
fn end(state: &mut StreamState, end: &End) -> Option<Gap> {
    match state.on_end(end, Duration::from_secs(1)) {
        Next::Reconnect { gap, .. } => gap,
        Next::Stop => panic!("a stop after {end:?}"),
    }
}

#[test]
fn a_connection_begins_at_the_cursor_and_without_one_as_the_kind_of_host_demands() {
    for (kind, cursor, start) in [
        (Pds, Some(7), Some(7)),
        (Relay, Some(7), Some(7)),
        (Jetstream, Some(NOW_US), Some(NOW_US - OVERLAP_US)),
        // All that a PDS keeps; of others what is live.
        (Pds, None, Some(0)),
        (Relay, None, None),
        (Jetstream, None, None),
    ] {
        let (state, _) = state(kind, cursor);
        assert_eq!(state.start_cursor(), start, "{kind:?} {cursor:?}");
    }
}

#[test]
fn a_reconnect_misses_nothing_where_it_has_a_cursor() {
    let no_cursor = Some(gap(GapReason::NoCursor, None));
    for (kind, cursor, first, second) in [
        (Pds, Some(7), None, None),
        (Pds, None, None, None),
        (Relay, Some(7), None, None),
        (Relay, None, None, no_cursor),
        (Jetstream, Some(NOW_US), None, None),
        // The first connection sets a position in time.
        (Jetstream, None, None, None),
    ] {
        let (mut state, at) = state(kind, cursor);
        assert_eq!(state.on_connect(at, NOW), first, "{kind:?} {cursor:?}");
        assert_eq!(end(&mut state, &lost()), None);
        assert_eq!(state.on_connect(at, NOW), second, "{kind:?} {cursor:?}");
        let progress = state.take_progress(1).unwrap();
        assert_eq!(progress.gap, second.is_some(), "{kind:?} {cursor:?}");
    }
}

#[test]
fn an_attempt_to_connect_that_fails_misses_nothing_by_itself() {
    let (mut state, at) = state(Relay, None);
    for failures in 1..=3 {
        let next = state.on_end(&lost(), Duration::ZERO);
        assert_eq!(
            next,
            Next::Reconnect {
                failures,
                gap: None
            }
        );
    }
    assert_eq!(state.on_connect(at, NOW), None);
}

#[test]
fn failures_are_counted_until_a_connection_was_stable() {
    let (mut state, _) = state(Relay, Some(7));
    let moment = Duration::from_millis(1);
    for (lasted, failures) in [
        (Duration::ZERO, 1),
        (moment, 2),
        (STABLE_AFTER, 3),
        (STABLE_AFTER + moment, 1),
        (Duration::ZERO, 2),
    ] {
        let next = state.on_end(&lost(), lasted);
        let gap = None;
        assert_eq!(next, Next::Reconnect { failures, gap }, "{lasted:?}");
    }
    assert_eq!(state.on_end(&End::Stopped, STABLE_AFTER), Next::Stop);
}

#[test]
fn the_position_moves_forward_only_and_repeated_events_move_nothing() {
    let (mut state, at) = state(Pds, Some(7));
    state.on_connect(at, NOW);
    for (seq, expected) in [
        (6, None),
        (7, None),
        (9, Some(9)),
        (8, None),
        (10, Some(10)),
    ] {
        assert_eq!(event(&mut state, seq), Action::Continue);
        let progress = state.take_progress(0);
        let expected = expected.map(|seq| Progress {
            position: Some(position(seq, None)),
            gap: false,
        });
        assert_eq!(progress, expected, "{seq}");
    }
    event(&mut state, u64::MAX);
    assert_eq!(state.start_cursor(), Some(i64::MAX));
}

#[test]
fn the_first_event_shows_holes_and_new_numbers_that_the_host_conceals() {
    let noon = Some("2026-01-01T12:00:00Z");
    let hole = Action::Report(gap(GapReason::Hole, Some(100)));
    let renumbered = Action::Report(gap(GapReason::Renumbered, Some(100)));
    for (cursor_time, seq, time, expected) in [
        // The next number, however much later.
        (noon, 101, "2026-01-09T12:00:00Z", Action::Continue),
        // Numbers of other events lie between, and the time fits.
        (noon, 900, "2026-01-01T13:00:00Z", Action::Continue),
        (noon, 900, "2026-01-01T13:00:01Z", hole),
        // Repeated events are older.
        (noon, 99, "2026-01-01T11:59:59Z", Action::Continue),
        (noon, 99, "2026-01-01T12:00:00Z", Action::Continue),
        (noon, 3, "2026-01-01T12:00:01Z", renumbered),
        // Times that cannot be read tell nothing.
        (noon, 900, "tomorrow", Action::Continue),
        (noon, 3, "tomorrow", Action::Continue),
        (None, 900, "2026-01-09T12:00:00Z", Action::Continue),
    ] {
        let at = Instant::now();
        let mut state = StreamState::new(Relay, Some(position(100, cursor_time)), at);
        state.on_connect(at, NOW);
        let event = StreamEvent::At {
            seq,
            time: Some(time),
        };
        assert_eq!(state.on_event(event, NOW), expected, "{seq} {time}");
        // Only the first event of a connection is compared.
        let later = StreamEvent::At {
            seq: 5000,
            time: Some("2026-02-01T12:00:00Z"),
        };
        assert_eq!(state.on_event(later, NOW), Action::Continue);
        assert_eq!(state.start_cursor(), Some(5000));
        let progress = state.take_progress(0).unwrap();
        assert_eq!(progress.gap, expected != Action::Continue, "{seq} {time}");
    }
}

#[test]
fn a_host_that_counts_anew_is_followed_from_its_new_numbers() {
    let at = Instant::now();
    let cursor = position(100, Some("2026-01-01T12:00:00Z"));
    let mut state = StreamState::new(Pds, Some(cursor), at);
    state.on_connect(at, NOW);
    let time = Some("2026-01-01T12:00:01Z");
    state.on_event(StreamEvent::At { seq: 3, time }, NOW);
    let progress = state.take_progress(0).unwrap();
    assert_eq!(progress.position, Some(position(3, time)));
    assert!(progress.gap);
}

#[test]
fn an_outdated_cursor_is_a_gap_and_the_stream_goes_on() {
    let (mut state, at) = state(Pds, Some(7));
    state.on_connect(at, NOW);
    let action = state.on_event(StreamEvent::OutdatedCursor, NOW);
    assert_eq!(action, Action::Report(gap(GapReason::Outdated, Some(7))));
    let progress = Progress {
        position: Some(position(7, None)),
        gap: true,
    };
    assert_eq!(state.take_progress(0), Some(progress));
    // A gap is written once.
    assert_eq!(state.take_progress(0), None);
    event(&mut state, 900);
    assert!(!state.take_progress(0).unwrap().gap);
}

#[test]
fn a_future_cursor_is_given_up() {
    for (kind, start) in [(Pds, Some(0)), (Relay, None)] {
        let (mut state, at) = state(kind, Some(7));
        state.on_connect(at, NOW);
        let action = state.on_event(StreamEvent::FutureCursor, NOW);
        assert_eq!(action, Action::Disconnect(End::FutureCursor));
        let given_up = Some(gap(GapReason::FutureCursor, Some(7)));
        assert_eq!(end(&mut state, &End::FutureCursor), given_up);
        assert_eq!(state.start_cursor(), start, "{kind:?}");
        // The stored cursor stays until there is another one; the gap is written at once.
        let progress = state.take_progress(0).unwrap();
        assert_eq!((progress.position, progress.gap), (None, true));
        // From what is live on, more was missed meanwhile; from the beginning nothing.
        let more = start.is_none().then_some(gap(GapReason::NoCursor, None));
        assert_eq!(state.on_connect(at, NOW), more, "{kind:?}");
    }
}

#[test]
fn a_position_that_is_unreadable_again_and_again_is_skipped() {
    for kind in [Pds, Relay] {
        let (mut state, at) = state(kind, Some(7));
        for _ in 1..MAX_UNREADABLE {
            state.on_connect(at, NOW);
            assert_eq!(end(&mut state, &unreadable()), None);
            // What is lost in between does not count.
            assert_eq!(end(&mut state, &lost()), None);
            assert_eq!(state.start_cursor(), Some(7));
        }
        state.on_connect(at, NOW);
        let skipped = Some(gap(GapReason::Unreadable, Some(7)));
        assert_eq!(end(&mut state, &unreadable()), skipped);
        // Of a PDS, too, nothing is replayed.
        assert_eq!(state.start_cursor(), None, "{kind:?}");
        let more = Some(gap(GapReason::NoCursor, None));
        assert_eq!(state.on_connect(at, NOW), more);
        event(&mut state, 20);
        assert_eq!(state.start_cursor(), Some(20));
        // The count begins anew.
        assert_eq!(end(&mut state, &unreadable()), None);
    }
}

#[test]
fn unreadable_messages_at_different_positions_are_not_counted_together() {
    let (mut state, at) = state(Relay, Some(7));
    for seq in 8..20 {
        for _ in 1..MAX_UNREADABLE {
            state.on_connect(at, NOW);
            event(&mut state, seq);
            assert_eq!(end(&mut state, &unreadable()), None, "{seq}");
        }
    }
}

#[test]
fn a_jetstream_has_a_position_in_time_from_its_first_connection_on() {
    let (mut state, at) = state(Jetstream, None);
    assert_eq!(state.on_connect(at, NOW), None);
    assert_eq!(state.start_cursor(), Some(NOW_US - OVERLAP_US));
    let progress = state.take_progress(0).unwrap();
    assert_eq!(progress.position, Some(position(NOW_US, None)));
    for (time_us, expected) in [
        // Replayed, or not in order.
        (NOW_US - 1, NOW_US),
        (NOW_US, NOW_US),
        (NOW_US + 1, NOW_US + 1),
        (NOW_US + OVERLAP_US, NOW_US + OVERLAP_US),
        // From a clock that runs ahead.
        (NOW_US + OVERLAP_US + 1, NOW_US + OVERLAP_US),
        (i64::MAX, NOW_US + OVERLAP_US),
    ] {
        let event = StreamEvent::AtTime(time_us.unsigned_abs());
        assert_eq!(state.on_event(event, NOW), Action::Continue);
        assert_eq!(state.start_cursor(), Some(expected - OVERLAP_US));
    }
    state.on_event(StreamEvent::AtTime(u64::MAX), NOW);
    assert_eq!(state.start_cursor(), Some(NOW_US));
}

#[test]
fn a_jetstream_cursor_older_than_what_is_kept_is_a_gap() {
    for (age, expired) in [(DAY_US, false), (DAY_US + 1, true)] {
        let cursor = NOW_US - age;
        let (mut state, at) = state(Jetstream, Some(cursor));
        let gap = expired.then_some(gap(GapReason::Expired, Some(cursor)));
        assert_eq!(state.on_connect(at, NOW), gap, "{age}");
        assert_eq!(state.take_progress(0).is_some(), expired);
    }
}

#[test]
fn what_is_read_together_is_written_together() {
    let (mut state, at) = state(Pds, Some(7));
    state.on_connect(at, NOW);
    let ms = Duration::from_millis;
    let wait = |delay| Step::Read(Some(delay));
    for (work, moved, after, expected) in [
        // Nothing to write: no limit.
        (0, false, ms(0), Step::Read(None)),
        (0, false, ms(60_000), Step::Read(None)),
        // Work waits for more of it, shortly.
        (1, false, ms(0), wait(COALESCE_DELAY)),
        (1, true, ms(24), wait(COALESCE_DELAY)),
        (1, true, ms(25), Step::Write),
        (MAX_BATCH - 1, true, ms(24), wait(COALESCE_DELAY)),
        (MAX_BATCH, true, ms(0), Step::Write),
        // A cursor alone waits longer.
        (0, true, ms(25), wait(CURSOR_INTERVAL)),
        (0, true, ms(999), wait(CURSOR_INTERVAL)),
        (0, true, ms(1000), Step::Write),
    ] {
        state.take_progress(1);
        if moved {
            let next = state.start_cursor().unwrap() + 1;
            event(&mut state, next.unsigned_abs());
        }
        let step = state.step(work, at + after);
        assert_eq!(step, expected, "{work} {moved} {after:?}");
    }
    // The time counts from the last write.
    state.take_progress(1);
    state.on_written(at + ms(1000));
    assert_eq!(state.step(1, at + ms(1024)), wait(COALESCE_DELAY));
    assert_eq!(state.step(1, at + ms(1025)), Step::Write);
}
