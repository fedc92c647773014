//! Admission: the did:peers whose mail is kept. The key packages of accounts decide, and never the
//! order of requests.
//!
//! A claim says that an account's verified key package names a did:peer and this mediator, or did
//! so lately. Claims follow the directory's change log; what is allowed for a did:peer is a pure
//! function of all claims on it ([`Admission::of`]). A claim opens a queue and admits the owner of
//! the did:peer; it never admits the claiming account, so publishing the did:peer of another gains
//! nothing and takes nothing away.

use std::collections::BTreeSet;
use std::time::Duration;

use super::settings::{AdmissionMode, MediatorSettings};
use crate::store::{Claim, ClaimState, ClaimantHost, Entry, PackageState};
use atcomm_net::net::owner_domain;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, MediatorDid, Origin};

/// How long new mail is accepted for a did:peer that its account has replaced: senders keep its old
/// key package for a while.
pub const REPLACED_MAIL_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long mail in a queue can be read after the account has replaced the did:peer or left this
/// mediator.
pub const READ_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long new mail is accepted for an account that is deactivated, suspended or taken down.
pub const INACTIVE_MAIL_PERIOD: Duration = Duration::from_secs(72 * 3600);

/// The settings that admit accounts.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    mode: AdmissionMode,
    allow: BTreeSet<Did>,
    deny: BTreeSet<Did>,
    /// PDSes whose accounts [`AdmissionMode::Local`] admits.
    local: BTreeSet<Origin>,
    mediator: MediatorDid,
}

impl Policy {
    pub(super) fn new(
        settings: &MediatorSettings,
        local: BTreeSet<Origin>,
        mediator: MediatorDid,
    ) -> Self {
        Self {
            mode: settings.admission,
            allow: settings.allow.clone(),
            deny: settings.deny.clone(),
            local,
            mediator,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.mode == AdmissionMode::Open
    }

    pub(super) fn mode(&self) -> AdmissionMode {
        self.mode
    }

    pub(super) fn mediator(&self) -> &MediatorDid {
        &self.mediator
    }

    pub(super) fn denies(&self, account: &Did) -> bool {
        self.deny.contains(account)
    }

    /// Returns the host that an entry's account is counted under.
    pub(super) fn host_of(&self, entry: &Entry) -> Option<ClaimantHost> {
        let pds = entry.pds.as_ref()?;
        let url = url::Url::parse(pds.as_str()).ok()?;
        Some(ClaimantHost {
            name: owner_domain(url.host_str()?, url.port()),
            is_local: self.local.contains(pds),
        })
    }

    /// Returns whether the mode admits an account on its PDS.
    fn is_on_admitted_host(&self, entry: &Entry) -> bool {
        let local = || {
            entry
                .pds
                .as_ref()
                .is_some_and(|pds| self.local.contains(pds))
        };
        self.mode != AdmissionMode::Local || self.allow.contains(&entry.did) || local()
    }

    /// Returns all settings that claims depend on, as one text.
    pub(super) fn basis(&self) -> String {
        let list = |items: Vec<&str>| items.join(" ");
        format!(
            "2 {} {} allow {} deny {} local {}",
            self.mediator,
            self.mode.as_str(),
            list(self.allow.iter().map(Did::as_str).collect()),
            list(self.deny.iter().map(Did::as_str).collect()),
            list(self.local.iter().map(Origin::as_str).collect()),
        )
    }
}

/// The rights that all claims on a did:peer give together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admission {
    /// New mail is accepted.
    pub(super) mail: bool,
    /// Its owner may register and read.
    pub(super) reading: bool,
}

impl Admission {
    /// Returns the best of what each claim allows, by the table of key states.
    pub(super) fn of(claims: &[Claim], now: Timestamp) -> Self {
        claims.iter().fold(Self::default(), |best, claim| {
            let age = now.since(claim.since);
            let (mail, reading) = match claim.state {
                ClaimState::Current => (true, true),
                ClaimState::Replaced => (age < REPLACED_MAIL_PERIOD, age < READ_PERIOD),
                ClaimState::Dropped => (false, age < READ_PERIOD),
                ClaimState::Inactive => (age < INACTIVE_MAIL_PERIOD, true),
            };
            Self {
                mail: best.mail || mail,
                reading: best.reading || reading,
            }
        })
    }
}

/// The claim that an account's entry makes on this mediator.
pub(super) enum EntryClaim {
    /// Its key package names this mediator and this did:peer.
    Current(String),
    /// The account is inactive, or cannot be proven at the moment.
    Inactive,
    /// The account has no key package, or one that does not name this mediator any more.
    Dropped,
    /// The settings deny the account, and its claims end at once. Holds the did:peer that its key
    /// package names with this mediator.
    Denied(Option<String>),
}

