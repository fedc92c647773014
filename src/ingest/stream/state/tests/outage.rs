//! Hosts that cannot be reached.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Attempts fail for this many minutes, one a minute. Returns the gaps.
fn fail(state: &mut StreamState, minutes: u32) -> Vec<Gap> {
    (0..=minutes)
        .filter_map(|minute| {
            let now = NOW.plus(MINUTE * minute);
            match state.on_end(&lost(), Duration::ZERO, now) {
                Next::Reconnect { gap, .. } => gap,
                Next::Stop => panic!("a stop"),
            }
        })
        .collect()
}

#[test]
fn inv2_a_host_that_stays_away_is_a_gap_and_keeps_its_place() {
    for kind in [Pds, Relay] {
        let (mut state, at) = proven(kind, 100);
        assert_eq!(fail(&mut state, 4), []);
        let (mut state, _) = proven(kind, 100);
        let gaps = fail(&mut state, 5);
        assert_eq!(gaps, [gap(GapReason::Unreachable, Some(100))]);
        let progress = state.take_progress(0, NOW.plus(MINUTE * 5)).unwrap();
        assert_eq!(progress.gap, Some(gap(GapReason::Unreachable, Some(100))));
        assert_eq!(progress.position, Some(position(100, NOON)));
        // What it kept is read from there.
        assert_eq!(state.start_cursor(NOW), Some(99));
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(at_time(&mut state, 100, NOON), Action::PassOver);
        assert_eq!(event(&mut state, 101), Action::Continue);
    }
}

#[test]
fn what_was_missed_once_is_not_missed_again() {
    let (mut state, _) = proven(Relay, 100);
    let gaps = fail(&mut state, 15);
    let begins: Vec<_> = gaps.iter().map(|gap| gap.since).collect();
    assert_eq!(begins, [PROVEN, NOW.plus(MINUTE * 5)]);
}

#[test]
fn a_connection_ends_an_outage() {
    let (mut state, at) = proven(Relay, 100);
    for _ in 0..10 {
        assert_eq!(fail(&mut state, 4), []);
        assert_eq!(state.on_connect(at, NOW), None);
        assert_eq!(at_time(&mut state, 100, NOON), Action::PassOver);
    }
    // One that does not show that it continues is none.
    let mut gaps = 0;
    for minute in 0..12 {
        assert_eq!(state.on_connect(at, NOW), None);
        let end = state.on_end(&lost(), Duration::ZERO, NOW.plus(MINUTE * minute));
        gaps += usize::from(matches!(end, Next::Reconnect { gap: Some(_), .. }));
    }
    assert_eq!(gaps, 1);
}
