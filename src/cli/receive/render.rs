//! Messages as text and as JSON. A handle is printed only where the account's own key package shows that the
//! message is from it.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::terminal::{self, account_name, block, line, note, short_did};
use atcomm_client::dm::{Dm, Feature};
use atcomm_client::{Attribution, NextStep, SentMessage, StoredMessage, Undecryptable};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::syntax::Did;

/// Difference between the time of writing and of receipt from which the former is printed: the message was
/// long on its way, or was held back and sent again.
const SHOW_DATE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A message or a report as it is printed.
pub(super) struct MessageView {
    /// One object.
    json: Value,
    /// The text in parts: a line without an indent, the text of the sender, and notes about it.
    head: String,
    text: Option<String>,
    notes: Vec<String>,
}

impl MessageView {
    pub(super) fn message(
        stored: &StoredMessage,
        dm: &Dm,
        attribution: &Attribution,
        now: Timestamp,
    ) -> Self {
        let mut shown = Self::mail("message", stored, attribution, now);
        if let Value::Object(json) = &mut shown.json {
            json.insert("text".to_owned(), json!(dm.text));
            if !dm.facets.is_empty() {
                json.insert("facets".to_owned(), json!(dm.facets));
            }
            if let Some(embed) = &dm.embed {
                json.insert("embed".to_owned(), json!(embed));
            }
        }
        shown.text = Some(dm.text.clone());
        let links = hidden_links(dm).map(|uri| format!("link: {uri}"));
        shown.notes.extend(links);
        let record = dm
            .embed
            .iter()
            .map(|embed| format!("record: {}", embed.uri));
        shown.notes.extend(record);
        shown
    }

    pub(super) fn other(
        stored: &StoredMessage,
        attribution: &Attribution,
        why: String,
        now: Timestamp,
    ) -> Self {
        let mut shown = Self::mail("other", stored, attribution, now);
        if let Value::Object(json) = &mut shown.json {
            json.insert("reason".to_owned(), json!(why));
        }
        shown.notes.push(why);
        shown
    }

    fn mail(kind: &str, stored: &StoredMessage, attribution: &Attribution, now: Timestamp) -> Self {
        // It was parsed once when it was saved.
        let message = Message::parse(stored.message.as_bytes()).ok();
        let time = |read: fn(&Message) -> Option<i64>| message.as_ref().and_then(read).map(seconds);
        let created = time(|message| message.created_time);
        let expires = time(|message| message.expires_time);
        let expired = expires.map(moment).filter(|at| *at <= now);
        let mut notes = Vec::new();
        let written = created.map(moment);
        let far = |at: &Timestamp| {
            let (received, at) = (stored.received_at, *at);
            received.since(at).max(at.since(received)) > SHOW_DATE_AFTER
        };
        if let Some(at) = written.filter(far) {
            notes.push(format!("written on {}, its sender says", minute(at)));
        }
        if let Some(at) = expired {
            notes.push(format!("no longer valid since {}", minute(at)));
        }
        if stored.recipient_replaced {
            notes.push("to a key that you have replaced".to_owned());
        }
        let mut json = Map::new();
        for (key, value) in [
            ("type", json!(kind)),
            ("id", json!(stored.id)),
            ("receivedAt", json!(stored.received_at.to_string())),
            ("createdTime", json!(created)),
            ("from", json!(stored.from)),
            ("attribution", json!(attribution)),
        ] {
            json.insert(key.to_owned(), value);
        }
        if expired.is_some() {
            json.insert("expired".to_owned(), json!(true));
        }
        if stored.recipient_replaced {
            json.insert("toReplacedKey".to_owned(), json!(true));
        }
        let who = sender(attribution, stored.from.as_deref());
        Self {
            json: Value::Object(json),
            head: format!("{}  {who}", minute(stored.received_at)),
            text: None,
            notes,
        }
    }

    pub(super) fn unreadable(undecryptable: &Undecryptable) -> Self {
        let at = undecryptable.received_at;
        Self {
            json: json!({
                "type": "unreadable",
                "id": undecryptable.id,
                "receivedAt": at.to_string(),
                "reason": undecryptable.reason,
            }),
            head: format!("{}  a message that cannot be opened", minute(at)),
            text: None,
            notes: vec![undecryptable.reason.clone()],
        }
    }

    /// A message of the account's own that did not arrive, and what became of it.
    pub(super) fn returned(sent: &SentMessage, words: &str, next: &NextStep) -> Self {
        let (outcome, what) = match next {
            NextStep::Retried(path) => (
                json!({"next": "again", "mediator": path.mediator, "via": path.via}),
                match &path.via {
                    Some(via) => format!(
                        "it is on its way again: {via} relays it to {}",
                        path.mediator
                    ),
                    None => format!("it was sent again: {} has it", path.mediator),
                },
            ),
            NextStep::Pending => (
                json!({"next": "pending"}),
                "another attempt of it may still arrive".to_owned(),
            ),
            NextStep::GivenUp => {
                let failed = sent.given_up.iter().flat_map(|one| &one.failed);
                not_delivered(failed.map(ToString::to_string).collect())
            }
        };
        let mut json = json!({
            "type": "returned",
            "id": sent.id,
            "to": sent.account,
            "handle": sent.handle,
            "sentAt": sent.at.to_string(),
            "reason": words,
        });
        if let (Value::Object(json), Value::Object(outcome)) = (&mut json, outcome) {
            json.extend(outcome);
        }
        Self {
            json,
            head: format!(
                "your message of {} to {}: {}",
                minute(sent.at),
                account_name(sent.handle.as_ref(), &sent.account),
                line(words),
            ),
            text: None,
            notes: vec![what],
        }
    }

