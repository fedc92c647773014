//! `atcomm check`.

use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::context::Own;
use super::hint::of_account;
use super::mail_context::{MailContext, name};
use super::output::{show, unwritten};
use super::terminal::{line, short_did};
use super::{CliError, Exit};
use atcomm_client::{
    AccountClient, AccountError, KeyState, MailError, MediatorClient, MessagingKey, RecipientError,
    SelfTestError, proven_document, self_test,
};
use atcomm_net::identity::{DidDocument, Freshness, HandleCheck};
use atcomm_proto::syntax::{Actor, MediatorDid, Origin};

/// Check that messages reach you: account, record, directory, mediators
///
/// Each mediator is sent a message to yourself, which is taken from the queue again. Nothing else
/// is changed.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    own: Own,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What: key, account, sign-in, record, proof, directory, mediator, ping, registration,
    /// delivery.
    check: &'static str,
    /// Of whom, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<MediatorDid>,
    ok: bool,
    /// What was found.
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Shows findings as they come, or keeps them for the one answer to programs.
struct Findings<'o> {
    json: bool,
    stdout: &'o mut dyn Write,
    all: Vec<Finding>,
}

pub(super) fn run(args: &Check, stdout: &mut dyn Write, _: &mut dyn Write) -> Result<(), CliError> {
    let context = MailContext::open(&args.own)?;
    let key = context.account.key()?;
    let mut findings = Findings {
        json: args.own.common.json,
        stdout,
        all: Vec::new(),
    };
    context
        .command
        .block_on(look(&context, key, &mut findings))?;
    let Findings { json, stdout, all } = findings;
    let failed = all.iter().filter(|one| !one.ok).count();
    if json {
        let answer = json!({"account": context.account.enrolment().account, "ok": failed == 0, "checks": all});
        show(true, stdout, &answer, |_| Ok(()))?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError {
            exit: Exit::Failed,
            message: format!("{failed} of {} checks failed", all.len()),
            hint: "each says above what to do".to_owned(),
        }),
    }
}

async fn look(
    context: &MailContext,
    key: &MessagingKey,
    findings: &mut Findings<'_>,
) -> Result<(), CliError> {
    about_key(key, findings)?;
    let document = about_account(context, findings).await?;
    let pds = document.as_ref().and_then(|found| found.pds.clone().ok());
    let pds = pds.unwrap_or_else(|| context.account.enrolment().pds.clone());
    about_record(context, key, &pds, findings).await?;
    about_proof(context, key, findings).await?;
    about_directory(context, key, findings).await?;
    for mediator in &context.account.enrolment().mediators {
        about_mediator(context, key, mediator, findings).await?;
    }
    Ok(())
}

impl Findings<'_> {
    fn ok(&mut self, check: &'static str, detail: impl Into<String>) -> Result<(), CliError> {
        self.add(check, None, Ok(detail.into()))
    }

    fn failed(
        &mut self,
        check: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<(), CliError> {
        self.add(check, None, Err((detail.into(), hint.into())))
    }

    fn add(
        &mut self,
        check: &'static str,
        of: Option<&MediatorDid>,
        found: Result<String, (String, String)>,
    ) -> Result<(), CliError> {
        let ok = found.is_ok();
        let (detail, hint) = match found {
            Ok(detail) => (detail, None),
            Err((detail, hint)) => (detail, Some(hint)),
        };
        let finding = Finding {
            check,
            of: of.cloned(),
            ok,
            detail: line(&detail),
            hint,
        };
        if !self.json {
            let word = if ok { "ok" } else { "failed" };
            let mut text = format!("{word:<7} {check:<13} {}\n", finding.detail);
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("{:<7} hint: {hint}\n", ""));
            }
            let written = self.stdout.write_all(text.as_bytes());
            written
                .and_then(|()| self.stdout.flush())
                .or_else(unwritten)?;
        }
        self.all.push(finding);
        Ok(())
    }
}

