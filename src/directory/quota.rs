//! What may be added to the directory's file.
//!
//! An account that has an entry is kept up to date, and what it takes is bounded. So only new
//! accounts are refused, and known ones whose proof becomes unusually long. They count under the registrable domain of their PDS, since names
//! below one domain cost its owner nothing, and are refused where
//!
//! | | accounts of the operator's own PDSes | accounts that a source names | accounts that only clients ask for |
//! |---|---|---|---|
//! | their domain has as many accounts of this class | never | never | above `asked_per_domain` |
//! | their domain takes more bytes than are free | never | yes | yes, of a quarter of the file |
//! | nothing is free | never | yes | yes, of a quarter of the file |
//!
//! A domain therefore takes at most half of the file, and n domains leave 1/(n+1) of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::store::directory::{Owner, Tx, Usage};
use crate::store::{Entry, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Origin;

/// Part of the file that accounts may take which only clients ask for. The rest is left to what
/// sources bring: clients can ask for accounts of any number of domains.
const ASKED_PART: u64 = 4;

/// Bytes that a domain may take however little is free, as long as anything is: those of about a
/// hundred accounts.
const LEAST_SHARE: u64 = 1 << 20;

/// Bytes of a proof up to which a known account is kept up to date however little is free: several
/// times those of a usual one.
const USUAL_PROOF: usize = 16 * 1024;

/// Most bytes of a proof that is saved.
const SAVED_PROOF: u64 = 16 * 1024;

/// Interval between two lines of the log about refused accounts.
const TOLD_INTERVAL: Duration = Duration::from_secs(3600);

/// The limits of the directory's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Accounts of one domain that only clients have asked for.
    pub asked_per_domain: u64,
    /// Bytes that entries, proofs, changes and evidence may take together.
    pub max_bytes: u64,
    /// Age at which changes are deleted; the newest of each account stays.
    pub history: Duration,
    /// The operator's own PDSes, whose accounts are always kept.
    pub own: BTreeSet<Origin>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            asked_per_domain: 1000,
            max_bytes: 8 << 30,
            history: Duration::from_secs(365 * 24 * 3600),
            own: BTreeSet::new(),
        }
    }
}

/// The limit at which an account is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Full {
    /// Clients have asked for as many accounts of its domain as are kept.
    Accounts,
    /// Its domain takes as many bytes as are free.
    Domain,
    /// Nothing is free.
    File,
}

impl Full {
    /// Returns the stable code for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Domain => "domain",
            Self::File => "file",
        }
    }

    /// Returns the reason as a sentence for clients.
    pub fn message(self) -> &'static str {
        match self {
            Self::Accounts | Self::Domain => {
                "the directory keeps no more accounts of this account's domain"
            }
            Self::File => "the directory keeps no more accounts",
        }
    }
}

/// The limits, and when they were last reported.
#[derive(Debug, Default)]
pub(super) struct Quota {
    pub(super) limits: Limits,
    told_at: AtomicI64,
}

impl Quota {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            told_at: AtomicI64::new(0),
        }
    }

    /// Returns the limit at which a new entry with a proof of this length is refused, if it is.
    pub(super) fn refuses(
        &self,
        tx: &Tx<'_>,
        entry: &Entry,
        proof: usize,
        now: Timestamp,
    ) -> Result<Option<Full>, StoreError> {
        if self.is_own(entry) {
            return Ok(None);
        }
        let owner = Owner::of(entry);
        let bytes = (entry.bytes() + proof) as u64;
        let (share, all) = (tx.share_of(&owner.domain)?, tx.share_of_all()?);
        let over = owner.asked && share.asked >= self.limits.asked_per_domain;
        let full = if over {
            Some(Full::Accounts)
        } else {
            no_room(&self.limits, share, all, owner.asked, bytes)
        };
        if let Some(full) = full {
            self.tell(full, &owner.domain, now);
        }
        Ok(full)
    }

    /// Returns the limit at which an entry is not kept with a proof of this length, if the proof is
    /// longer than a usual one and than that of before. Otherwise accounts that began small could
    /// grow beyond every limit.
    pub(super) fn refuses_growth(
        &self,
        tx: &Tx<'_>,
        entry: &Entry,
        proof: usize,
        now: Timestamp,
    ) -> Result<Option<Full>, StoreError> {
        if proof <= USUAL_PROOF || self.is_own(entry) {
            return Ok(None);
        }
        let before = tx.proof_len(&entry.did)?.max(USUAL_PROOF as u64);
        let grown = (proof as u64).saturating_sub(before);
        if grown == 0 {
            return Ok(None);
        }
        let owner = Owner::of(entry);
        let (share, all) = (tx.share_of(&owner.domain)?, tx.share_of_all()?);
        let full = no_room(&self.limits, share, all, owner.asked, grown);
        if let Some(full) = full {
            self.tell(full, &owner.domain, now);
        }
        Ok(full)
    }

    /// Returns whether one more proof may be saved of an account: of a superseded package, or as
    /// evidence.
    pub(super) fn has_room(&self, tx: &Tx<'_>, entry: &Entry) -> Result<bool, StoreError> {
        if self.is_own(entry) {
            return Ok(true);
        }
        let owner = Owner::of(entry);
        let (share, all) = (tx.share_of(&owner.domain)?, tx.share_of_all()?);
        Ok(no_room(&self.limits, share, all, owner.asked, SAVED_PROOF).is_none())
    }

    fn is_own(&self, entry: &Entry) -> bool {
        let own = &self.limits.own;
        entry.pds.as_ref().is_some_and(|pds| own.contains(pds))
    }

    fn tell(&self, full: Full, domain: &str, now: Timestamp) {
        let told_at = Timestamp::from_millis(self.told_at.load(Ordering::Relaxed));
        if now.since(told_at) > TOLD_INTERVAL {
            self.told_at.store(now.millis(), Ordering::Relaxed);
            tracing::warn!(
                domain,
                limit = full.code(),
                "the directory keeps no more accounts of a domain; further ones are counted only"
            );
        }
    }
}

