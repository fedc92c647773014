//! Enumerates the accounts of a source: at the first start, whenever events were missed, and daily
//! where the source lists only what it knows.
//!
//! Every page becomes pending refreshes and a new paging cursor in one transaction, so that a
//! backfill continues after a restart where it was. The loop here owns the requests and the clock;
//! [`plan`] decides.

mod page;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::notice::Notices;
use super::{BackfillProgress, Source, SourceKind};
use crate::directory::Batch;
use crate::resolve::Resolver;
use crate::store::{AnnouncedChange, BackfillRow, NewPending, StoreError, Trigger};
use atcomm_net::net::{NetError, Request, Trust};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::COLLECTION;
use page::{Page, Repo};
use plan::{Course, Next, PageError, Urgency};

/// Accounts per page, and most accounts of one transaction.
const PAGE_ACCOUNTS: usize = 500;

/// Largest page, in bytes; 500 accounts of a PDS have about 100 KB.
const MAX_PAGE_LEN: usize = 4 * 1024 * 1024;

/// Most pending refreshes of listings while a backfill goes on, so that it does not fill the disk
/// with work to come.
const MAX_PENDING: u64 = 20_000;

/// Interval between two checks of that number, and between two attempts to read the store.
const PENDING_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time between the connection of the stream and the first page: what is written in the moment of
/// the subscription may be in neither.
const START_DELAY: Duration = Duration::from_millis(500);

/// Longest time that the first page waits for the connection of the source's own stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time between two looks at the clock, which may be put forward or back.
const CLOCK_INTERVAL: Duration = Duration::from_secs(600);

