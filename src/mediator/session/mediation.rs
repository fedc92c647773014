//! `coordinate-mediation` 2.0 and 3.0: accounts are registered, and the DIDs that they receive for.
//!
//! Only its owner registers a DID. Where key packages decide on admission, an account receives for
//! its own DID and no other: a package that names a DID proves nothing about its keys. Where
//! admission is open, an account may add other DIDs that have no owner here yet, and loses them when
//! their owners register.

use std::time::Duration;

use super::{Handled, Registered, Reply, Session};
use crate::mediator::admission::Admission;
use crate::mediator::delivery::encrypted_len;
use crate::mediator::response_memory::ResponsePermit;
use crate::mediator::{Refused, fresh_id, parties};
use crate::store::mailbox::Tx;
use crate::store::{Account, Bound, StoreError};
use atcomm_net::net::group_of;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::Authenticated;
use atcomm_proto::didcomm::protocol::coordination::{
    Action, Outcome, Page, Pagination, Reply as CoordinationReply, Request, Update, Updated,
    Version,
};
use atcomm_proto::syntax::Did;

/// How long a grant stands without a key package that confirms it.
const PROVISIONAL: Duration = Duration::from_secs(15 * 60);

/// Provisional grants of one address at the same time.
const PROVISIONAL_PER_ADDRESS: u64 = 10;

/// Provisional grants in all at the same time.
const PROVISIONAL_IN_ALL: u64 = 10_000;

/// Recipients of one account.
const MAX_RECIPIENTS: u64 = 1000;

/// Recipients shown in one answer.
const MAX_PAGE: usize = 1000;

/// The decision on a request for mediation.
enum Verdict {
    Granted,
    /// Granted until a key package confirms it.
    Provisional,
    Denied,
}

impl Session<Authenticated> {
    /// Carries out one request.
    pub(super) async fn coordinate(
        &self,
        version: Version,
        request: Request,
    ) -> Result<Handled, Refused> {
        let session = match request {
            Request::Mediate { account } => return self.mediate(version, account.as_ref()).await,
            _ => self.registered().await?,
        };
        let Some(session) = session else {
            return Ok(Handled::new(self.not_registered(), "not_registered"));
        };
        let mut permit = session.response_permit();
        let answer = match request {
            Request::Update(updates) => {
                // The answer repeats them. A refusal comes before the change.
                let named = updates.iter().map(|update| update.recipient_did.len());
                permit.grow(listed_len(named)).map_err(Refused::from)?;
                session.update(updates).await?
            }
            Request::Query(page) => session.query(page, &mut permit).await?,
            Request::Mediate { .. } => CoordinationReply::Deny,
        };
        let reply = self.ctx.reply(answer.write(version, fresh_id()));
        Ok(Handled {
            reply: Reply {
                permit: Some(permit),
                ..Reply::of(reply)
            },
            outcome: "done",
        })
    }

    async fn mediate(&self, version: Version, hint: Option<&Did>) -> Result<Handled, Refused> {
        let (answer, outcome) = match self.register(hint).await? {
            Verdict::Granted => (self.grant(), "granted"),
            Verdict::Provisional => (self.grant(), "provisional"),
            Verdict::Denied => (CoordinationReply::Deny, "denied"),
        };
        let reply = self.ctx.reply(answer.write(version, fresh_id()));
        Ok(Handled::new(reply, outcome))
    }

    /// Grants mediation under the present DID of the kind that was addressed.
    fn grant(&self) -> CoordinationReply {
        let own = self.ctx.keys.current(self.ctx.own.kind);
        CoordinationReply::Grant {
            routing_did: vec![own.party.did().to_owned()],
        }
    }

