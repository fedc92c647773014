//! Messages that cannot be read. Each message is whole by itself, so one that cannot be read costs
//! itself and not its place in the stream.
//!
//! The first time such a message ends the connection, as the event stream specification demands: a
//! new connection may bring it whole. When it comes again it is passed over. The connections that
//! end so are few in any time, so that a host that passes on much of it is followed all the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// Messages that are remembered, the newest.
const MAX_REMEMBERED: usize = 256;

/// Messages in a row, with no readable one between them, after which the stream as a whole counts
/// as unreadable.
const MAX_IN_A_ROW: u32 = 1000;

/// Connections within [`DISCONNECT_PERIOD`] that end for such a message. Further ones are passed over
/// the first time.
const MAX_DISCONNECTS: u32 = 4;
const DISCONNECT_PERIOD: Duration = Duration::from_secs(600);

/// What to do about a message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// End the connection: the message may come whole on the next one.
    Disconnect,
    /// Read on behind it.
    PassOver,
    /// Nothing of the stream can be read.
    Unreadable,
}

/// The unreadable messages of one stream.
#[derive(Debug)]
pub(super) struct Poison {
    remembered: VecDeque<[u8; 32]>,
    in_a_row: u32,
    period_began: Instant,
    disconnects: u32,
}

impl Poison {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            remembered: VecDeque::new(),
            in_a_row: 0,
            period_began: now,
            disconnects: 0,
        }
    }

    /// A message was read, or a connection begins.
    pub(super) fn on_readable(&mut self) {
        self.in_a_row = 0;
    }

    /// A message cannot be read.
    pub(super) fn on_unreadable(&mut self, message: &[u8], now: Instant) -> Verdict {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row > MAX_IN_A_ROW {
            return Verdict::Unreadable;
        }
        let hash: [u8; 32] = Sha256::digest(message).into();
        if self.remembered.contains(&hash) {
            return Verdict::PassOver;
        }
        if now.saturating_duration_since(self.period_began) > DISCONNECT_PERIOD {
            self.period_began = now;
            self.disconnects = 0;
        }
        if self.disconnects >= MAX_DISCONNECTS {
            return Verdict::PassOver;
        }
        self.disconnects += 1;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(hash);
        Verdict::Disconnect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_again_is_passed_over_by_itself() {
        let at = Instant::now();
        let mut poison = Poison::new(at);
        assert_eq!(poison.on_unreadable(b"bad", at), Verdict::Disconnect);
        for _ in 0..5 {
            poison.on_readable();
            assert_eq!(poison.on_unreadable(b"bad", at), Verdict::PassOver);
        }
        assert_eq!(poison.on_unreadable(b"other", at), Verdict::Disconnect);
        assert_eq!(poison.on_unreadable(b"other", at), Verdict::PassOver);
        assert_eq!(poison.on_unreadable(b"bad", at), Verdict::PassOver);
    }

    #[test]
    fn inv7_ever_new_messages_end_few_connections_and_are_remembered_in_bounded_number() {
        let at = Instant::now();
        let mut poison = Poison::new(at);
        let mut ended = 0;
        // One every three seconds, a day long.
        for number in 0_u32..28_800 {
            poison.on_readable();
            let now = at + Duration::from_secs(3) * number;
            let verdict = poison.on_unreadable(&number.to_be_bytes(), now);
            assert_ne!(verdict, Verdict::Unreadable);
            ended += u32::from(verdict == Verdict::Disconnect);
        }
        println!("28,800 unreadable messages in a day: {ended} connections end");
        assert!((4..=4 * 144).contains(&ended), "{ended}");
        assert!(poison.remembered.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn a_stream_of_nothing_else_is_unreadable() {
        let at = Instant::now();
        let mut poison = Poison::new(at);
        let verdicts: Vec<_> = (0..=MAX_IN_A_ROW)
            .map(|_| poison.on_unreadable(b"<html>", at))
            .collect();
        assert_eq!(verdicts.first(), Some(&Verdict::Disconnect));
        assert_eq!(verdicts.get(1), Some(&Verdict::PassOver));
        assert_eq!(verdicts.last(), Some(&Verdict::Unreadable));
        poison.on_readable();
        assert_eq!(poison.on_unreadable(b"<html>", at), Verdict::PassOver);
    }
}
