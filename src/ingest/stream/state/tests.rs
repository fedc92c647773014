use super::*;

use SourceKind::{Jetstream, Pds, Relay};

mod jetstream;
mod outage;
mod too_large;

/// The time of day in all tests that do not move it.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOW_US: i64 = NOW.millis() * 1000;

/// The last moment that was proven before.
const PROVEN: Timestamp = Timestamp::from_millis(NOW.millis() - 60_000);

const NOON: &str = "2026-01-01T12:00:00Z";
const LATER: &str = "2026-01-01T12:00:01Z";

fn position(seq: i64, time: &str) -> Position {
    Position {
        seq,
        mark: Some(time.to_owned()),
    }
}

fn covered() -> Covered {
    Covered {
        since: PROVEN,
        until: PROVEN,
    }
}

/// The state of a stream with a stored place, and the time at which it began.
fn state(kind: SourceKind, cursor: Option<i64>) -> (StreamState, Instant) {
    let at = Instant::now();
    let position = cursor.map(|seq| match kind {
        Jetstream => Position {
            seq,
            mark: Some(jet_mark(seq, b"stored").to_string()),
        },
        Pds | Relay => position(seq, NOON),
    });
    let covered = position.as_ref().map(|_| covered());
    (StreamState::new(kind, position, covered, at), at)
}

/// A stream on a connection that has repeated its stored event.
fn proven(kind: SourceKind, seq: i64) -> (StreamState, Instant) {
    let (mut state, at) = state(kind, Some(seq));
    assert_eq!(state.on_connect(at, NOW), None);
    let repeated = match kind {
        Jetstream => jet(&mut state, seq, b"stored"),
        Pds | Relay => at_time(&mut state, seq.unsigned_abs(), NOON),
    };
    assert_eq!(repeated, Action::PassOver);
    (state, at)
}

fn at_time(state: &mut StreamState, seq: u64, time: &str) -> Action {
    let mark = Mark::of_frame(Some(time), b"");
    state.on_event(StreamEvent::At { seq, mark }, NOW)
}

fn event(state: &mut StreamState, seq: u64) -> Action {
    at_time(state, seq, LATER)
}

fn jet_mark(time_us: i64, says: &[u8]) -> Mark<'_> {
    Mark::of_jetstream(time_us.unsigned_abs(), &[says])
}

/// An event of a Jetstream without numbers.
fn jet(state: &mut StreamState, time_us: i64, says: &[u8]) -> Action {
    let event = StreamEvent::Jetstream {
        time_us: time_us.unsigned_abs(),
        number: None,
        mark: jet_mark(time_us, says),
    };
    state.on_event(event, NOW)
}

fn gap(reason: GapReason, position: Option<i64>) -> Gap {
    Gap {
        reason,
        position,
        since: PROVEN,
    }
}

fn report(reason: GapReason, position: i64) -> Action {
    Action::Report(gap(reason, Some(position)))
}

fn not_continued(reason: GapReason) -> Action {
    Action::Disconnect(End::NotContinued(reason))
}

fn lost() -> End {
    End::Lost("broken".to_owned())
}

fn unreadable() -> End {
    End::Unreadable("nonsense".to_owned())
}

/// The end of a short connection, which is no good one. Returns the gap.
fn end(state: &mut StreamState, end: &End) -> Option<Gap> {
    match state.on_end(end, Duration::from_secs(1), NOW) {
        Next::Reconnect { gap, .. } => gap,
        Next::Stop => panic!("a stop after {end:?}"),
    }
}

#[test]
fn a_connection_asks_for_the_stored_event_and_without_one_as_the_kind_of_host_demands() {
    for (kind, cursor, start) in [
        (Pds, Some(7), Some(6)),
        (Relay, Some(7), Some(6)),
        (Relay, Some(0), Some(0)),
        (Jetstream, Some(NOW_US), Some(NOW_US - OVERLAP_US)),
        // A number of a Jetstream's own.
        (Jetstream, Some(7), Some(6)),
        // A place in the future, where a host goes live without a word.
        (Jetstream, Some(NOW_US + OVERLAP_US + 1), None),
        // All that a PDS keeps; of others what is live.
        (Pds, None, Some(0)),
        (Relay, None, None),
        (Jetstream, None, None),
    ] {
        let (state, _) = state(kind, cursor);
        assert_eq!(state.start_cursor(NOW), start, "{kind:?} {cursor:?}");
    }
}

