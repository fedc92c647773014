//! `atcomm resolve`: the key and the mediators of an account, and their evidence.

mod offline;
mod render;
mod save;

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::context::{CommandContext, Common, about, actor};
use super::output::{unwritten, write};
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{Recipient, RecipientLookup, SendBlocker, Unconfirmed, Wallet, fingerprint};

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

/// Runs the command.
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
    let lookup = if args.directly {
        context.client.authoritative_lookup()
    } else {
        interactive_lookup(&context, &wallet, stderr)?
    };
    let resolved = context
        .block_on(lookup.resolve(&actor, &pins))
        .map_err(|error| about(&actor, error))?;
    if let Some(file) = &args.proof {
        save::save(file, &resolved.evidence.to_vec())?;
    }
    let view = RecipientView::new(&resolved);
    match write(args.common.json, stdout, &view, |out| view.render_text(out)) {
        Ok(()) => drop(wallet.record(&pins, resolved.trust.pin.as_ref())?),
        // A first contact or a new key that was not shown is one again the next time.
        Err(error) => unwritten(error)?,
    }
    if !args.common.json {
        for warning in &resolved.warnings {
            let _ = writeln!(stderr, "warning: {}", line(&warning.to_string()));
        }
        if let Some(file) = &args.proof {
            let _ = writeln!(stderr, "saved {}", file.display());
        }
    }
    match resolved.key_blocker() {
        Some(blocker) => Err(blocked(&blocker, &resolved)),
        None => Ok(()),
    }
}

fn unnamed() -> CliError {
    CliError {
        exit: Exit::Usage,
        message: "no account given".to_owned(),
        hint: "atcomm resolve ACTOR, or atcomm resolve --offline FILE".to_owned(),
    }
}

/// Returns the look-up of a command that prints what it finds: it always asks the account's own servers, too.
/// The directory is the one of the settings, else the one of an account of the wallet.
pub(super) fn interactive_lookup(
    context: &CommandContext,
    wallet: &Wallet,
    stderr: &mut dyn Write,
) -> Result<RecipientLookup, CliError> {
    let own = wallet
        .enrolments()?
        .into_iter()
        .find_map(|one| one.directory);
    if context.client.directory.is_none() && own.is_none() {
        let _ = writeln!(
            stderr,
            "no directory is known (--directory names one); the account's own servers are asked"
        );
    }
    Ok(context.client.lookup(own.as_ref()).thorough())
}

/// Returns the error of a reason not to send, with what lifts it as the hint.
pub(super) fn blocked(blocker: &SendBlocker, resolved: &Recipient) -> CliError {
    let hint = match blocker {
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
    let exit = match blocker {
        SendBlocker::Unconfirmed {
            why: Unconfirmed::HostSilent,
            ..
        } => Exit::Unreachable,
        _ => Exit::Untrusted,
    };
    CliError {
        exit,
        message: blocker.to_string(),
        hint,
    }
}
