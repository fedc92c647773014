//! `atcomm send`.

use std::io::{IsTerminal as _, Read as _, Write};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::{Own, about, actor};
use super::hint::{exit_of_mail, not_enrolled};
use super::mail_context::MailContext;
use super::output::show;
use super::resolve::blocked;
use super::terminal::{account_name, line};
use super::{CliError, Exit};
use atcomm_client::dm::{MAX_TEXT_LEN, TextError, check_text};
use atcomm_client::embed::ReferenceError;
use atcomm_client::{
    ComposeError, Consent, Delivery, KeyChange, PathFailure, PublishedState, Recipient,
    SendBlocker, SendError, Warning, published_now,
};
use atcomm_proto::syntax::{Did, Handle};
use atcomm_proto::typed;

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

/// Time for which the answer to a question beside the sending is waited for once the message is sent.
const BESIDE_TIMEOUT: Duration = Duration::from_millis(500);

/// A delivery as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done<'a> {
    id: &'a str,
    to: &'a Did,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a Handle>,
    peer: &'a str,
    mediator: &'a str,
    /// The mediator that relays to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'a str>,
    /// Whether the recipient's mediator answered its probe.
    reachable: bool,
    failed: Vec<Value>,
    warnings: Value,
}

pub(super) fn run(
    args: &Send,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let actor = actor(&args.actor)?;
    let context = MailContext::open(&args.own)?.with_key()?;
    let account = &context.account;
    let text = read_text(args.text.as_deref(), stderr)?;
    check_text(&text).map_err(bad_text)?;
    context.command.block_on(async {
        let sending = async {
            let recipient = account.recipient(&actor).await;
            let recipient = recipient.map_err(|error| about(&actor, error))?;
            let shown = account_name(recipient.handle.as_ref(), &recipient.account);
            let consent = Consent {
                anyway: args.anyway,
            };
            warn(&recipient, consent, &shown, stderr)?;
            let embed = args.embed.as_deref().map(typed::record);
            let embed = embed.as_deref();
            let dm = account
                .compose(&recipient.account, text, embed)
                .await
                .map_err(|error| not_composed(error, embed.unwrap_or_default()))?;
            let sent = account.sender().send(&recipient, &dm, consent).await;
            let delivery = sent.map_err(|error| not_sent(error, &recipient, &shown))?;
            Ok::<_, CliError>((recipient, shown, delivery))
        };
        let (sent, published) = beside(sending, published_now(account)).await;
        let (recipient, shown, delivery) = sent?;
        for failure in &delivery.failures {
            let _ = writeln!(stderr, "warning: {}", failure_text(failure));
        }
        if let Some(words) = published.as_ref().and_then(reply_warning) {
            let _ = writeln!(stderr, "warning: {words}");
        }
        show_delivery(&delivery, &recipient, &shown, args.own.common.json, stdout)
    })
}

/// Runs `work`, and beside it a question whose answer is not worth waiting for: `None` where it has
/// not come by [`BESIDE_TIMEOUT`] after the end of the work.
async fn beside<T, A>(
    work: impl Future<Output = T>,
    question: impl Future<Output = Option<A>>,
) -> (T, Option<A>) {
    let (mut work, mut question) = (pin!(work), pin!(question));
    tokio::select! {
        done = &mut work => {
            let answer = tokio::time::timeout(BESIDE_TIMEOUT, question).await;
            (done, answer.ok().flatten())
        }
        answer = &mut question => (work.await, answer),
    }
}

/// Returns what a writer has to know of where replies go; `None` where they come to this wallet.
fn reply_warning(published: &PublishedState) -> Option<&'static str> {
    match published {
        PublishedState::Foreign { .. } => {
            Some("your account now publishes another device's key; replies go there")
        }
        PublishedState::Missing => {
            Some("your account publishes no messaging key now; replies cannot be sent")
        }
        PublishedState::Current | PublishedState::NotCurrent { .. } => None,
    }
}

/// Prints the warnings about the recipient. Fails where a reason not to send stands.
fn warn(
    recipient: &Recipient,
    consent: Consent,
    shown: &str,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let blocker = recipient.blocker(consent);
    let is_said_by_blocker = |warning: &Warning| {
        matches!(
            (warning, &blocker),
            (Warning::Ambiguous, Some(SendBlocker::Ambiguous { .. }))
        )
    };
    for warning in &recipient.warnings {
        if !is_said_by_blocker(warning) {
            // If writing to stderr fails there is nothing left to report to.
            let _ = writeln!(stderr, "warning: {}", line(&warning.to_string()));
        }
    }
    if let Some(blocker) = blocker {
        return Err(blocked(&blocker, recipient));
    }
    if recipient.trust.pin.is_some()
        && let Some(note) = key_note(&recipient.trust.change, shown)
    {
        let _ = writeln!(stderr, "{note}");
    }
    Ok(())
}

