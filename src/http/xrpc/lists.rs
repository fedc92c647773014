//! Lists of accounts and of mediators.

use axum::response::Response;
use serde::Serialize;

use super::super::error::XrpcError;
use super::super::params::Params;
use super::cursor::Cursors;
use super::{JSON, Query, cacheable, etag_of};
use crate::directory::NamedMediator;
use crate::store::directory::{AccountFilter, AccountState, ListedAccount};
use atcomm_net::identity::{MediatorState, Service};
use atcomm_proto::syntax::{COLLECTION, Did, Handle, MediatorDid, Origin, Rev};

/// Most accounts in a page of `listRecipients`, and those of a page without `limit`.
const RECIPIENTS: (usize, usize) = (500, 100);

/// The same of `listMediators`.
const MEDIATORS: (usize, usize) = (100, 50);

/// The same of `listReposByCollection`, by its lexicon.
const REPOS: (usize, usize) = (2000, 500);

#[derive(Serialize)]
struct RecipientsView<'a> {
    recipients: Vec<RecipientItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecipientItem<'a> {
    did: &'a Did,
    handle: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pds: Option<&'a str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<&'a str>,
    observed_at: String,
}

impl<'a> RecipientItem<'a> {
    fn of(account: &'a ListedAccount) -> Self {
        let is_active = account.state != AccountState::Inactive;
        let rev = account.rev.as_ref().filter(|_| is_active);
        Self {
            did: &account.did,
            handle: account
                .handle
                .as_ref()
                .map_or("handle.invalid", Handle::as_str),
            pds: account.pds.as_ref().map(Origin::as_str),
            state: account.state.as_str(),
            reason: account.reason.as_deref().filter(|text| !text.is_empty()),
            rev: rev.map(Rev::as_str),
            observed_at: account.observed_at.to_string(),
        }
    }
}

#[derive(Serialize)]
struct MediatorsView<'a> {
    mediators: Vec<MediatorItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediatorItem<'a> {
    did: &'a MediatorDid,
    recipients: u64,
    state: MediatorState,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_at: Option<String>,
    endpoints: &'a [Service],
}

impl<'a> MediatorItem<'a> {
    fn of(mediator: &'a NamedMediator) -> Self {
        let document = &mediator.document;
        Self {
            did: &document.did,
            recipients: mediator.recipients,
            state: document.state,
            checked_at: document.checked_at.map(|at| at.to_string()),
            endpoints: &document.services,
        }
    }
}

#[derive(Serialize)]
struct ReposView<'a> {
    repos: Vec<RepoItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct RepoItem<'a> {
    did: &'a Did,
}

pub(super) async fn list_recipients(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    let filter = filter(&params)?;
    let limit = params.limit(RECIPIENTS.0, RECIPIENTS.1)?;
    let filters = [
        filter.pds.as_ref().map(Origin::as_str),
        filter.mediator.as_ref().map(MediatorDid::as_str),
        filter.state.map(AccountState::as_str),
    ];
    let cursors = Cursors::of("listRecipients", &filters);
    let after = cursors.read(&params)?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let directory = query.shared.resolver.directory();
    let page = directory.list_accounts(filter, after, limit).await?;
    let body = json(&RecipientsView {
        recipients: page.items.iter().map(RecipientItem::of).collect(),
        cursor: page.next.map(|did| cursors.after(&did)),
    })?;
    let body = permit.attach(body.into());
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

pub(super) async fn list_mediators(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    let limit = params.limit(MEDIATORS.0, MEDIATORS.1)?;
    let cursors = Cursors::of("listMediators", &[]);
    let after = cursors.read(&params)?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let directory = query.shared.resolver.directory();
    let page = directory.list_mediators(after, limit).await?;
    let body = json(&MediatorsView {
        mediators: page.items.iter().map(MediatorItem::of).collect(),
        cursor: page.next.map(|did| cursors.after(&did)),
    })?;
    let body = permit.attach(body.into());
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

pub(super) async fn list_repos_by_collection(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    match params.one("collection")?.as_deref() {
        Some(COLLECTION) => {}
        Some(_) => {
            return Err(XrpcError::invalid(format!(
                "parameter collection: this server knows of {COLLECTION} only"
            )));
        }
        None => {
            return Err(XrpcError::invalid(format!(
                "parameter collection is missing; it takes {COLLECTION}"
            )));
        }
    }
    let limit = params.limit(REPOS.0, REPOS.1)?;
    let cursors = Cursors::of("listReposByCollection", &[]);
    let after = cursors.read(&params)?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let directory = query.shared.resolver.directory();
    let page = directory.list_repos(after, limit).await?;
    let body = json(&ReposView {
        repos: page.items.iter().map(|did| RepoItem { did }).collect(),
        cursor: page.next.map(|did| cursors.after(&did)),
    })?;
    let body = permit.attach(body.into());
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

/// Reads the parameters that choose accounts.
fn filter(params: &Params<'_>) -> Result<AccountFilter, XrpcError> {
    let mut filter = AccountFilter::default();
    if let Some(text) = params.one("host")? {
        let origin = if text.contains("://") {
            Origin::parse(&text)
        } else {
            Origin::parse(&format!("https://{text}"))
        };
        filter.pds = Some(origin.map_err(|why| {
            XrpcError::invalid(format!(
                "parameter host: {why}; it takes a PDS, as in ?host=pds.example.com"
            ))
        })?);
    }
    if let Some(text) = params.one("mediator")? {
        filter.mediator = Some(MediatorDid::parse(&text).map_err(|why| {
            XrpcError::invalid(format!(
                "parameter mediator: {why}; it takes a DID, as in ?mediator=did:web:mediator.example.com"
            ))
        })?);
    }
    if let Some(text) = params.one("state")? {
        let state = AccountState::parse(&text);
        filter.state = Some(state.ok_or_else(|| {
            let words: Vec<&str> = AccountState::ALL
                .iter()
                .map(|state| state.as_str())
                .collect();
            XrpcError::invalid(format!("parameter state is none of {}", words.join(", ")))
        })?);
    }
    Ok(filter)
}

fn json(view: &impl Serialize) -> Result<Vec<u8>, XrpcError> {
    serde_json::to_vec(view).map_err(|error| {
        tracing::error!(%error, "a list cannot be written as JSON");
        XrpcError::internal()
    })
}
