//! Enumerates the accounts of a source: at the first start, and whenever its stream had a gap.
//!
//! Every page becomes pending refreshes and a new paging cursor in one transaction, so that a
//! backfill continues after a restart where it was.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{BackfillProgress, Source, SourceKind};
use crate::directory::{BACKOFF, Batch};
use crate::resolve::Resolver;
use crate::store::{AnnouncedChange, BackfillRow, NewPending, StoreError, Trigger};
use atcomm_net::backoff::Spread;
use atcomm_net::net::{NetError, Request, Trust};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{COLLECTION, Did};

/// Accounts per page.
const PAGE_ACCOUNTS: u32 = 500;

/// Largest page, in bytes; 500 accounts of a PDS have about 100 KB.
const MAX_PAGE_LEN: usize = 4 * 1024 * 1024;

/// Most pending refreshes of listings while a backfill goes on, so that it does not fill the disk
/// with work to come.
const MAX_PENDING: u64 = 20_000;

/// Interval between two checks of that number.
const PENDING_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time between the connection of the stream and the first page: what is written in the moment of
/// the subscription may be in neither.
const START_DELAY: Duration = Duration::from_millis(500);

/// Interval between two backfills of a relay, which lists only what it knows.
const RELAY_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Interval between two checks whether that time has come.
const RELAY_CHECK_INTERVAL: Duration = Duration::from_secs(600);

/// A page of either listing; the two differ only in fields that are not read.
#[derive(Deserialize)]
struct Page {
    cursor: Option<String>,
    repos: Vec<Repo>,
}

#[derive(Deserialize)]
struct Repo {
    did: String,
    /// Absent where the listing is by collection.
    active: Option<bool>,
}

/// Errors of a page.
#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("it does not list accounts (HTTP {0})")]
    NotServed(u16),
    #[error("HTTP {0}")]
    Status(u16),
    #[error("the page is not the JSON of a listing")]
    Malformed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The backfill of one source.
pub(super) struct Backfill {
    source: Source,
    resolver: Resolver,
    clock: Clock,
    progress: watch::Sender<Vec<BackfillProgress>>,
}

impl Backfill {
    pub(super) fn new(
        source: Source,
        resolver: Resolver,
        clock: Clock,
        progress: watch::Sender<Vec<BackfillProgress>>,
    ) -> Self {
        Self {
            source,
            resolver,
            clock,
            progress,
        }
    }