impl EntryClaim {
    pub(super) fn of(entry: Option<&Entry>, policy: &Policy) -> Self {
        let Some(entry) = entry else {
            return Self::Dropped;
        };
        if policy.denies(&entry.did) {
            let is_here = entry.mediators.contains(&policy.mediator);
            return Self::Denied(entry.peer.clone().filter(|_| is_here));
        }
        // An account that has moved to another PDS can still read its mail.
        if !policy.is_on_admitted_host(entry) {
            return Self::Dropped;
        }
        match (entry.state, &entry.peer) {
            // Neither state proves that the package is gone.
            (PackageState::Unverifiable | PackageState::RemovedUnproven, _) => Self::Inactive,
            (PackageState::Present, _) if !entry.status.is_active() => Self::Inactive,
            (PackageState::Present, Some(peer)) if entry.mediators.contains(&policy.mediator) => {
                Self::Current(peer.clone())
            }
            _ => Self::Dropped,
        }
    }
}

/// Replaced did:peers of one account that still accept mail. Each has a queue of its own.
const MAX_REPLACED_QUEUES: usize = 4;

/// Claims of one account in all.
const MAX_CLAIMS: usize = 32;

/// Bounds the claims of an account that rotates its keys without end. Of the replaced did:peers the
/// youngest accept mail; the others can be read for the promised time.
fn bound_claims(mut claims: Vec<Claim>) -> Vec<Claim> {
    // Current and inactive claims come first, then the youngest.
    claims.sort_by_key(|claim| {
        let ended = matches!(claim.state, ClaimState::Replaced | ClaimState::Dropped);
        (ended, std::cmp::Reverse(claim.since))
    });
    claims.truncate(MAX_CLAIMS);
    let replaced = claims
        .iter_mut()
        .filter(|c| c.state == ClaimState::Replaced);
    for claim in replaced.skip(MAX_REPLACED_QUEUES) {
        claim.state = ClaimState::Dropped;
    }
    claims
}

/// Returns the claims that an account should have after the claims `old`. Pure, so that tests cover
/// every path through the table.
pub(super) fn next_claims(
    account: &Did,
    old: &[Claim],
    claimed: &EntryClaim,
    now: Timestamp,
) -> Vec<Claim> {
    let in_state = |claim: &Claim, state: ClaimState| Claim {
        state,
        since: now,
        ..claim.clone()
    };
    let is_live = |claim: &Claim| matches!(claim.state, ClaimState::Current | ClaimState::Inactive);
    match claimed {
        EntryClaim::Denied(_) => Vec::new(),
        EntryClaim::Inactive => old
            .iter()
            .map(|claim| match claim.state {
                ClaimState::Current => in_state(claim, ClaimState::Inactive),
                _ => claim.clone(),
            })
            .collect(),
        EntryClaim::Dropped => old
            .iter()
            .map(|claim| {
                if is_live(claim) {
                    in_state(claim, ClaimState::Dropped)
                } else {
                    claim.clone()
                }
            })
            .collect(),
        EntryClaim::Current(peer) => {
            let mut next: Vec<Claim> = old
                .iter()
                .filter(|claim| claim.peer != *peer)
                .map(|claim| {
                    if is_live(claim) {
                        in_state(claim, ClaimState::Replaced)
                    } else {
                        claim.clone()
                    }
                })
                .collect();
            let same = old
                .iter()
                .find(|claim| claim.peer == *peer && claim.state == ClaimState::Current);
            next.push(same.cloned().unwrap_or_else(|| Claim {
                account: account.clone(),
                peer: peer.clone(),
                state: ClaimState::Current,
                since: now,
            }));
            bound_claims(next)
        }
    }
}

