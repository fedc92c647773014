//! Claims follow the directory: each change of an account's entry updates its claims in the mailbox's
//! store, from the position up to which the change log has been applied.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::admission::{EntryClaim, Policy, is_expired, next_claims};
use crate::directory::Directory;
use crate::store::mailbox::Tx;
use crate::store::{Damage, MailboxStore, StoreError};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::Did;

/// Changes of the directory that are applied in one transaction.
const CHANGE_BATCH: usize = 500;

/// Key in the mailbox's store: the last applied position of the change log.
const POSITION_KEY: &str = "directory_position";

/// Key in the mailbox's store: a mark of the change at that position, by which another log is
/// noticed.
const MARK_KEY: &str = "directory_mark";

/// Key in the mailbox's store: the settings that the claims depend on. All claims are rebuilt when
/// they change.
const BASIS_KEY: &str = "admission_basis";

/// Writes the claims of one account. Idempotent: writes nothing where nothing changes.
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
    if let EntryClaim::Denied(named) = claimed {
        // Mail that no account may read any more only takes room from others. Whether other claims
        // stand is asked when it is deleted.
        for peer in old.iter().map(|claim| &claim.peer).chain(named) {
            tx.set_denied(peer, true)?;
        }
    }
    Ok(())
}

/// Follows the directory's change log and keeps the claims up to date.
pub(super) struct ClaimFollower {
    policy: Arc<Policy>,
    directory: Arc<Directory>,
    mailbox: Arc<MailboxStore>,
    clock: Clock,
    /// Held while catching up, so that the position only goes forward.
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

    /// Brings the claims up to date with all changes that the directory has committed. Returns
    /// whether there were any.
    pub(super) async fn catch_up(&self) -> Result<bool, StoreError> {
        let _turn = self.catching_up.lock().await;
        let basis = self.policy.basis();
        let (position, mark, known) = self
            .mailbox
            .query(|q| Ok((q.meta(POSITION_KEY)?, q.meta(MARK_KEY)?, q.meta(BASIS_KEY)?)))
            .await?;
        let position = match position.map(|text| text.parse::<i64>()) {
            Some(Ok(position)) => Some(position),
            Some(Err(_)) => {
                return Err(StoreError::Corrupt(Damage::Contents(
                    "a position is no number",
                )));
            }
            None => None,
        };
        let mut position = match position.filter(|_| known.as_ref() == Some(&basis)) {
            Some(position) if self.is_same_log(position, mark.as_deref()).await? => position,
            // The first start, changed settings, or a directory that was rebuilt.
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

    /// Returns whether the directory's log is the one that was followed so far. A change at the
    /// position that is gone was deleted with its account: in another log that has come as far, the
    /// position holds another change.
    async fn is_same_log(&self, position: i64, mark: Option<&str>) -> Result<bool, StoreError> {
        let (found, newest, is_foreign) = self
            .directory
            .store()
            .query(move |q| {
                let is_foreign = q.is_foreign_position(position)?;
                Ok((q.change_mark(position)?, q.newest_change()?, is_foreign))
            })
            .await?;
        let is_known = position <= newest && !is_foreign;
        let is_deleted = found.is_none() && mark.is_some() && is_known;
        Ok(is_deleted || found.as_deref() == mark)
    }

    /// Rebuilds the claims of all accounts that name this mediator now or have claims. Returns the
    /// position to follow from. An account that the directory does not know keeps its claims as
    /// inactive: the directory may have been lost, and will find the account again.
    async fn rebuild(&self, basis: String) -> Result<i64, StoreError> {
        let mediator = self.policy.mediator().clone();
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

    /// Updates the claims of accounts by their present entries. A later change is in the log, too,
    /// and updates them again.
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
                let entries = accounts
                    .into_iter()
                    .map(with_entry)
                    .collect::<Result<Vec<_>, StoreError>>()?;
                let mark = position.map(|at| q.change_mark(at)).transpose()?;
                Ok((entries, mark.flatten()))
            })
            .await?;
        let (policy, now) = (Arc::clone(&self.policy), self.clock.now());
        self.mailbox
            .transact(move |tx| {
                for (entry, did) in &entries {
                    let claimed = match entry {
                        // Only a change in the log shows that an account has dropped its package.
                        None if position.is_none() && !policy.denies(did) => EntryClaim::Inactive,
                        None if position.is_none() => EntryClaim::Denied(None),
                        entry => EntryClaim::of(entry.as_ref(), &policy),
                    };
                    write_claims(tx, did, &claimed, now)?;
                    let host = entry.as_ref().and_then(|entry| policy.host_of(entry));
                    if let Some(host) = host {
                        tx.put_host(did, &host)?;
                    }
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
