//! Places of a Jetstream: in time, and by its own numbers.

use super::*;

#[test]
fn the_place_of_a_jetstream_is_a_real_event_and_never_our_clock() {
    let (mut state, at) = state(Jetstream, None);
    assert_eq!(state.on_connect(at, NOW), None);
    assert_eq!(state.start_cursor(NOW), None);
    for (time_us, expected) in [
        (NOW_US - 1, NOW_US - 1),
        // Not in order.
        (NOW_US - 2, NOW_US - 1),
        (NOW_US + 1, NOW_US + 1),
        (NOW_US + OVERLAP_US, NOW_US + OVERLAP_US),
        // From a clock that runs ahead.
        (NOW_US + OVERLAP_US + 1, NOW_US + OVERLAP_US),
        (i64::MAX, NOW_US + OVERLAP_US),
    ] {
        assert_eq!(jet(&mut state, time_us, b"x"), Action::Continue);
        assert_eq!(state.start_cursor(NOW), Some(expected - OVERLAP_US));
    }
}

#[test]
fn a_place_in_the_future_of_a_jetstream_is_a_gap_and_given_up() {
    let ahead = NOW_US + 3_600_000_000;
    let (mut state, at) = state(Jetstream, Some(ahead));
    assert_eq!(state.start_cursor(NOW), None);
    let given_up = gap(GapReason::FutureCursor, Some(ahead));
    assert_eq!(state.on_connect(at, NOW), Some(given_up));
    assert_eq!(jet(&mut state, NOW_US, b"x"), Action::Continue);
    assert_eq!(state.start_cursor(NOW), Some(NOW_US - OVERLAP_US));
}

#[test]
fn a_jetstream_asked_by_time_repeats_the_stored_event() {
    use Action::{Continue, PassOver};
    let stored = NOW_US - 60_000_000;
    let hole = || report(GapReason::Hole, stored);
    let asked = stored - OVERLAP_US;
    for (events, expected, moved) in [
        // Hosts begin earlier than asked, and what is older costs nothing.
        (
            vec![(asked - 100, "x"), (asked, "x")],
            vec![PassOver, PassOver],
            false,
        ),
        (vec![(stored, "stored")], vec![PassOver], false),
        // Hosts reorder a little: such events are handled, and are no place yet.
        (
            vec![(asked + 1, "x"), (stored + 1, "x")],
            vec![Continue, Continue],
            false,
        ),
        (vec![(stored, "other")], vec![Continue], false),
        (
            vec![(stored + 1, "x"), (stored, "stored"), (stored + 2, "x")],
            vec![Continue, PassOver, Continue],
            true,
        ),
        (vec![(stored + OVERLAP_US + 1, "x")], vec![hole()], true),
        (
            vec![(stored, "other"), (NOW_US, "x")],
            vec![Continue, hole()],
            true,
        ),
    ] {
        let (mut state, at) = state(Jetstream, Some(stored));
        assert_eq!(state.on_connect(at, NOW), None);
        let actions: Vec<_> = events
            .iter()
            .map(|(time_us, says)| jet(&mut state, *time_us, says.as_bytes()))
            .collect();
        assert_eq!(actions, expected, "{events:?}");
        let progress = state.take_progress(0, NOW);
        assert_eq!(progress.is_some(), moved, "{events:?}");
    }
}

#[test]
fn a_jetstream_with_numbers_of_its_own_continues_by_them() {
    let at = Instant::now();
    let numbered = |state: &mut StreamState, number: Option<u64>, time_us: i64| {
        let event = StreamEvent::Jetstream {
            time_us: time_us.unsigned_abs(),
            number,
            mark: jet_mark(time_us, b"x"),
        };
        state.on_event(event, NOW)
    };
    // From a place in time to one by number.
    let (mut state, _) = proven(Jetstream, NOW_US - 10);
    assert_eq!(numbered(&mut state, Some(40), NOW_US), Action::Continue);
    assert_eq!(state.start_cursor(NOW), Some(39));
    assert_eq!(numbered(&mut state, Some(41), NOW_US + 1), Action::Continue);
    let stored = state.take_progress(0, NOW).unwrap().position.unwrap();
    assert_eq!((stored.seq, stored.time()), (41, Some(NOW)));
    for (number, time_us, expected) in [
        (Some(41), NOW_US + 1, Action::PassOver),
        (Some(40), NOW_US, Action::PassOver),
        (Some(42), NOW_US + 2, report(GapReason::Hole, 41)),
        (Some(41), NOW_US + 2, not_continued(GapReason::Renumbered)),
        (
            Some(2),
            NOW_US + 9_000,
            not_continued(GapReason::Renumbered),
        ),
        // A host of the first version in the place of a later one.
        (None, NOW_US + 2, report(GapReason::Renumbered, 41)),
    ] {
        let mut state = StreamState::new(Jetstream, Some(stored.clone()), Some(covered()), at);
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(
            numbered(&mut state, number, time_us),
            expected,
            "{number:?}"
        );
    }
}
