//! The events that a consumer has not acknowledged.
//!
//! Of each account one event is under way at a time: the next is sent once that one is acknowledged,
//! so a repetition never puts the events of an account out of order. An event that is not
//! acknowledged in time is sent again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::directory::ChannelEvent;
use atcomm_proto::syntax::Did;

/// Events at which no more are taken in. They fit what a network keeps on the way: a consumer whose
/// handler is slow still hears that the connection stands.
const MAX_EVENTS: usize = 256;

/// Bytes of events at which no more are taken in.
const MAX_BYTES: usize = 256 * 1024;

/// Time after which an event is sent again that was not acknowledged: a consumer whose handler
/// failed waits for that.
pub(super) const RESEND: Duration = Duration::from_secs(60);

struct Waiting {
    did: Did,
    body: Bytes,
    sent_at: Option<Instant>,
    position_before: i64,
}

/// The events that were read from the log and not acknowledged, in the order of the log.
#[derive(Default)]
pub(super) struct Window {
    events: BTreeMap<i64, Waiting>,
    /// The events of each account, of which only the first is sent.
    accounts: HashMap<Did, VecDeque<i64>>,
    /// First events of their accounts that were not sent yet.
    ready: VecDeque<i64>,
    bytes: usize,
}

impl Window {
    /// Returns whether more events may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < MAX_EVENTS && self.bytes < MAX_BYTES
    }

    /// Takes in the next event of the log.
    pub(super) fn push(&mut self, event: ChannelEvent) {
        let of_account = self.accounts.entry(event.did.clone()).or_default();
        if of_account.is_empty() {
            self.ready.push_back(event.id);
        }
        of_account.push_back(event.id);
        self.bytes += event.body.len();
        let waiting = Waiting {
            position_before: event.position_before(),
            did: event.did,
            body: event.body,
            sent_at: None,
        };
        self.events.insert(event.id, waiting);
    }

    /// Returns the next event to be sent.
    pub(super) fn next(&mut self, now: Instant) -> Option<Bytes> {
        loop {
            let id = self.ready.pop_front()?;
            // It may have been acknowledged by a consumer that knows it from an earlier connection.
            if let Some(waiting) = self.events.get_mut(&id) {
                waiting.sent_at = Some(now);
                return Some(waiting.body.clone());
            }
        }
    }

    /// Takes an acknowledgement. One of an event that is not the first of its account, or none that
    /// is waiting, has no effect: its event is sent in its turn.
    pub(super) fn acknowledge(&mut self, id: i64) {
        let Some(waiting) = self.events.get(&id) else {
            return;
        };
        let Some(of_account) = self.accounts.get_mut(&waiting.did) else {
            return;
        };
        if of_account.front() != Some(&id) {
            return;
        }
        of_account.pop_front();
        match of_account.front() {
            Some(next) => self.ready.push_back(*next),
            None => drop(self.accounts.remove(&waiting.did)),
        }
        if let Some(done) = self.events.remove(&id) {
            self.bytes -= done.body.len();
        }
    }

    /// Makes the events ready again that were sent before `now` less [`RESEND`]. Returns how many.
    pub(super) fn repeat(&mut self, now: Instant) -> u64 {
        let mut repeated = 0;
        for (id, waiting) in &mut self.events {
            let is_late = |sent: Instant| now.duration_since(sent) >= RESEND;
            if waiting.sent_at.is_some_and(is_late) {
                waiting.sent_at = None;
                self.ready.push_back(*id);
                repeated += 1;
            }
        }
        repeated
    }

    /// Returns the position of the log up to which everything is acknowledged, where the log was
    /// read up to `reached`.
    pub(super) fn position(&self, reached: i64) -> i64 {
        let first = self.events.values().next();
        first.map_or(reached, |waiting| waiting.position_before)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn event(seq: i64, account: u8) -> ChannelEvent {
        ChannelEvent {
            id: seq * 2 + 1,
            did: Did::parse(&format!("did:web:a{account}.example.com")).unwrap(),
            body: seq.to_string().into(),
        }
    }

    fn seq_of(body: &Bytes) -> i64 {
        std::str::from_utf8(body).unwrap().parse().unwrap()
    }

    proptest! {
        /// Whatever a consumer acknowledges or not, and however often it connects anew: nothing is
        /// lost, and each account's events are delivered in their order.
        #[test]
        fn every_event_is_delivered_in_the_order_of_its_account(
            accounts in prop::collection::vec(0..4_u8, 1..60),
            deeds in prop::collection::vec((0..6_u8, any::<usize>()), 0..200),
        ) {
            let log: Vec<ChannelEvent> =
                (1..).zip(&accounts).map(|(seq, account)| event(seq, *account)).collect();
            let mut now = Instant::now();
            let (mut window, mut stored, mut reached) = (Window::default(), 0, 0);
            let mut seen: HashMap<u8, i64> = HashMap::new();
            let mut delivered = BTreeSet::new();
            let mut unanswered: Vec<i64> = Vec::new();
            let finish = (0..accounts.len() * 2).flat_map(|_| [(0, 0), (1, 0), (2, 0)]);
            for (deed, which) in deeds.into_iter().chain([(4, 0)]).chain(finish) {
                match deed {
                    // The log is read.
                    0 => if let Some(next) = log.iter().find(|event| event.id / 2 > reached) {
                        reached = next.id / 2;
                        window.push(next.clone());
                    },
                    // An event is sent.
                    1 => if let Some(body) = window.next(now) {
                        let seq = seq_of(&body);
                        let account = accounts[usize::try_from(seq).unwrap() - 1];
                        let newest = seen.entry(account).or_default();
                        // The next one of its account, or a repetition.
                        let between = accounts.iter().zip(1..seq)
                            .filter(|(one, seq)| **one == account && *seq > *newest);
                        prop_assert_eq!(between.count(), 0, "one was passed over");
                        *newest = seq.max(*newest);
                        delivered.insert(seq);
                        unanswered.push(seq);
                    },
                    // One that was delivered is acknowledged, and the position is kept.
                    2 if !unanswered.is_empty() => {
                        let seq = unanswered.remove(which % unanswered.len());
                        window.acknowledge(seq * 2 + 1);
                        stored = stored.max(window.position(reached));
                    }
                    // The handler of the consumer fails.
                    3 if !unanswered.is_empty() => {
                        unanswered.remove(which % unanswered.len());
                        now += RESEND;
                        window.repeat(now);
                    }
                    // Either side ends; acknowledgements that the consumer kept come later.
                    4 => {
                        (window, reached) = (Window::default(), stored);
                    }
                    // An acknowledgement of something else, or once more.
                    5 => {
                        let id = i64::try_from(which % 200).unwrap();
                        if id % 2 == 0 || delivered.contains(&(id / 2)) {
                            window.acknowledge(id);
                        }
                    }
                    _ => {}
                }
                prop_assert!(window.position(reached) <= reached);
            }
            now += RESEND;
            window.repeat(now);
            while let Some(body) = window.next(now) {
                delivered.insert(seq_of(&body));
                window.acknowledge(seq_of(&body) * 2 + 1);
            }
            prop_assert_eq!(delivered.len(), accounts.len());
            prop_assert_eq!(window.position(reached), i64::try_from(accounts.len()).unwrap());
            prop_assert_eq!(window.bytes, 0);
        }
    }

    #[test]
    fn inv7_a_window_is_bounded() {
        let mut window = Window::default();
        let mut seq = 0;
        while window.has_room() {
            seq += 1;
            window.push(event(seq, 0));
        }
        assert_eq!(seq, 256);
        let mut window = Window::default();
        let large = ChannelEvent {
            body: vec![b'x'; MAX_BYTES].into(),
            ..event(1, 0)
        };
        window.push(large);
        assert!(!window.has_room());
        window.acknowledge(3);
        assert!(window.has_room());
    }
}
