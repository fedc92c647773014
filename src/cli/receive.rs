//! `atcomm receive`.

mod render;

use std::io::Write;
use std::ops::ControlFlow;

use clap::Args;

use super::CliError;
use super::context::Own;
use super::hint::exit_of_mail;
use super::mail_context::MailContext;
use super::output::unwritten;
use super::signal::Shutdown;
use super::terminal::{self, line, short_did};
use atcomm_client::{Event, Inbox, InboxError, MailError, OpenError, Queue, Received};
use atcomm_proto::clock::Clock;

use render::MessageView;

/// Fetch messages, and show each with what is proven of its sender
///
/// A message is first written into the wallet, then shown, and only then does the mediator let it go:
/// what could not be shown is shown the next time. Mail to a key that was replaced or taken back, and
/// mail at mediators that you left, is read for another 14 days. A handle is shown only where the account's own key package shows that the message is its; whatever else
/// a message claims is shown as a claim.
#[derive(Debug, Args)]
pub(super) struct Receive {
    /// Stay connected and show messages as they come; Ctrl-C ends it
    #[arg(long)]
    follow: bool,
    /// Show so many messages at most; what is left waits
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show also what was received before, and look again at senders that were not verified
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    own: Own,
}

/// Prints the events of an inbox.
struct Output<'o> {
    json: bool,
    stdout: &'o mut dyn Write,
    stderr: &'o mut dyn Write,
    clock: Clock,
    /// Whether an unavailable queue is tried again.
    follows: bool,
    /// Number of messages that came before.
    duplicates: u64,
    /// Whether standard output is closed.
    is_closed: bool,
    /// The error of writing, after which nothing more is printed.
    failed: Option<CliError>,
}

pub(super) fn run(
    args: &Receive,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let context = MailContext::open(&args.own)?;
    let inbox = context.account.inbox();
    let mut output = Output {
        json: args.own.common.json,
        stdout,
        stderr,
        clock: context.command.client.clock.clone(),
        follows: args.follow,
        duplicates: 0,
        is_closed: false,
        failed: None,
    };
    context.command.block_on(async {
        // Reports that an earlier run did not print.
        inbox
            .undeliverable(async |event| output.show(event))
            .await?;
        output.result()?;
        if args.all && !output.is_closed {
            let newest = args.limit.and_then(|limit| usize::try_from(limit).ok());
            inbox
                .history(newest, async |event| output.show(event))
                .await?;
            output.result()?;
        }
        if output.is_closed {
            Ok(())
        } else if !inbox.has_queues() {
            nothing_to_fetch(&inbox, args.all, &context, &mut output).await
        } else if args.follow {
            follow(&inbox, args.limit, &mut output).await
        } else {
            once(&inbox, args.limit, &mut output).await
        }
    })
}

