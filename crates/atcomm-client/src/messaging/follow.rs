//! Following an inbox: mail of every queue as it comes, with reconnects.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::inbox::{Event, Inbox, InboxError, OwnQueue, Reader};
use crate::mediator::client::MailError;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::identity::Freshness;

/// Waits after a connection broke, spread so that the clients of one mediator do not all return at
/// once.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
    jitter: Jitter::between(0.75, 1.25),
};

/// Interval between two fetches from a mediator without live mode.
const POLL_INTERVAL: Duration = Duration::from_secs(20);

/// Time after which a connection counts as stable: the wait after its end is the first one again.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// The end of following a queue without an error.
enum Ended {
    /// The reader is done.
    Done,
    /// The mediator of the queue was left.
    Left,
}

impl Inbox {
    /// Shows the mail that was kept and not shown, the mail that waits in every queue and then mail as
    /// it comes, until `sink` asks for an end or `limit` messages were shown. Each message is saved
    /// before it is shown, and acknowledged after, as by [`Inbox::drain`]. Connections that break are
    /// made again; [`Event::Unavailable`] and [`Event::Waiting`] tell of it.
    ///
    /// `sink` is called for one event at a time. Dropping the future ends the connections. A
    /// message that was saved has been shown then, unless `sink` itself was waiting, and one that
    /// was not acknowledged comes again as a duplicate.
    ///
    /// Returns an error where the wallet fails, or no queue is left: one of a replaced key is left
    /// when its mediator refuses it.
    pub async fn follow(
        &self,
        limit: Option<u64>,
        sink: impl AsyncFnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), InboxError> {
        let mut reader = Reader::new(sink, limit);
        self.show_unshown(&mut reader).await?;
        if reader.is_done() {
            return Ok(());
        }
        let reader = Mutex::new(reader);
        let mut queues: FuturesUnordered<_> = self
            .queues()
            .iter()
            .map(|queue| self.follow_queue(queue, &reader))
            .collect();
        let mut leaving = pin!(self.leave_expired());
        let mut is_left = false;
        loop {
            let ended = tokio::select! {
                ended = queues.next() => ended,
                () = &mut leaving, if !is_left => {
                    is_left = true;
                    continue;
                }
            };
            match ended {
                Some(Ok(Ended::Left) | Err(InboxError::Mediator(_))) if !queues.is_empty() => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(Ended::Left | Ended::Done)) | None => return Ok(()),
            }
        }
    }

    /// Follows one queue.
    async fn follow_queue<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        queue: &OwnQueue,
        reader: &Mutex<Reader<S>>,
    ) -> Result<Ended, InboxError> {
        let mut failures = 0_u32;
        let mut told: Option<MailError> = None;
        loop {
            let began = Instant::now();
            let error = match self.connect(queue, reader, &mut told).await {
                Err(InboxError::Mediator(error)) => error,
                ended => return ended,
            };
            if !queue.name.is_current && !error.is_transient() {
                // The key has expired there, and the mail for it with it.
                return Err(error.into());
            }
            if told.as_ref() != Some(&error) {
                let event = Event::Unavailable {
                    queue: queue.name.clone(),
                    error: error.clone(),
                };
                if !reader.lock().await.show(event).await {
                    return Ok(Ended::Done);
                }
                told = Some(error.clone());
            }
            if began.elapsed() >= STABLE_AFTER {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(wait_after(&error, failures)).await;
        }
    }

    /// Follows one queue over one connection, from its beginning to its end.
    async fn connect<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        queue: &OwnQueue,
        reader: &Mutex<Reader<S>>,
        told: &mut Option<MailError>,
    ) -> Result<Ended, InboxError> {
        let client = self.open(queue, Freshness::Refresh).await?;
        let live = match client.live().await {
            Ok(live) => Some(live),
            Err(error) if error.is_transient() => return Err(error.into()),
            // The mediator has no live mode, or not by this protocol: it is polled.
            Err(_) => None,
        };
        {
            // Mail from before is fetched once the connection stands, so that none is missed in
            // between.
            let mut reader = reader.lock().await;
            self.fetch(&client, &mut reader).await?;
            if reader.is_done() {
                return Ok(Ended::Done);
            }
            if self.leave_shown(queue, &client, &mut reader).await? {
                return Ok(Ended::Left);
            }
            let event = Event::Waiting {
                queue: queue.name.clone(),
                again: told.take().is_some(),
            };
            if !reader.show(event).await {
                return Ok(Ended::Done);
            }
        }
        let Some(mut live) = live else {
            loop {
                tokio::time::sleep(RECONNECT.jitter.apply(POLL_INTERVAL, Spread::random())).await;
                let mut reader = reader.lock().await;
                self.fetch(&client, &mut reader).await?;
                if reader.is_done() {
                    return Ok(Ended::Done);
                }
            }
        };
        loop {
            let mail = live.next().await?;
            let mut reader = reader.lock().await;
            self.take(&client, &mail, &mut reader).await?;
            if reader.is_done() {
                live.close().await;
                return Ok(Ended::Done);
            }
        }
    }
}

/// Returns the wait after a number of failures in a row: at least what the mediator asks for, as
/// far as that is not longer than the longest wait.
fn wait_after(error: &MailError, failures: u32) -> Duration {
    let step = RECONNECT.step(failures);
    let asked_for = error.retry_after().unwrap_or(step);
    let wait = asked_for.clamp(step, RECONNECT.longest);
    RECONNECT.jitter.apply(wait, Spread::random())
}
