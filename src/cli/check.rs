//! `atcomm check`: the words and the hints of findings.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::context::Own;
use super::hint::of_account;
use super::mail_context::MailContext;
use super::output::{show, unwritten};
use super::terminal::{account_name, line, short_did};
use super::{CliError, Exit};
use atcomm_client::diagnose::{
    AccountProblem, ConfirmedAccount, DirectoryProblem, Finding, ProofProblem, RecordProblem,
    RegistrationProblem, SignInProblem, diagnose,
};
use atcomm_client::{MailError, RecipientError, SelfTestError, Warning};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, MediatorDid, Origin};

/// Check that messages reach you: account, record, directory, mediators
///
/// Each mediator is sent a message to yourself, which is taken from the queue again. Nothing else
/// is changed.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    own: Own,
}

/// One finding, as it is printed.
#[derive(Debug, Serialize)]
struct Printed {
    /// The check: key, account, sign-in, record, proof, directory, mediator, ping, registration,
    /// delivery.
    check: &'static str,
    /// The mediator, in checks of mediators.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<MediatorDid>,
    ok: bool,
    /// What was found.
    detail: String,
    /// What to do, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// A problem in words.
struct Problem {
    detail: String,
    hint: String,
}

/// What passed, in words.
struct Passed {
    detail: String,
    hint: Option<String>,
}

impl From<String> for Passed {
    fn from(detail: String) -> Self {
        Self { detail, hint: None }
    }
}

pub(super) fn run(args: &Check, stdout: &mut dyn Write, _: &mut dyn Write) -> Result<(), CliError> {
    let context = MailContext::open(&args.own)?.with_key()?;
    let json = args.own.common.json;
    let mut all = Vec::new();
    context
        .command
        .block_on(diagnose(&context.account, |finding| {
            let printed = Printed::of(&finding);
            if !json {
                printed.write(stdout).or_else(unwritten)?;
            }
            all.push(printed);
            Ok::<(), CliError>(())
        }))?;
    let failed = all.iter().filter(|one| !one.ok).count();
    if json {
        let account = &context.account.enrolment().account;
        let answer = json!({"account": account, "ok": failed == 0, "checks": all});
        show(true, stdout, &answer, |_| Ok(()))?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(CliError {
        exit: Exit::Failed,
        message: format!("{failed} of {} checks failed", all.len()),
        hint: "each says above what to do".to_owned(),
    })
}

impl Printed {
    fn of(finding: &Finding) -> Self {
        let (check, words): (_, Result<Passed, Problem>) = match finding {
            Finding::NoKey => {
                let hint = "make and publish one with `atcomm enroll`";
                let words = problem("the account has no messaging key in this wallet", hint);
                ("key", plain(words))
            }
            Finding::Key { peer, published_at } => {
                let shown = short_did(peer.as_str());
                ("key", plain(of_key(&shown, published_at.as_ref())))
            }
            Finding::Account { account, result } => {
                ("account", plain(of_own_account(account, result)))
            }
            Finding::SignIn { pds, result } => ("sign-in", plain(of_sign_in(pds, result))),
            Finding::Record(result) => ("record", plain(of_record(result))),
            Finding::Proof(result) => ("proof", of_proof(result)),
            Finding::Directory { directory, result } => {
                let words = of_directory(directory.as_ref(), result);
                ("directory", plain(words))
            }
            Finding::Mediator { did, result } => {
                let passed = "has a DID document with a key and an endpoint";
                ("mediator", plain(of_mediator(did, result, passed)))
            }
            Finding::Ping { did, result } => ("ping", plain(of_mediator(did, result, "answers"))),
            Finding::Registration { did, result } => {
                ("registration", plain(of_registration(did, result)))
            }
            Finding::Delivery { did, result } => ("delivery", plain(of_delivery(did, result))),
        };
        let (detail, hint) = match words {
            Ok(Passed { detail, hint }) => (detail, hint),
            Err(Problem { detail, hint }) => (detail, Some(hint)),
        };
        Self {
            check,
            of: finding.mediator().cloned(),
            ok: finding.is_ok(),
            detail: line(&detail),
            hint,
        }
    }

    fn write(&self, stdout: &mut dyn Write) -> std::io::Result<()> {
        let word = match &self.hint {
            _ if !self.ok => "failed",
            Some(_) => "note",
            None => "ok",
        };
        let mut text = format!("{word:<7} {:<13} {}\n", self.check, self.detail);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{:<7} hint: {hint}\n", ""));
        }
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

fn plain(words: Result<String, Problem>) -> Result<Passed, Problem> {
    words.map(Passed::from)
}

fn problem(detail: impl Into<String>, hint: impl Into<String>) -> Result<String, Problem> {
    Err(Problem {
        detail: detail.into(),
        hint: hint.into(),
    })
}

fn of_key(shown: &str, published_at: Option<&Timestamp>) -> Result<String, Problem> {
    match published_at {
        Some(at) => Ok(format!("{shown}, published {at}")),
        None => problem(
            format!("{shown} is in the wallet, and not known to be published"),
            "run `atcomm enroll` again: it finishes what it began",
        ),
    }
}

fn of_own_account(
    account: &Did,
    result: &Result<ConfirmedAccount, AccountProblem>,
) -> Result<String, Problem> {
    match result {
        Ok(ConfirmedAccount { handle, pds }) => Ok(format!(
            "{} is {account}, at {pds}",
            account_name(Some(handle), account)
        )),
        Err(AccountProblem::Identity(error)) => {
            problem(format!("{account}: {error}"), "try again later")
        }
        Err(AccountProblem::NoPds(reason)) => problem(
            format!("the DID document of {account} names no usable host: {reason}"),
            "only the operator of the account's host can mend that",
        ),
        Err(AccountProblem::HandleInvalid { pds }) => problem(
            format!("{account}, at {pds}, has no handle that leads back to it"),
            "others see your messages under your DID; set your handle anew to mend it",
        ),
        Err(AccountProblem::HandleUnknown) => problem(
            format!("the handle of {account} cannot be looked up now"),
            "try again later",
        ),
    }
}

fn of_sign_in(pds: &Origin, result: &Result<(), SignInProblem>) -> Result<String, Problem> {
    match result {
        Ok(()) => Ok(format!("the session at {pds} is good")),
        Err(SignInProblem::SignedOut) => problem(
            format!("the session at {pds} has ended"),
            "mail is not affected; `atcomm enroll` signs in again with your app password",
        ),
        Err(SignInProblem::Pds(error)) => problem(error.to_string(), of_account(error)),
    }
}

fn of_record(result: &Result<(), RecordProblem>) -> Result<String, Problem> {
    match result {
        Ok(()) => Ok("it names the key and the mediators of this wallet".to_owned()),
        Err(RecordProblem::Missing) => problem(
            "the account has no key package: nobody can write to you",
            "publish it with `atcomm enroll`",
        ),
        Err(RecordProblem::OtherKey) => problem(
            "the record names another key than the one in this wallet: mail goes elsewhere",
            "if another device of yours wrote it, use that; if not, `atcomm enroll --replace`",
        ),
        Err(RecordProblem::OtherMediators) => problem(
            "the record names other mediators than this wallet",
            "run `atcomm enroll` with the mediators that you want",
        ),
        Err(RecordProblem::Pds(error)) => problem(error.to_string(), of_account(error)),
    }
}

fn of_proof(result: &Result<Vec<MediatorDid>, ProofProblem>) -> Result<Passed, Problem> {
    let words = match result {
        Ok(outdated) if outdated.is_empty() => {
            Ok("signed by the account's key, as others verify it".to_owned())
        }
        Ok(outdated) => {
            let names: Vec<&str> = outdated.iter().map(MediatorDid::as_str).collect();
            return Ok(Passed {
                detail: format!(
                    "signed by the account's key; the directory's copy of the keys of {} is out of \
                     date, and those of its own document are used",
                    names.join(", ")
                ),
                hint: Some("if it is still so tomorrow, tell the directory's operator".to_owned()),
            });
        }
        Err(ProofProblem::Lookup(error)) => {
            let hint = match error {
                RecipientError::Unreachable(_) => "try again later",
                _ => "nobody can send to you until that is mended",
            };
            problem(error.to_string(), hint)
        }
        Err(ProofProblem::OtherKey) => problem(
            "what is proven of the account names another key than the one in this wallet",
            "if it was just published, try again in a minute",
        ),
        Err(ProofProblem::Ambiguous) => problem(
            "other accounts publish your messaging key as theirs",
            "senders are warned; `atcomm rotate` gives you a key that only you publish",
        ),
        Err(ProofProblem::Warnings(warnings)) => {
            let warnings: Vec<String> = warnings.iter().map(Warning::to_string).collect();
            problem(warnings.join("; "), "senders are told the same")
        }
    };
    plain(words)
}

fn of_directory(
    directory: Option<&Origin>,
    result: &Result<(), DirectoryProblem>,
) -> Result<String, Problem> {
    let Some(origin) = directory else {
        return Ok("none is asked; accounts' own servers are".to_owned());
    };
    match result {
        Ok(()) => Ok(format!("{origin} shows your key")),
        Err(DirectoryProblem::OtherKey) => problem(
            format!("{origin} shows another key than the one in this wallet"),
            "if it was just published, try again in a minute",
        ),
        Err(DirectoryProblem::Lookup(error)) => problem(
            format!("{origin}: {error}"),
            "others may still find you by your own host; --directory asks another one",
        ),
    }
}

fn of_mediator(
    did: &MediatorDid,
    result: &Result<(), MailError>,
    passed: &str,
) -> Result<String, Problem> {
    match result {
        Ok(()) => Ok(format!("{did} {passed}")),
        Err(error) => of_mail(did, error),
    }
}

fn of_registration(
    did: &MediatorDid,
    result: &Result<(), RegistrationProblem>,
) -> Result<String, Problem> {
    match result {
        Ok(()) => Ok(format!("{did} keeps mail for your key")),
        Err(RegistrationProblem::NotRegistered) => problem(
            format!("{did} does not keep mail for your key"),
            "register with it by running `atcomm enroll` again",
        ),
        Err(RegistrationProblem::Mail(error)) => of_mail(did, error),
    }
}

fn of_delivery(
    did: &MediatorDid,
    result: &Result<Duration, SelfTestError>,
) -> Result<String, Problem> {
    match result {
        Ok(time) => Ok(format!(
            "a message to yourself by {did} came back in {} ms",
            time.as_millis()
        )),
        Err(SelfTestError::Mail(error)) => of_mail(did, error),
        Err(error) => problem(
            format!("{did}: {error}"),
            "mail that others send may be lost there; tell its operator",
        ),
    }
}

fn of_mail(did: &MediatorDid, error: &MailError) -> Result<String, Problem> {
    let hint = if error.is_transient() {
        "mail goes to your next mediator, if you have one; try again later"
    } else {
        "tell its operator, or enrol with another mediator"
    };
    problem(format!("{did}: {error}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(finding: &Finding) -> String {
        let mut out = Vec::new();
        Printed::of(finding).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_finding_is_a_line_and_a_problem_has_a_hint() {
        let did = MediatorDid::parse("did:web:mail.example.com").unwrap();
        let delivery = |result| Finding::Delivery {
            did: did.clone(),
            result,
        };
        assert_eq!(
            printed(&delivery(Ok(Duration::from_millis(12)))),
            "ok      delivery      a message to yourself by did:web:mail.example.com came back in \
             12 ms\n"
        );
        assert_eq!(
            printed(&delivery(Err(MailError::Silent.into()))),
            "failed  delivery      did:web:mail.example.com: it gave no answer\n        hint: mail \
             goes to your next mediator, if you have one; try again later\n"
        );
        assert_eq!(
            printed(&Finding::Proof(Ok(vec![did.clone()]))),
            "note    proof         signed by the account's key; the directory's copy of the keys of \
             did:web:mail.example.com is out of date, and those of its own document are used\n        \
             hint: if it is still so tomorrow, tell the directory's operator\n"
        );
        assert_eq!(
            printed(&Finding::Record(Err(RecordProblem::Missing))),
            "failed  record        the account has no key package: nobody can write to you\n        \
             hint: publish it with `atcomm enroll`\n"
        );
    }

    #[test]
    fn programs_get_the_check_the_mediator_and_the_hint() {
        let did = MediatorDid::parse("did:web:mail.example.com").unwrap();
        let result = Err(RegistrationProblem::NotRegistered);
        let printed = Printed::of(&Finding::Registration { did, result });
        assert_eq!(
            json!(printed),
            json!({
                "check": "registration",
                "of": "did:web:mail.example.com",
                "ok": false,
                "detail": "did:web:mail.example.com does not keep mail for your key",
                "hint": "register with it by running `atcomm enroll` again",
            })
        );
        let printed = Printed::of(&Finding::Proof(Ok(Vec::new())));
        assert_eq!(
            json!(printed),
            json!({
                "check": "proof",
                "ok": true,
                "detail": "signed by the account's key, as others verify it",
            })
        );
    }
}
