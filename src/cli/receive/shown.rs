//! How a message is shown: what is proven of its sender in plain words, and never a handle where
//! nothing shows that it is theirs.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::super::mailing::{failed_way, name};
use super::super::terminal::{block, line, short_did};
use crate::client::dm::{Dm, Feature};
use crate::client::{Attribution, Handed, Kept, Next, Sent};
use crate::clock::Timestamp;

/// Something to be shown.
pub(super) struct Shown {
    /// For programs: one object.
    json: Value,
    /// For people: a head without an indent, and the rest.
    head: String,
    body: String,
    mail: bool,
}

impl Shown {
    pub(super) fn message(kept: &Kept, dm: &Dm, attribution: Attribution) -> Self {
        let mut json = common("message", kept, &attribution);
        json.insert("text".to_owned(), json!(dm.text));
        if !dm.facets.is_empty() {
            json.insert("facets".to_owned(), json!(dm.facets));
        }
        if let Some(embed) = &dm.embed {
            json.insert("embed".to_owned(), json!(embed));
        }
        let mut body = block(&dm.text);
        for uri in hidden_links(dm) {
            body.push_str(&format!("  link: {}\n", line(uri)));
        }
        if let Some(embed) = &dm.embed {
            body.push_str(&format!("  record: {}\n", line(&embed.uri)));
        }
        Self {
            json: Value::Object(json),
            head: head(kept, &attribution),
            body,
            mail: true,
        }
    }

    pub(super) fn other(kept: &Kept, attribution: Attribution, why: String) -> Self {
        let mut json = common("other", kept, &attribution);
        json.insert("reason".to_owned(), json!(why));
        Self {
            json: Value::Object(json),
            head: head(kept, &attribution),
            body: format!("  ({})\n", line(&why)),
            mail: true,
        }
    }

    pub(super) fn unreadable(kept: &Kept, why: String) -> Self {
        Self {
            json: json!({
                "type": "unreadable",
                "id": kept.id,
                "receivedAt": kept.received_at.to_string(),
                "reason": why,
            }),
            head: format!(
                "{}  a message that cannot be opened",
                minute(kept.received_at)
            ),
            body: format!("  ({})\n", line(&why)),
            mail: true,
        }
    }

    /// A message of ours that did not arrive, or is on another way.
    pub(super) fn returned(sent: Sent, words: String, next: &Next) -> Self {
        let (outcome, what) = match next {
            Next::Again(Handed::Taken { way, .. }) => (
                json!({"next": "again", "mediator": way.mediator, "via": way.via}),
                match &way.via {
                    Some(via) => format!(
                        "it is on its way again: {via} relays it to {}",
                        way.mediator
                    ),
                    None => format!("it was sent again: {} has it", way.mediator),
                },
            ),
            Next::Pending => (
                json!({"next": "pending"}),
                "another attempt of it may still arrive".to_owned(),
            ),
            Next::GivenUp(failures) | Next::Again(Handed::Refused(failures)) => {
                let reasons: Vec<String> = failures.iter().map(failed_way).collect();
                let tried = match reasons.is_empty() {
                    true => "no mediator is left".to_owned(),
                    false => reasons.join("; "),
                };
                (
                    json!({"next": "givenUp", "failed": reasons}),
                    format!("it was not delivered: {tried}; send it again if it still matters"),
                )
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
                name(sent.handle.as_ref(), &sent.account),
                line(&words),
            ),
            body: format!("  ({})\n", line(&what)),
            mail: false,
        }
    }

    /// Whether it is a message of somebody.
    pub(super) fn is_mail(&self) -> bool {
        self.mail
    }

    pub(super) fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        match json {
            true => writeln!(out, "{}", self.json),
            false => write!(out, "{}\n{}\n", self.head, self.body),
        }
    }
}

fn common(kind: &str, kept: &Kept, attribution: &Attribution) -> Map<String, Value> {
    let mut json = Map::new();
    let created = kept.message.get("created_time").and_then(Value::as_i64);
    for (key, value) in [
        ("type", json!(kind)),
        ("id", json!(kept.id)),
        ("receivedAt", json!(kept.received_at.to_string())),
        ("createdTime", json!(created)),
        ("from", json!(kept.from)),
        ("attribution", json!(attribution)),
    ] {
        json.insert(key.to_owned(), value);
    }
    json
}

fn head(kept: &Kept, attribution: &Attribution) -> String {
    let who = sender(attribution, kept.from.as_deref());
    format!("{}  {who}", minute(kept.received_at))
}

/// Who wrote it, in words. Each outcome has its own.
pub(super) fn sender(attribution: &Attribution, writer: Option<&str>) -> String {
    match attribution {
        Attribution::Verified {
            account,
            handle,
            unaccepted: false,
            known_of: None,
        } => format!("from {} (verified)", name(handle.as_ref(), account)),
        Attribution::Verified {
            account,
            handle,
            known_of: Some(other),
            ..
        } => format!(
            "from {account} (verified; BUT {} is how you know another account, {other}; `atcomm \
             contacts accept {account}` once you are sure that it is theirs)",
            name(handle.as_ref(), account)
        ),
        Attribution::VerifiedPrevious {
            account,
            handle,
            replaced_at,
            known_of: Some(other),
        } => format!(
            "from {account} (verified, by the key that the account replaced on {}; BUT {} is how \
             you know another account, {other})",
            minute(*replaced_at),
            name(handle.as_ref(), account)
        ),
        Attribution::Verified {
            account,
            handle,
            unaccepted: true,
            known_of: None,
        } => format!(
            "from {} (verified, but with another key than you know; `atcomm contacts accept \
             {account}` once you are sure that it is theirs)",
            name(handle.as_ref(), account)
        ),
        Attribution::VerifiedPrevious {
            account,
            handle,
            replaced_at,
            known_of: None,
        } => format!(
            "from {} (verified, by the key that the account replaced on {})",
            name(handle.as_ref(), account),
            minute(*replaced_at)
        ),
        Attribution::Mismatch {
            claimed,
            replaced_at: None,
        } => format!(
            "WARNING: from somebody who claims to be {claimed} and does not have that account's \
             key"
        ),
        Attribution::Mismatch {
            claimed,
            replaced_at: Some(at),
        } => format!(
            "WARNING: from somebody who claims to be {claimed}, with a key that the account \
             replaced on {}, too long ago to count",
            minute(*at)
        ),
        Attribution::Misdirected { meant } => format!(
            "WARNING: not meant for you but for {}, who publishes your messaging key as their own",
            line(meant)
        ),
        Attribution::Revoked { claimed } => format!(
            "WARNING: from somebody who claims to be {claimed}, which has no messaging key any \
             more"
        ),
        Attribution::Unattributed => format!(
            "from somebody who names no account ({})",
            writer.map_or_else(|| "?".to_owned(), short_did)
        ),
        Attribution::Unverified {
            claimed,
            reason,
            pinned,
        } => {
            let known = match pinned {
                true => "; the key is the one that you know of that account",
                false => "",
            };
            format!(
                "from an unknown sender who claims to be {}, not verified: {reason}{known}",
                line(claimed)
            )
        }
        Attribution::Anonymous => "from nobody: it does not show who wrote it".to_owned(),
    }
}

/// Links behind a text that says something else.
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

/// A time for people, in UTC and to the minute.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    let short = text.get(..16).unwrap_or(&text);
    format!("{}Z", short.replace('T', " "))
}

#[cfg(test)]
mod tests;
