//! The page at `/` for browsers, made at most every few seconds.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::home::{self, Known};
use super::numbers::Numbers;
use super::series::Span;
use crate::directory::Directory;
use crate::store::StoreError;
use crate::store::directory::Day;
use atcomm_net::identity::MediatorDocument;
use atcomm_proto::syntax::MediatorDid;

/// Time for which a page is given again, so that no number of requests makes pages more often.
const FRESH: Duration = Duration::from_secs(5);

/// Most sources on the page.
const MAX_SOURCES: usize = 50;

/// The last page of each span. Requests that come while a page is made wait for it.
#[derive(Default)]
pub(super) struct FrontPages {
    days: Mutex<Option<Made>>,
    year: Mutex<Option<Made>>,
}

struct Made {
    page: Bytes,
    at: Instant,
}

impl FrontPages {
    /// Returns the page. `mediator` is the DID of this server's own, `edition` the last day of the
    /// newest dataset.
    pub(super) async fn page(
        &self,
        span: Span,
        directory: &Directory,
        mediator: Option<&str>,
        edition: Option<Day>,
    ) -> Bytes {
        let last = match span {
            Span::Days => &self.days,
            Span::Year => &self.year,
        };
        let mut last = last.lock().await;
        if let Some(made) = last.as_ref().filter(|made| made.at.elapsed() < FRESH) {
            return made.page.clone();
        }
        let known = read(span, directory).await;
        // A page without numbers is better than none, but not for longer than the failure.
        let is_whole = known.is_ok();
        if let Err(error) = &known {
            tracing::error!(%error, "the store failed under a page");
        }
        let mut known = known.unwrap_or_default();
        known.edition = edition;
        let page: Bytes = home::html(mediator, span, &known).into_string().into();
        *last = is_whole.then(|| Made {
            page: page.clone(),
            at: Instant::now(),
        });
        page
    }
}

/// Returns what the page shows.
async fn read(span: Span, directory: &Directory) -> Result<Known, StoreError> {
    let statistics = directory.statistics().await?;
    let numbers = Numbers::read(&statistics.body);
    let mut mediators = Vec::new();
    if let Some(numbers) = &numbers {
        for name in numbers.by_mediator.names() {
            mediators.push(document(directory, name).await?);
        }
    }
    let today = directory.today();
    let since = span.since(today);
    let (sources, days) = directory
        .store()
        .query(move |q| Ok((q.sources(MAX_SOURCES)?, q.days(since, today)?)))
        .await?;
    Ok(Known {
        numbers,
        mediators,
        sources,
        days,
        edition: None,
    })
}

async fn document(
    directory: &Directory,
    name: &str,
) -> Result<Option<MediatorDocument>, StoreError> {
    match MediatorDid::parse(name) {
        Ok(did) => directory.mediator(&did).await,
        Err(_) => Ok(None),
    }
}