/// Returns the limit that `bytes` more of a domain would exceed.
fn no_room(limits: &Limits, domain: Usage, all: Usage, asked: bool, bytes: u64) -> Option<Full> {
    let mut pots = vec![(limits.max_bytes, domain.bytes, all.bytes)];
    if asked {
        let part = limits.max_bytes / ASKED_PART;
        pots.push((part, domain.asked_bytes, all.asked_bytes));
    }
    pots.into_iter().find_map(|(size, own, taken)| {
        let free = size.saturating_sub(taken);
        let own = own.saturating_add(bytes);
        if bytes > free {
            Some(Full::File)
        } else if own > LEAST_SHARE && own > free {
            Some(Full::Domain)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limits(max_bytes: u64) -> Limits {
        Limits {
            max_bytes,
            ..Limits::default()
        }
    }

    /// Adds 1 KiB at a time for each domain in turn until none has room. Returns what each takes.
    fn fill(max_bytes: u64, asked: &[bool]) -> Vec<u64> {
        let limits = limits(max_bytes);
        let mut shares = vec![Usage::default(); asked.len()];
        let mut all = Usage::default();
        loop {
            let mut added = false;
            for (share, asked) in shares.iter_mut().zip(asked) {
                while no_room(&limits, *share, all, *asked, 1024).is_none() {
                    for sum in [&mut *share, &mut all] {
                        sum.bytes += 1024;
                        sum.asked_bytes += if *asked { 1024 } else { 0 };
                    }
                    added = true;
                }
            }
            if !added {
                return shares.iter().map(|share| share.bytes).collect();
            }
        }
    }

    #[test]
    fn inv7_one_domain_takes_half_of_the_file_at_most_and_others_find_room() {
        let size = 64 * MIB;
        assert_eq!(fill(size, &[false]), [size / 2]);
        // The second comes when the first has taken all it can.
        let two = fill(size, &[false, false]);
        assert_eq!(two, [size / 2, size / 4]);
        // However many fill the file, a small domain gets what a hundred accounts take.
        let many = fill(size, &[false; 6]);
        assert!(many.iter().all(|bytes| *bytes >= MIB), "{many:?}");
        assert!(many.iter().sum::<u64>() <= size);
    }

    #[test]
    fn inv7_what_only_clients_ask_for_leaves_three_quarters_to_sources() {
        let size = 64 * MIB;
        for domains in [1, 3, 100] {
            let mut classes = vec![true; domains];
            let asked = fill(size, &classes);
            assert!(asked.iter().sum::<u64>() <= size / ASKED_PART, "{asked:?}");
            assert!(asked.iter().all(|bytes| *bytes <= size / ASKED_PART / 2));
            // A domain that sources bring still has more room than it would have beside a domain of
            // its own kind.
            classes.push(false);
            let last = fill(size, &classes).pop().unwrap_or_default();
            assert!(last >= size * 3 / 8, "{last}");
        }
    }

    #[test]
    fn a_file_that_is_full_takes_nothing_and_says_so() {
        let limits = limits(8 * MIB);
        let full = Usage {
            bytes: 8 * MIB,
            ..Usage::default()
        };
        let none = Usage::default();
        assert_eq!(no_room(&limits, none, full, false, 1), Some(Full::File));
        let over = Usage {
            bytes: u64::MAX,
            ..Usage::default()
        };
        assert_eq!(no_room(&limits, over, over, true, 1), Some(Full::File));
        assert_eq!(no_room(&limits, none, none, true, 1), None);
        let half = Usage {
            bytes: 5 * MIB,
            ..Usage::default()
        };
        assert_eq!(no_room(&limits, half, half, false, 1), Some(Full::Domain));
        assert_eq!(no_room(&limits, none, half, false, 1), None);
    }
}
