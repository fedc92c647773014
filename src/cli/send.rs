//! `atcomm send`.

use std::io::{IsTerminal as _, Read as _, Write};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::desk::{Own, actor};
use super::mailing::{Mailing, exit_of, failed_way, name};
use super::output::show;
use super::resolve::{held, remember};
use super::terminal::line;
use super::{Complaint, Exit};
use atcomm_client::dm::{Dm, MAX_MENTIONS, MAX_TEXT_LEN, SpanKind, TextError, check_text};
use atcomm_client::dm::{facets, spans};
use atcomm_client::embed::{self, ReferenceError};
use atcomm_client::wrap::seal;
use atcomm_client::{
    DeliveryOutcome, KeyChange, MessagingKey, PathFailure, Recipient, SendBlocker, SentMessage,
    Warning, mediators_of,
};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::syntax::{Actor, Did, Handle};

/// Send an encrypted message to an account
///
/// The account's messaging key is looked up and verified, and remembered: when it changes later and
/// the old key does not vouch for the new one, nothing is sent until you accept it. The message goes
/// to the first of the account's mediators that takes it, those that answer before the others, by
/// way of your own, so that theirs does not learn where you are. If yours cannot deliver it, it
/// reports that after a day, and the next `atcomm receive` tries the next one.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// Whom to write to: a handle or a DID
    actor: String,
    /// The message; - or nothing reads it from standard input
    text: Option<String>,
    /// Point at a public record, such as a post: at://ACCOUNT/COLLECTION/KEY
    #[arg(long, value_name = "URI")]
    embed: Option<String>,
    /// Send although other accounts publish the same messaging key, or nobody but the directory
    /// shows it
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    own: Own,
}

/// What was done, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    id: &'a str,
    to: &'a Did,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a Handle>,
    peer: &'a str,
    mediator: &'a str,
    /// Who relays to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'a str>,
    /// Whether the reader's mediator answered when it was looked at.
    reachable: bool,
    failed: Vec<Value>,
    warnings: Value,
}