#[test]
fn a_stream_without_a_place_misses_what_comes_between_two_connections() {
    for kind in [Pds, Relay, Jetstream] {
        let (mut state, at) = state(kind, None);
        assert_eq!(state.on_connect(at, NOW), None, "{kind:?}");
        assert_eq!(state.proven_since(), Some(NOW));
        assert_eq!(end(&mut state, &lost()), None);
        assert_eq!(state.proven_since(), None);
        let later = NOW.plus(Duration::from_secs(5));
        let missed = Gap {
            reason: GapReason::NoCursor,
            position: None,
            since: NOW,
        };
        assert_eq!(state.on_connect(at, later), Some(missed), "{kind:?}");
        let progress = state.take_progress(1, later).unwrap();
        assert_eq!(progress.gap, Some(missed));
        assert_eq!(progress.covered, Some(Covered::at(later)));
        assert_eq!(state.proven_since(), Some(later));
    }
}

#[test]
fn an_attempt_to_connect_that_fails_misses_nothing_by_itself() {
    let (mut state, at) = state(Relay, None);
    for failures in 1..=3 {
        let next = state.on_end(&lost(), Duration::ZERO, NOW);
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
        let next = state.on_end(&lost(), lasted, NOW);
        let gap = None;
        assert_eq!(next, Next::Reconnect { failures, gap }, "{lasted:?}");
    }
    assert_eq!(state.on_end(&End::Stopped, STABLE_AFTER, NOW), Next::Stop);
}

#[test]
fn the_position_moves_forward_only_and_repeated_events_move_nothing() {
    let (mut state, _) = proven(Pds, 7);
    assert_eq!(state.take_progress(0, NOW), None, "nothing is new");
    for (seq, expected) in [
        (6, None),
        (7, None),
        (9, Some(9)),
        (8, None),
        (10, Some(10)),
    ] {
        assert_eq!(event(&mut state, seq), Action::Continue);
        let progress = state.take_progress(0, NOW);
        let position = progress.and_then(|progress| progress.position);
        assert_eq!(position.map(|at| at.seq), expected, "{seq}");
    }
    event(&mut state, u64::MAX);
    assert_eq!(state.start_cursor(NOW), Some(i64::MAX - 1));
    assert_eq!(event(&mut state, u64::MAX), Action::Continue);
}

#[test]
fn the_stored_event_comes_again_first_or_there_is_a_gap() {
    use GapReason::{Hole, Renumbered};
    let earlier = "2026-01-01T11:59:59Z";
    for (seq, time, expected) in [
        (100, NOON, Action::PassOver),
        // Some hosts begin earlier than asked.
        (99, NOON, Action::PassOver),
        (99, earlier, Action::PassOver),
        (99, "tomorrow", Action::PassOver),
        // The next number shows nothing without the one before.
        (101, LATER, report(Hole, 100)),
        (101, "tomorrow", report(Hole, 100)),
        (900, LATER, report(Hole, 100)),
        // Another event in the place of the stored one, or a later one in front of it.
        (100, LATER, not_continued(Renumbered)),
        (100, earlier, not_continued(Renumbered)),
        (100, "tomorrow", not_continued(Renumbered)),
        (3, LATER, not_continued(Renumbered)),
    ] {
        let (mut state, at) = state(Relay, Some(100));
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(state.proven_since(), None, "not yet");
        assert_eq!(at_time(&mut state, seq, time), expected, "{seq} {time}");
        let is_proven = (seq, time) == (100, NOON);
        let is_gap = matches!(expected, Action::Report(_));
        assert_eq!(state.proven_since().is_some(), is_proven || is_gap);
        if is_gap {
            // The stream goes on with that event.
            assert_eq!(state.start_cursor(NOW), Some(seq as i64 - 1));
            assert_eq!(event(&mut state, 5000), Action::Continue);
        }
        let progress = state.take_progress(0, NOW);
        let missed = progress.and_then(|progress| progress.gap);
        assert_eq!(missed.is_some(), is_gap, "{seq} {time}");
    }
}

#[test]
fn an_event_whose_time_cannot_be_read_is_recognised_by_its_hash() {
    let at = Instant::now();
    let mark = |bytes| Mark::of_frame(Some("soon"), bytes);
    let stored = Position {
        seq: 7,
        mark: Some(mark(b"this").to_string()),
    };
    for (bytes, expected) in [
        (&b"this"[..], Action::PassOver),
        (b"that", not_continued(GapReason::Renumbered)),
    ] {
        let mut state = StreamState::new(Pds, Some(stored.clone()), Some(covered()), at);
        state.on_connect(at, NOW);
        let event = StreamEvent::At {
            seq: 7,
            mark: mark(bytes),
        };
        assert_eq!(state.on_event(event, NOW), expected);
    }
    // Of a place that an earlier version stored the mark is unknown.
    let stored = Position { seq: 7, mark: None };
    let mut state = StreamState::new(Pds, Some(stored), Some(covered()), at);
    state.on_connect(at, NOW);
    assert_eq!(event(&mut state, 7), Action::PassOver);
}