/// Names of the states of a backfill in metrics.
const RESULTS: [&str; 4] = ["complete", "running", "refused", "failed"];

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

    /// Runs every backfill that is due, until `stop`.
    pub(super) async fn run(self, wake: Arc<Notify>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(&wake) => {}
        }
    }

    async fn work(&self, wake: &Notify) {
        let mut task = Task::default();
        self.measure(None, "running");
        // A stream that cannot be followed does not keep the accounts from being listed.
        let unfollowed =
            self.source.stream && timeout(STREAM_TIMEOUT, wake.notified()).await.is_err();
        let mut connected = !unfollowed;
        let mut urgency = Urgency::Start;
        loop {
            let row = match self.row().await {
                Ok(row) => row,
                Err(error) => {
                    tracing::error!(source = self.source.name, %error, "cannot read the enumeration");
                    sleep(PENDING_CHECK_INTERVAL).await;
                    continue;
                }
            };
            let daily = self.source.lists_by_collection();
            let wait = match (
                plan::next(row.as_ref(), daily, urgency, self.clock.now()),
                row,
            ) {
                (Next::Page, Some(row)) => {
                    urgency = Urgency::None;
                    self.one_page(row, &mut task).await;
                    continue;
                }
                (Next::Begin | Next::Page, _) => {
                    self.begin().await;
                    continue;
                }
                (Next::Wait(wait), _) => wait.min(CLOCK_INTERVAL),
                (Next::Idle, _) => CLOCK_INTERVAL,
            };
            if urgency == Urgency::Start {
                urgency = Urgency::None;
            }
            if timeout(wait, wake.notified()).await.is_ok() {
                urgency = Urgency::Awake;
                if !std::mem::replace(&mut connected, true) {
                    // The list was read before the stream was followed.
                    self.request().await;
                }
            }
        }
    }

    async fn row(&self) -> Result<Option<BackfillRow>, StoreError> {
        let name = self.source.name.clone();
        let store = self.resolver.directory().store();
        store.query(move |q| q.backfill(&name)).await
    }

    /// Begins a backfill at its first page.
    async fn begin(&self) {
        let (name, now) = (self.source.name.clone(), self.clock.now());
        let store = self.resolver.directory().store();
        let begun = store
            .transact(move |tx| tx.begin_backfill(&name, now))
            .await;
        self.written(begun).await;
    }

    /// Takes note that accounts may have been missed.
    async fn request(&self) {
        let (name, now) = (self.source.name.clone(), self.clock.now());
        let store = self.resolver.directory().store();
        let requested = store
            .transact(move |tx| tx.request_backfill(&name, now))
            .await;
        self.written(requested).await;
    }

    /// Logs a write that failed, and pauses before what it belongs to is done again.
    async fn written(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(source = self.source.name, %error, "cannot write the enumeration");
            sleep(PENDING_CHECK_INTERVAL).await;
        }
    }

    /// Asks for one page, and writes what it brings.
    async fn one_page(&self, mut row: BackfillRow, task: &mut Task) {
        if row.position.is_none() {
            sleep(START_DELAY).await;
            if row.failures == 0 {
                tracing::info!(source = self.source.name, "enumerating accounts");
            }
        }
        // A host that does not answer is seen to be waited for.
        self.report(&row);
        let result = match self.wait_for_room().await {
            Ok(()) => self.page(row.position.as_deref()).await,
            Err(error) => return self.written(Err(error)).await,
        };
        let written = match result {
            Ok(page) => self.take(&mut row, page, task).await,
            Err((failure, asked)) => {
                self.failed(&mut row, &failure, asked, task);
                self.write(Vec::new(), Some(row)).await
            }
        };
        self.written(written).await;
    }

    /// Writes a page: its accounts as pending refreshes, in bounded transactions, and with the last
    /// of them the progress.
    async fn take(
        &self,
        row: &mut BackfillRow,
        page: Page,
        task: &mut Task,
    ) -> Result<(), StoreError> {
        if page.bad_entries > 0 {
            metrics::counter!("atcomm_ingest_drops_total", "reason" => "listing_entry")
                .increment(u64::try_from(page.bad_entries).unwrap_or(0));
        }
        if self.source.lists_by_collection() {
            let count = row.unknown.unwrap_or(0) + self.unknown(&page.repos);
            row.unknown = Some(count);
        }
        match plan::on_page(row, &page, &mut task.course, self.clock.now()) {
            Some(failure) => self.failed(row, &failure, None, task),
            None if row.done_at.is_some() => {
                task.notices.clear();
                tracing::info!(
                    source = self.source.name,
                    seen = row.seen,
                    "accounts enumerated"
                );
                self.measure(Some(row), "complete");
            }
            None => self.measure(Some(row), "running"),
        }
        self.report(row);
        let mut chunks = page.repos.chunks(PAGE_ACCOUNTS).peekable();
        while let Some(chunk) = chunks.next() {
            let is_last = chunks.peek().is_none();
            let progress = is_last.then(|| row.clone());
            self.write(self.pending(chunk), progress).await?;
            if is_last {
                return Ok(());
            }
            self.wait_for_room().await?;
        }
        self.write(Vec::new(), Some(row.clone())).await
    }

    async fn write(
        &self,
        pending: Vec<NewPending>,
        backfill: Option<BackfillRow>,
    ) -> Result<(), StoreError> {
        let batch = Batch {
            pending,
            backfill,
            ..Batch::default()
        };
        self.resolver.directory().apply_batch(batch).await?;
        self.resolver.wake();
        Ok(())
    }

    /// Adds a failure to the state, and logs it.
    fn failed(
        &self,
        row: &mut BackfillRow,
        failure: &PageError,
        asked: Option<Duration>,
        task: &mut Task,
    ) {
        let now = self.clock.now();
        plan::on_failure(row, failure, asked, now);
        self.measure(Some(row), failure.code());
        if let Some(repeated) = task
            .notices
            .occurred(&failure.to_string(), Instant::now().into_std())
        {
            let wait = row.next_at.map_or(Duration::ZERO, |at| at.since(now));
            tracing::warn!(
                source = self.source.name,
                reason = %failure,
                ?wait,
                repeated,
                "{}",
                self.consequence(failure)
            );
        }
        if let PageError::NotOffered(_) = failure {
            // The source is followed, or waited for. Nothing is under way.
            self.report_end();
        }
    }

    /// Returns what a failure means for the operator.
    fn consequence(&self, failure: &PageError) -> &'static str {
        match (failure, self.source.stream, self.source.kind) {
            (PageError::NotOffered(_), true, SourceKind::Pds) => {
                "the accounts are not listed: only the stream is followed, and the list is asked \
                 for again"
            }
            (PageError::NotOffered(_), true, _) => {
                "the accounts are not listed: only the stream is followed, and the list is asked \
                 for again; the address of a server that lists them can be given as `list`"
            }
            (PageError::NotOffered(_), false, _) => {
                "the accounts are not listed and there is no stream: this source brings nothing \
                 until the list is there, which is asked for again"
            }
            (PageError::CursorRefused(_), ..) => {
                "the enumeration begins again at the first page, once a day at most"
            }
            (PageError::Circle | PageError::Endless, ..) => {
                "the enumeration is given up and tried again later; the accounts that were listed \
                 are looked at"
            }
            (PageError::Busy, ..) => "the enumeration waits as long as the source asks",
            _ => "the enumeration is interrupted",
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

    /// Asks for the page behind a paging cursor. An error comes with the pause that the source asks
    /// for.
    async fn page(&self, position: Option<&str>) -> Result<Page, (PageError, Option<Duration>)> {
        let by_collection = self.source.lists_by_collection();
        let mut url = self.source.list_url();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &PAGE_ACCOUNTS.to_string());
            if by_collection {
                query.append_pair("collection", COLLECTION);
            }
            if let Some(position) = position {
                query.append_pair("cursor", position);
            }
        }
        let mut request = Request::new(url, Trust::Configured, MAX_PAGE_LEN);
        request.accept = Some("application/json");
        let response = match self.resolver.net().get(&request).await {
            Ok(response) => response,
            Err(NetError::HostBusy { retry_after }) => {
                return Err((PageError::Busy, Some(retry_after)));
            }
            Err(error) => return Err((PageError::Unreachable(error.to_string()), None)),
        };
        match response.status.as_u16() {
            200 => Page::parse(&response.body).ok_or((PageError::Malformed, None)),
            status => {
                let failure = PageError::of_status(status, position.is_some());
                Err((failure, response.retry_after))
            }
        }
    }

    /// Returns the number of accounts of a page without an entry.
    fn unknown(&self, repos: &[Repo]) -> i64 {
        let directory = self.resolver.directory();
        let unknown = repos
            .iter()
            .filter(|repo| !directory.is_tracked(repo.did.as_str()));
        i64::try_from(unknown.count()).unwrap_or(i64::MAX)
    }

    /// Returns the refreshes that accounts of a page lead to. An inactive account has nothing to
    /// show, unless the directory still has an entry of it.
    fn pending(&self, repos: &[Repo]) -> Vec<NewPending> {
        let now = self.clock.now();
        // An account that a PDS lists can be asked for there without an identity.
        let pds = (self.source.kind == SourceKind::Pds).then(|| self.source.origin.clone());
        repos
            .iter()
            .filter(|repo| {
                let directory = self.resolver.directory();
                repo.active != Some(false) || directory.is_tracked(repo.did.as_str())
            })
            .map(|repo| NewPending {
                did: repo.did.clone(),
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

    /// Sets the gauges of this backfill. `result` is one of [`RESULTS`].
    fn measure(&self, row: Option<&BackfillRow>, result: &'static str) {
        for one in RESULTS {
            metrics::gauge!(
                "atcomm_ingest_backfill_state",
                "source" => self.source.name.clone(),
                "state" => one,
            )
            .set(f64::from(u8::from(one == result)));
        }
        let complete = row.and_then(|row| row.complete_at);
        metrics::gauge!(
            "atcomm_ingest_backfill_complete_timestamp_seconds",
            "source" => self.source.name.clone(),
        )
        .set(complete.map_or(0.0, |at| at.millis() as f64 / 1000.0));
    }
}

/// What a running backfill remembers that is not stored.
#[derive(Default)]
struct Task {
    course: Course,
    notices: Notices,
}
