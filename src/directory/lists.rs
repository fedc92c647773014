//! Lists of accounts and mediators, as they are shown.

use super::Directory;
use super::apply::handle;
use super::lookup;
use crate::store::StoreError;
use crate::store::directory::{AccountFilter, ListPage, ListedAccount};
use atcomm_net::identity::MediatorDocument;
use atcomm_proto::syntax::Did;

/// A mediator on a list.
#[derive(Debug, Clone)]
pub struct NamedMediator {
    /// The enrolled accounts that name it.
    pub recipients: u64,
    /// What is known of it.
    pub document: MediatorDocument,
}

impl Directory {
    /// Returns the accounts on a list after a DID, at most `limit`, each with its handle only if that
    /// was confirmed lately.
    pub async fn list_accounts(
        &self,
        filter: AccountFilter,
        after: Option<String>,
        limit: usize,
    ) -> Result<ListPage<ListedAccount>, StoreError> {
        let (since, until) = handle::confirmed_between(self.clock.now());
        let read = self
            .store
            .query(move |q| q.list_accounts(&filter, after.as_deref(), limit));
        let mut page = read.await?;
        for account in &mut page.items {
            let is_confirmed = account
                .handle_at
                .is_some_and(|at| since <= at && at <= until);
            if !is_confirmed {
                account.handle = None;
            }
        }
        Ok(page)
    }

    /// Returns the accounts after a DID that are active and have a package, valid or not, at most
    /// `limit`.
    pub async fn list_repos(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<ListPage<Did>, StoreError> {
        self.store
            .query(move |q| q.list_repos(after.as_deref(), limit))
            .await
    }

    /// Returns the mediators after a DID that enrolled accounts name, at most `limit`.
    pub async fn list_mediators(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<ListPage<NamedMediator>, StoreError> {
        let page = self
            .store
            .query(move |q| q.list_mediators(after.as_deref(), limit))
            .await?;
        let items = page.items.into_iter().map(|item| NamedMediator {
            recipients: item.recipients,
            document: lookup::mediator_document(&item.did, item.document.as_deref()),
        });
        Ok(ListPage {
            items: items.collect(),
            next: page.next,
        })
    }
}