#[test]
fn a_stored_event_that_does_not_come_in_time_is_a_gap() {
    for (kind, cursor) in [(Pds, 7), (Relay, 7), (Jetstream, 7)] {
        let (mut state, at) = state(kind, Some(cursor));
        state.on_connect(at, NOW);
        let before = at + REPEAT_TIMEOUT - Duration::from_millis(1);
        assert_eq!(state.on_time(before, NOW), None);
        // The loop is told when to ask again.
        assert_eq!(state.step(0, at), Step::Read(Some(REPEAT_TIMEOUT)));
        let reason = GapReason::NotRepeated;
        let action = state.on_time(at + REPEAT_TIMEOUT, NOW).unwrap();
        assert_eq!(action, not_continued(reason), "{kind:?}");
        let given_up = Some(gap(reason, Some(cursor)));
        assert_eq!(end(&mut state, &End::NotContinued(reason)), given_up);
        assert_eq!(state.start_cursor(NOW), Some(0), "all that the host has");
    }
    // A Jetstream that is asked by time has sent all that it has behind that time.
    let (mut state, at) = state(Jetstream, Some(NOW_US));
    state.on_connect(at, NOW);
    let action = state.on_time(at + REPEAT_TIMEOUT, NOW);
    assert_eq!(action, Some(report(GapReason::NotRepeated, NOW_US)));
    assert_eq!(state.on_time(at + REPEAT_TIMEOUT, NOW), None);
    // Where there is no place, nothing is expected.
    let (mut state, at) = proven(Pds, 7);
    assert_eq!(state.on_time(at + REPEAT_TIMEOUT, NOW), None);
    assert_eq!(state.step(0, at), Step::Read(None));
}

#[test]
fn a_host_that_counts_anew_is_read_from_its_oldest_event() {
    for kind in [Pds, Relay] {
        let (mut state, at) = state(kind, Some(100));
        state.on_connect(at, NOW);
        let renumbered = GapReason::Renumbered;
        assert_eq!(event(&mut state, 3), not_continued(renumbered));
        let given_up = gap(renumbered, Some(100));
        let ended = end(&mut state, &End::NotContinued(renumbered));
        assert_eq!(ended, Some(given_up));
        // The gap is written at once, and the stored cursor stays until there is another one.
        let progress = state.take_progress(0, NOW).unwrap();
        assert_eq!((progress.position, progress.gap), (None, Some(given_up)));
        // An attempt to connect that fails.
        assert_eq!(end(&mut state, &lost()), None);
        assert_eq!(state.start_cursor(NOW), Some(0), "{kind:?}");
        assert_eq!(state.on_connect(at, NOW), None);
        // What came on a connection that brought nothing, or while a host was away, may be lost.
        assert_eq!(end(&mut state, &lost()), None);
        let more = state.on_connect(at, NOW).unwrap();
        assert_eq!((more.reason, more.since), (GapReason::NoCursor, NOW));
        assert_eq!(state.start_cursor(NOW), Some(0));
        assert_eq!(event(&mut state, 1), Action::Continue);
        assert_eq!(event(&mut state, 3), Action::Continue);
        let progress = state.take_progress(0, NOW).unwrap();
        assert_eq!(progress.position, Some(position(3, LATER)));
        assert_eq!(progress.gap, Some(more));
    }
}

#[test]
fn a_host_that_stays_away_after_a_gap_may_have_lost_more() {
    for (away, more) in [(REREAD_TIMEOUT, false), (REREAD_TIMEOUT * 2, true)] {
        let (mut state, at) = state(Relay, Some(100));
        state.on_connect(at, NOW);
        end(&mut state, &End::NotContinued(GapReason::Renumbered));
        let gap = state.on_connect(at, NOW.plus(away));
        assert_eq!(gap.is_some(), more, "{away:?}");
        assert_eq!(state.start_cursor(NOW), Some(0));
    }
}

#[test]
fn an_outdated_cursor_is_a_gap_and_the_stream_goes_on() {
    let (mut state, at) = state(Pds, Some(7));
    state.on_connect(at, NOW);
    let action = state.on_event(StreamEvent::OutdatedCursor, NOW);
    assert_eq!(action, report(GapReason::Outdated, 7));
    // At once, so that no answer is given as good any more.
    assert_eq!(state.step(0, at), Step::Write);
    let progress = state.take_progress(0, NOW).unwrap();
    assert_eq!(progress.gap, Some(gap(GapReason::Outdated, Some(7))));
    // A gap is written once.
    assert_eq!(state.take_progress(0, NOW), None);
    assert_eq!(event(&mut state, 900), Action::Continue);
    assert_eq!(state.take_progress(0, NOW).unwrap().gap, None);
    // A host that is asked for all that it has may say so, too.
    let (mut state, at) = self::state(Pds, None);
    state.on_connect(at, NOW);
    let action = state.on_event(StreamEvent::OutdatedCursor, NOW);
    assert_eq!(action, Action::PassOver);
}

