//! The result of a look-up as text and as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::super::terminal::line;
use atcomm_client::{KeyChange, Recipient, Warning, fingerprint};
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::syntax::{Did, Handle, Origin};

/// The result of a look-up.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct RecipientView<'a> {
    did: &'a Did,
    handle: Option<&'a Handle>,
    pds: Option<&'a Origin>,
    peer: &'a str,
    fingerprint: String,
    record: &'a Value,
    cid: String,
    rev: String,
    signing_key: String,
    /// Number of operations that lead to the signing key.
    operations: Option<usize>,
    mediators: &'a [MediatorDocument],
    /// How the key relates to the pinned one: `first`, `same`, `vouched` or `changed`.
    contact: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Before<'a>>,
    first_seen: String,
    /// Whether other accounts publish the same key; absent where no directory was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    ambiguous: Option<bool>,
    verified: Vec<&'static str>,
    not_verified: Vec<String>,
    warnings: &'a [Warning],
    /// The reason for which nothing is sent to the account now.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
}

/// The pinned key.
#[derive(Serialize)]
struct Before<'a> {
    peer: &'a str,
    fingerprint: String,
}

impl<'a> RecipientView<'a> {
    pub(in crate::cli) fn new(resolved: &'a Recipient) -> Self {
        let package = &resolved.package;
        let (contact, before) = match &resolved.trust.change {
            KeyChange::First => ("first", None),
            KeyChange::Same => ("same", None),
            KeyChange::Vouched { before } => ("vouched", Some(before)),
            KeyChange::Changed { before } => ("changed", Some(before)),
        };
        Self {
            did: &resolved.account,
            handle: resolved.handle.as_ref(),
            pds: resolved.pds.as_ref(),
            peer: package.peer(),
            fingerprint: fingerprint(package.peer()),
            record: package.value(),
            cid: package.cid(),
            rev: package.rev().to_string(),
            signing_key: package.signing_key().did_key(),
            operations: resolved.log.as_ref().map(|log| log.states().len()),
            mediators: &resolved.mediators,
            contact,
            before: before.map(|peer| Before {
                peer,
                fingerprint: fingerprint(peer),
            }),
            first_seen: resolved.trust.accepted().first_seen.to_string(),
            ambiguous: resolved.trust.ambiguous,
            verified: verified(resolved),
            not_verified: not_verified(resolved),
            warnings: &resolved.warnings,
            hold: resolved.key_blocker().map(|hold| hold.to_string()),
        }
    }

    /// Writes the text.
    pub(in crate::cli) fn render_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = self.handle.map_or(self.did.as_str(), Handle::as_str);
        writeln!(out, "{name}")?;
        writeln!(out, "  account       {}", self.did)?;
        match self.handle {
            Some(handle) => writeln!(out, "  handle        {handle}")?,
            None => writeln!(out, "  handle        none that leads back to the account")?,
        }
        if let Some(pds) = self.pds {
            writeln!(out, "  host          {pds}")?;
        }
        if let Some(label) = self.record.get("label").and_then(Value::as_str) {
            writeln!(out, "  device        {}", line(label))?;
        }
        writeln!(out, "  messaging key {}", self.peer)?;
        writeln!(out, "  fingerprint   {}", self.fingerprint)?;
        if let Some(before) = &self.before {
            writeln!(out, "  before        {}", before.fingerprint)?;
        }
        for mediator in self.mediators {
            let state = state(mediator);
            writeln!(
                out,
                "  mediator      {} ({state})",
                line(mediator.did.as_str())
            )?;
        }
        writeln!(out, "  contact       {}", self.contact_text())?;
        writeln!(out, "verified by this program:")?;
        for one in &self.verified {
            writeln!(out, "  {one}")?;
        }
        writeln!(out, "not verified:")?;
        for one in &self.not_verified {
            writeln!(out, "  {one}")?;
        }
        Ok(())
    }

    fn contact_text(&self) -> String {
        match self.contact {
            "first" if self.hold.is_some() => "first contact; this key is not confirmed".to_owned(),
            "first" => "first contact; this key is remembered from now on".to_owned(),
            "same" => format!("the same key as remembered since {}", self.first_seen),
            "vouched" => "a new key, which the key before it vouches for".to_owned(),
            _ => "ANOTHER KEY than the one that is remembered".to_owned(),
        }
    }
}

fn state(mediator: &MediatorDocument) -> String {
    let state = match mediator.state {
        MediatorState::Reachable => return "reachable".to_owned(),
        MediatorState::Unreachable => "unreachable",
        MediatorState::Unresolved => "unresolved",
        MediatorState::Unsupported => "unsupported",
        MediatorState::Unchecked => "unchecked",
    };
    match &mediator.reason {
        Some(reason) => format!("{state}: {}", line(reason.as_str())),
        None => state.to_owned(),
    }
}

fn has(resolved: &Recipient, wanted: impl Fn(&Warning) -> bool) -> bool {
    resolved.warnings.iter().any(wanted)
}

/// Whether the PDS was asked and has nothing newer.
fn is_newest(resolved: &Recipient) -> bool {
    let unsure = has(resolved, |warning| {
        matches!(
            warning,
            Warning::HostSilent(_) | Warning::HostUseless(_) | Warning::HostBehind
        )
    });
    resolved.authoritative && !unsure
}

fn verified(resolved: &Recipient) -> Vec<&'static str> {
    let read = resolved
        .mediators
        .iter()
        .any(|one| !one.key_agreement.is_empty());
    [
        (true, "the record is signed by the account's signing key"),
        (
            resolved.log.is_some(),
            "that key follows from the account's identifier by its operation log",
        ),
        (
            is_newest(resolved),
            "the account's own host shows this record and nothing newer",
        ),
        (
            resolved.handle.is_some(),
            "the handle names the account, and the account names the handle",
        ),
        (read, "the mediators' keys stand in their own documents"),
    ]
    .into_iter()
    .filter_map(|(is_so, text)| is_so.then_some(text))
    .collect()
}

fn not_verified(resolved: &Recipient) -> Vec<String> {
    let mut all = Vec::new();
    if resolved.account.web().is_some() {
        all.push(
            "a did:web stands on its host alone: nothing else shows its signing key".to_owned(),
        );
    }
    if !is_newest(resolved) {
        all.push("that nothing newer exists".to_owned());
    }
    if resolved.trust.ambiguous.is_none() {
        all.push("whether other accounts publish the same key: no directory was asked".to_owned());
    }
    let unread = resolved
        .mediators
        .iter()
        .filter(|one| one.key_agreement.is_empty());
    all.extend(unread.map(|one| format!("the keys of {}", line(one.did.as_str()))));
    all.push(
        "who is behind the account: compare the fingerprint with the person by another way"
            .to_owned(),
    );
    all
}