fn about_key(key: &MessagingKey, findings: &mut Findings<'_>) -> Result<(), CliError> {
    let shown = short_did(key.peer.as_str());
    match key.state {
        KeyState::Published { at } => findings.ok("key", format!("{shown}, published {at}")),
        KeyState::Minted | KeyState::Replaced { .. } => findings.failed(
            "key",
            format!("{shown} is in the wallet, and not known to be published"),
            "run `atcomm enroll` again: it finishes what it began",
        ),
    }
}

async fn about_account(
    context: &MailContext,
    findings: &mut Findings<'_>,
) -> Result<Option<DidDocument>, CliError> {
    let account = &context.account.enrolment().account;
    let identity = context.command.client.identity.interactive();
    let (net, clock) = (&context.command.client.net, &context.command.client.clock);
    let document = match proven_document(net, &identity, clock, account).await {
        Ok(document) => document,
        Err(error) => {
            findings.failed("account", format!("{account}: {error}"), "try again later")?;
            return Ok(None);
        }
    };
    let check = identity.verify_handle(&document).await;
    let pds = match &document.pds {
        Ok(pds) => pds.clone(),
        Err(lack) => {
            findings.failed(
                "account",
                format!("the DID document of {account} names no usable host: {lack}"),
                "only the operator of the account's host can mend that",
            )?;
            return Ok(Some(document));
        }
    };
    match check {
        HandleCheck::Verified(handle) => findings.ok(
            "account",
            format!("{} is {account}, at {pds}", name(Some(&handle), account)),
        )?,
        HandleCheck::Invalid => findings.failed(
            "account",
            format!("{account}, at {pds}, has no handle that leads back to it"),
            "others see your messages under your DID; set your handle anew to mend it",
        )?,
        HandleCheck::Inconclusive => findings.failed(
            "account",
            format!("the handle of {account} cannot be looked up now"),
            "try again later",
        )?,
    }
    Ok(Some(document))
}

async fn about_record(
    context: &MailContext,
    key: &MessagingKey,
    pds: &Origin,
    findings: &mut Findings<'_>,
) -> Result<(), CliError> {
    let client = AccountClient::new(&context.command.client.net, pds, context.account.store());
    match client.is_signed_in().await {
        Ok(true) => findings.ok("sign-in", format!("the session at {pds} is good"))?,
        Ok(false) | Err(AccountError::SignedOut) => findings.failed(
            "sign-in",
            format!("the session at {pds} has ended"),
            "mail is not affected; `atcomm enroll` signs in again with your app password",
        )?,
        Err(error) => findings.failed("sign-in", error.to_string(), of_account(&error))?,
    }
    let published = match client.record().await {
        Ok(Some(published)) => published,
        Ok(None) => {
            return findings.failed(
                "record",
                "the account has no key package: nobody can write to you",
                "publish it with `atcomm enroll`",
            );
        }
        Err(error) => return findings.failed("record", error.to_string(), of_account(&error)),
    };
    if published.peer() != Some(key.peer.as_str()) {
        return findings.failed(
            "record",
            "the record names another key than the one in this wallet: mail goes elsewhere",
            "if another device of yours wrote it, use that; if not, `atcomm enroll --replace`",
        );
    }
    let wanted = json!(context.account.enrolment().mediators);
    if published.value.get("mediators") != Some(&wanted) {
        return findings.failed(
            "record",
            "the record names other mediators than this wallet",
            "run `atcomm enroll` with the mediators that you want",
        );
    }
    findings.ok(
        "record",
        "it names the key and the mediators of this wallet",
    )
}

