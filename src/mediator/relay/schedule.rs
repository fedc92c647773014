//! Whose message is delivered next. A pure state machine: it is told what waits and what ended, and
//! says whom to take from.
//!
//! Slots are shared between registrable domains, since names below one domain cost nothing. The
//! domain with the fewest deliveries in flight comes first, and among equals the one served longest
//! ago; within it the destination served longest ago. How long something waits does not count:
//! otherwise the destination with the largest backlog would always be first.
//!
//! A domain whose last delivery was answered at once may hold several slots. A domain that has not
//! answered yet, or has failed, holds one. A domain that holds a slot for long pays for it: it is
//! slow for twenty times as long, and slow ones hold one slot each and half of all together. The time
//! in slots counts, not the number of slow answers, so that quick answers in between buy nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use url::Url;

use atcomm_net::net::owner_domain;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::MediatorDid;

/// Deliveries in flight to one domain that answers.
const PER_DOMAIN: usize = 4;

/// Time in a slot after which a delivery is slow.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// How many times as long as it held a slot a slow domain stays slow: so it has at most a twentieth
/// of the time of the slots that only quick domains get.
const SLOW_FACTOR: u32 = 20;

/// Longest time for which a domain stays slow.
const MAX_SLOW: Duration = Duration::from_secs(3600);

/// Destinations that wait, in memory. The store knows all, and tells of the others when there is
/// room.
const MAX_WAITING: usize = 16_384;

/// Domains remembered without waiting or running deliveries.
const MAX_IDLE_DOMAINS: usize = 8192;

/// How long a probe may take until the next one.
const PROBE_LEASE: Duration = Duration::from_secs(90);

/// Returns the registrable domain of a mediator.
pub(super) fn domain_of(mediator: &MediatorDid) -> String {
    mediator.web().map_or_else(
        || mediator.as_str().to_owned(),
        |web| owner_domain(&web.host, web.port),
    )
}

/// Returns the registrable domain of an address.
pub(super) fn domain_of_url(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    owner_domain(host.trim_end_matches('.'), url.port())
}

/// What a stay in a slot has shown of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    Answered,
    Failed,
    /// Nothing, as where no request was made.
    Unknown,
}

/// How much of the slots a domain may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Quick,
    /// It has not answered since it was first served, or since it failed.
    Unproven,
    Slow,
}

/// A choice of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pick {
    /// DID of the mediator.
    pub(super) destination: String,
    /// Only the smallest message, to see whether the destination answers again.
    pub(super) is_probe: bool,
    /// The slot of the delivery.
    pub(super) slot: u64,
}

/// A destination with messages that wait.
struct Waiting {
    due_at: Timestamp,
    /// Nothing is taken before.
    paused_until: Timestamp,
    /// Nothing was answered since the last pause.
    is_probed: bool,
    /// Turn in which it was served last.
    served: u64,
    /// It was told to wait since it was picked.
    is_changed: bool,
}

#[derive(Default)]
struct Domain {
    waiting: BTreeMap<String, Waiting>,
    /// Slots, and since when each is held.
    in_flight: BTreeMap<u64, Timestamp>,
    /// Turn in which it was served last.
    served: u64,
    has_answered: bool,
    slow_until: Timestamp,
}