/// Returns the text of the argument, else of standard input without the newlines at its end, which belong
/// to the terminal or the file.
fn read_text(given: Option<&str>, stderr: &mut dyn Write) -> Result<String, CliError> {
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
    // More than the longest text, so that a longer one is noticed.
    let most = 4 * MAX_TEXT_LEN as u64;
    let unreadable = |why: String| CliError {
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

fn bad_text(error: TextError) -> CliError {
    CliError {
        exit: Exit::Usage,
        message: error.to_string(),
        hint: match error {
            TextError::Empty => "nothing was sent".to_owned(),
            _ => "send it in parts; nothing was sent".to_owned(),
        },
    }
}

/// Returns a note about the key of the recipient, if it is not the one of the last message.
fn key_note(change: &KeyChange, shown: &str) -> Option<String> {
    match change {
        KeyChange::First => Some(format!(
            "first contact with {shown}; the messaging key is remembered from now on"
        )),
        KeyChange::Vouched { .. } => Some(format!(
            "{shown} has a new messaging key; the one before vouches for it"
        )),
        // A key that is the same needs no note; a changed one is a blocker.
        KeyChange::Same | KeyChange::Changed { .. } => None,
    }
}

/// Returns the error of a message that was not composed.
fn not_composed(error: ComposeError, embed: &str) -> CliError {
    match error {
        ComposeError::Text(error) => bad_text(error),
        ComposeError::Embed(error) => CliError {
            exit: match &error {
                ReferenceError::Syntax => Exit::Usage,
                ReferenceError::Account(_) | ReferenceError::NotFound => Exit::Failed,
                ReferenceError::Unreachable(_) => Exit::Unreachable,
            },
            message: format!(
                "cannot point at {}: {}",
                line(embed),
                line(&error.to_string())
            ),
            hint: "nothing was sent; leave --embed out, or name another record".to_owned(),
        },
    }
}

/// Returns the error of a message that was not sent.
fn not_sent(error: SendError, recipient: &Recipient, shown: &str) -> CliError {
    match error {
        SendError::Blocked(blocker) => blocked(&blocker, recipient),
        SendError::NotEnrolled(_) => not_enrolled(&error),
        SendError::Encryption(why) => CliError {
            exit: Exit::Failed,
            message: format!("the message cannot be encrypted for {shown}: {why}"),
            hint: "nothing was sent".to_owned(),
        },
        SendError::NotDelivered(failures) => not_delivered(shown, &failures),
        SendError::Wallet(error) => error.into(),
    }
}

fn show_delivery(
    delivery: &Delivery,
    recipient: &Recipient,
    shown: &str,
    json: bool,
    stdout: &mut dyn Write,
) -> Result<(), CliError> {
    let Delivery {
        path, reachable, ..
    } = delivery;
    let done = Done {
        id: &delivery.id,
        to: &delivery.to,
        handle: delivery.handle.as_ref(),
        peer: &delivery.peer,
        mediator: path.mediator.as_str(),
        via: path.via.as_ref().map(|via| via.as_str()),
        reachable: *reachable,
        failed: delivery.failures.iter().map(failure_json).collect(),
        warnings: json!(recipient.warnings),
    };
    show(json, stdout, &done, |out| {
        write!(out, "sent to {shown}: ")?;
        match &path.via {
            None => writeln!(out, "{} has it", path.mediator)?,
            Some(via) => writeln!(out, "{via} relays it to {}", path.mediator)?,
        }
        if !reachable {
            writeln!(
                out,
                "{} does not answer now; the relay goes on trying, and `atcomm receive` tells if \
                 it gives up",
                path.mediator
            )?;
        }
        Ok(())
    })
}

fn failure_text(failure: &PathFailure) -> String {
    line(&failure.to_string())
}

fn failure_json(failure: &PathFailure) -> Value {
    json!({
        "mediator": failure.path.mediator,
        "via": failure.path.via,
        "reason": failure.error.to_string(),
    })
}

fn not_delivered(shown: &str, failures: &[PathFailure]) -> CliError {
    let reasons: Vec<String> = failures.iter().map(failure_text).collect();
    let later = failures.iter().any(|failure| failure.error.is_transient());
    let last = failures.last().map(|failure| exit_of_mail(&failure.error));
    let wait = failures
        .iter()
        .filter_map(|one| one.error.retry_after())
        .min();
    CliError {
        exit: if later {
            Exit::Unreachable
        } else {
            last.unwrap_or(Exit::Unreachable)
        },
        message: if reasons.is_empty() {
            format!("none of the mediators of {shown} can be used now")
        } else {
            format!(
                "no mediator took the message for {shown}: {}",
                reasons.join("; ")
            )
        },
        hint: match (later || reasons.is_empty(), wait) {
            (true, Some(wait)) => format!("send it again in {} s", wait.as_secs().max(1)),
            (true, None) => "send it again later; `atcomm check` tells more".to_owned(),
            (false, _) => "`atcomm check` tells more about your own mediators".to_owned(),
        },
    }
}
