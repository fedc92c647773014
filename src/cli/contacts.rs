//! `atcomm contacts`: the pinned keys of other accounts.

use std::io::{self, Write};

use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;

use super::context::{CommandContext, Common, about, actor};
use super::output::show;
use super::resolve::{blocked, interactive_lookup};
use super::terminal::line;
use super::{CliError, EXIT_CODES, Exit};
use atcomm_client::{Acceptance, KeyChange, Pin, Wallet, fingerprint};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did};

/// Flags of `contacts`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Contacts>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Contacts {
    /// List them
    #[command(after_help = EXIT_CODES)]
    List(Common),
    /// Show one, without asking anybody
    #[command(after_help = EXIT_CODES)]
    Show(One),
    /// Accept that one has another key, or that a handle names another account
    ///
    /// Compare the fingerprint with the person by another way first: over the telephone, or when
    /// you meet.
    #[command(after_help = EXIT_CODES)]
    Accept(One),
    /// Forget one; the next time is a first contact again
    #[command(after_help = EXIT_CODES)]
    Forget(One),
}

/// Which contact.
#[derive(Debug, ClapArgs)]
struct One {
    /// A handle or a DID
    #[arg(value_name = "ACTOR")]
    actor: String,
    #[command(flatten)]
    common: Common,
}

/// Runs the command.
pub(super) fn run(
    args: &Args,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    match &args.command {
        None => list(&args.common, stdout),
        Some(Contacts::List(common)) => list(common, stdout),
        Some(Contacts::Show(one)) => show_one(one, stdout),
        Some(Contacts::Accept(one)) => accept(one, stdout, stderr),
        Some(Contacts::Forget(one)) => forget(one, stdout),
    }
}

/// A contact as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContactView<'a> {
    did: &'a Did,
    handle: Option<&'a str>,
    /// Handles that no longer lead to the account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    known_as: Vec<&'a str>,
    peer: &'a str,
    fingerprint: String,
    signing_key: &'a str,
    mediators: Vec<&'a str>,
    first_seen: String,
    last_seen: String,
    /// A new key that is not accepted yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<Other<'a>>,
    /// The key before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Other<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Other<'a> {
    peer: &'a str,
    fingerprint: String,
    /// Of a new key: when the pinned key was last verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// Of the key before: when it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl<'a> ContactView<'a> {
    fn new(pin: &'a Pin) -> Self {
        let other = |peer: &'a str, after: Option<Timestamp>, until: Option<Timestamp>| Other {
            peer,
            fingerprint: fingerprint(peer),
            after: after.map(|time| time.to_string()),
            until: until.map(|time| time.to_string()),
        };
        Self {
            did: &pin.account,
            handle: pin.handle.as_ref().map(|handle| handle.as_str()),
            known_as: pin.known_as.iter().map(|one| one.as_str()).collect(),
            peer: &pin.peer,
            fingerprint: fingerprint(&pin.peer),
            signing_key: &pin.signing_key,
            mediators: pin.mediators.keys().map(|did| did.as_str()).collect(),
            first_seen: pin.first_seen.to_string(),
            last_seen: pin.last_seen.to_string(),
            changed: pin
                .changed
                .as_ref()
                .map(|changed| other(&changed.peer, Some(changed.seen_at), None)),
            previous: pin
                .previous
                .as_ref()
                .map(|previous| other(&previous.peer, None, Some(previous.replaced_at))),
        }
    }

    fn name(&self) -> &'a str {
        self.handle.unwrap_or(self.did.as_str())
    }

    fn render_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.name())?;
        writeln!(out, "  account       {}", self.did)?;
        for handle in &self.known_as {
            writeln!(
                out,
                "  handle before {handle}, which does not lead to it any more"
            )?;
        }
        writeln!(out, "  messaging key {}", self.peer)?;
        writeln!(out, "  fingerprint   {}", self.fingerprint)?;
        for mediator in &self.mediators {
            writeln!(out, "  mediator      {mediator}")?;
        }
        writeln!(out, "  first seen    {}", self.first_seen)?;
        writeln!(out, "  last verified {}", self.last_seen)?;
        if let Some(previous) = &self.previous {
            let until = previous.until.as_deref().unwrap_or_default();
            writeln!(
                out,
                "  key before    {} until {until}",
                previous.fingerprint
            )?;
        }
        if let Some(changed) = &self.changed {
            let after = changed.after.as_deref().unwrap_or_default();
            writeln!(
                out,
                "  NEW KEY       {} (after {after})",
                changed.fingerprint
            )?;
            writeln!(out, "  nothing is sent to it before you accept the new key")?;
        }
        Ok(())
    }
}

