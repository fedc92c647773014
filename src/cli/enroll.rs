//! `atcomm enroll`, `atcomm rotate`, `atcomm unenroll`.

use std::io::{self, Write};

use serde::Serialize;

use super::context::{CommandContext, Common, Own, actor};
use super::output::show;
use super::sign_in::{SignIn, interruptible, name, print_step};
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{
    EnrolError, Enroller, Enrolment, Located, MailError, Operation, Outcome, Plan, Unenrolled,
    Wallet, mediator_did,
};
use atcomm_proto::syntax::MediatorDid;

/// `atcomm enroll`.
#[derive(Debug, clap::Args)]
pub(super) struct Enroll {
    /// Your account, by handle or DID
    #[arg(value_name = "ACTOR")]
    actor: String,
    /// Who keeps your mail: a host, an origin or a did:web; once for each, in the order in which
    /// senders try them [default: as before]
    #[arg(long, short, value_name = "MEDIATOR")]
    mediator: Vec<String>,
    /// Name of this device in the record, such as phone; "" for none [default: as before]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// Replace the key of another device or wallet
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    sign_in: SignIn,
    #[command(flatten)]
    common: Common,
}

/// `atcomm rotate` and `atcomm unenroll`.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    sign_in: SignIn,
    #[command(flatten)]
    own: Own,
}

/// An account after a change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    account: String,
    handle: Option<String>,
    pds: String,
    /// The did:peer in the record; `None` without a record.
    peer: Option<String>,
    mediators: Vec<Mediator>,
    directory: Option<String>,
    label: Option<String>,
    wallet: String,
}

#[derive(Serialize)]
struct Mediator {
    did: String,
    registered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Report {
    fn new(enrolment: &Enrolment, missing: &[(MediatorDid, MailError)], wallet: &Wallet) -> Self {
        let mediators = enrolment.mediators.iter().map(|did| {
            let error = missing.iter().find(|(one, _)| one == did);
            Mediator {
                did: did.to_string(),
                registered: enrolment.is_registered(did) && error.is_none(),
                why: error.map(|(_, error)| error.to_string()),
            }
        });
        let current = enrolment.current();
        Self {
            account: enrolment.account.to_string(),
            handle: enrolment.handle.as_ref().map(ToString::to_string),
            pds: enrolment.pds.to_string(),
            peer: current.map(|key| key.peer.as_str().to_owned()),
            mediators: mediators.collect(),
            directory: enrolment.directory.as_ref().map(ToString::to_string),
            label: enrolment.label.clone(),
            wallet: wallet.home().display().to_string(),
        }
    }

    fn render_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = self.handle.as_ref().unwrap_or(&self.account);
        writeln!(out, "{name} is enrolled")?;
        writeln!(out, "  account    {}", self.account)?;
        if let Some(peer) = &self.peer {
            writeln!(out, "  messaging  {peer}")?;
        }
        for mediator in &self.mediators {
            let note = if mediator.registered {
                ""
            } else {
                " (not yet)"
            };
            writeln!(out, "  mediator   {}{note}", mediator.did)?;
        }
        if let Some(directory) = &self.directory {
            writeln!(out, "  directory  {directory}")?;
        }
        writeln!(out, "  wallet     {}", self.wallet)
    }
}

/// Fails where mediators have not taken the key.
fn check_missing(missing: &[(MediatorDid, MailError)]) -> Result<(), CliError> {
    let Some((did, error)) = missing.first() else {
        return Ok(());
    };
    let is_transient = missing.iter().any(|(_, error)| error.is_transient());
    Err(CliError {
        exit: if is_transient {
            Exit::Unreachable
        } else {
            Exit::Failed
        },
        message: format!("{did} does not keep the mail yet: {error}"),
        hint: "the key is published; run `atcomm enroll` again and it finishes".to_owned(),
    })
}

