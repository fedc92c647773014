//! Whose handle is checked next. A pure state machine: it is told what is due and what ended, and
//! says whom to check.
//!
//! What waits is grouped by the registrable domain of the handle and that of the account's PDS, and
//! the groups take turns. A name server or a host that does not answer holds the few places of its
//! own domain, and accounts that claim the names of others share no group with those whose names
//! they are.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::store::DueHandle;
use atcomm_net::net::registrable_domain;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Checks under way. A check of a host that hangs holds a connection of the background's share, of
/// which enough must be left for the PDSes.
pub(super) const PLACES: usize = 24;

/// Checks under way of one class: news do not stop the checks by age, nor the other way round.
const PER_CLASS: usize = PLACES - PLACES / 3;

/// Checks under way of handles below one registrable domain.
const PER_DOMAIN: usize = 4;

/// Those of one class, for the same reason.
const PER_DOMAIN_AND_CLASS: usize = 3;

/// Checks under way for the accounts of one registrable domain of PDSes.
const PER_PDS: usize = PLACES / 2;

/// Accounts that wait in memory, of each class. The store knows all, and tells of the others when
/// there is room.
const MAX_WAITING: usize = 4096;

/// Accounts of one group that wait in memory, of each class.
const MAX_WAITING_OF_GROUP: usize = 32;

/// Domains that are not asked for a while. With more of them the others are asked all the same,
/// which costs a refusal of the host limiter.
const MAX_PAUSED: usize = 4096;

/// Longest pause through which accounts wait in memory.
const SHORT_PAUSE: Duration = Duration::from_secs(30);

/// Why a check is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    News,
    Age,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::News, Self::Age];

    fn index(self) -> usize {
        usize::from(self == Self::Age)
    }
}

/// The accounts that have a share of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    /// Registrable domain of the handles.
    domain: String,
    /// Registrable domain of the PDSes.
    pds: String,
}

impl Group {
    fn of(row: &DueHandle) -> Self {
        let host = row.pds.as_ref().map_or("", |pds| pds.host());
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match host.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => host,
        };
        Self {
            domain: registrable_domain(row.claimed.as_str()).to_owned(),
            pds: registrable_domain(host).to_owned(),
        }
    }
}

/// The accounts of one class that wait.
#[derive(Default)]
struct Waiting {
    groups: HashMap<Group, VecDeque<Did>>,
    /// The groups with accounts that wait, each once, the next first.
    turns: VecDeque<Group>,
    dids: HashSet<Did>,
}

impl Waiting {
    /// Returns whether the account waits now.
    fn push(&mut self, row: &DueHandle) -> bool {
        if self.dids.contains(&row.did) {
            return true;
        }
        let group = Group::of(row);
        let len = self.groups.get(&group).map_or(0, VecDeque::len);
        let is_full = self.dids.len() >= MAX_WAITING;
        if len >= MAX_WAITING_OF_GROUP || (is_full && (len > 0 || !self.make_room())) {
            return false;
        }
        if len == 0 {
            self.turns.push_back(group.clone());
        }
        self.groups
            .entry(group)
            .or_default()
            .push_back(row.did.clone());
        self.dids.insert(row.did.clone());
        true
    }

    /// Forgets one account of the longest group, if any group has several.
    fn make_room(&mut self) -> bool {
        let longest = self.groups.values_mut().max_by_key(|dids| dids.len());
        let Some(dids) = longest.filter(|dids| dids.len() > 1) else {
            return false;
        };
        dids.pop_back().is_some_and(|did| self.dids.remove(&did))
    }

    /// Takes the next account of the group at this turn, which has the last turn then.
    fn take(&mut self, turn: usize) -> Option<(Did, Group)> {
        let group = self.turns.remove(turn)?;
        let dids = self.groups.get_mut(&group)?;
        let did = dids.pop_front()?;
        if dids.is_empty() {
            self.groups.remove(&group);
        } else {
            self.turns.push_back(group.clone());
        }
        self.dids.remove(&did);
        Some((did, group))
    }

    /// Forgets the accounts with handles below a domain.
    fn forget(&mut self, domain: &str) {
        self.turns.retain(|group| group.domain != domain);
        let dids = &mut self.dids;
        self.groups.retain(|group, waiting| {
            let stays = group.domain != domain;
            if !stays {
                dids.retain(|did| !waiting.contains(did));
            }
            stays
        });
    }
}

