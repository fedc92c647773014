//! Checks of the handles that accounts claim: which are due, and what their results change.

use super::Directory;
use super::apply::handle;
use super::batch::Invalidated;
use super::lookup;
use crate::store::directory::{Owner, Tx};
use crate::store::{Change, ChangeKind, DueHandle, DuePosition, StoreError};
use atcomm_net::identity::HandleCheck;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did, Handle};

impl Directory {
    /// Applies the result of a check of the handle that an account claims. Ignored where the account
    /// claims another one by now. Durable when this returns.
    pub async fn apply_handle(
        &self,
        did: &Did,
        claimed: &Handle,
        check: HandleCheck,
        asked_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (did, claimed, now) = (did.clone(), claimed.clone(), self.clock.now());
        let invalidated = self
            .store
            .transact(move |tx| apply_check(tx, &did, &claimed, &check, asked_at, now))
            .await?;
        self.invalidate(&invalidated);
        Ok(())
    }

    /// Takes away handles that were confirmed too long ago to be shown, at most `limit`, so that
    /// those who follow the change log learn it. Returns how many.
    pub(super) async fn expire_handles(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let expired = self
            .store
            .transact(move |tx| expire(tx, now, limit))
            .await?;
        self.view_cache.invalidate(&expired);
        Ok(expired.len())
    }

    /// Returns the claimed handles whose check is due, because of news or of age; those after a
    /// position, at most `limit`.
    pub async fn due_handles(
        &self,
        is_news: bool,
        after: DuePosition,
        limit: usize,
    ) -> Result<Vec<DueHandle>, StoreError> {
        let now = self.clock.now();
        self.store
            .query(move |q| q.due_handles(is_news, now, after, limit))
            .await
    }

    /// Returns the account that an actor names: a DID itself, a handle by the account that it is
    /// shown of.
    pub async fn account_of(&self, actor: &Actor) -> Result<Option<Did>, StoreError> {
        let (actor, now) = (actor.clone(), self.clock.now());
        self.store
            .query(move |q| lookup::account(q, &actor, now))
            .await
    }

    /// Returns the handle that an account claims, if its check is due.
    pub async fn due_handle(&self, did: &Did) -> Result<Option<Handle>, StoreError> {
        let (did, now) = (did.clone(), self.clock.now());
        self.store.query(move |q| q.due_handle(&did, now)).await
    }
}

/// Takes away handles that were confirmed too long ago to be shown, at most `limit`. Returns their
/// accounts.
fn expire(tx: &Tx<'_>, now: Timestamp, limit: usize) -> Result<Vec<Did>, StoreError> {
    let (since, _) = handle::confirmed_between(now);
    let expired = tx.expired_handles(since, limit)?;
    for did in &expired {
        let Some(mut entry) = tx.entry(did)? else {
            continue;
        };
        entry.handle = None;
        entry.handle_at = None;
        tx.put_handle(&entry)?;
        write_change(tx, &entry, now)?;
    }
    Ok(expired)
}

fn apply_check(
    tx: &Tx<'_>,
    did: &Did,
    claimed: &Handle,
    check: &HandleCheck,
    asked_at: Timestamp,
    now: Timestamp,
) -> Result<Invalidated, StoreError> {
    let mut invalidated = Invalidated::default();
    let entry = tx.entry(did)?;
    let Some(mut entry) = entry.filter(|entry| entry.claimed.as_ref() == Some(claimed)) else {
        return Ok(invalidated);
    };
    let before = entry.handle.clone();
    if !handle::check(&mut entry, check, asked_at, now) {
        return Ok(invalidated);
    }
    if entry.handle.is_some() {
        for loser in tx.claim_handle(claimed, did, now)? {
            if let Some(lost) = tx.entry(&loser)? {
                write_change(tx, &lost, now)?;
            }
            invalidated.dids.push(loser);
        }
    }
    tx.put_handle(&entry)?;
    if before != entry.handle {
        write_change(tx, &entry, now)?;
    }
    invalidated.dids.push(did.clone());
    Ok(invalidated)
}

/// Appends the handle that is shown from now on to the change log.
fn write_change(
    tx: &Tx<'_>,
    entry: &crate::store::Entry,
    now: Timestamp,
) -> Result<(), StoreError> {
    let detail = entry.handle.as_ref().map(Handle::to_string);
    let change = Change::of(entry, ChangeKind::Identity, detail, now);
    tx.append_change(&change, &Owner::of(entry))?;
    Ok(())
}