pub(super) fn run(
    args: &Send,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Complaint> {
    let actor = actor(&args.actor)?;
    let mailing = Mailing::open(&args.own)?;
    let key = mailing.key()?;
    let text = read_text(args.text.as_deref(), stderr)?;
    check_text(&text).map_err(bad_text)?;
    mailing.desk.block_on(async {
        let resolved = find(&mailing, &actor).await?;
        let shown = name(resolved.handle.as_ref(), &resolved.account);
        let held = hold(&resolved, &shown, args.anyway);
        for warning in &resolved.warnings {
            if is_reason(warning, &resolved) && held.is_err() {
                continue;
            }
            // Nobody is left to be told where this fails.
            let _ = writeln!(stderr, "warning: {}", line(&warning.to_string()));
        }
        held?;
        if resolved.pin.is_some()
            && let Some(note) = met(&resolved.change, &shown)
        {
            let _ = writeln!(stderr, "{note}");
        }
        let dm = write(&mailing, args, text, &resolved.account).await?;
        send(&mailing, key, &resolved, &shown, &dm, args, stdout, stderr).await
    })
}

/// The text: as it was given, or from standard input. The newline at its end belongs to the
/// terminal or the file.
fn read_text(given: Option<&str>, stderr: &mut dyn Write) -> Result<String, Complaint> {
    if let Some(text) = given.filter(|text| *text != "-") {
        return Ok(text.to_owned());
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let _ = writeln!(
            stderr,
            "write the message, then end it with Ctrl-D on a new line:"
        );
    }
    let mut bytes = Vec::new();
    // Enough to say that it is too long.
    let most = 4 * MAX_TEXT_LEN as u64;
    let unreadable = |why: String| Complaint {
        exit: Exit::Usage,
        message: format!("cannot read the message: {why}"),
        hint: "give it as an argument, or as UTF-8 on standard input".to_owned(),
    };
    stdin
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    Ok(text)
}

fn bad_text(error: TextError) -> Complaint {
    Complaint {
        exit: Exit::Usage,
        message: error.to_string(),
        hint: match error {
            TextError::Empty => "nothing was sent".to_owned(),
            _ => "send it in parts; nothing was sent".to_owned(),
        },
    }
}

/// Finds the recipient, and remembers what was found.
async fn find(mailing: &Mailing, actor: &Actor) -> Result<Recipient, Complaint> {
    let pins = mailing.wallet.contacts()?;
    let resolved = mailing.recipients.resolve(actor, &pins).await?;
    remember(&mailing.wallet, &pins, resolved.pin.as_ref())?;
    Ok(resolved)
}

/// What is to be said of the key, where it is not the one that was written to before.
fn met(change: &KeyChange, shown: &str) -> Option<String> {
    match change {
        KeyChange::First => Some(format!(
            "first contact with {shown}; the messaging key is remembered from now on"
        )),
        KeyChange::Vouched { .. } => Some(format!(
            "{shown} has a new messaging key; the one before vouches for it"
        )),
        // The one is as it was, the other is held.
        KeyChange::Same | KeyChange::Changed { .. } => None,
    }
}

/// Stops where it is not sure who would read the message.
fn hold(resolved: &Recipient, shown: &str, anyway: bool) -> Result<(), Complaint> {
    match resolved.hold() {
        Some(SendBlocker::Unconfirmed { .. }) if anyway => {}
        Some(hold) => return Err(held(&hold, resolved)),
        None => {}
    }
    if resolved.ambiguous == Some(true) && !anyway {
        return Err(Complaint {
            exit: Exit::Untrusted,
            message: format!(
                "other accounts publish the same messaging key as {shown}: one of them may read \
                 what is sent"
            ),
            hint: "send it with --anyway if that does not matter".to_owned(),
        });
    }
    Ok(())
}

/// Whether a warning says what the command stops for.
fn is_reason(warning: &Warning, resolved: &Recipient) -> bool {
    let of_ambiguous = matches!(warning, Warning::Ambiguous);
    of_ambiguous && resolved.hold().is_none()
}

/// The body: the text with its links and mentions, and the record that it points at.
async fn write(mailing: &Mailing, args: &Send, text: String, to: &Did) -> Result<Dm, Complaint> {
    let mut dm = Dm::new(text, &mailing.enrolment.account, to).map_err(bad_text)?;
    let found = spans(&dm.text);
    let mut known: Vec<(Handle, Did)> = Vec::new();
    let mentions = found.iter().filter_map(|span| match &span.kind {
        SpanKind::Mention(handle) => Some(handle),
        SpanKind::Link(_) => None,
    });
    for handle in mentions.take(MAX_MENTIONS) {
        // One that leads nowhere stays plain text.
        if let Ok(did) = mailing.desk.identity.resolve_handle(handle).await {
            known.push((handle.clone(), did));
        }
    }
    dm.facets = facets(&found, |handle| {
        let mut known = known.iter();
        known
            .find(|(one, _)| one == handle)
            .map(|(_, did)| did.clone())
    });
    if let Some(uri) = &args.embed {
        let record = embed::look_up(&mailing.desk.net, &mailing.desk.identity, uri).await;
        dm.embed = Some(record.map_err(|error| Complaint {
            exit: match &error {
                ReferenceError::Syntax => Exit::Usage,
                ReferenceError::Account(_) | ReferenceError::NotFound => Exit::Failed,
                ReferenceError::Unreachable(_) => Exit::Unreachable,
            },
            message: format!(
                "cannot point at {}: {}",
                line(uri),
                line(&error.to_string())
            ),
            hint: "nothing was sent; leave --embed out, or name another record".to_owned(),
        })?);
    }
    Ok(dm)
}

#[expect(
    clippy::too_many_arguments,
    reason = "what one command has read and writes to"
)]
async fn send(
    mailing: &Mailing,
    key: &MessagingKey,
    resolved: &Recipient,
    shown: &str,
    dm: &Dm,
    args: &Send,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Complaint> {
    let now = mailing.desk.clock.now();
    let to = &resolved.package.package().peer;
    let message = dm.message(
        fresh_id(),
        key.peer.as_str(),
        to.as_str(),
        now.millis() / 1000,
    );
    let id = message.id.clone();
    let unpacked = |why: String| Complaint {
        exit: Exit::Failed,
        message: format!("the message cannot be encrypted for {shown}: {why}"),
        hint: "nothing was sent".to_owned(),
    };
    let envelope = seal(message, key, to).map_err(|error| unpacked(error.to_string()))?;
    let theirs: Vec<_> = resolved.mediators.iter().cloned().map(Arc::new).collect();
    let mut sent = SentMessage {
        id,
        account: resolved.account.clone(),
        handle: resolved.handle.clone(),
        peer: to.as_str().to_owned(),
        from: key.peer.as_str().to_owned(),
        envelope: String::from_utf8(envelope).map_err(|error| unpacked(error.to_string()))?,
        mediators: resolved.package.package().distinct_mediators(),
        attempts: Vec::new(),
        at: now,
        given_up: None,
    };
    let store = &mailing.store;
    forget_old(mailing)?;
    let own = mediators_of(&mailing.enrolment, key);
    let mut keep = |sent: &SentMessage| store.save_sent(&sent.id, sent);
    let handed = mailing
        .courier
        .deliver(&mut sent, &theirs, own, key, &mut keep)
        .await?;
    if !sent.is_open(mailing.desk.clock.now()) {
        // Nothing more will be heard of it.
        store.delete_sent(&sent.id)?;
    }
    let (way, reachable, failures) = match handed {
        DeliveryOutcome::Accepted {
            way,
            reachable,
            failures,
        } => (way, reachable, failures),
        DeliveryOutcome::Refused(failures) => return Err(nobody(shown, &failures)),
    };
    for failure in &failures {
        let _ = writeln!(stderr, "warning: {}", failed_way(failure));
    }
    let done = Done {
        id: &sent.id,
        to: &sent.account,
        handle: sent.handle.as_ref(),
        peer: &sent.peer,
        mediator: way.mediator.as_str(),
        via: way.via.as_ref().map(|via| via.as_str()),
        reachable,
        failed: failures.iter().map(failed).collect(),
        warnings: json!(resolved.warnings),
    };
    show(args.own.common.json, stdout, &done, |out| {
        write!(out, "sent to {shown}: ")?;
        match &way.via {
            None => writeln!(out, "{} has it", way.mediator)?,
            Some(via) => writeln!(out, "{via} relays it to {}", way.mediator)?,
        }
        if !reachable {
            writeln!(
                out,
                "{} does not answer now; the relay goes on trying, and `atcomm receive` tells if \
                 it gives up",
                way.mediator
            )?;
        }
        Ok(())
    })
}

fn failed(failure: &PathFailure) -> Value {
    json!({
        "mediator": failure.way.mediator,
        "via": failure.way.via,
        "reason": failure.error.to_string(),
    })
}

fn nobody(shown: &str, failures: &[PathFailure]) -> Complaint {
    let reasons: Vec<String> = failures.iter().map(failed_way).collect();
    let later = failures.iter().any(|failure| failure.error.is_transient());
    let last = failures.last().map(|failure| exit_of(&failure.error));
    let wait = failures
        .iter()
        .filter_map(|one| one.error.retry_after())
        .min();
    Complaint {
        exit: match later {
            true => Exit::Unreachable,
            false => last.unwrap_or(Exit::Unreachable),
        },
        message: match reasons.is_empty() {
            true => format!("none of the mediators of {shown} can be used now"),
            false => format!(
                "no mediator took the message for {shown}: {}",
                reasons.join("; ")
            ),
        },
        hint: match (later || reasons.is_empty(), wait) {
            (true, Some(wait)) => format!("send it again in {} s", wait.as_secs().max(1)),
            (true, None) => "send it again later; `atcomm check` tells more".to_owned(),
            (false, _) => "`atcomm check` tells more about your own mediators".to_owned(),
        },
    }
}

/// Forgets what no relay will report any more.
fn forget_old(mailing: &Mailing) -> Result<(), Complaint> {
    let now = mailing.desk.clock.now();
    for sent in mailing.store.sent::<SentMessage>()? {
        if !sent.is_open(now) && now.since(sent.at) > atcomm_client::SENT_RETENTION {
            mailing.store.delete_sent(&sent.id)?;
        }
    }
    Ok(())
}
