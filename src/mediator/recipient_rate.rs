//! The rate of messages to one recipient, and how its senders share it.

use std::time::Duration;

use crate::store::{Sender, SenderGroup};
use atcomm_net::rate_limit::{KeyedRateLimit, Rate};
use atcomm_proto::clock::Clock;

/// Most buckets of each kind; the least recently used are evicted first.
const MAX_BUCKETS: usize = 100_000;

/// The part of a recipient's rate that one sender may use: one of so many.
const SENDER_PART: u32 = 4;

/// The same for a wide group of senders.
const GROUP_PART: u32 = 2;

/// What a wide group may send to a recipient whose rate others have used up: one of so many.
const GUARANTEED_PART: u32 = 60;

/// Limits messages to each recipient, so that a flood to one does not fill the store's queue of
/// writes. No sender uses up what others need: each has a part of the recipient's rate, and a little
/// that is there whatever others send.
pub(super) struct RecipientRate {
    // Each with locks of its own; recipients are known by a hash.
    recipients: KeyedRateLimit<[u8; 32]>,
    senders: KeyedRateLimit<([u8; 32], SenderGroup)>,
    wide_groups: KeyedRateLimit<([u8; 32], SenderGroup)>,
    guaranteed: KeyedRateLimit<([u8; 32], SenderGroup)>,
}

impl RecipientRate {
    pub(super) fn new(per_minute: u32, clock: &Clock) -> Self {
        fn part<K: std::hash::Hash + Eq + Clone>(rate: u32, clock: &Clock) -> KeyedRateLimit<K> {
            KeyedRateLimit::new(Rate::per_minute(rate), MAX_BUCKETS, clock.clone())
        }
        Self {
            recipients: part(per_minute, clock),
            senders: part(per_minute / SENDER_PART, clock),
            wide_groups: part(per_minute / GROUP_PART, clock),
            guaranteed: part(per_minute / GUARANTEED_PART, clock),
        }
    }

    /// Takes one message of a sender, in any of the parties that it is, or returns the time to
    /// wait.
    pub(super) fn take(&self, recipient: [u8; 32], senders: &[Sender]) -> Result<(), Duration> {
        let mut wait: Option<Duration> = None;
        for sender in senders {
            match self.take_as(recipient, sender.group) {
                Ok(()) => return Ok(()),
                Err(this) => wait = Some(wait.map_or(this, |wait| wait.min(this))),
            }
        }
        // Without a party, as in a forward that names no recipient, nothing is charged.
        wait.map_or(Ok(()), Err)
    }

    fn take_as(&self, recipient: [u8; 32], group: SenderGroup) -> Result<(), Duration> {
        let wide = (recipient, group.wide());
        let is_guaranteed = self.guaranteed.take(&wide).is_ok();
        // What is guaranteed counts as the sender's and the recipient's, too, where they have any.
        let taken = self.senders.take(&(recipient, group)).and_then(|()| {
            if group != group.wide() {
                self.wide_groups.take(&wide)?;
            }
            self.recipients.take(&recipient)
        });
        if is_guaranteed { Ok(()) } else { taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SenderClass;
    use atcomm_proto::clock::Timestamp;

    fn sender(number: u64) -> [Sender; 1] {
        let mut group = [0; 16];
        group[..8].copy_from_slice(&number.to_be_bytes());
        let class = SenderClass::Other;
        [Sender {
            group: SenderGroup(group),
            class,
        }]
    }

    fn rate() -> (RecipientRate, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        (RecipientRate::new(600, &clock), clock)
    }

    /// Returns how many messages pass at once.
    fn passed(rate: &RecipientRate, recipient: u8, senders: &[Sender]) -> u32 {
        (0..1000)
            .map(|_| u32::from(rate.take([recipient; 32], senders).is_ok()))
            .sum()
    }

    #[test]
    fn inv7_no_sender_uses_up_the_rate_of_a_recipient() {
        let (rate, clock) = rate();
        assert_eq!(passed(&rate, 1, &sender(0)), 150);
        for n in 1..4 {
            assert_eq!(passed(&rate, 1, &sender(n)), 150);
        }
        // The rate is used up; who comes now has what is guaranteed.
        for n in 4..100 {
            assert_eq!(passed(&rate, 1, &sender(n)), 10);
        }
        assert_eq!(passed(&rate, 1, &sender(0)), 0);
        assert_eq!(passed(&rate, 2, &sender(0)), 150);
        // Those who go on all the time leave it, too.
        for _ in 0..600 {
            clock.advance(Duration::from_millis(100));
            for n in 0..4 {
                rate.take([1; 32], &sender(n)).ok();
            }
        }
        assert_eq!(passed(&rate, 1, &sender(200)), 10);
        assert!(
            rate.take([1; 32], &sender(200))
                .is_err_and(|wait| wait <= Duration::from_secs(6))
        );
    }

    #[test]
    fn inv7_the_addresses_of_a_network_have_half() {
        let (rate, _) = rate();
        let mut all = 0;
        for n in 1..=100 {
            let mut one = sender(1);
            one[0].group.0[8..].copy_from_slice(&u64::to_be_bytes(n));
            all += passed(&rate, 1, &one);
        }
        assert!((300..=310).contains(&all), "{all}");
    }

    #[test]
    fn the_smallest_rate_is_of_use() {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let rate = RecipientRate::new(1, &clock);
        assert_eq!(passed(&rate, 1, &sender(0)), 1);
        assert_eq!(passed(&rate, 1, &sender(1)), 1);
    }
}