/// Enrols an account, or changes how it is enrolled.
pub(super) fn enroll(
    args: &Enroll,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let context = CommandContext::open(&args.common)?;
    let actor = actor(&args.actor)?;
    let mediators = args.mediator.iter().map(|text| {
        mediator_did(text, context.client.net.development()).ok_or_else(|| CliError {
            exit: Exit::Usage,
            message: format!("{} is no mediator", line(text)),
            hint: "name a host, such as mail.example.com, or a did:web".to_owned(),
        })
    });
    let plan = Plan {
        mediators: mediators.collect::<Result<_, _>>()?,
        label: args.label.clone(),
        directory: context.client.directory.clone(),
        replace: args.replace,
    };
    let wallet = Wallet::open(&context.home)?;
    let enroller = Enroller::new(&context.client, &wallet);
    let located = args.sign_in.before(&context, enroller.locate(&actor))?;
    args.sign_in
        .before(&context, enroller.check_plan(&located, &plan))?;
    args.sign_in
        .ensure(&context, &enroller, &located, Operation::Enroll)?;
    let outcome = interruptible(
        &context,
        enroller.enroll(&located, &plan, &mut |step| print_step(stderr, &step)),
    )?;
    let report = Report::new(&outcome.enrolment, &outcome.missing, &wallet);
    show(args.common.json, stdout, &report, |out| {
        report.render_text(out)
    })?;
    check_missing(&outcome.missing)?;
    if outcome.is_first {
        let _ = writeln!(
            stderr,
            "only this wallet can read your mail: make a backup with `atcomm backup FILE`"
        );
    }
    Ok(())
}

/// Runs an operation on an account of the wallet, signed in where the operation needs that.
fn change<T>(
    args: &Change,
    operation: Operation,
    work: impl AsyncFnOnce(&Enroller, &Located) -> Result<T, EnrolError>,
) -> Result<(T, Located, Wallet), CliError> {
    let context = CommandContext::open(&args.own.common)?;
    let wallet = Wallet::open(&context.home)?;
    let enroller = Enroller::new(&context.client, &wallet);
    let actor = args.own.account.as_deref();
    let located = args.sign_in.before(&context, enroller.locate_own(actor))?;
    args.sign_in
        .ensure(&context, &enroller, &located, operation)?;
    let done = interruptible(&context, work(&enroller, &located))?;
    Ok((done, located, wallet))
}

/// Replaces the key of an account.
pub(super) fn rotate(
    args: &Change,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let rotated = change(args, Operation::Rotate, async |enroller, located| {
        enroller
            .rotate(located, &mut |step| print_step(stderr, &step))
            .await
    })?;
    let (
        Outcome {
            enrolment, missing, ..
        },
        located,
        wallet,
    ) = rotated;
    let report = Report::new(&enrolment, &missing, &wallet);
    show(args.own.common.json, stdout, &report, |out| {
        writeln!(out, "{} has a new messaging key", name(&located))?;
        if let Some(peer) = &report.peer {
            writeln!(out, "  messaging  {peer}")?;
        }
        writeln!(
            out,
            "mail to the one before is read for another 14 days; take a new backup"
        )
    })?;
    check_missing(&missing)
}

/// Unenrolls an account.
pub(super) fn unenroll(
    args: &Change,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let unenrolled = change(args, Operation::Unenroll, async |enroller, located| {
        enroller
            .unenroll(located, &mut |step| print_step(stderr, &step))
            .await
    })?;
    let (unenrolled, located, wallet) = unenrolled;
    let Unenrolled {
        enrolment,
        foreign_peer,
    } = &unenrolled;
    let report = Report::new(enrolment, &[], &wallet);
    show(args.own.common.json, stdout, &report, |out| {
        writeln!(
            out,
            "{} is not enrolled from this wallet any more",
            name(&located)
        )?;
        if foreign_peer.is_some() {
            writeln!(
                out,
                "its record names a key of another wallet, and was left as it is"
            )?;
        }
        if !enrolment.keys.is_empty() {
            writeln!(out, "mail that is on its way is read for another 14 days")?;
        }
        Ok(())
    })
}