    async fn register(&self, hint: Option<&Did>) -> Result<Verdict, Refused> {
        let party = &self.state.party;
        let account = Account {
            id: 0,
            did: party.canonical().to_owned(),
            long: party.did().to_owned(),
            granted_at: self.ctx.now,
            provisional_until: None,
            address_group: None,
            seen_at: self.ctx.now,
            dates_changes: false,
        };
        if self.try_register(account.clone()).await? {
            return Ok(Verdict::Granted);
        }
        // An account that the directory does not know yet is refreshed, as for any caller.
        if let Some(did) = hint {
            let resolver = &self.ctx.core.resolver;
            if let Err(error) = resolver.refresh(did, self.ctx.address()).await {
                tracing::debug!(?error, "no look for a mediate-request");
            }
        }
        self.ctx.core.claims.catch_up().await?;
        if self.try_register(account.clone()).await? {
            return Ok(Verdict::Granted);
        }
        Ok(self.register_provisionally(account).await?)
    }

    /// Registers an account for good, if its claims or the settings allow that. Returns whether it
    /// is registered.
    async fn try_register(&self, account: Account) -> Result<bool, StoreError> {
        let core = &self.ctx.core;
        let (now, is_open) = (core.clock.now(), core.policy.is_open());
        core.mailbox
            .transact(move |tx| {
                let admission = Admission::of(&tx.claims(&account.did)?, now);
                if !is_open && !admission.reading {
                    return Ok(false);
                }
                put_registered(tx, &account)?;
                Ok(true)
            })
            .await
    }

    async fn register_provisionally(&self, account: Account) -> Result<Verdict, StoreError> {
        let core = &self.ctx.core;
        let now = core.clock.now();
        let group = group_of(self.ctx.address()).to_be_bytes();
        core.mailbox
            .transact(move |tx| {
                let known = tx.account(&account.did)?;
                let stands = |known: &Account| known.provisional_until.is_some_and(|u| now < u);
                // A grant that stands keeps its end: asking again does not prolong it.
                if known.as_ref().is_some_and(stands) {
                    return Ok(Verdict::Provisional);
                }
                let own = tx.provisional_count(Some(&group), now)?;
                let all = tx.provisional_count(None, now)?;
                if own >= PROVISIONAL_PER_ADDRESS {
                    return Ok(Verdict::Denied);
                }
                if all >= PROVISIONAL_IN_ALL {
                    // The oldest grant makes room: by now its account has published a key package,
                    // or asks again.
                    for oldest in tx.lapsed_accounts(now.plus(PROVISIONAL), 1)? {
                        if !confirm_provisional(tx, &oldest, now)? {
                            tx.delete_account(oldest.id)?;
                        }
                    }
                }
                let provisional = Account {
                    provisional_until: Some(now.plus(PROVISIONAL)),
                    address_group: Some(group),
                    ..account
                };
                put_registered(tx, &provisional)?;
                Ok(Verdict::Provisional)
            })
            .await
    }
}

/// Writes an account and binds its own DID to it, even if another account has that DID.
fn put_registered(tx: &Tx<'_>, account: &Account) -> Result<(), StoreError> {
    let granted_at = match tx.account(&account.did)? {
        Some(known) if known.provisional_until.is_none() => known.granted_at,
        _ => account.granted_at,
    };
    let id = tx.put_account(&Account {
        granted_at,
        ..account.clone()
    })?;
    // By the protocol the list of recipients is empty after a grant, and the DID is listed once it is
    // added. But a claim admits its mail before that, so the queue has to belong to the account from
    // now on.
    if let Some(recipient) = tx.recipient(&account.did)?
        && recipient.account != Some(id)
    {
        tx.rebind(&account.did, id)?;
    }
    Ok(())
}