impl Domain {
    fn class(&self, now: Timestamp) -> Class {
        // A clock that was set back must not make a domain slow for longer.
        let is_slow = self.slow_until > now && self.slow_until <= now.plus(MAX_SLOW);
        let hangs = |since: &Timestamp| now.since(*since) > SLOW_AFTER;
        if is_slow || self.in_flight.values().any(hangs) {
            Class::Slow
        } else if self.has_answered {
            Class::Quick
        } else {
            Class::Unproven
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

/// Slots that are left for each class.
struct SlotsLeft {
    slow: usize,
    unproven: usize,
}

impl SlotsLeft {
    fn admits(&self, domain: &Domain, now: Timestamp) -> bool {
        let held = domain.in_flight.len();
        match domain.class(now) {
            Class::Quick => held < PER_DOMAIN,
            Class::Unproven => held == 0 && self.unproven > 0,
            Class::Slow => held == 0 && self.slow > 0,
        }
    }
}

/// The deliveries in flight, and the destinations that wait for one.
pub(super) struct Schedule {
    slots: usize,
    domains: HashMap<String, Domain>,
    /// Domain of each slot that is held; `None` between two mediators of one message.
    held: HashMap<u64, Option<String>>,
    waiting: usize,
    turn: u64,
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(1),
            domains: HashMap::new(),
            held: HashMap::new(),
            waiting: 0,
            turn: 0,
        }
    }

    /// Returns whether a further delivery may start.
    pub(super) fn has_free_slot(&self) -> bool {
        self.held.len() < self.slots
    }

    /// Notes that a message for a destination is due at a time.
    pub(super) fn waits(&mut self, destination: &str, due_at: Timestamp) {
        let Ok(did) = MediatorDid::parse(destination) else {
            return;
        };
        let name = domain_of(&did);
        if let Some(waiting) = self
            .domains
            .get_mut(&name)
            .and_then(|domain| domain.waiting.get_mut(destination))
        {
            waiting.due_at = waiting.due_at.min(due_at);
            waiting.is_changed = true;
            return;
        }
        if self.waiting >= MAX_WAITING && !self.evict_for(&name) {
            return;
        }
        self.evict_idle();
        let waiting = Waiting {
            due_at,
            paused_until: Timestamp::default(),
            is_probed: false,
            served: 0,
            is_changed: true,
        };
        let domain = self.domains.entry(name).or_default();
        domain.waiting.insert(destination.to_owned(), waiting);
        self.waiting += 1;
    }

    /// Makes room by evicting a destination of the domain with the most. Returns false where no
    /// domain has more destinations than `name`.
    fn evict_for(&mut self, name: &str) -> bool {
        let own = self.domains.get(name).map_or(0, |one| one.waiting.len());
        let largest = self
            .domains
            .values_mut()
            .max_by_key(|one| one.waiting.len());
        let Some(largest) = largest.filter(|one| one.waiting.len() > own + 1) else {
            return false;
        };
        largest.waiting.pop_last();
        self.waiting -= 1;
        true
    }

    /// Evicts half of the idle domains, those served longest ago, where there are too many.
    fn evict_idle(&mut self) {
        // Not counted before the table is large.
        if self.domains.len() <= MAX_IDLE_DOMAINS {
            return;
        }
        let idle = self.domains.values().filter(|one| one.is_idle());
        let mut served: Vec<_> = idle.map(|one| one.served).collect();
        if served.len() <= MAX_IDLE_DOMAINS {
            return;
        }
        let (_, middle, _) = served.select_nth_unstable(MAX_IDLE_DOMAINS / 2);
        let oldest = *middle;
        self.domains
            .retain(|_, one| !one.is_idle() || one.served > oldest);
    }

    /// Chooses the destination that a message is taken from next, and gives it a slot.
    pub(super) fn pick(&mut self, now: Timestamp) -> Option<Pick> {
        if !self.has_free_slot() {
            return None;
        }
        let left = self.slots_left(now);
        let mut best: Option<((usize, u64), &str, &str)> = None;
        for (name, domain) in &self.domains {
            let rank = (domain.in_flight.len(), domain.served);
            let is_later =
                best.is_some_and(|(first, other, _)| (first, other) < (rank, name.as_str()));
            if domain.waiting.is_empty() || is_later || !left.admits(domain, now) {
                continue;
            }
            let ready = domain
                .waiting
                .iter()
                .filter(|(_, one)| one.due_at <= now && one.paused_until <= now)
                .min_by_key(|(_, one)| (one.served, one.due_at));
            if let Some((destination, _)) = ready {
                best = Some((rank, name, destination));
            }
        }
        let (_, name, destination) = best?;
        let (name, destination) = (name.to_owned(), destination.to_owned());
        self.turn += 1;
        let slot = self.turn;
        let domain = self.domains.get_mut(&name)?;
        domain.served = slot;
        domain.in_flight.insert(slot, now);
        let waiting = domain.waiting.get_mut(&destination)?;
        waiting.served = slot;
        waiting.is_changed = false;
        let is_probe = waiting.is_probed;
        if is_probe {
            waiting.paused_until = now.plus(PROBE_LEASE);
        }
        self.held.insert(slot, Some(name));
        Some(Pick {
            destination,
            is_probe,
            slot,
        })
    }

    /// Notes when the next message of a destination is due that was picked; `None`: nothing waits.
    pub(super) fn set_next(&mut self, destination: &str, next_at: Option<Timestamp>) {
        let Ok(did) = MediatorDid::parse(destination) else {
            return;
        };
        let Some(domain) = self.domains.get_mut(&domain_of(&did)) else {
            return;
        };
        let Some(waiting) = domain.waiting.get_mut(destination) else {
            return;
        };
        match next_at {
            // What was put in since then is due earlier, perhaps.
            Some(next_at) if waiting.is_changed => waiting.due_at = waiting.due_at.min(next_at),
            Some(next_at) => waiting.due_at = next_at,
            None if waiting.is_changed => {}
            None => {
                domain.waiting.remove(destination);
                self.waiting -= 1;
            }
        }
    }

    /// Takes nothing from a destination before `until`, and then one message to see whether it
    /// answers.
    pub(super) fn pause(&mut self, destination: &MediatorDid, until: Timestamp) {
        if let Some(waiting) = self.waiting_mut(destination) {
            waiting.paused_until = until;
            waiting.is_probed = true;
        }
    }

    /// Allows the next probe of a destination at a time, if it is probed: the last one has shown
    /// nothing.
    pub(super) fn probe_again(&mut self, destination: &MediatorDid, at: Timestamp) {
        let waiting = self.waiting_mut(destination);
        if let Some(waiting) = waiting.filter(|one| one.is_probed) {
            waiting.paused_until = at;
        }
    }

    /// Ends the pause of a destination.
    pub(super) fn resume(&mut self, destination: &MediatorDid) {
        if let Some(waiting) = self.waiting_mut(destination) {
            waiting.paused_until = Timestamp::default();
            waiting.is_probed = false;
        }
    }

    fn waiting_mut(&mut self, destination: &MediatorDid) -> Option<&mut Waiting> {
        let domain = self.domains.get_mut(&domain_of(destination))?;
        domain.waiting.get_mut(destination.as_str())
    }

    /// Moves a slot to the domain of another mediator of the same message. Returns false where that
    /// domain may hold no further slot; the slot then belongs to no domain.
    pub(super) fn enter(&mut self, slot: u64, mediator: &MediatorDid, now: Timestamp) -> bool {
        let name = domain_of(mediator);
        if self.held.get(&slot).and_then(Option::as_ref) == Some(&name) {
            return true;
        }
        self.leave(slot, Response::Unknown, now);
        let left = self.slots_left(now);
        self.evict_idle();
        let domain = self.domains.entry(name.clone()).or_default();
        if !left.admits(domain, now) {
            return false;
        }
        self.turn += 1;
        domain.served = self.turn;
        domain.in_flight.insert(slot, now);
        self.held.insert(slot, Some(name));
        true
    }

    /// Ends the stay of a slot with its domain: the domain pays for the time, and is judged by the
    /// response.
    pub(super) fn leave(&mut self, slot: u64, response: Response, now: Timestamp) {
        let Some(name) = self.held.get_mut(&slot).and_then(Option::take) else {
            return;
        };
        let Some(domain) = self.domains.get_mut(&name) else {
            return;
        };
        let Some(since) = domain.in_flight.remove(&slot) else {
            return;
        };
        let stay = now.since(since);
        if stay > SLOW_AFTER {
            let from = domain.slow_until.max(now);
            let until = from.plus(stay * SLOW_FACTOR);
            domain.slow_until = until.min(now.plus(MAX_SLOW));
        }
        match response {
            Response::Answered => domain.has_answered = true,
            Response::Failed => domain.has_answered = false,
            Response::Unknown => {}
        }
    }

    /// Gives a slot back.
    pub(super) fn free(&mut self, slot: u64, now: Timestamp) {
        self.leave(slot, Response::Unknown, now);
        self.held.remove(&slot);
    }

    /// Returns the slots that are left for unproven and slow domains. The last quarter of the slots
    /// is for domains that answer, and slow ones leave another quarter to those that were not served
    /// yet.
    fn slots_left(&self, now: Timestamp) -> SlotsLeft {
        let (mut slow, mut unproven) = (0, 0);
        for name in self.held.values().flatten() {
            match self.domains.get(name).map(|domain| domain.class(now)) {
                Some(Class::Slow) => slow += 1,
                Some(Class::Unproven) => unproven += 1,
                Some(Class::Quick) | None => {}
            }
        }
        let most = (self.slots * 3).div_ceil(4).saturating_sub(slow + unproven);
        SlotsLeft {
            slow: self.slots.div_ceil(2).saturating_sub(slow).min(most),
            unproven: most,
        }
    }

    /// Returns until when nothing is taken from a destination.
    pub(super) fn paused_until(
        &self,
        destination: &MediatorDid,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let domain = self.domains.get(&domain_of(destination))?;
        let waiting = domain.waiting.get(destination.as_str())?;
        (waiting.is_probed && waiting.paused_until > now).then_some(waiting.paused_until)
    }

    /// Returns whether the domain of a destination is slow.
    pub(super) fn is_slow(&self, destination: &MediatorDid, now: Timestamp) -> bool {
        let domain = self.domains.get(&domain_of(destination));
        domain.is_some_and(|domain| domain.class(now) == Class::Slow)
    }

    /// Returns the number of destinations that are paused, and of domains that are slow.
    pub(super) fn troubled(&self, now: Timestamp) -> (usize, usize) {
        let paused = |one: &&Waiting| one.is_probed && one.paused_until > now;
        let paused = self
            .domains
            .values()
            .map(|one| one.waiting.values().filter(paused).count());
        let slow = self
            .domains
            .values()
            .filter(|one| one.class(now) == Class::Slow);
        (paused.sum(), slow.count())
    }
}

#[cfg(test)]
mod tests;
