//! Whose mail is kept: decided by what accounts have published, never by who asks first.
//!
//! A claim says that an account's verified key package names a did:peer and this mediator, or did
//! so lately. Claims follow the directory's change log; what may be done for a did:peer is a pure
//! function of all claims on it ([`Admission::of`]). A claim opens a queue and lets the owner of
//! the did:peer in; it never lets the claiming account in, so that publishing somebody else's
//! did:peer gains nothing and takes nothing away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::settings::{AdmissionMode, MediatorSettings};
use crate::directory::Directory;
use crate::store::mailbox::Tx;
use crate::store::{Claim, ClaimState, Entry, MailboxStore, PackageState, StoreError};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Did, MediatorDid, Origin};

/// How long new mail is taken for a did:peer that its account has replaced: senders hold its old
/// key package for a while.
pub const REPLACED_MAIL_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long mail that is there already can be read after the account has replaced the did:peer or
/// left this mediator.
pub const READ_PERIOD: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long new mail is held for an account that is switched off, at its own wish or its host's.
pub const INACTIVE_MAIL_PERIOD: Duration = Duration::from_secs(72 * 3600);

/// Changes of the directory that are followed in one transaction.
const CHANGE_BATCH: usize = 500;

/// Where the change log has been followed to, in the mailbox's store.
const POSITION_KEY: &str = "directory_position";

/// What the change at that place was, so that another log is noticed.
const MARK_KEY: &str = "directory_mark";

/// What claims were made by; they are made anew when this changes.
const BASIS_KEY: &str = "admission_basis";

/// Which accounts count.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    mode: AdmissionMode,
    allow: BTreeSet<Did>,
    deny: BTreeSet<Did>,
    /// PDSes of ours.
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

    /// Whether an account lives where it has to.
    fn is_on_admitted_host(&self, entry: &Entry) -> bool {
        let local = || {
            entry
                .pds
                .as_ref()
                .is_some_and(|pds| self.local.contains(pds))
        };
        self.mode != AdmissionMode::Local || self.allow.contains(&entry.did) || local()
    }

    /// Everything that claims depend on besides the directory.
    fn basis(&self) -> String {
        let list = |items: Vec<&str>| items.join(" ");
        format!(
            "1 {} {} allow {} deny {} local {}",
            self.mediator,
            self.mode.as_str(),
            list(self.allow.iter().map(Did::as_str).collect()),
            list(self.deny.iter().map(Did::as_str).collect()),
            list(self.local.iter().map(Origin::as_str).collect()),
        )
    }
}

/// What all claims on a did:peer together allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admission {
    /// New mail is taken.
    pub(super) mail: bool,
    /// Its owner may register and read.
    pub(super) reading: bool,
}

