//! The changes of an account, as `getHistory` returns them
//! (`lexicons/at/didcomm/directory/getHistory.json`).

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Directory;
use super::view::{self, ProofView, Refusal};
use crate::store::directory::Queries;
use crate::store::{Change, ChangeKind, Damage, Entry, PackageState, StoreError};
use atcomm_net::identity::PlcLog;
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::syntax::{Did, MediatorDid, Rev};

/// Most changes of one page.
pub const MAX_CHANGES: usize = 100;

/// Approximate limit of a page in bytes, without the account's operation log. A single change may
/// be larger.
const MAX_PAGE_BYTES: usize = 512 * 1024;

/// Approximate bytes of a change without its texts and its proof.
const CHANGE_BYTES: usize = 384;

/// The selection of changes for a page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Only changes before this position in the log; `None` from the newest.
    pub before: Option<i64>,
    /// Most changes, at most [`MAX_CHANGES`].
    pub limit: usize,
    /// Whether to include the proof of each package that has one.
    pub with_proof: bool,
    /// The account's operation log, to accompany the proofs.
    pub log: Option<Arc<PlcLog>>,
}

/// A page of an account's changes.
#[derive(Debug, Clone)]
pub struct History {
    /// The JSON body.
    pub body: Bytes,
    /// Revision of the account's newest proof; `None` without an entry or a proof.
    pub rev: Option<Rev>,
}

/// Relation of an operation log to the account's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFit {
    /// The log ends with the signing key of the entry.
    Fits,
    /// The log ends with another key, and the entry was checked after the log was asked for.
    Outdated,
    /// The log ends with another key.
    Differs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryView<'a> {
    did: &'a Did,
    changes: Vec<ChangeView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plc_log: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeView<'a> {
    seq: i64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mediators: &'a [MediatorDid],
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    seen_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofView<'a>>,
}

impl Directory {
    /// Returns a page of the account's changes, the newest first. The page is empty where the
    /// account has no entry: changes of an account that has ended are not shown any more.
    pub async fn history(
        &self,
        did: &Did,
        page: Page,
    ) -> Result<Result<History, Refusal>, StoreError> {
        let account = did.clone();
        let (before, limit, with_proof) = (page.before, page.limit, page.with_proof);
        let found = self
            .store
            .query(move |q| {
                Ok(match q.entry(&account)? {
                    Some(entry) if !entry.status.is_active() => Err(view::inactive(&entry)),
                    Some(entry) => Ok(Some(AccountHistory::read(
                        q, entry, before, limit, with_proof,
                    )?)),
                    None => Ok(None),
                })
            })
            .await?;
        // The store has few readers: rendering does not keep one of them.
        let history = match found {
            Ok(history) => history,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(History {
            body: render(did, history.as_ref(), &page)?,
            rev: history.and_then(|history| history.entry.rev),
        }))
    }

    /// Compares an operation log with the entry of its account.
    pub async fn fit(&self, log: &Arc<PlcLog>) -> Result<LogFit, StoreError> {
        let log = Arc::clone(log);
        self.store
            .query(move |q| {
                Ok(match q.entry(log.verified().did())? {
                    Some(entry) if ends_with_key_of(&entry, log.verified()) => LogFit::Fits,
                    Some(entry) if log.asked_at() < entry.checked_at => LogFit::Outdated,
                    _ => LogFit::Differs,
                })
            })
            .await
    }
}

/// Returns whether the log's end and the entry name the same signing key.
fn ends_with_key_of(entry: &Entry, log: &VerifiedLog) -> bool {
    let now = log.current().and_then(|state| state.signing_key.as_ref());
    now.is_some() && now == entry.signing_key.as_ref()
}

/// The part of an account's history on one page.
struct AccountHistory {
    entry: Entry,
    changes: Vec<Change>,
    /// Whether there are changes before these.
    more: bool,
}

impl AccountHistory {
    fn read(
        q: &Queries<'_>,
        entry: Entry,
        before: Option<i64>,
        limit: usize,
        with_proof: bool,
    ) -> Result<Self, StoreError> {
        let limit = limit.clamp(1, MAX_CHANGES);
        let newest = if with_proof {
            q.proof(&entry.did)?
        } else {
            None
        };
        let (mut changes, mut more, mut bytes) = (Vec::new(), false, 0);
        q.each_change(&entry.did, before, with_proof, |mut change| {
            if let Some(newest) = &newest {
                complete(&mut change, &entry, newest);
            }
            bytes += bytes_of(&change);
            more = changes.len() == limit || (!changes.is_empty() && bytes > MAX_PAGE_BYTES);
            if !more {
                changes.push(change);
            }
            !more
        })?;
        Ok(Self {
            entry,
            changes,
            more,
        })
    }
}

fn render(did: &Did, history: Option<&AccountHistory>, page: &Page) -> Result<Bytes, StoreError> {
    let fits = |log: &&Arc<PlcLog>| {
        history.is_some_and(|history| ends_with_key_of(&history.entry, log.verified()))
    };
    let log = page.log.as_ref().filter(|_| page.with_proof).filter(fits);
    let changes = history.map_or(&[][..], |history| &history.changes);
    let view = HistoryView {
        did,
        cursor: changes
            .last()
            .filter(|_| history.is_some_and(|history| history.more))
            .map(|change| change.seq.to_string()),
        changes: changes.iter().map(view_of).collect(),
        plc_log: log.map(|log| log.entries()),
    };
    let body = serde_json::to_vec(&view)
        .map_err(|error| StoreError::Corrupt(Damage::Json(Arc::new(error))))?;
    Ok(body.into())
}

/// Adds the newest package's proof, which is not in the log because it is renewed.
fn complete(change: &mut Change, entry: &Entry, newest: &[u8]) {
    let has_package = matches!(entry.state, PackageState::Present | PackageState::Invalid);
    if has_package && change.seq == entry.change_seq {
        change.proof = Some(newest.to_vec());
        change.rev = entry.rev;
        change.key.clone_from(&entry.proof_key);
    }
}

fn bytes_of(change: &Change) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let mediators = change.mediators.iter().map(|did| did.as_str().len() + 3);
    let proof = change.proof.as_ref().map_or(0, |car| car.len() / 3 * 4);
    CHANGE_BYTES + text(&change.peer) + text(&change.detail) + mediators.sum::<usize>() + proof
}

fn view_of(change: &Change) -> ChangeView<'_> {
    // Only changes of the package itself tell about the package.
    let package = match change.kind {
        ChangeKind::Package
        | ChangeKind::Invalid
        | ChangeKind::Removed
        | ChangeKind::Unverifiable => Some(change),
        _ => None,
    };
    ChangeView {
        seq: change.seq,
        kind: change.kind.as_str(),
        rev: package.and_then(|change| Some(change.rev.as_ref()?.as_str())),
        cid: package.and_then(|change| Some(change.cid.as_ref()?.to_string())),
        peer: package.and_then(|change| change.peer.as_deref()),
        mediators: package.map_or(&[], |change| &change.mediators),
        signing_key: package.and_then(|change| Some(change.key.as_ref()?.did_key())),
        detail: change.detail.as_deref(),
        seen_at: change.seen_at.to_string(),
        proof: change.proof.as_deref().map(|car| ProofView::new(car, None)),
    }
}