/// Returns whether a claim allows nothing any more.
pub(super) fn is_expired(claim: &Claim, now: Timestamp) -> bool {
    Admission::of(std::slice::from_ref(claim), now) == Admission::default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn alice() -> Did {
        Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap()
    }

    fn here(peer: &str) -> EntryClaim {
        EntryClaim::Current(peer.to_owned())
    }

    fn step(old: &[Claim], claimed: &EntryClaim, seconds: u64) -> Vec<Claim> {
        next_claims(&alice(), old, claimed, at(seconds))
    }

    /// Returns what is allowed for `peer` at a time: (new mail, reading).
    fn allowed(claims: &[Claim], peer: &str, seconds: u64) -> (bool, bool) {
        let of_peer: Vec<Claim> = claims.iter().filter(|c| c.peer == peer).cloned().collect();
        let admission = Admission::of(&of_peer, at(seconds));
        (admission.mail, admission.reading)
    }

    #[test]
    fn the_table_of_key_states() {
        let current = step(&[], &here("a"), 0);
        assert_eq!(allowed(&current, "a", 1000 * DAY), (true, true));
        // Replaced by its account.
        let replaced = step(&current, &here("b"), 0);
        assert_eq!(allowed(&replaced, "b", 0), (true, true));
        for (seconds, expected) in [
            (7 * DAY - 1, (true, true)),
            (7 * DAY, (false, true)),
            (14 * DAY - 1, (false, true)),
            (14 * DAY, (false, false)),
        ] {
            assert_eq!(allowed(&replaced, "a", seconds), expected, "{seconds}");
        }
        // The record was removed, does not name the mediator any more, or became invalid.
        let dropped = step(&current, &EntryClaim::Dropped, 0);
        for (seconds, expected) in [
            (0, (false, true)),
            (14 * DAY - 1, (false, true)),
            (14 * DAY, (false, false)),
        ] {
            assert_eq!(allowed(&dropped, "a", seconds), expected, "{seconds}");
        }
        // The account was deactivated.
        let paused = step(&current, &EntryClaim::Inactive, 0);
        for (seconds, expected) in [
            (72 * HOUR - 1, (true, true)),
            (72 * HOUR, (false, true)),
            (365 * DAY, (false, true)),
        ] {
            assert_eq!(allowed(&paused, "a", seconds), expected, "{seconds}");
        }
        assert_eq!(step(&current, &EntryClaim::Denied(None), 0), []);
    }

    #[test]
    fn states_follow_each_other() {
        let current = step(&[], &here("a"), 0);
        // The same entry again changes nothing.
        assert_eq!(step(&current, &here("a"), 5), current);
        let paused = step(&current, &EntryClaim::Inactive, 10);
        assert_eq!(step(&paused, &EntryClaim::Inactive, 20), paused);
        // A return makes the claim current again.
        assert_eq!(
            allowed(&step(&paused, &here("a"), 30), "a", 365 * DAY),
            (true, true)
        );
        // Dropped while inactive: the time of the new state runs from then on.
        let gone = step(&paused, &EntryClaim::Dropped, 100);
        assert_eq!(allowed(&gone, "a", 100), (false, true));
        assert_eq!(step(&gone, &EntryClaim::Dropped, 200), gone);
        // Deactivation does not revive a dropped claim.
        assert_eq!(step(&gone, &EntryClaim::Inactive, 300), gone);
        // Naming this mediator again does.
        assert_eq!(
            allowed(&step(&gone, &here("a"), 400), "a", 400),
            (true, true)
        );
        let twice = step(&step(&current, &here("b"), 10), &here("c"), 20);
        let mut twice = twice;
        twice.sort_by(|a, b| a.peer.cmp(&b.peer));
        assert_eq!(
            twice
                .iter()
                .map(|c| (c.peer.as_str(), c.state))
                .collect::<Vec<_>>(),
            [
                ("a", ClaimState::Replaced),
                ("b", ClaimState::Replaced),
                ("c", ClaimState::Current)
            ]
        );
        assert_eq!(twice[0].since, at(10));
    }

    #[test]
    fn inv7_an_account_has_few_queues() {
        let mut claims = Vec::new();
        for second in 0..50 {
            claims = step(&claims, &here(&format!("peer{second}")), second);
        }
        let taking = |peer: u64| allowed(&claims, &format!("peer{peer}"), 50);
        assert_eq!(taking(49), (true, true));
        for peer in 45..49 {
            assert_eq!(taking(peer), (true, true), "{peer}");
        }
        for peer in 18..45 {
            assert_eq!(taking(peer), (false, true), "{peer}");
        }
        assert_eq!(taking(17), (false, false));
        assert_eq!(claims.len(), MAX_CLAIMS);
        // The time runs from the replacement, not from when younger claims displaced it.
        assert_eq!(allowed(&claims, "peer18", 19 + 14 * DAY), (false, false));
    }

    #[test]
    fn claims_of_others_take_nothing_away() {
        let claim = |state, since| Claim {
            account: alice(),
            peer: "a".to_owned(),
            state,
            since: at(since),
        };
        let own = claim(ClaimState::Current, 0);
        for other in [
            ClaimState::Dropped,
            ClaimState::Replaced,
            ClaimState::Inactive,
        ] {
            let both = [own.clone(), claim(other, 0)];
            assert_eq!(
                Admission::of(&both, at(100 * DAY)),
                Admission {
                    mail: true,
                    reading: true
                }
            );
        }
    }

    proptest! {
        /// After any events at most one claim of an account is current, no claim is doubled, and
        /// only a package that names this mediator opens a queue.
        #[test]
        fn an_account_has_one_current_claim(events in proptest::collection::vec(0..6_u8, 0..30)) {
            let mut claims = Vec::new();
            for (second, event) in (0_u64..).zip(events) {
                let claimed = match event {
                    0..=2 => here(["a", "b", "c"][usize::from(event)]),
                    3 => EntryClaim::Inactive,
                    4 => EntryClaim::Dropped,
                    _ => EntryClaim::Denied(None),
                };
                let before = claims.clone();
                claims = step(&before, &claimed, second);
                let current = claims.iter().filter(|c| c.state == ClaimState::Current);
                prop_assert!(current.count() <= 1);
                let peers: BTreeSet<&str> = claims.iter().map(|c| c.peer.as_str()).collect();
                prop_assert_eq!(peers.len(), claims.len());
                if !matches!(claimed, EntryClaim::Current(_)) {
                    for peer in ["a", "b", "c"] {
                        let (after, earlier) =
                            (allowed(&claims, peer, second), allowed(&before, peer, second));
                        prop_assert!(earlier.0 || !after.0, "{} was opened", peer);
                    }
                }
            }
        }
    }
}