/// Prints the mail that waits.
async fn once(inbox: &Inbox, limit: Option<u64>, output: &mut Output<'_>) -> Result<(), CliError> {
    let drained = inbox.drain(limit, async |event| output.show(event)).await;
    output.result()?;
    if let Err(InboxError::Wallet(error)) = drained {
        return Err(error.into());
    }
    output.end();
    match drained {
        Err(InboxError::Mediator(error)) => Err(CliError {
            exit: exit_of_mail(&error),
            message: "none of your mediators handed mail over".to_owned(),
            hint: "what waits there waits on; `atcomm check` tells more".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Prints mail as it arrives, until a signal asks the process to end.
async fn follow(
    inbox: &Inbox,
    limit: Option<u64>,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let followed = tokio::select! {
        // A message is printed without a break after it is saved, so none is lost by ending here.
        ended = inbox.follow(limit, async |event| output.show(event)) => ended,
        () = shutdown_requested() => Ok(()),
    };
    output.end();
    output.result()?;
    followed.map_err(|error| match error {
        InboxError::Mediator(error) => no_queue_left(&error),
        InboxError::Wallet(error) => error.into(),
    })
}

/// Ends where no key of the account reads mail any more. What is in the wallet is shown all the same.
async fn nothing_to_fetch(
    inbox: &Inbox,
    is_shown: bool,
    context: &MailContext,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    inbox
        .drain(None, async |event| output.show(event))
        .await
        .map_err(|error| match error {
            InboxError::Mediator(error) => no_queue_left(&error),
            InboxError::Wallet(error) => error.into(),
        })?;
    output.result()?;
    if is_shown {
        return Ok(());
    }
    let account = context.account.enrolment().account.clone();
    Err(OpenError::NotEnrolled(account).into())
}

/// Waits for a signal. Where signals cannot be caught, waits for ever: a signal ends the process then.
async fn shutdown_requested() {
    match Shutdown::listen() {
        Ok(mut shutdown) => shutdown.requested().await,
        Err(_) => std::future::pending().await,
    }
}

impl Output<'_> {
    /// Prints an event.
    fn show(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Received(received) => return self.received(*received),
            Event::SetAside(path) => self.warn(&format!(
                "a message that was kept is damaged: it is set aside as {}",
                path.display()
            )),
            Event::Evicted(count) => self.say(&format!(
                "{count} of the oldest messages of unknown senders were deleted to make room"
            )),
            Event::Unreadable(error) => self.warn(&format!("left out: {error}")),
            Event::Unavailable { .. } if self.failed.is_some() => {}
            Event::Unavailable { queue, error } if self.follows => {
                self.warn(&format!("{}: {error}; trying again", queue_name(&queue)));
            }
            Event::Unavailable { queue, error } => {
                self.warn(&format!("{}: {error}", queue_name(&queue)));
            }
            Event::Left(queue) => self.say(&format!(
                "{} keeps no more mail: nothing waited there",
                queue_name(&queue)
            )),
            Event::Waiting { queue, again } => {
                let again = if again { " again" } else { "" };
                self.say(&format!(
                    "waiting for mail at {}{again}",
                    queue_name(&queue)
                ));
            }
        }
        ControlFlow::Continue(())
    }

    fn received(&mut self, received: Received) -> ControlFlow<()> {
        let now = self.clock.now();
        let shown = match received {
            Received::Ignored => return ControlFlow::Continue(()),
            Received::Duplicate => {
                self.duplicates += 1;
                return ControlFlow::Continue(());
            }
            Received::Message {
                stored,
                dm,
                attribution,
            } => MessageView::message(&stored, &dm, &attribution, now),
            Received::Other {
                stored,
                attribution,
                why,
            } => MessageView::other(&stored, &attribution, why, now),
            Received::Undecryptable { undecryptable } => MessageView::unreadable(&undecryptable),
            Received::Undeliverable { sent, words, next } => {
                MessageView::returned(&sent, words.as_ref(), &next)
            }
        };
        let written = shown.write(self.json, terminal::width(), self.stdout);
        let Err(error) = written.and_then(|()| self.stdout.flush()) else {
            return ControlFlow::Continue(());
        };
        self.is_closed = true;
        self.failed = unwritten(error).err();
        ControlFlow::Break(())
    }

    /// Returns the error of writing, if there was one.
    fn result(&mut self) -> Result<(), CliError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn warn(&mut self, words: &str) {
        // If writing to stderr fails there is nothing left to report to.
        let words = terminal::head(&format!("warning: {}", line(words)), terminal::width());
        let _ = write!(self.stderr, "{words}");
    }

    fn say(&mut self, words: &str) {
        let words = terminal::head(&line(words), terminal::width());
        let _ = write!(self.stderr, "{words}").and_then(|()| self.stderr.flush());
    }

    fn end(&mut self) {
        if self.duplicates > 0 {
            let duplicates = self.duplicates;
            self.say(&format!(
                "left out {duplicates} that came before; `atcomm receive --all` shows what is kept"
            ));
        }
    }
}

/// Returns the name of a queue.
fn queue_name(queue: &Queue) -> String {
    if queue.is_current {
        return queue.mediator.to_string();
    }
    format!(
        "{} (which you left, for the key {})",
        queue.mediator,
        short_did(&queue.peer)
    )
}

/// Returns the error of an inbox without a queue that can be followed.
fn no_queue_left(error: &MailError) -> CliError {
    CliError {
        exit: exit_of_mail(error),
        message: line(&error.to_string()),
        hint: "`atcomm check` tells more".to_owned(),
    }
}