    /// Runs every backfill that is due in the store, until `stop`.
    pub(super) async fn run(self, wake: Arc<Notify>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(&wake) => {}
        }
    }

    async fn work(&self, wake: &Notify) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = wake.notified() => {}
                () = self.again() => {}
            }
            loop {
                sleep(START_DELAY).await;
                let error = match self.backfill().await {
                    Ok(()) => break,
                    Err(PageError::NotServed(status)) => {
                        tracing::warn!(
                            source = self.source.name,
                            status,
                            "the source does not list its accounts: only its stream is followed"
                        );
                        self.report_end();
                        break;
                    }
                    Err(error) => error,
                };
                failures += 1;
                let wait = BACKOFF.wait(failures, Spread::MIDDLE) / 4;
                tracing::warn!(source = self.source.name, %error, ?wait, "backfill interrupted");
                sleep(wait).await;
            }
            failures = 0;
        }
    }

    /// Begins a new backfill of a relay when it is time, and returns then. The time is stored, so
    /// that neither a restart nor a reconnect moves it.
    async fn again(&self) {
        if self.source.kind != SourceKind::Relay {
            return std::future::pending().await;
        }
        loop {
            sleep(RELAY_CHECK_INTERVAL).await;
            let name = self.source.name.clone();
            let directory = self.resolver.directory();
            let row = directory.store().query(move |q| q.backfill(&name)).await;
            let done = row.ok().flatten().and_then(|row| row.done_at);
            if done.is_some_and(|done| self.clock.now().since(done) >= RELAY_INTERVAL) {
                let gaps = vec![self.source.name.clone()];
                match directory
                    .apply_batch(Batch {
                        gaps,
                        ..Batch::default()
                    })
                    .await
                {
                    Ok(_) => return,
                    Err(error) => tracing::error!(%error, "cannot begin a backfill"),
                }
            }
        }
    }

    /// Continues from the stored paging cursor to the end. Does nothing where the backfill is done
    /// and no gap came since.
    async fn backfill(&self) -> Result<(), PageError> {
        let directory = self.resolver.directory();
        loop {
            self.wait_for_room().await?;
            // Read again for every page: a gap begins the backfill anew.
            let name = self.source.name.clone();
            let Some(mut row) = directory.store().query(move |q| q.backfill(&name)).await? else {
                let gaps = vec![self.source.name.clone()];
                directory
                    .apply_batch(Batch {
                        gaps,
                        ..Batch::default()
                    })
                    .await?;
                continue;
            };
            if row.done_at.is_some() {
                return Ok(());
            }
            if row.position.is_none() {
                tracing::info!(source = self.source.name, "enumerating accounts");
            }
            // A host that does not answer is seen to be waited for.
            self.report(&row);
            let page = self.page(row.position.as_deref()).await?;
            row.seen += i64::try_from(page.repos.len()).unwrap_or(0);
            let end = page.repos.is_empty()
                || page.cursor.is_none()
                || page.cursor.as_deref() == row.position.as_deref();
            row.position = page.cursor;
            if end {
                row.done_at = Some(self.clock.now());
                tracing::info!(
                    source = self.source.name,
                    seen = row.seen,
                    "accounts enumerated"
                );
            }
            self.report(&row);
            let pending = self.pending(&page.repos);
            directory
                .apply_batch(Batch {
                    pending,
                    backfill: Some(row),
                    ..Batch::default()
                })
                .await?;
            self.resolver.wake();
        }
    }

    /// Waits while too many pending refreshes of listings are due. Deferred ones do not count.
    async fn wait_for_room(&self) -> Result<(), StoreError> {
        let directory = self.resolver.directory();
        loop {
            let now = self.clock.now();
            if directory
                .store()
                .query(move |q| q.listed_pending_count(now))
                .await?
                <= MAX_PENDING
            {
                return Ok(());
            }
            sleep(PENDING_CHECK_INTERVAL).await;
        }
    }

    async fn page(&self, position: Option<&str>) -> Result<Page, PageError> {
        let path = match self.source.kind {
            SourceKind::Relay => "/xrpc/com.atproto.sync.listReposByCollection",
            _ => "/xrpc/com.atproto.sync.listRepos",
        };
        let mut url = self.source.url(path, false);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &PAGE_ACCOUNTS.to_string());
            if self.source.kind == SourceKind::Relay {
                query.append_pair("collection", COLLECTION);
            }
            if let Some(position) = position {
                query.append_pair("cursor", position);
            }
        }
        let mut request = Request::new(url, Trust::Configured, MAX_PAGE_LEN);
        request.accept = Some("application/json");
        let response = self.resolver.net().get(&request).await?;
        match response.status.as_u16() {
            200 => serde_json::from_slice(&response.body).map_err(|_| PageError::Malformed),
            status @ (400 | 401 | 404 | 501) => Err(PageError::NotServed(status)),
            status => Err(PageError::Status(status)),
        }
    }

    /// Returns the refreshes that a page leads to. An inactive account has nothing to show, unless
    /// the directory still has an entry of it.
    fn pending(&self, repos: &[Repo]) -> Vec<NewPending> {
        let now = self.clock.now();
        // An account that a PDS lists can be asked for there without an identity.
        let pds = (self.source.kind == SourceKind::Pds).then(|| self.source.origin.clone());
        repos
            .iter()
            .filter(|repo| {
                repo.active != Some(false) || self.resolver.directory().is_tracked(&repo.did)
            })
            .filter_map(|repo| Did::parse(&repo.did).ok())
            .map(|did| NewPending {
                did,
                trigger: Trigger::Listing(pds.clone()),
                announced: AnnouncedChange::Keep,
                not_before: now,
            })
            .collect()
    }

    fn report(&self, row: &BackfillRow) {
        let seen = u64::try_from(row.seen).unwrap_or(0);
        let progress = BackfillProgress {
            source: row.source.clone(),
            seen,
            done: row.done_at.is_some(),
        };
        self.progress.send_modify(|all| {
            match all.iter_mut().find(|one| one.source == progress.source) {
                Some(one) => *one = progress,
                None => all.push(progress),
            }
        });
    }

    /// Reports that the backfill has ended without an answer.
    fn report_end(&self) {
        self.progress.send_modify(|all| {
            for one in all.iter_mut().filter(|one| one.source == self.source.name) {
                one.done = true;
            }
        });
    }
}
