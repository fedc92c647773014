//! A host that cannot be reached for long. Its events are missed for now, whether or not it brings
//! them later: the entries are looked at without it, at growing intervals.

use std::time::Duration;

use atcomm_net::backoff::{Backoff, Jitter};
use atcomm_proto::clock::Timestamp;

/// Times from the loss of the host to the first gap, and from one gap to the next. Shorter losses
/// are restarts, after which the stream continues.
const INTERVALS: Backoff = Backoff {
    first: Duration::from_secs(5 * 60),
    longest: Duration::from_secs(6 * 3600),
    jitter: Jitter::NONE,
};

/// The time since the host was last connected to.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When it was noticed, or last reported.
    since: Option<Timestamp>,
    reported: u32,
}

impl Outage {
    /// An attempt failed, or a connection broke. Returns whether a gap is to be reported now.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        let since = *self.since.get_or_insert(now);
        let wait = INTERVALS.step(self.reported.saturating_add(1));
        let is_due = now.since(since) >= wait;
        if is_due {
            self.reported = self.reported.saturating_add(1);
            self.since = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_at_growing_intervals() {
        let began = Timestamp::from_millis(1_800_000_000_000);
        let mut outage = Outage::default();
        let mut minutes = Vec::new();
        for minute in 0..3 * 24 * 60_u64 {
            if outage.is_due(began.plus(Duration::from_secs(60 * minute))) {
                minutes.push(minute);
            }
        }
        assert_eq!(minutes.get(..4), Some(&[5, 15, 35, 75][..]));
        assert!(minutes.len() < 20, "{minutes:?}");
        let longest = minutes.windows(2).map(|two| two[1] - two[0]).max();
        assert_eq!(longest, Some(6 * 60));
    }
}
