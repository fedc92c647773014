//! The accounts of the operator's own PDSes: who is enrolled, and whether messages reach them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::mediator::Mediator;
use crate::store::StoreError;
use crate::store::directory::{AccountFilter, ListedAccount};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Origin;

/// Accounts that are read at once.
const PAGE: usize = 100;

/// How long a key is told to be new.
const NEW_KEY: Duration = Duration::from_secs(24 * 3600);

/// The accounts of the operator's own PDSes that the directory knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnAccounts {
    /// The PDSes.
    pub pdses: Vec<String>,
    /// The accounts, in the order of their PDSes and DIDs.
    pub accounts: Vec<OwnAccount>,
    /// Whether there are more of them.
    pub more: bool,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnAccount {
    /// The account.
    pub did: String,
    /// Its handle, if that is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Its state: `enrolled`, `inactive`, `invalid`, `removed`, `removedUnproven` or `unverifiable`.
    pub state: String,
    /// Why it is not enrolled, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when its key package is as it is (RFC 3339).
    pub since: String,
    /// Whether that is less than a day ago.
    pub new: bool,
    /// The mediators that its key package names.
    pub mediators: Vec<String>,
    /// Its mail at this mediator; `None` where it names others only, or this service is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<OwnMail>,
}

/// The mail of an account at this mediator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnMail {
    /// Whether its client is registered, so that it can fetch messages.
    pub registered: bool,
    /// The last request of its client, to the minute (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// Messages that wait.
    pub waiting: u64,
}

/// Returns the accounts of `pdses`, at most `limit`.
pub(super) async fn accounts(
    directory: &Directory,
    mediator: Option<&Mediator>,
    pdses: &BTreeSet<Origin>,
    limit: usize,
    now: Timestamp,
) -> Result<OwnAccounts, StoreError> {
    let mut all = OwnAccounts {
        pdses: pdses.iter().map(ToString::to_string).collect(),
        accounts: Vec::new(),
        more: false,
    };
    for pds in pdses {
        let filter = AccountFilter {
            pds: Some(pds.clone()),
            ..AccountFilter::default()
        };
        let mut after: Option<String> = None;
        loop {
            let (filter, from) = (filter.clone(), after.take());
            let page = directory
                .store()
                .query(move |q| q.list_accounts(&filter, from.as_deref(), PAGE))
                .await?;
            for listed in page.items {
                if all.accounts.len() == limit {
                    all.more = true;
                    return Ok(all);
                }
                all.accounts
                    .push(account(directory, mediator, listed, now).await?);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(all)
}

async fn account(
    directory: &Directory,
    mediator: Option<&Mediator>,
    listed: ListedAccount,
    now: Timestamp,
) -> Result<OwnAccount, StoreError> {
    let did = listed.did.clone();
    let entry = directory.store().query(move |q| q.entry(&did)).await?;
    let (peer, mediators) = entry.map_or((None, Vec::new()), |one| (one.peer, one.mediators));
    let here = match (mediator, peer) {
        (Some(mediator), Some(peer)) if mediators.contains(mediator.did()) => {
            Some(mail(mediator, peer).await?)
        }
        _ => None,
    };
    Ok(OwnAccount {
        did: listed.did.to_string(),
        handle: listed.handle.map(|handle| handle.to_string()),
        state: listed.state.as_str().to_owned(),
        reason: listed.reason,
        since: listed.observed_at.to_string(),
        new: now.since(listed.observed_at) < NEW_KEY,
        mediators: mediators.iter().map(ToString::to_string).collect(),
        here,
    })
}

async fn mail(mediator: &Mediator, peer: String) -> Result<OwnMail, StoreError> {
    let query = mediator.mailbox().query(move |q| {
        let Some((queue, reader)) = q.reader(&peer)? else {
            return Ok((None, 0));
        };
        let (messages, _) = q.waiting_up_to(queue, i64::MAX)?;
        Ok((reader, messages))
    });
    let (reader, waiting) = query.await?;
    let reader = reader.filter(|reader| !reader.is_closed);
    Ok(OwnMail {
        registered: reader.is_some(),
        seen_at: reader.map(|reader| reader.seen_at.to_string()),
        waiting,
    })
}
