//! Mail as it comes, from every queue at once, until it is told to end.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex;

use super::super::Complaint;
use super::super::mailing::Mailing;
use super::super::signal::Shutdown;
use super::{Left, Mailbox, Output, fetch, nobody, place, take};
use atcomm_client::{MailError, Receiver};
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::identity::Freshness;

/// The pauses after a connection broke, spread so that all clients of a mediator do not return at
/// once.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
    jitter: Jitter::between(0.75, 1.25),
};

/// Between two questions to a mediator that has no live mode.
const POLL: Duration = Duration::from_secs(20);

/// A connection that stood so long starts again with the first pause.
const GOOD: Duration = Duration::from_secs(30);

pub(super) async fn follow(
    mailing: &Mailing,
    receiver: &Receiver,
    mailboxes: &[Mailbox],
    output: Output<'_>,
) -> Result<(), Complaint> {
    let output = Mutex::new(output);
    let mut queues: FuturesUnordered<_> = mailboxes
        .iter()
        .map(|mailbox| stay(mailing, receiver, mailbox, &output))
        .collect();
    let followed = async {
        while let Some(ended) = queues.next().await {
            match ended {
                // One that is over for good; the others go on.
                Err(Left::Mail(error)) if queues.is_empty() => return Err(nobody(&error)),
                Err(Left::Mail(_)) => {}
                Err(Left::Here(complaint)) => return Err(complaint),
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    };
    let result = tokio::select! {
        // What was kept is shown in the same step, so that nothing is lost by ending here.
        ended = followed => ended,
        () = told_to_end() => Ok(()),
    };
    if let Ok(mut output) = output.try_lock() {
        output.end();
    }
    result
}

/// Waits for a signal. Where signals cannot be caught, a signal ends the process by itself.
async fn told_to_end() {
    match Shutdown::listen() {
        Ok(mut shutdown) => shutdown.requested().await,
        Err(_) => std::future::pending().await,
    }
}

/// Stays at one queue. `Ok`: nobody reads any more, or enough was shown.
async fn stay(
    mailing: &Mailing,
    receiver: &Receiver,
    mailbox: &Mailbox,
    output: &Mutex<Output<'_>>,
) -> Result<(), Left> {
    let mut failures = 0_u32;
    let mut told: Option<MailError> = None;
    loop {
        let began = tokio::time::Instant::now();
        let stood = connection(mailing, receiver, mailbox, output, &mut told).await;
        let error = match stood {
            Ok(()) => return Ok(()),
            Err(Left::Here(complaint)) => return Err(Left::Here(complaint)),
            Err(Left::Mail(error)) => error,
        };
        if !mailbox.current && !error.is_transient() {
            // Its time is over, and with it the mail for it.
            return Err(Left::Mail(error));
        }
        if told.as_ref() != Some(&error) {
            output
                .lock()
                .await
                .warn(&format!("{}: {error}; trying again", place(mailbox)));
            told = Some(error.clone());
        }
        if began.elapsed() >= GOOD {
            failures = 0;
        }
        failures = failures.saturating_add(1);
        let step = RECONNECT.step(failures);
        let wait = error
            .retry_after()
            .unwrap_or(step)
            .clamp(step, RECONNECT.longest);
        tokio::time::sleep(spread(wait)).await;
    }
}

/// One connection from its beginning to its end.
async fn connection(
    mailing: &Mailing,
    receiver: &Receiver,
    mailbox: &Mailbox,
    output: &Mutex<Output<'_>>,
    told: &mut Option<MailError>,
) -> Result<(), Left> {
    let client = mailbox.open(mailing, Freshness::Refresh).await?;
    let live = match client.live().await {
        Ok(live) => Some(live),
        Err(error) if error.is_transient() => return Err(error.into()),
        // It has none, or not by this protocol: it is asked now and then.
        Err(_) => None,
    };
    {
        // What waited before; asked for after the connection stands, so that nothing falls between.
        let mut output = output.lock().await;
        fetch(receiver, &client, &mut output).await?;
        if output.is_full() {
            return Ok(());
        }
        let again = if told.take().is_some() { " again" } else { "" };
        output.say(&format!("waiting for mail at {}{again}", place(mailbox)));
    }
    let Some(mut live) = live else {
        loop {
            tokio::time::sleep(spread(POLL)).await;
            let mut output = output.lock().await;
            fetch(receiver, &client, &mut output).await?;
            if output.is_full() {
                return Ok(());
            }
        }
    };
    loop {
        let mail = live.next().await?;
        let mut output = output.lock().await;
        take(receiver, &client, &mail, &mut output).await?;
        if output.is_full() {
            live.close().await;
            return Ok(());
        }
    }
}

/// A pause with the jitter of [`RECONNECT`].
fn spread(pause: Duration) -> Duration {
    RECONNECT.jitter.apply(pause, Spread::random())
}