impl Admission {
    /// The table of key states: the best of what each claim allows.
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

/// What an account's entry says about this mediator.
enum EntryClaim {
    /// Mail for this did:peer is to be kept here.
    Current(String),
    /// The account is switched off, or cannot be proven at the moment.
    Inactive,
    /// A package that names this mediator no more, or no package.
    Dropped,
    /// The operator does not want the account, and its claims end at once.
    Denied,
}

fn entry_claim(entry: Option<&Entry>, policy: &Policy) -> EntryClaim {
    let Some(entry) = entry else {
        return EntryClaim::Dropped;
    };
    if policy.deny.contains(&entry.did) {
        return EntryClaim::Denied;
    }
    // One that has moved away takes along what waits.
    if !policy.is_on_admitted_host(entry) {
        return EntryClaim::Dropped;
    }
    match (entry.state, &entry.peer) {
        // Neither of them proves that the account is gone.
        (PackageState::Unverifiable | PackageState::RemovedUnproven, _) => EntryClaim::Inactive,
        (PackageState::Present, _) if !entry.status.is_active() => EntryClaim::Inactive,
        (PackageState::Present, Some(peer)) if entry.mediators.contains(&policy.mediator) => {
            EntryClaim::Current(peer.clone())
        }
        _ => EntryClaim::Dropped,
    }
}

/// Replaced did:peers of one account that still take mail: each is a queue of its own.
const MAX_REPLACED_QUEUES: usize = 4;

/// Claims of one account in all.
const MAX_CLAIMS: usize = 32;

/// Bounds what an account that rotates without end takes up: of those that were replaced the
/// youngest take mail, the others can be read as long as they were promised to be.
fn bound_claims(mut claims: Vec<Claim>) -> Vec<Claim> {
    // Those that stand first, then the youngest.
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

/// The claims of one account as they should be, given what they were: pure, so that every path
/// through the table can be tried.
fn next_claims(account: &Did, old: &[Claim], claimed: &EntryClaim, now: Timestamp) -> Vec<Claim> {
    let in_state = |claim: &Claim, state: ClaimState| Claim {
        state,
        since: now,
        ..claim.clone()
    };
    let live = |claim: &&Claim| matches!(claim.state, ClaimState::Current | ClaimState::Inactive);
    match claimed {
        EntryClaim::Denied => Vec::new(),
        EntryClaim::Inactive => old
            .iter()
            .map(|claim| match claim.state {
                ClaimState::Current => in_state(claim, ClaimState::Inactive),
                _ => claim.clone(),
            })
            .collect(),
        EntryClaim::Dropped => old
            .iter()
            .map(|claim| match live(&claim) {
                true => in_state(claim, ClaimState::Dropped),
                false => claim.clone(),
            })
            .collect(),
        EntryClaim::Current(peer) => {
            let mut next: Vec<Claim> = old
                .iter()
                .filter(|claim| claim.peer != *peer)
                .map(|claim| match live(&claim) {
                    true => in_state(claim, ClaimState::Replaced),
                    false => claim.clone(),
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

/// Whether a claim allows nothing any more.
fn is_expired(claim: &Claim, now: Timestamp) -> bool {
    Admission::of(std::slice::from_ref(claim), now) == Admission::default()
}

/// Writes the claims of one account. Safe to repeat: nothing is written where nothing changes.
fn write_claims(
    tx: &Tx<'_>,
    account: &Did,
    claimed: &EntryClaim,
    now: Timestamp,
) -> Result<(), StoreError> {
    let old = tx.claims_of(account)?;
    let next = next_claims(account, &old, claimed, now);
    for claim in &next {
        if is_expired(claim, now) {
            tx.delete_claim(&claim.account, &claim.peer)?;
        } else if !old.contains(claim) {
            tx.put_claim(claim)?;
        }
    }
    for gone in &old {
        if !next.iter().any(|claim| claim.peer == gone.peer) {
            tx.delete_claim(&gone.account, &gone.peer)?;
        }
    }
    Ok(())
}

/// Follows the directory.
pub(super) struct ClaimFollower {
    policy: Arc<Policy>,
    directory: Arc<Directory>,
    mailbox: Arc<MailboxStore>,
    clock: Clock,
    /// One at a time: positions only go forward.
    catching_up: Mutex<()>,
}

impl ClaimFollower {
    pub(super) fn new(
        policy: Arc<Policy>,
        directory: Arc<Directory>,
        mailbox: Arc<MailboxStore>,
        clock: Clock,
    ) -> Self {
        Self {
            policy,
            directory,
            mailbox,
            clock,
            catching_up: Mutex::new(()),
        }
    }

    /// Brings claims up to date with everything that the directory has committed. Returns whether
    /// anything was looked at.
    pub(super) async fn catch_up(&self) -> Result<bool, StoreError> {
        let _turn = self.catching_up.lock().await;
        let basis = self.policy.basis();
        let (position, mark, known) = self
            .mailbox
            .query(|q| Ok((q.meta(POSITION_KEY)?, q.meta(MARK_KEY)?, q.meta(BASIS_KEY)?)))
            .await?;
        let position = match position.map(|text| text.parse::<i64>()) {
            Some(Ok(position)) => Some(position),
            Some(Err(_)) => return Err(StoreError::Corrupt("a position is no number".to_owned())),
            None => None,
        };
        let mut position = match position.filter(|_| known.as_ref() == Some(&basis)) {
            Some(position) if self.is_same_log(position, mark.as_deref()).await? => position,
            // The first time, after other settings, or beside a directory that was made anew.
            _ => self.rebuild(basis).await?,
        };
        let mut any = false;
        loop {
            let changes = self
                .directory
                .store()
                .query(move |q| q.changes_after(position, CHANGE_BATCH))
                .await?;
            let Some(last) = changes.last().map(|(seq, _)| *seq) else {
                return Ok(any);
            };
            any = true;
            let accounts: BTreeSet<Did> = changes.into_iter().map(|(_, did)| did).collect();
            self.update_accounts(accounts.into_iter().collect(), Some(last))
                .await?;
            position = last;
        }
    }

    /// Whether the directory's log is the one that was followed so far.
    async fn is_same_log(&self, position: i64, mark: Option<&str>) -> Result<bool, StoreError> {
        let found = self
            .directory
            .store()
            .query(move |q| q.change_mark(position))
            .await?;
        Ok(found.as_deref() == mark)
    }

    /// Makes all claims anew: those of accounts that name us now, and those we know of. An account
    /// that the directory does not know has not said that it is gone: the directory may have been
    /// lost, and will find it again.
    async fn rebuild(&self, basis: String) -> Result<i64, StoreError> {
        let mediator = self.policy.mediator.clone();
        let (newest, mark, mut accounts) = self
            .directory
            .store()
            .query(move |q| {
                let all = usize::try_from(i64::MAX).unwrap_or(usize::MAX);
                let newest = q.newest_change()?;
                let accounts = q.accounts_of_mediator(&mediator, all)?;
                Ok((newest, q.change_mark(newest)?, accounts))
            })
            .await?;
        let claimed = self.mailbox.query(|q| q.claiming_accounts()).await?;
        accounts.extend(claimed);
        accounts.sort();
        accounts.dedup();
        tracing::info!(accounts = accounts.len(), "admission is worked out anew");
        for chunk in accounts.chunks(CHANGE_BATCH) {
            self.update_accounts(chunk.to_vec(), None).await?;
        }
        self.mailbox
            .transact(move |tx| {
                tx.set_meta(BASIS_KEY, &basis)?;
                set_position(tx, newest, mark.as_deref())
            })
            .await?;
        Ok(newest)
    }

    /// Settles accounts by their entries as they stand now, whatever the log says of the past: a
    /// change that came meanwhile is in the log, too, and settles them again.
    async fn update_accounts(
        &self,
        accounts: Vec<Did>,
        position: Option<i64>,
    ) -> Result<(), StoreError> {
        let (entries, mark) = self
            .directory
            .store()
            .query(move |q| {
                let with_entry = |did: Did| Ok((q.entry(&did)?, did));
                let entries = accounts.into_iter().map(with_entry);
                let entries = entries.collect::<Result<Vec<_>, StoreError>>()?;
                let mark = position.map(|at| q.change_mark(at)).transpose()?;
                Ok((entries, mark.flatten()))
            })
            .await?;
        let (policy, now) = (Arc::clone(&self.policy), self.clock.now());
        self.mailbox
            .transact(move |tx| {
                for (entry, did) in &entries {
                    let claimed = match entry {
                        // Only a change that is in the log says that an account is gone.
                        None if position.is_none() && !policy.deny.contains(did) => {
                            EntryClaim::Inactive
                        }
                        None if position.is_none() => EntryClaim::Denied,
                        entry => entry_claim(entry.as_ref(), &policy),
                    };
                    write_claims(tx, did, &claimed, now)?;
                }
                match position {
                    Some(position) => set_position(tx, position, mark.as_deref()),
                    None => Ok(()),
                }
            })
            .await
    }
}

fn set_position(tx: &Tx<'_>, position: i64, mark: Option<&str>) -> Result<(), StoreError> {
    tx.set_meta(POSITION_KEY, &position.to_string())?;
    match mark {
        Some(mark) => tx.set_meta(MARK_KEY, mark),
        None => tx.delete_meta(MARK_KEY),
    }
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

    /// What is allowed for `peer` at a time: (new mail, reading).
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
        // Record removed, mediator dropped from it, or made invalid.
        let dropped = step(&current, &EntryClaim::Dropped, 0);
        for (seconds, expected) in [
            (0, (false, true)),
            (14 * DAY - 1, (false, true)),
            (14 * DAY, (false, false)),
        ] {
            assert_eq!(allowed(&dropped, "a", seconds), expected, "{seconds}");
        }
        // Account switched off.
        let paused = step(&current, &EntryClaim::Inactive, 0);
        for (seconds, expected) in [
            (72 * HOUR - 1, (true, true)),
            (72 * HOUR, (false, true)),
            (365 * DAY, (false, true)),
        ] {
            assert_eq!(allowed(&paused, "a", seconds), expected, "{seconds}");
        }
        assert_eq!(step(&current, &EntryClaim::Denied, 0), []);
    }

    #[test]
    fn states_follow_each_other() {
        let current = step(&[], &here("a"), 0);
        // Hearing the same again starts nothing anew.
        assert_eq!(step(&current, &here("a"), 5), current);
        let paused = step(&current, &EntryClaim::Inactive, 10);
        assert_eq!(step(&paused, &EntryClaim::Inactive, 20), paused);
        // Back again: as if nothing had been.
        assert_eq!(
            allowed(&step(&paused, &here("a"), 30), "a", 365 * DAY),
            (true, true)
        );
        // Gone while switched off: the clock of the new state runs from then on.
        let gone = step(&paused, &EntryClaim::Dropped, 100);
        assert_eq!(allowed(&gone, "a", 100), (false, true));
        assert_eq!(step(&gone, &EntryClaim::Dropped, 200), gone);
        // Pausing does not revive what was dropped or replaced.
        assert_eq!(step(&gone, &EntryClaim::Inactive, 300), gone);
        // Naming us again does.
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
        // Long enough after it was replaced, not after it was pushed aside.
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
        /// Whatever happens, at most one claim of an account is current, none is doubled, and
        /// nothing but the account naming us opens a queue.
        #[test]
        fn an_account_has_one_current_claim(events in proptest::collection::vec(0..6_u8, 0..30)) {
            let mut claims = Vec::new();
            for (second, event) in (0_u64..).zip(events) {
                let claimed = match event {
                    0..=2 => here(["a", "b", "c"][usize::from(event)]),
                    3 => EntryClaim::Inactive,
                    4 => EntryClaim::Dropped,
                    _ => EntryClaim::Denied,
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
