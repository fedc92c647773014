//! `atcomm receive`.

mod follow;
mod shown;

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::Complaint;
use super::desk::Own;
use super::mailing::{Mailing, exit_of};
use super::output::unwritten;
use super::terminal::{self, line, short_did};
use atcomm_client::dm::Dm;
use atcomm_client::{
    Attribution, Mail, MailError, MediatorClient, MessagingKey, NextStep, PREVIOUS_KEY_GRACE,
    Processed, Received, Receiver, SentMessage, StoredItem, StoredMessage,
};
use atcomm_net::identity::Freshness;
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::syntax::MediatorDid;

use shown::Shown;

/// Messages asked for at a time.
const BATCH: u64 = 50;

/// Most deliveries in a row without anything new that are taken from one queue. Strangers' pings are
/// nothing new, and a full queue of them must not hide what stands behind it; only who hands out the
/// same under ever new ids has more.
const MAX_STALE: u32 = 200;

/// Most messages that spoke against their sender and are looked at again in one run.
const MAX_AGAIN: u32 = 50;

/// Fetch messages, and show each with what is proven of its sender
///
/// A message is first written into the wallet, and only then does the mediator let it go. A handle
/// is shown only where the account's own key package shows that the message is its; whatever else
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

/// A queue: one key's at one mediator.
#[derive(Clone)]
struct Mailbox {
    mediator: MediatorDid,
    key: MessagingKey,
    /// Whether it is the key that others write to now.
    current: bool,
}

/// Why a mailbox was left.
enum Left {
    /// The mediator.
    Mail(MailError),
    /// The wallet or the output; nothing goes on after it.
    Here(Complaint),
}

impl From<MailError> for Left {
    fn from(error: MailError) -> Self {
        Self::Mail(error)
    }
}

impl From<Complaint> for Left {
    fn from(complaint: Complaint) -> Self {
        Self::Here(complaint)
    }
}

/// Where messages are shown, and how many still may be.
struct Output<'o> {
    json: bool,
    stdout: &'o mut dyn Write,
    stderr: &'o mut dyn Write,
    clock: Clock,
    left: Option<u64>,
    copies: u64,
    /// Messages that were new.
    fresh: u64,
    /// Nobody reads any more.
    closed: bool,
}