#[test]
fn a_future_cursor_is_given_up() {
    for kind in [Pds, Relay] {
        let (mut state, at) = state(kind, Some(7));
        state.on_connect(at, NOW);
        let reason = GapReason::FutureCursor;
        let action = state.on_event(StreamEvent::FutureCursor, NOW);
        assert_eq!(action, not_continued(reason));
        let given_up = Some(gap(reason, Some(7)));
        assert_eq!(end(&mut state, &End::NotContinued(reason)), given_up);
        assert_eq!(state.start_cursor(NOW), Some(0), "{kind:?}");
        assert_eq!(state.on_connect(at, NOW), None, "{kind:?}");
    }
}

#[test]
fn what_is_proven_ends_with_the_newest_event_and_begins_anew_after_a_gap() {
    let (mut state, at) = proven(Relay, 100);
    assert_eq!(state.proven_since(), Some(PROVEN));
    // An event of a replay: what came behind it is still to come.
    let replayed = NOW.minus(Duration::from_secs(30));
    at_time(&mut state, 101, &replayed.to_string());
    let covered = state.take_progress(0, NOW).unwrap().covered.unwrap();
    assert_eq!((covered.since, covered.until), (PROVEN, replayed));
    // A clock that runs ahead proves no more than ours.
    at_time(&mut state, 102, "2999-01-01T00:00:00Z");
    let covered = state.take_progress(0, NOW).unwrap().covered.unwrap();
    assert_eq!(covered.until, NOW);
    end(&mut state, &lost());
    let later = NOW.plus(Duration::from_secs(3600));
    state.on_connect(at, later);
    let mark = Mark::of_frame(Some("2026-01-01T13:00:00Z"), b"");
    let action = state.on_event(StreamEvent::At { seq: 200, mark }, later);
    let missed = Gap {
        reason: GapReason::Hole,
        position: Some(102),
        since: NOW,
    };
    assert_eq!(action, Action::Report(missed));
    assert_eq!(state.proven_since(), Some(later));
    let progress = state.take_progress(0, later).unwrap();
    assert_eq!(progress.covered.unwrap().since, later);
}

#[test]
fn of_two_gaps_between_two_writes_the_earlier_beginning_stands() {
    let (mut state, at) = state(Relay, Some(100));
    state.on_connect(at, NOW);
    event(&mut state, 200);
    end(&mut state, &lost());
    state.on_connect(at, NOW);
    event(&mut state, 300);
    let missed = state.take_progress(0, NOW).unwrap().gap.unwrap();
    assert_eq!(missed.since, PROVEN);
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
            assert_eq!(state.start_cursor(NOW), Some(6));
        }
        state.on_connect(at, NOW);
        let skipped = Some(gap(GapReason::Unreadable, Some(7)));
        assert_eq!(end(&mut state, &unreadable()), skipped);
        // Of a PDS, too, nothing is replayed.
        assert_eq!(state.start_cursor(NOW), None, "{kind:?}");
        let more = state.on_connect(at, NOW).unwrap();
        assert_eq!((more.reason, more.since), (GapReason::NoCursor, NOW));
        event(&mut state, 20);
        assert_eq!(state.start_cursor(NOW), Some(19));
        // The count begins anew.
        assert_eq!(end(&mut state, &unreadable()), None);
    }
}

#[test]
fn unreadable_messages_at_different_positions_are_not_counted_together() {
    let (mut state, at) = proven(Relay, 7);
    for seq in 8..20 {
        for _ in 1..MAX_UNREADABLE {
            event(&mut state, seq);
            assert_eq!(end(&mut state, &unreadable()), None, "{seq}");
            state.on_connect(at, NOW);
            event(&mut state, seq);
        }
    }
}

#[test]
fn what_is_read_together_is_written_together() {
    let (mut state, at) = proven(Pds, 7);
    let mut seq = 7;
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
        state.take_progress(1, NOW);
        if moved {
            seq += 1;
            event(&mut state, seq);
        }
        let step = state.step(work, at + after);
        assert_eq!(step, expected, "{work} {moved} {after:?}");
    }
    // The time counts from the last write.
    state.take_progress(1, NOW);
    state.on_written(at + ms(1000));
    assert_eq!(state.step(1, at + ms(1024)), wait(COALESCE_DELAY));
    assert_eq!(state.step(1, at + ms(1025)), Step::Write);
}