    /// Writes JSON, or text for a terminal of `width` columns.
    pub(super) fn write(
        &self,
        json: bool,
        width: Option<usize>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if json {
            return writeln!(out, "{}", terminal::json(&self.json.to_string()));
        }
        let mut shown = terminal::head(&self.head, width);
        if let Some(text) = &self.text {
            shown.push_str(&block(text, width));
        }
        for words in &self.notes {
            shown.push_str(&note(words, width));
        }
        writeln!(out, "{shown}")
    }
}

/// Returns JSON and text of a message that no mediator took.
fn not_delivered(reasons: Vec<String>) -> (Value, String) {
    let tried = if reasons.is_empty() {
        "no mediator is left".to_owned()
    } else {
        reasons.join("; ")
    };
    (
        json!({"next": "givenUp", "failed": reasons}),
        format!("it was not delivered: {tried}; send it again if it still matters"),
    )
}

/// Returns a time in seconds since 1970. Senders that count finer parts of a second are known by
/// numbers that would be thousands of years ahead.
fn seconds(time: i64) -> i64 {
    match time.unsigned_abs() {
        100_000_000_000_000_000.. => time / 1_000_000_000,
        100_000_000_000_000.. => time / 1_000_000,
        100_000_000_000.. => time / 1000,
        _ => time,
    }
}

/// Converts seconds since 1970; a sender can write any number.
fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

/// Returns the sender in words. Each outcome of the attribution has its own.
pub(super) fn sender(attribution: &Attribution, from: Option<&str>) -> String {
    match attribution {
        Attribution::Verified {
            account,
            handle,
            unaccepted,
            known_of,
        } => {
            let name = account_name(handle.as_ref(), account);
            verified_sender(account, &name, *unaccepted, known_of.as_ref())
        }
        Attribution::VerifiedPrevious {
            account,
            handle,
            replaced_at,
            known_of,
        } => {
            let name = account_name(handle.as_ref(), account);
            previous_sender(account, &name, *replaced_at, known_of.as_ref())
        }
        Attribution::Mismatch {
            claimed,
            replaced_at,
        } => mismatched_sender(claimed, *replaced_at),
        Attribution::Misdirected { meant } => format!(
            "WARNING: its sender says that it is for {}: either that account shows your key as its \
             own, or the sender makes it up",
            line(meant)
        ),
        Attribution::Revoked { claimed } => {
            format!("WARNING: from somebody who claims to be {claimed}, which has no messaging key")
        }
        Attribution::Unattributed => format!(
            "from somebody who names no account ({})",
            from.map_or_else(|| "?".to_owned(), short_did)
        ),
        Attribution::Unverified {
            claimed,
            reason,
            pinned,
        } => {
            let known = if *pinned {
                "; the key is the one that you know of that account"
            } else {
                ""
            };
            format!(
                "from an unknown sender who claims to be {}, not verified: {reason}{known}",
                line(claimed)
            )
        }
        Attribution::Anonymous => "from nobody: it does not show who wrote it".to_owned(),
    }
}

fn verified_sender(account: &Did, name: &str, unaccepted: bool, known_of: Option<&Did>) -> String {
    match known_of {
        Some(other) => format!(
            "from {account} (verified; BUT {name} is how you know another account, {other}; \
             `atcomm contacts accept {account}` once you are sure that it is theirs)"
        ),
        None if unaccepted => format!(
            "from {name} (verified, but with another key than you know; `atcomm contacts accept \
             {account}` once you are sure that it is theirs)"
        ),
        None => format!("from {name} (verified)"),
    }
}

fn previous_sender(
    account: &Did,
    name: &str,
    replaced_at: Timestamp,
    known_of: Option<&Did>,
) -> String {
    let replaced_at = minute(replaced_at);
    match known_of {
        Some(other) => format!(
            "from {account} (verified, by the key that the account replaced on {replaced_at}; BUT \
             {name} is how you know another account, {other})"
        ),
        None => {
            format!("from {name} (verified, by the key that the account replaced on {replaced_at})")
        }
    }
}

fn mismatched_sender(claimed: &Did, replaced_at: Option<Timestamp>) -> String {
    match replaced_at {
        None => format!(
            "WARNING: from somebody who claims to be {claimed} and does not have that account's \
             key"
        ),
        Some(at) => format!(
            "WARNING: from somebody who claims to be {claimed}, with a key that the account \
             replaced on {}, too long ago to count",
            minute(at)
        ),
    }
}

/// Returns the links whose text differs from their address.
fn hidden_links(dm: &Dm) -> impl Iterator<Item = &String> {
    dm.facets.iter().flat_map(|facet| {
        let index = facet.index;
        let text = dm.text.get(index.byte_start..index.byte_end);
        facet
            .features
            .iter()
            .filter_map(move |feature| match feature {
                Feature::Link { uri } if Some(uri.as_str()) != text => Some(uri),
                _ => None,
            })
    })
}

/// Formats a time in UTC, to the minute.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    let short = text.get(..16).unwrap_or(&text);
    format!("{}Z", short.replace('T', " "))
}

#[cfg(test)]
mod tests;