pub(super) fn run(
    args: &Receive,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Complaint> {
    let mailing = Mailing::open(&args.own)?;
    let key = mailing.key()?;
    let mailboxes = mailboxes(&mailing, key);
    let receiver = Receiver::new(
        mailing.wallet.clone(),
        mailing.store.clone(),
        mailing.enrolment.clone(),
        mailing.recipients.clone(),
        mailing.courier.clone(),
        mailing.desk.clock.clone(),
    );
    let mut output = Output {
        json: args.own.common.json,
        stdout,
        stderr,
        clock: mailing.desk.clock.clone(),
        left: args.limit,
        copies: 0,
        fresh: 0,
        closed: false,
    };
    mailing.desk.block_on(async {
        // What an output that was closed did not show.
        for sent in receiver.given_up()? {
            output.given_up(&receiver, &sent)?;
        }
        if args.all {
            before(&mailing, &receiver, &mut output).await?;
        }
        match args.follow {
            true => follow::follow(&mailing, &receiver, &mailboxes, output).await,
            false => once(&mailing, &receiver, &mailboxes, output).await,
        }
    })
}

/// Every queue that may hold mail for the account: those of replaced keys, too, and the oldest
/// first.
fn mailboxes(mailing: &Mailing, current: &MessagingKey) -> Vec<Mailbox> {
    let mut found: Vec<Mailbox> = Vec::new();
    let now = mailing.desk.clock.now();
    // What waits for a key that does not read any more is left to end there.
    let keys = mailing.enrolment.keys.iter().rev();
    for key in keys.filter(|key| key.reads(now)) {
        let is_current = key.peer == current.peer;
        // Where an enrolment has not come to its end, it may be registered all the same.
        let named = is_current.then_some(&mailing.enrolment.mediators);
        for mediator in named.into_iter().flatten().chain(&key.registered) {
            let known = |one: &Mailbox| one.mediator == *mediator && one.key.peer == key.peer;
            if !found.iter().any(known) {
                found.push(Mailbox {
                    mediator: mediator.clone(),
                    key: key.clone(),
                    current: is_current,
                });
            }
        }
    }
    found
}

/// Fetches what waits, at each mediator in turn.
async fn once(
    mailing: &Mailing,
    receiver: &Receiver,
    mailboxes: &[Mailbox],
    mut output: Output<'_>,
) -> Result<(), Complaint> {
    let mut asked = 0;
    let mut last = None;
    for mailbox in mailboxes {
        if output.is_full() {
            break;
        }
        let client = mailbox.open(mailing, Freshness::Cached);
        let result = match client.await {
            Ok(client) => fetch(receiver, &client, &mut output).await,
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(()) => asked += 1,
            Err(Left::Here(complaint)) => return Err(complaint),
            Err(Left::Mail(error)) => {
                // Nothing is kept for a replaced key for ever.
                if mailbox.current {
                    output.warn(&format!("{}: {error}", mailbox.mediator));
                    last = Some(error);
                }
            }
        }
    }
    output.end();
    match last {
        Some(error) if asked == 0 => Err(Complaint {
            exit: exit_of(&error),
            message: "none of your mediators handed mail over".to_owned(),
            hint: "what waits there waits on; `atcomm check` tells more".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Takes all that waits in one queue.
async fn fetch(
    receiver: &Receiver,
    client: &MediatorClient,
    output: &mut Output<'_>,
) -> Result<(), Left> {
    let mut before: Vec<String> = Vec::new();
    let mut stale = 0;
    while !output.is_full() {
        let limit = output.left.unwrap_or(BATCH).min(BATCH);
        let mail = client.fetch(limit).await?;
        if mail.is_empty() {
            break;
        }
        if mail.iter().all(|one| before.contains(&one.id)) {
            return Err(Left::Mail(MailError::NotOurs(
                "it hands out again what was acknowledged".to_owned(),
            )));
        }
        let fresh = output.fresh;
        before = take(receiver, client, &mail, output).await?;
        stale = if output.fresh == fresh { stale + 1 } else { 0 };
        if stale >= MAX_STALE {
            return Err(Left::Mail(MailError::NotOurs(format!(
                "nothing new was in its last {MAX_STALE} deliveries"
            ))));
        }
    }
    Ok(())
}

/// Takes messages, shows them, and then lets the mediator know. Gives the ids of those taken.
async fn take(
    receiver: &Receiver,
    client: &MediatorClient,
    mail: &[Mail],
    output: &mut Output<'_>,
) -> Result<Vec<String>, Left> {
    let mut taken = Vec::new();
    let mut failed = None;
    for one in mail {
        if output.is_full() {
            break;
        }
        match receiver.take(client, one).await {
            Ok(found) => {
                taken.push(one.id.clone());
                if let Err(complaint) = output.taken(receiver, found) {
                    failed = Some(complaint);
                    break;
                }
            }
            Err(error) => {
                failed = Some(error.into());
                break;
            }
        }
    }
    // What is kept is kept, whatever went wrong after it.
    let acknowledged = client.acknowledge(&taken).await;
    match failed {
        Some(complaint) => Err(Left::Here(complaint)),
        None => Ok(acknowledged.map(|()| taken)?),
    }
}

impl Mailbox {
    async fn open(
        &self,
        mailing: &Mailing,
        freshness: Freshness,
    ) -> Result<MediatorClient, MailError> {
        let (net, identity) = (&mailing.desk.net, &mailing.desk.identity);
        let clock = &mailing.desk.clock;
        MediatorClient::open(net, identity, clock, &self.mediator, &self.key, freshness).await
    }
}

impl Output<'_> {
    fn is_full(&self) -> bool {
        self.closed || self.left == Some(0)
    }

    fn taken(&mut self, receiver: &Receiver, taken: Processed) -> Result<(), Complaint> {
        if let Some(path) = taken.set_aside {
            self.warn(&format!(
                "a message that was kept is damaged: it is set aside as {}",
                path.display()
            ));
        }
        let now = self.clock.now();
        let (shown, is_new) = match taken.received {
            Received::Ignored => return Ok(()),
            Received::Duplicate => {
                self.copies += 1;
                return Ok(());
            }
            Received::Message {
                kept,
                dm,
                attribution,
            } => (Shown::message(&kept, &dm, &attribution, now), true),
            Received::Other {
                kept,
                attribution,
                why,
            } => (Shown::other(&kept, &attribution, why, now), true),
            // A mediator can make any number of these.
            Received::Undecryptable { undecryptable } => (Shown::unreadable(&undecryptable), false),
            Received::Undeliverable { sent, words, next } => match next {
                NextStep::GivenUp => return self.given_up(receiver, &sent),
                next => (Shown::returned(&sent, words.as_str(), &next), false),
            },
        };
        self.fresh += u64::from(is_new);
        if shown.is_mail() {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        self.show(&shown)
    }

    /// Shows that a message of ours was given up. It is forgotten once that is written.
    fn given_up(&mut self, receiver: &Receiver, sent: &SentMessage) -> Result<(), Complaint> {
        let words = sent.given_up.as_ref().map_or("", |one| one.words.as_str());
        self.show(&Shown::returned(sent, words, &NextStep::GivenUp))?;
        if !self.closed {
            receiver.told(sent)?;
        }
        Ok(())
    }

    fn show(&mut self, shown: &Shown) -> Result<(), Complaint> {
        if self.closed {
            return Ok(());
        }
        let written = shown.write(self.json, terminal::width(), self.stdout);
        let result = written.and_then(|()| self.stdout.flush());
        let Err(error) = result else { return Ok(()) };
        self.closed = true;
        unwritten(error)
    }

    fn warn(&mut self, words: &str) {
        // Nobody is left to be told where this fails.
        let words = terminal::head(&format!("warning: {}", line(words)), terminal::width());
        let _ = write!(self.stderr, "{words}");
    }

    fn say(&mut self, words: &str) {
        let words = terminal::head(&line(words), terminal::width());
        let _ = write!(self.stderr, "{words}").and_then(|()| self.stderr.flush());
    }

    fn end(&mut self) {
        if self.copies > 0 {
            let copies = self.copies;
            self.say(&format!(
                "left out {copies} that came before; `atcomm receive --all` shows what is kept"
            ));
        }
    }
}

/// Shows what is kept, one after the other. What could not be attributed when it came is looked at
/// again.
async fn before(
    mailing: &Mailing,
    receiver: &Receiver,
    output: &mut Output<'_>,
) -> Result<(), Complaint> {
    let count = output.left.and_then(|left| usize::try_from(left).ok());
    let mut adverse = MAX_AGAIN;
    for stored in mailing.store.received(count)? {
        let shown = match stored {
            Ok(StoredItem::Message(kept)) => {
                again(receiver, &kept, &output.clock, &mut adverse).await?
            }
            Ok(StoredItem::Undecryptable(undecryptable)) => Shown::unreadable(&undecryptable),
            // The others are shown all the same.
            Err(error) => {
                output.warn(&format!("left out: {error}"));
                continue;
            }
        };
        output.show(&shown)?;
        if output.closed {
            break;
        }
    }
    Ok(())
}

async fn again(
    receiver: &Receiver,
    kept: &StoredMessage,
    clock: &Clock,
    adverse: &mut u32,
) -> Result<Shown, Complaint> {
    let now = clock.now();
    let attribution = serde_json::from_value::<Attribution>(kept.attribution.clone());
    // Whoever wrote the file in another version: nothing is shown of its sender.
    let mut attribution = attribution.unwrap_or(Attribution::Anonymous);
    let message = Message::parse(kept.message.as_bytes());
    let dm = message.map(|message| message.body_of::<Dm>());
    let Ok(Ok(dm)) = dm else {
        let why = "it cannot be shown".to_owned();
        return Ok(Shown::other(kept, &attribution, why, now));
    };
    if is_open(&attribution, now.since(kept.received_at), adverse) {
        attribution = receiver.attribute_again(kept, &dm).await?;
    }
    Ok(Shown::message(kept, &dm, &attribution, now))
}

/// Whether a later look at the sender of a message of this age may end otherwise. A key that was
/// replaced in the minute before the message came may have looked like fraud; after [`PREVIOUS_KEY_GRACE`] no
/// look clears it any more, so it is not worth one. `adverse` counts down the looks of that kind.
fn is_open(attribution: &Attribution, age: Duration, adverse: &mut u32) -> bool {
    match attribution {
        Attribution::Unverified { reason, .. } => reason.may_pass(),
        found if found.is_adverse() && age <= PREVIOUS_KEY_GRACE && *adverse > 0 => {
            *adverse -= 1;
            true
        }
        _ => false,
    }
}

/// Which queue, for people.
fn place(mailbox: &Mailbox) -> String {
    match mailbox.current {
        true => mailbox.mediator.to_string(),
        false => format!(
            "{} (key {}, which was replaced)",
            mailbox.mediator,
            short_did(mailbox.key.peer.as_str())
        ),
    }
}

/// No queue is left to stay at.
fn nobody(error: &MailError) -> Complaint {
    Complaint {
        exit: exit_of(error),
        message: line(&error.to_string()),
        hint: "`atcomm check` tells more".to_owned(),
    }
}

#[cfg(test)]
mod tests;
