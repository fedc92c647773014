//! Messages that are too large to be received.

use super::*;

fn too_large() -> End {
    End::TooLarge("a message of more than 5 bytes".to_owned())
}

#[test]
fn a_message_that_is_too_large_costs_itself_and_not_the_place() {
    let (mut state, at) = proven(Relay, 100);
    assert_eq!(at_time(&mut state, 101, LATER), Action::Continue);
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
    assert_eq!(end(&mut state, &too_large()), None);
    state.on_connect(at, NOW);
    let future = End::NotContinued(GapReason::FutureCursor);
    let gap = end(&mut state, &future).map(|gap| gap.reason);
    assert_eq!(gap, Some(GapReason::TooLarge));
    assert_eq!(state.start_cursor(NOW), None);
}
