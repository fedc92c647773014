//! Warnings that repeat: the first of a cause is logged at once, later ones at growing intervals.

use std::time::{Duration, Instant};

use atcomm_net::backoff::{Backoff, Jitter};

/// The intervals between two log lines of one cause.
const INTERVALS: Backoff = Backoff {
    first: Duration::from_secs(60),
    longest: Duration::from_secs(6 * 3600),
    jitter: Jitter::NONE,
};

/// Causes that are told apart, the newest.
const MAX_CAUSES: usize = 8;

/// The causes that were logged of one source.
#[derive(Debug, Default)]
pub(super) struct Notices {
    causes: Vec<Repeated>,
}

#[derive(Debug)]
struct Repeated {
    text: String,
    lines: u32,
    next: Instant,
    unlogged: u64,
}

impl Notices {
    /// Counts one occurrence of a cause. Returns how many occurrences were not logged since the
    /// last line, where it is time for a line.
    pub(super) fn occurred(&mut self, text: &str, now: Instant) -> Option<u64> {
        if let Some(cause) = self.causes.iter_mut().find(|cause| cause.text == text) {
            if now < cause.next {
                cause.unlogged += 1;
                return None;
            }
            cause.lines = cause.lines.saturating_add(1);
            cause.next = now + INTERVALS.step(cause.lines);
            return Some(std::mem::take(&mut cause.unlogged));
        }
        if self.causes.len() >= MAX_CAUSES {
            self.causes.remove(0);
        }
        self.causes.push(Repeated {
            text: text.to_owned(),
            lines: 1,
            next: now + INTERVALS.step(1),
            unlogged: 0,
        });
        Some(0)
    }

    /// Forgets all causes, since all is well again.
    pub(super) fn clear(&mut self) {
        self.causes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_logged_at_growing_intervals() {
        let began = Instant::now();
        let mut notices = Notices::default();
        let mut lines = Vec::new();
        for second in 0..86_400 {
            let now = began + Duration::from_secs(second);
            if let Some(unlogged) = notices.occurred("refused", now) {
                lines.push((second, unlogged));
            }
        }
        assert_eq!(lines.first(), Some(&(0, 0)));
        assert_eq!(lines.get(1), Some(&(60, 59)));
        assert_eq!(lines.get(2), Some(&(180, 119)));
        assert!(lines.len() < 14, "{lines:?}");
        notices.clear();
        assert_eq!(notices.occurred("refused", began), Some(0));
    }

    #[test]
    fn inv7_causes_are_remembered_in_bounded_number() {
        let mut notices = Notices::default();
        let now = Instant::now();
        for number in 0..1000 {
            assert_eq!(notices.occurred(&number.to_string(), now), Some(0));
        }
        assert_eq!(notices.causes.len(), MAX_CAUSES);
        assert_eq!(notices.occurred("999", now), None);
    }
}
