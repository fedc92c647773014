//! How a quota is divided between those that use it: a party may hold more the more of the quota is
//! free, and less the less is free, so that a party that holds nothing finds room.
//!
//! A party that has added something holds at most `weight * free * free / limit`, where `free` is
//! what the quota has left afterwards. Alone it holds three eighths. However many parties came
//! before, in whatever order they added and removed, `k` of them with the weight `w` leave at least
//! `limit / (k * w + 1)` free: each takes at most that fraction of what is left that the free
//! part is of the whole. A fixed part for each party would leave nothing after a few of them, and a
//! fixed part of what is free would leave a part that halves with every two.

use rusqlite::Row;

use super::super::columns::unsigned;

/// What several share a class's weight in the quota of its members together.
const GROUP_WEIGHT: u64 = 2;

/// The class of a sender: which part of a quota its class may use. The rest is a reserve for the
/// classes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SenderClass {
    /// It has proven no account that may read here.
    Other,
    /// It has an account that may read here.
    Registered,
    /// Its account is on one of the PDSes that this service belongs to.
    Local,
}

impl SenderClass {
    /// Returns the part of a limit that senders of this class and those before it may use together:
    /// three quarters, seven eighths, or all.
    pub fn part_of(self, limit: u64) -> u64 {
        match self {
            Self::Other => limit - limit / 4,
            Self::Registered => limit - limit / 8,
            Self::Local => limit,
        }
    }
}

/// The party that mail is charged to, as a keyed hash: eight bytes of its wide group, and eight of
/// itself, which are zero where it is its own wide group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderGroup(pub [u8; 16]);

impl SenderGroup {
    /// Returns the wide group: the network, or the host of the account.
    pub fn wide(self) -> Self {
        let mut wide = self.0;
        wide[8..].fill(0);
        Self(wide)
    }
}

/// A party with its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// The party.
    pub group: SenderGroup,
    /// Its class.
    pub class: SenderClass,
}

/// What is counted of some messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Held {
    /// Reads two columns, which may be null.
    pub(super) fn read(row: &Row<'_>, at: usize) -> Result<Self, rusqlite::Error> {
        let read = |at| row.get::<_, Option<i64>>(at);
        Ok(Self {
            messages: unsigned(read(at)?.unwrap_or(0)),
            bytes: unsigned(read(at + 1)?.unwrap_or(0)),
        })
    }

    /// Returns the bytes on the disk, where each message takes `overhead` more than is counted.
    pub(super) fn cost(self, overhead: u64) -> u64 {
        self.bytes
            .saturating_add(self.messages.saturating_mul(overhead))
    }
}

/// A limit with what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pot {
    /// What may be used in all.
    pub limit: u64,
    /// What is used, by all parties.
    pub used: u64,
}

impl Pot {
    /// Returns whether `size` more fit at all.
    pub fn fits(self, size: u64) -> bool {
        self.used.saturating_add(size) <= self.limit
    }

    /// Returns whether a party that holds `held` may add `size`.
    pub fn admits(self, held: u64, size: u64, weight: u64) -> bool {
        // Beyond this no counter of the store goes, and no product below overflows.
        let limit = self.limit.min(1 << 62);
        let Some(free) = limit.checked_sub(self.used.saturating_add(size)) else {
            return false;
        };
        let holds = held.saturating_add(size);
        let free = u128::from(free);
        holds <= limit
            && u128::from(holds) * u128::from(limit) <= u128::from(weight.min(8)) * free * free
    }

    /// Returns whether a sender may add `size`, given what it and its wide group hold.
    pub fn admits_sender(self, held: u64, held_by_wide: u64, size: u64) -> bool {
        self.admits(held, size, 1) && self.admits(held_by_wide, size, GROUP_WEIGHT)
    }

    /// Returns whether a domain of destinations may add `size`.
    pub(super) fn admits_domain(self, held: u64, size: u64) -> bool {
        self.admits(held, size, GROUP_WEIGHT)
    }

    /// Returns whether a sender may add one more of what is counted one by one. The first of a
    /// sender needs no share: of one each, many senders have room.
    pub fn admits_one_of_sender(self, held: u64, held_by_wide: u64) -> bool {
        (held_by_wide == 0 && self.fits(1)) || self.admits_sender(held, held_by_wide, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 64 << 20;

    fn pot(used: u64) -> Pot {
        Pot { limit: LIMIT, used }
    }

    /// Adds as much as the pot admits, in steps.
    fn fill(pot: &mut Pot, step: u64, weight: u64) -> u64 {
        let mut held = 0;
        while pot.admits(held, step, weight) {
            held += step;
            pot.used += step;
        }
        held
    }

    #[test]
    fn a_party_alone_holds_three_eighths() {
        let held = fill(&mut pot(0), 1 << 10, 1);
        assert!(
            (LIMIT * 37 / 100..LIMIT * 39 / 100).contains(&held),
            "{held}"
        );
        let held = fill(&mut pot(0), 1 << 10, 2);
        assert!((LIMIT * 49 / 100..=LIMIT / 2).contains(&held), "{held}");
    }

    #[test]
    fn classes_leave_a_reserve_for_those_after_them() {
        let parts = [
            SenderClass::Other,
            SenderClass::Registered,
            SenderClass::Local,
        ]
        .map(|class| class.part_of(800));
        assert_eq!(parts, [600, 700, 800]);
        // The smallest limit is of use to all.
        assert_eq!(SenderClass::Other.part_of(1), 1);
    }

    #[test]
    fn the_largest_numbers_are_no_way_around() {
        let all = Pot {
            limit: u64::MAX,
            used: 0,
        };
        assert!(all.admits(0, 1 << 40, 1));
        for (held, size) in [(u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert!(!all.admits(held, size, u64::MAX));
        }
    }

    #[test]
    fn the_first_of_a_sender_fits_while_anything_does() {
        let one = |used| Pot { limit: 1, used };
        assert!(one(0).admits_one_of_sender(0, 0));
        assert!(!one(1).admits_one_of_sender(0, 0));
        let three = Pot { limit: 3, used: 2 };
        assert!(three.admits_one_of_sender(0, 0) && !three.admits_one_of_sender(1, 1));
    }

    proptest! {
        /// Whatever some parties do, in whatever order, the pot is never over its limit, and a
        /// party that holds nothing has room for what the theorem says.
        #[test]
        fn inv7_a_party_that_holds_nothing_finds_room(
            steps in proptest::collection::vec((0..30_u8, 1..400_000_u64, any::<bool>()), 1..600),
            weight in 1..3_u64,
        ) {
            let (mut pot, mut held) = (pot(0), BTreeMap::<u8, u64>::new());
            for (party, size, adds) in steps {
                let holds = held.entry(party).or_default();
                if !adds {
                    pot.used -= *holds / 2;
                    *holds -= *holds / 2;
                    continue;
                }
                // Greedy: as often as the pot admits it.
                while pot.admits(*holds, size, weight) {
                    *holds += size;
                    pot.used += size;
                }
                let parties = held.len() as u64;
                let free = LIMIT - pot.used;
                prop_assert!(free >= LIMIT / (parties * weight + 1), "{free} with {parties}");
                let least = LIMIT / ((parties + 1) * weight + 1);
                let newcomer = weight * least / ((parties + 1) * weight + 1);
                prop_assert!(pot.admits(0, newcomer, weight), "{newcomer} with {parties}");
            }
        }
    }
}