fn list(common: &Common, stdout: &mut dyn Write) -> Result<(), CliError> {
    let pins = Wallet::open(&CommandContext::open(common)?.home)?.contacts()?;
    let shown: Vec<ContactView<'_>> = pins.iter().map(ContactView::new).collect();
    show(common.json, stdout, &shown, |out| {
        if shown.is_empty() {
            return writeln!(out, "nobody is remembered yet");
        }
        for one in &shown {
            let note = match one.changed {
                Some(_) => "  NEW KEY, not accepted",
                None => "",
            };
            writeln!(out, "{}  {}{note}", one.fingerprint, one.name())?;
        }
        Ok(())
    })
}

fn show_one(one: &One, stdout: &mut dyn Write) -> Result<(), CliError> {
    let wallet = Wallet::open(&CommandContext::open(&one.common)?.home)?;
    let pin = find(&wallet, &one.actor)?;
    let shown = ContactView::new(&pin);
    show(one.common.json, stdout, &shown, |out| {
        shown.render_text(out)
    })
}

/// Finds a contact by handle or DID.
fn find(wallet: &Wallet, text: &str) -> Result<Pin, CliError> {
    let wanted = actor(text)?;
    let found = match &wanted {
        Actor::Did(did) => wallet.pin(did)?,
        Actor::Handle(handle) => {
            let pins = wallet.contacts()?;
            let is_now = pins.iter().find(|pin| pin.handle.as_ref() == Some(handle));
            let was = || pins.iter().find(|pin| pin.is_known_by(handle));
            is_now.or_else(was).cloned()
        }
    };
    found.ok_or_else(|| CliError {
        exit: Exit::Failed,
        message: format!("{} is no contact of this wallet", line(text)),
        hint: "atcomm contacts lists those who are".to_owned(),
    })
}

fn forget(one: &One, stdout: &mut dyn Write) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Forgotten<'a> {
        did: &'a Did,
    }
    let wallet = Wallet::open(&CommandContext::open(&one.common)?.home)?;
    let pin = find(&wallet, &one.actor)?;
    let lock = wallet.lock()?;
    wallet.delete_pin(&pin.account)?;
    drop(lock);
    let answer = Forgotten { did: &pin.account };
    show(one.common.json, stdout, &answer, |out| {
        writeln!(out, "{} is forgotten", ContactView::new(&pin).name())
    })
}

fn accept(one: &One, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<(), CliError> {
    let wanted = actor(&one.actor)?;
    let context = CommandContext::open(&one.common)?;
    let wallet = Wallet::open(&context.home)?;
    let pins = wallet.contacts()?;
    let lookup = interactive_lookup(&context, &wallet, stderr)?;
    let resolved = context
        .block_on(lookup.resolve(&wanted, &pins))
        .map_err(|error| about(&wanted, error))?;
    match atcomm_client::accept(&wallet, &pins, &resolved)? {
        Acceptance::Accepted => {}
        Acceptance::Unconfirmed(blocker) => return Err(blocked(&blocker, &resolved)),
        Acceptance::ChangedAgain => {
            return Err(CliError {
                exit: Exit::Untrusted,
                message: format!(
                    "the key has changed once more since it was shown: its fingerprint is now {}",
                    fingerprint(resolved.package.peer())
                ),
                hint: "compare that one, and accept again".to_owned(),
            });
        }
        Acceptance::Outdated => {
            return Err(CliError {
                exit: Exit::Failed,
                message: "another command has changed what is remembered of it meanwhile"
                    .to_owned(),
                hint: "nothing was accepted; look again with atcomm contacts, and accept again"
                    .to_owned(),
            });
        }
    }
    let shown = ContactView::new(resolved.trust.accepted());
    show(one.common.json, stdout, &shown, |out| {
        let moved_from = resolved.trust.moved_from();
        if let Some(before) = moved_from {
            writeln!(
                out,
                "the handle is accepted as this account's, and no more {before}'s"
            )?;
        }
        match &resolved.trust.change {
            KeyChange::Changed { .. } => writeln!(out, "the new key is accepted")?,
            _ if moved_from.is_some() => {}
            KeyChange::First => writeln!(out, "it is remembered from now on")?,
            _ => writeln!(out, "nothing waited to be accepted")?,
        }
        shown.render_text(out)
    })
}
