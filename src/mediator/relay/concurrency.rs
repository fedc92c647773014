//! How the slots for deliveries are shared between destinations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Deliveries in flight to one mediator.
const PER_DESTINATION: usize = 4;

/// Mediators kept as failing.
const MAX_FAILING: usize = 10_000;

/// The health of a mediator, as one attempt shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DestinationHealth {
    Healthy,
    Failing,
    Unknown,
}

/// The deliveries in flight. A mediator that failed last time has one slot until it answers, and all
/// such mediators together have half of the slots, so that mediators that hang do not hold up those
/// that answer.
pub(super) struct InFlight {
    slots: usize,
    destinations: HashMap<tokio::task::Id, String>,
    failing: Arc<BTreeSet<String>>,
}

/// The number of further deliveries that each mediator may have.
pub(super) struct DestinationSlots {
    held: BTreeMap<String, usize>,
    failing: Arc<BTreeSet<String>>,
    /// Slots left for failing mediators.
    left: usize,
}

impl InFlight {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            destinations: HashMap::new(),
            failing: Arc::default(),
        }
    }

    pub(super) fn insert(&mut self, id: tokio::task::Id, destination: String) {
        self.destinations.insert(id, destination);
    }

    pub(super) fn remove(&mut self, id: tokio::task::Id, health: DestinationHealth) {
        let Some(destination) = self.destinations.remove(&id) else {
            return;
        };
        match health {
            DestinationHealth::Unknown => {}
            DestinationHealth::Healthy if self.failing.contains(&destination) => {
                Arc::make_mut(&mut self.failing).remove(&destination);
            }
            DestinationHealth::Healthy => {}
            DestinationHealth::Failing => {
                let failing = Arc::make_mut(&mut self.failing);
                // Failing mediators have few slots, so clearing the set costs few attempts.
                if failing.len() >= MAX_FAILING {
                    failing.clear();
                }
                failing.insert(destination);
            }
        }
    }

    pub(super) fn slots(&self) -> DestinationSlots {
        let mut held: BTreeMap<String, usize> = BTreeMap::new();
        for destination in self.destinations.values() {
            *held.entry(destination.clone()).or_default() += 1;
        }
        let failing = |destination: &String| self.failing.contains(destination);
        let hanging: usize = held
            .iter()
            .filter(|(d, _)| failing(d))
            .map(|(_, n)| n)
            .sum();
        DestinationSlots {
            held,
            failing: Arc::clone(&self.failing),
            left: self.slots.div_ceil(2).saturating_sub(hanging),
        }
    }
}

impl DestinationSlots {
    /// Returns the slots of one mediator. Slots of a failing one are taken from those left for all
    /// failing ones.
    pub(super) fn of(&mut self, destination: &str) -> usize {
        let held = self.held.get(destination).copied().unwrap_or(0);
        if !self.failing.contains(destination) {
            return PER_DESTINATION.saturating_sub(held);
        }
        let slots = 1_usize.saturating_sub(held).min(self.left);
        self.left -= slots;
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn inv7_a_mediator_takes_few_slots_and_a_failing_one_fewer() {
        let id = || tokio::spawn(std::future::ready(())).id();
        let (a, b, c) = (
            "did:web:a.example",
            "did:web:b.example",
            "did:web:c.example",
        );
        let mut in_flight = InFlight::new(4);
        let ids: Vec<_> = (0..4).map(|_| id()).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(in_flight.slots().of(a), PER_DESTINATION - n);
            in_flight.insert(*id, a.to_owned());
        }
        assert_eq!((in_flight.slots().of(a), in_flight.slots().of(b)), (0, 4));
        // A mediator that has failed gets one slot at a time.
        in_flight.remove(ids[0], DestinationHealth::Unknown);
        assert_eq!(in_flight.slots().of(a), 1);
        in_flight.remove(ids[1], DestinationHealth::Failing);
        assert_eq!(in_flight.slots().of(a), 0);
        in_flight.remove(ids[2], DestinationHealth::Failing);
        in_flight.remove(ids[3], DestinationHealth::Failing);
        assert_eq!(in_flight.slots().of(a), 1);
        // All failing mediators together have half of the slots, also within one scan.
        for destination in [b, c] {
            let failed = id();
            in_flight.insert(failed, destination.to_owned());
            in_flight.remove(failed, DestinationHealth::Failing);
        }
        let mut slots = in_flight.slots();
        assert_eq!([a, b, c].map(|one| slots.of(one)), [1, 1, 0]);
        assert_eq!(slots.of("did:web:d.example"), 4);
        let answered = id();
        in_flight.insert(answered, a.to_owned());
        in_flight.remove(answered, DestinationHealth::Healthy);
        assert_eq!(in_flight.slots().of(a), 4);
    }
}
