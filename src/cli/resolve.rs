//! `atcomm resolve`: how an account is written to, and what shows it.

mod offline;
mod render;
mod save;

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::context::{CommandContext, Common, actor};
use super::output::show;
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{
    LookupError, Recipient, RecipientError, RecipientLookup, SendBlocker, Unconfirmed, Wallet,
    fingerprint,
};

use render::RecipientView;

/// Flags of `resolve`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Whom to look up: a handle such as alice.example.com, or a DID
    #[arg(value_name = "ACTOR")]
    actor: Option<String>,
    /// Save what shows it to a file, which anybody can verify with --offline
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    proof: Option<PathBuf>,
    /// Verify such a file without any network, and say what it cannot show
    #[arg(long, value_name = "FILE", conflicts_with = "directly")]
    offline: Option<PathBuf>,
    /// Ask no directory, only the account's own servers
    #[arg(long)]
    directly: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs it.
pub(super) fn run(
    args: &Args,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let actor = args.actor.as_deref().map(actor).transpose()?;
    if let Some(file) = &args.offline {
        return offline::run(file, actor.as_ref(), args.common.json, stdout);
    }
    let Some(actor) = actor else {
        return Err(unnamed());
    };
    let context = CommandContext::open(&args.common)?;
    let wallet = Wallet::open(&context.home)?;
    let pins = wallet.contacts()?;
    let recipients = match args.directly {
        true => context.client.authoritative_lookup(),
        false => recipients(&context, &wallet, stderr)?,
    };
    let resolved = context.block_on(recipients.resolve(&actor, &pins))?;
    if let Some(file) = &args.proof {
        save::save(file, &resolved.evidence.to_vec())?;
    }
    wallet.record(&pins, resolved.pin.as_ref())?;
    let view = RecipientView::new(&resolved);
    show(args.common.json, stdout, &view, |out| view.render_text(out))?;
    if !args.common.json {
        for warning in &resolved.warnings {
            let _ = writeln!(stderr, "warning: {}", line(&warning.to_string()));
        }
        if let Some(file) = &args.proof {
            let _ = writeln!(stderr, "saved {}", file.display());
        }
    }
    match resolved.key_blocker() {
        Some(hold) => Err(held(&hold, &resolved)),
        None => Ok(()),
    }
}

fn unnamed() -> CliError {
    CliError {
        exit: Exit::Usage,
        message: "nobody is named".to_owned(),
        hint: "atcomm resolve ACTOR, or atcomm resolve --offline FILE".to_owned(),
    }
}

/// The look-up of a command that shows what it finds, always with the account's own servers, too.
/// The directory is the one that is named, else that of an own account.
pub(super) fn recipients(
    context: &CommandContext,
    wallet: &Wallet,
    stderr: &mut dyn Write,
) -> Result<RecipientLookup, CliError> {
    let mut own = wallet.enrolments()?.into_iter();
    let own = own.find_map(|one| one.directory);
    if context.client.directory.is_none() && own.is_none() {
        let _ = writeln!(
            stderr,
            "no directory is known (--directory names one); the account's own servers are asked"
        );
    }
    Ok(context.client.lookup(own.as_ref()).thorough())
}

/// Why nothing may be sent, and what lets it be.
pub(super) fn held(hold: &SendBlocker, resolved: &Recipient) -> CliError {
    let hint = match hold {
        SendBlocker::KeyChanged { .. } => format!(
            "compare the fingerprint with its owner by another way; if it is right, atcomm \
             contacts accept {}",
            resolved.account
        ),
        SendBlocker::HandleMoved { handle, .. } => format!(
            "ask the person by another way; if the new account is right, atcomm contacts accept \
             {handle}"
        ),
        SendBlocker::Unconfirmed { .. } => format!(
            "try again later; if its owner tells you by another way that the fingerprint is {}, \
             atcomm send --anyway",
            fingerprint(resolved.package.peer())
        ),
        SendBlocker::Ambiguous { .. } => "send it with --anyway if that does not matter".to_owned(),
    };
    let exit = match hold {
        SendBlocker::Unconfirmed {
            why: Unconfirmed::HostSilent,
            ..
        } => Exit::Unreachable,
        _ => Exit::Untrusted,
    };
    CliError {
        exit,
        message: hold.to_string(),
        hint,
    }
}

impl From<LookupError> for CliError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Recipient(error) => error.into(),
            LookupError::Wallet(error) => error.into(),
        }
    }
}

impl From<RecipientError> for CliError {
    fn from(error: RecipientError) -> Self {
        use atcomm_net::identity::HandleError;

        let (exit, hint) = match &error {
            RecipientError::Handle {
                why: HandleError::Unreachable,
                ..
            }
            | RecipientError::Unreachable(_) => (Exit::Unreachable, "try again later"),
            RecipientError::Handle { .. } | RecipientError::NoAccount => {
                (Exit::Failed, "look at how it is written")
            }
            RecipientError::HandleNotClaimed { .. } => (
                Exit::Untrusted,
                "ask the person for the DID of the account, and look that up",
            ),
            RecipientError::NotEnrolled { .. } | RecipientError::NotEnrolledUnproven => (
                Exit::Failed,
                "its owner can enrol it with atcomm enroll, or with another client",
            ),
            RecipientError::Inactive(_) => (
                Exit::Failed,
                "nothing can be sent to it before it is active again",
            ),
            RecipientError::Invalid(_) => (
                Exit::Failed,
                "its owner has to publish a valid one, for example with atcomm enroll",
            ),
            RecipientError::Unproven { by, .. } => (
                Exit::Untrusted,
                match by {
                    atcomm_client::Source::Directory => {
                        "atcomm resolve --directly shows what the account's own servers say, and --directory \
                         asks another directory; tell the operator of this one"
                    }
                    _ => "somebody may be between you and it; try again from elsewhere",
                },
            ),
            RecipientError::RolledBack { .. } => (
                Exit::Untrusted,
                "a host or the directory may be hiding something newer; ask the person by \
                 another way, and if they had to start anew, atcomm contacts forget it",
            ),
        };
        Self {
            exit,
            message: line(&error.to_string()),
            hint: hint.to_owned(),
        }
    }
}