/// The schedule.
#[derive(Default)]
pub(super) struct Schedule {
    waiting: [Waiting; 2],
    under_way: HashMap<Did, (Class, Group)>,
    paused: HashMap<String, Timestamp>,
}

impl Schedule {
    /// Adds an account whose check is due. Returns whether it was left behind: there is no room for
    /// it, or its domain is paused for long.
    pub(super) fn offer(&mut self, class: Class, row: &DueHandle, now: Timestamp) -> bool {
        if self.under_way.contains_key(&row.did) {
            return false;
        }
        let domain = registrable_domain(row.claimed.as_str());
        if self
            .paused
            .get(domain)
            .is_some_and(|until| until.since(now) > SHORT_PAUSE)
        {
            return true;
        }
        !self.waiting[class.index()].push(row)
    }

    /// Chooses the next account, and counts its check as under way.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Did> {
        for class in Class::ALL {
            while let Some(turn) = self.turn(class, now) {
                let (did, group) = self.waiting[class.index()].take(turn)?;
                // An account may wait in both classes; one check serves both.
                if !self.under_way.contains_key(&did) {
                    self.under_way.insert(did.clone(), (class, group));
                    return Some(did);
                }
            }
        }
        None
    }

    /// Returns whether a place is free, and nothing that waits may take it.
    pub(super) fn is_dry(&self, now: Timestamp) -> bool {
        self.under_way.len() < PLACES
            && Class::ALL
                .into_iter()
                .all(|class| self.turn(class, now).is_none())
    }

    /// Returns the turn of the first group of a class that may have a place.
    fn turn(&self, class: Class, now: Timestamp) -> Option<usize> {
        if self.under_way.len() >= PLACES {
            return None;
        }
        let limits = Limits::left_to(class, self.under_way.values())?;
        let is_asked = |group: &Group| {
            let until = self.paused.get(&group.domain);
            until.is_none_or(|until| *until <= now)
        };
        let turns = &self.waiting[class.index()].turns;
        turns
            .iter()
            .position(|group| limits.admits(group) && is_asked(group))
    }

    /// Ends a check. `retry_after` is the time for which the handle's domain must not be asked.
    pub(super) fn ended(&mut self, did: &Did, retry_after: Option<Duration>, now: Timestamp) {
        let Some((_, group)) = self.under_way.remove(did) else {
            return;
        };
        let Some(wait) = retry_after else { return };
        if self.paused.len() >= MAX_PAUSED {
            self.paused.retain(|_, until| *until > now);
        }
        if wait > SHORT_PAUSE {
            for waiting in &mut self.waiting {
                waiting.forget(&group.domain);
            }
        }
        if self.paused.len() < MAX_PAUSED {
            self.paused.insert(group.domain, now.plus(wait));
        }
    }

    /// Ends all checks: which one failed is unknown, and none may stay under way for ever.
    pub(super) fn all_ended(&mut self) {
        self.under_way.clear();
    }

    /// Returns the number of checks under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

/// What the checks under way leave to a class: all but these domains.
struct Limits<'s> {
    domains: Vec<&'s str>,
    pdses: Vec<&'s str>,
}

impl<'s> Limits<'s> {
    fn left_to(
        class: Class,
        under_way: impl Iterator<Item = &'s (Class, Group)> + Clone,
    ) -> Option<Self> {
        let of_class = under_way.clone().filter(|(other, _)| *other == class);
        if of_class.clone().count() >= PER_CLASS {
            return None;
        }
        let mut limits = Self {
            domains: Vec::new(),
            pdses: Vec::new(),
        };
        for (_, group) in under_way.clone() {
            let domain = |(_, other): &&(Class, Group)| other.domain == group.domain;
            let pds = |(_, other): &&(Class, Group)| other.pds == group.pds;
            if under_way.clone().filter(domain).count() >= PER_DOMAIN
                || of_class.clone().filter(domain).count() >= PER_DOMAIN_AND_CLASS
            {
                limits.domains.push(&group.domain);
            }
            if under_way.clone().filter(pds).count() >= PER_PDS {
                limits.pdses.push(&group.pds);
            }
        }
        Some(limits)
    }

    fn admits(&self, group: &Group) -> bool {
        !self.domains.contains(&group.domain.as_str()) && !self.pdses.contains(&group.pds.as_str())
    }
}

#[cfg(test)]
mod tests;