/// What everybody else finds who trusts no directory.
async fn about_proof(
    context: &MailContext,
    key: &MessagingKey,
    findings: &mut Findings<'_>,
) -> Result<(), CliError> {
    let me = Actor::Did(context.account.enrolment().account.clone());
    let thorough = context.account.lookup().clone().thorough();
    let resolved = match thorough.resolve(&me, &[]).await {
        Ok(resolved) => resolved,
        Err(error) => {
            let hint = match &error {
                RecipientError::Unreachable(_) => "try again later",
                _ => "nobody can send to you until that is mended",
            };
            return findings.failed("proof", error.to_string(), hint);
        }
    };
    if resolved.package.peer() != key.peer.as_str() {
        return findings.failed(
            "proof",
            "what is proven of the account names another key than the one in this wallet",
            "if it was just published, try again in a minute",
        );
    }
    if resolved.ambiguous == Some(true) {
        return findings.failed(
            "proof",
            "other accounts publish your messaging key as theirs",
            "senders are warned; `atcomm rotate` gives you a key that only you publish",
        );
    }
    let warnings: Vec<String> = resolved.warnings.iter().map(ToString::to_string).collect();
    match warnings.is_empty() {
        true => findings.ok("proof", "signed by the account's key, as others verify it"),
        false => findings.failed("proof", warnings.join("; "), "senders are told the same"),
    }
}

async fn about_directory(
    context: &MailContext,
    key: &MessagingKey,
    findings: &mut Findings<'_>,
) -> Result<(), CliError> {
    let Some(directory) = context.account.lookup().directory() else {
        return findings.ok("directory", "none is asked; accounts' own servers are");
    };
    let origin = directory.origin();
    match directory
        .resolve(&context.account.enrolment().account)
        .await
    {
        Ok(view) if view.peer == key.peer.as_str() => {
            findings.ok("directory", format!("{origin} shows your key"))
        }
        Ok(_) => findings.failed(
            "directory",
            format!("{origin} shows another key than the one in this wallet"),
            "if it was just published, try again in a minute",
        ),
        Err(error) => findings.failed(
            "directory",
            format!("{origin}: {error}"),
            "others may still find you by your own host; --directory asks another one",
        ),
    }
}

async fn about_mediator(
    context: &MailContext,
    key: &MessagingKey,
    did: &MediatorDid,
    findings: &mut Findings<'_>,
) -> Result<(), CliError> {
    let (net, clock) = (&context.command.client.net, &context.command.client.clock);
    let identity = &context.command.client.identity;
    let client = MediatorClient::open(net, identity, clock, did, key, Freshness::Refresh).await;
    let client = match client {
        Ok(client) => client,
        Err(error) => return findings.add("mediator", Some(did), Err(trouble(did, &error))),
    };
    let detail = format!("{did} has a DID document with a key and an endpoint");
    findings.add("mediator", Some(did), Ok(detail))?;
    if let Err(error) = client.ping().await {
        return findings.add("ping", Some(did), Err(trouble(did, &error)));
    }
    findings.add("ping", Some(did), Ok(format!("{did} answers")))?;
    match client.is_registered().await {
        Ok(true) => {
            let detail = format!("{did} keeps mail for your key");
            findings.add("registration", Some(did), Ok(detail))?;
        }
        Ok(false) => {
            let detail = format!("{did} does not keep mail for your key");
            let hint = "register with it by running `atcomm enroll` again";
            return findings.add("registration", Some(did), Err((detail, hint.to_owned())));
        }
        Err(error) => return findings.add("registration", Some(did), Err(trouble(did, &error))),
    }
    let found = match self_test(net, clock, &client).await {
        Ok(time) => {
            let millis = time.as_millis();
            Ok(format!(
                "a message to yourself by {did} came back in {millis} ms"
            ))
        }
        Err(SelfTestError::Mail(error)) => Err(trouble(did, &error)),
        Err(error) => Err((
            format!("{did}: {error}"),
            "mail that others send may be lost there; tell its operator".to_owned(),
        )),
    };
    findings.add("delivery", Some(did), found)
}

fn trouble(did: &MediatorDid, error: &MailError) -> (String, String) {
    let hint = match error.is_transient() {
        true => "mail goes to your next mediator, if you have one; try again later",
        false => "tell its operator, or enrol with another mediator",
    };
    (format!("{did}: {error}"), hint.to_owned())
}
