//! `atcomm enroll`, `atcomm rotate`, `atcomm unenroll`.

use std::io::{self, Write};

use serde::Serialize;

use super::context::{CommandContext, Common, Own, actor};
use super::output::show;
use super::sign_in::{SignIn, interruptible, name, tell};
use super::{CliError, Exit};
use atcomm_client::enrolment::enroll::mediator_did;
use atcomm_client::{AccountStore, Enroller, Enrolment, Located, MailError, Outcome, Plan, Wallet};
use atcomm_proto::syntax::{Actor, MediatorDid};

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
    /// The did:peer in the record; none where there is none.
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
    fn of(outcome: &Outcome, wallet: &Wallet) -> Self {
        let Outcome { enrolment, missing } = outcome;
        let current = enrolment.current();
        let mediators = enrolment.mediators.iter().map(|did| {
            let why = missing.iter().find(|(one, _)| one == did);
            Mediator {
                did: did.to_string(),
                registered: current.is_some_and(|key| key.registered.contains(did))
                    && why.is_none(),
                why: why.map(|(_, why)| why.to_string()),
            }
        });
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
            let note = match mediator.registered {
                true => "",
                false => " (not yet)",
            };
            writeln!(out, "  mediator   {}{note}", mediator.did)?;
        }
        if let Some(directory) = &self.directory {
            writeln!(out, "  directory  {directory}")?;
        }
        writeln!(out, "  wallet     {}", self.wallet)
    }
}

/// Complains of mediators that have not taken the key.
fn complete(missing: &[(MediatorDid, MailError)]) -> Result<(), CliError> {
    let Some((did, why)) = missing.first() else {
        return Ok(());
    };
    let is_transient = missing.iter().any(|(_, why)| why.is_transient());
    Err(CliError {
        exit: match is_transient {
            true => Exit::Unreachable,
            false => Exit::Failed,
        },
        message: format!("{did} does not keep the mail yet: {why}"),
        hint: "the key is published; run `atcomm enroll` again and it finishes".to_owned(),
    })
}

/// Enrols.
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
            message: format!("{text} is no mediator"),
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
    let enroller = Enroller::new(
        &context.client.net,
        &context.client.identity,
        &context.client.clock,
        &wallet,
    );
    let sign_in = &args.sign_in;
    let located = sign_in.before(&context, enroller.locate(&actor))?;
    let is_first = enroller.store(&located).enrolment()?.is_none();
    sign_in.ensure(&context, &enroller, &located)?;
    let outcome = interruptible(
        &context,
        enroller.enroll(&located, &plan, &mut |step| tell(stderr, &step)),
    )?;
    let report = Report::of(&outcome, &wallet);
    show(args.common.json, stdout, &report, |out| {
        report.render_text(out)
    })?;
    complete(&outcome.missing)?;
    if is_first {
        drop(writeln!(
            stderr,
            "only this wallet can read your mail: make a backup with `atcomm backup FILE`"
        ));
    }
    Ok(())
}

/// The account that a command is about, as it is found now.
struct Known {
    context: CommandContext,
    wallet: Wallet,
    enroller: Enroller,
    located: Located,
    enrolment: Enrolment,
}

impl Known {
    fn open(args: &Change) -> Result<Self, CliError> {
        let context = CommandContext::open(&args.own.common)?;
        let wallet = Wallet::open(&context.home)?;
        let store: AccountStore = wallet.find(args.own.account.as_deref())?;
        let enrolment = store.enrolment()?.ok_or_else(|| {
            CliError::from(atcomm_client::EnrolError::NotEnrolled(
                store.account().clone(),
            ))
        })?;
        let enroller = Enroller::new(
            &context.client.net,
            &context.client.identity,
            &context.client.clock,
            &wallet,
        );
        let actor = Actor::Did(store.account().clone());
        let located = args.sign_in.before(&context, enroller.locate(&actor))?;
        Ok(Self {
            context,
            wallet,
            enroller,
            located,
            enrolment,
        })
    }

    /// Makes sure of a session at the account's PDS.
    fn sign_in(&self, args: &Change) -> Result<(), CliError> {
        args.sign_in
            .ensure(&self.context, &self.enroller, &self.located)
    }
}

/// Replaces the key.
pub(super) fn rotate(
    args: &Change,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let known = Known::open(args)?;
    known.sign_in(args)?;
    let outcome = interruptible(
        &known.context,
        known
            .enroller
            .rotate(&known.located, &mut |step| tell(stderr, &step)),
    )?;
    let report = Report::of(&outcome, &known.wallet);
    show(args.own.common.json, stdout, &report, |out| {
        writeln!(out, "{} has a new messaging key", name(&known.located))?;
        if let Some(peer) = &report.peer {
            writeln!(out, "  messaging  {peer}")?;
        }
        writeln!(
            out,
            "mail to the one before is read for another 14 days; take a new backup"
        )
    })?;
    complete(&outcome.missing)
}

/// Leaves.
pub(super) fn unenroll(
    args: &Change,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let known = Known::open(args)?;
    let (context, enroller, located) = (&known.context, &known.enroller, &known.located);
    let standing = args.sign_in.before(context, enroller.standing(located))?;
    if standing.is_published {
        known.sign_in(args)?;
    }
    let outcome = interruptible(
        context,
        enroller.unenroll(located, &mut |step| tell(stderr, &step)),
    )?;
    // Whatever else there is to be said to the PDS needs a password again.
    interruptible(context, async {
        Ok(enroller.client(located).sign_out().await?)
    })?;
    let report = Report::of(&outcome, &known.wallet);
    let others = standing.peer.filter(|_| !standing.is_published);
    show(args.own.common.json, stdout, &report, |out| {
        writeln!(
            out,
            "{} is not enrolled from this wallet any more",
            name(located)
        )?;
        if others.is_some() {
            writeln!(
                out,
                "its record names a key of another wallet, and was left as it is"
            )?;
        }
        if known.enrolment.keys.is_empty() {
            return Ok(());
        }
        writeln!(out, "mail that is on its way is read for another 14 days")
    })
}
