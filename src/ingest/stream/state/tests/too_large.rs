//! Messages that are too large to be received.

use super::*;

fn too_large() -> End {
    End::TooLarge("a message of more than 5 bytes".to_owned())
}

#[test]
fn a_message_that_is_too_large_costs_itself_and_not_the_place() {
    let (mut state, at) = proven(Relay, 100);
    assert_eq!(at_time(&mut state, 101, LATER), Action::Continue);
    // The same place is asked for once more.
    assert_eq!(end(&mut state, &too_large()), None);
    assert_eq!(state.start_cursor(NOW), Some(100));
    assert_eq!(state.on_connect(at, NOW), None);
    assert_eq!(at_time(&mut state, 101, LATER), Action::PassOver);
    // The server begins at the cursor that it is asked for, or behind it: the second way past it
    // is right for both.
    for cursor in [102, 103] {
        assert_eq!(end(&mut state, &too_large()), None);
        assert_eq!(state.start_cursor(NOW), Some(cursor));
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(state.proven_since(), None);
    }
    assert_eq!(
        at_time(&mut state, 104, LATER),
        report(GapReason::TooLarge, 101)
    );
    assert_eq!(state.proven_since(), Some(NOW));
    assert_eq!(at_time(&mut state, 105, LATER), Action::Continue);
    let progress = state.take_progress(1, NOW).unwrap();
    assert_eq!(progress.position, Some(position(105, LATER)));
    assert_eq!(
        progress.gap.map(|gap| gap.reason),
        Some(GapReason::TooLarge)
    );
    // The next connection asks for the stored event again.
    assert_eq!(end(&mut state, &lost()), None);
    assert_eq!(state.start_cursor(NOW), Some(104));
}

#[test]
fn inv7_the_attempts_to_pass_a_message_end_with_what_is_live() {
    let (mut state, at) = proven(Relay, 100);
    let mut attempts = 0;
    let gap = loop {
        attempts += 1;
        if let Some(gap) = end(&mut state, &too_large()) {
            break gap;
        }
        assert!(attempts < 100);
        state.on_connect(at, NOW);
    };
    assert_eq!(
        (gap.reason, gap.position),
        (GapReason::Unreadable, Some(100))
    );
    assert_eq!(state.start_cursor(NOW), None);
    // What lies past the newest event is no place to continue at, either.
    let (mut state, at) = proven(Pds, 100);
    for _ in 0..2 {
        assert_eq!(end(&mut state, &too_large()), None);
        state.on_connect(at, NOW);
    }
    let future = End::NotContinued(GapReason::FutureCursor);
    let gap = end(&mut state, &future).map(|gap| gap.reason);
    assert_eq!(gap, Some(GapReason::TooLarge));
    assert_eq!(state.start_cursor(NOW), None);
}

/// A message without a number, such as a host's own words, costs nothing.
#[test]
fn a_message_that_does_not_come_again_costs_nothing() {
    let (mut state, at) = proven(Pds, 100);
    assert_eq!(event(&mut state, 101), Action::Continue);
    for seq in 101..200 {
        assert_eq!(end(&mut state, &too_large()), None);
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(event(&mut state, seq), Action::PassOver);
        assert_eq!(event(&mut state, seq + 1), Action::Continue);
    }
    assert!(state.take_progress(1, NOW).unwrap().gap.is_none());
}

/// Nothing follows the message on a quiet host. What it held is missed all the same.
#[test]
fn silence_behind_a_message_that_is_too_large_is_a_gap() {
    let (mut state, at) = proven(Pds, 100);
    for _ in 0..2 {
        assert_eq!(end(&mut state, &too_large()), None);
        assert_eq!(state.on_connect(at, NOW), None);
    }
    let later = |seconds| at + Duration::from_secs(seconds);
    assert_eq!(state.on_time(later(14), NOW), None);
    assert!(
        matches!(state.step(0, later(14)), Step::Read(Some(wait)) if wait <= Duration::from_secs(1))
    );
    assert_eq!(
        state.on_time(later(15), NOW),
        Some(report(GapReason::TooLarge, 100))
    );
    assert_eq!(state.on_time(later(16), NOW), None);
    assert_eq!(state.proven_since(), Some(NOW));
    // The connection stands, and goes on with what comes.
    assert_eq!(event(&mut state, 105), Action::Continue);
    let progress = state.take_progress(1, NOW).unwrap();
    assert_eq!(progress.position, Some(position(105, LATER)));
}

#[test]
fn what_a_numbered_jetstream_could_not_bring_is_a_gap() {
    let (mut state, at) = state(Jetstream, None);
    let numbered = |state: &mut StreamState, number: u64| {
        let event = StreamEvent::Jetstream {
            time_us: NOW_US.unsigned_abs(),
            number: Some(number),
            mark: jet_mark(NOW_US, b"x"),
        };
        state.on_event(event, NOW)
    };
    assert_eq!(state.on_connect(at, NOW), None);
    assert_eq!(numbered(&mut state, 100), Action::Continue);
    for cursor in [99, 101] {
        assert_eq!(end(&mut state, &too_large()), None);
        assert_eq!(state.start_cursor(NOW), Some(cursor));
        assert_eq!(state.on_connect(at, NOW), None);
    }
    let missed = Gap {
        since: NOW,
        ..gap(GapReason::TooLarge, Some(100))
    };
    assert_eq!(numbered(&mut state, 102), Action::Report(missed));
    assert_eq!(state.start_cursor(NOW), Some(101));
}