impl Session<Registered> {
    async fn update(&self, updates: Vec<Update>) -> Result<CoordinationReply, Refused> {
        let (account, own) = (self.state.account.id, self.state.account.did.clone());
        let now = self.ctx.now;
        let is_open = self.ctx.core.policy.is_open();
        let is_ours = |did: &str| self.ctx.keys.identity(did).is_some();
        // DIDs that cannot be recipients are sorted out before the store is asked.
        let named: Vec<(Update, Option<String>)> = updates
            .into_iter()
            .map(|update| {
                let did = parties::canonical(&update.recipient_did);
                let usable = did.filter(|did| !is_ours(did) && (is_open || *did == own));
                (update, usable)
            })
            .collect();
        let updated = self
            .ctx
            .core
            .mailbox
            .transact(move |tx| {
                let mut updated = Vec::with_capacity(named.len());
                for (update, did) in named {
                    let result = match did {
                        None => Outcome::ClientError,
                        Some(did) if did == own => {
                            update_own_recipient(tx, &own, update.action, account, now)?
                        }
                        Some(did) => update_recipient(tx, &did, update.action, account)?,
                    };
                    updated.push(Updated {
                        recipient_did: update.recipient_did,
                        action: update.action,
                        result,
                    });
                }
                Ok(updated)
            })
            .await?;
        Ok(CoordinationReply::Updated(updated))
    }

    async fn query(
        &self,
        page: Option<Page>,
        permit: &mut ResponsePermit,
    ) -> Result<CoordinationReply, Refused> {
        let account = self.state.account.id;
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (limit, offset) = match page {
            Some(page) => (number(page.limit).min(MAX_PAGE), number(page.offset)),
            None => (MAX_PAGE, 0),
        };
        let (total, recipients) = self
            .ctx
            .core
            .mailbox
            .query(move |q| {
                Ok((
                    q.recipient_count(account)?,
                    q.recipients_of(account, limit, offset)?,
                ))
            })
            .await?;
        let listed = recipients.iter().map(|one| one.did.len());
        permit.grow(listed_len(listed)).map_err(Refused::from)?;
        let (count, offset) = (recipients.len() as u64, offset as u64);
        Ok(CoordinationReply::Recipients {
            dids: recipients.into_iter().map(|one| one.did).collect(),
            pagination: page.map(|_| Pagination {
                count,
                offset,
                remaining: total.saturating_sub(offset.saturating_add(count)),
            }),
        })
    }
}

/// Returns the bytes of an encrypted answer that lists DIDs of these lengths.
fn listed_len(dids: impl Iterator<Item = usize>) -> usize {
    encrypted_len(dids.map(|did| did.saturating_add(100)).sum())
}

/// Adds or removes the account's own DID. Removing it loses nothing: mail that waits was
/// acknowledged to its sender, and stays readable.
fn update_own_recipient(
    tx: &Tx<'_>,
    own: &str,
    action: Action,
    account: i64,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let changed = match action {
        Action::Remove => tx.close(own, account, now)?,
        Action::Add => match tx.bind(own, account)? {
            Bound::Already => false,
            Bound::New => true,
            Bound::Taken(_) => {
                tx.rebind(own, account)?;
                true
            }
        },
    };
    Ok(if changed {
        Outcome::Success
    } else {
        Outcome::NoChange
    })
}

/// Adds or removes one recipient that is not the account's own DID.
fn update_recipient(
    tx: &Tx<'_>,
    did: &str,
    action: Action,
    account: i64,
) -> Result<Outcome, StoreError> {
    match action {
        Action::Remove => Ok(if tx.unbind(did, account)? {
            Outcome::Success
        } else {
            Outcome::NoChange
        }),
        Action::Add => {
            // The DID has another owner, or will have: a key package names it.
            let owned = tx.account(did)?.is_some() || !tx.claims(did)?.is_empty();
            if owned || tx.recipient_count(account)? >= MAX_RECIPIENTS {
                return Ok(Outcome::ClientError);
            }
            Ok(match tx.bind(did, account)? {
                Bound::Already => Outcome::NoChange,
                Bound::New => Outcome::Success,
                Bound::Taken(_) => Outcome::ClientError,
            })
        }
    }
}

/// Makes a provisional account permanent if a key package names its DID now. Returns whether it does.
pub(in crate::mediator) fn confirm_provisional(
    tx: &Tx<'_>,
    account: &Account,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let admission = Admission::of(&tx.claims(&account.did)?, now);
    if admission.reading {
        tx.put_account(&Account {
            provisional_until: None,
            address_group: None,
            ..account.clone()
        })?;
    }
    Ok(admission.reading)
}
