//! `atcomm server accounts`: the accounts of the operator's own PDSes.

use std::io::{self, Write};

use clap::Args;

use super::super::output::show;
use super::super::terminal::line;
use super::super::{CliError, ServiceFlags};
use crate::server::{OwnAccount, OwnAccounts, ask_own_accounts};

/// `atcomm server accounts`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Accounts {
    /// Number of accounts
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    #[command(flatten)]
    service: ServiceFlags,
}

/// Prints the accounts that the directory knows of one's own PDSes.
pub(super) fn run(args: &Accounts, stdout: &mut dyn Write) -> Result<(), CliError> {
    let data_dir = args.service.data_dir()?;
    let own = ask_own_accounts(&data_dir, usize::from(args.limit))?;
    show(args.service.json, stdout, &own, |out| text(&own, out))
}

fn text(own: &OwnAccounts, out: &mut dyn Write) -> io::Result<()> {
    if own.pdses.is_empty() {
        return writeln!(out, "no PDS is yours: set pds.url");
    }
    let enrolled = own.accounts.iter().filter(|one| one.state == "enrolled");
    let (enrolled, known) = (enrolled.count(), own.accounts.len());
    let pdses = line(&own.pdses.join(", "));
    writeln!(
        out,
        "{enrolled} of {known} known accounts of {pdses} are enrolled"
    )?;
    for one in &own.accounts {
        let name = one.handle.as_deref().unwrap_or(&one.did);
        writeln!(out, "{:<14} {}", one.state, line(name))?;
        let since = if one.new { "new key since" } else { "since" };
        writeln!(out, "{:<14} {}, {since} {}", "", line(&one.did), one.since)?;
        writeln!(out, "{:<14} {}", "", line(&reached(one)))?;
    }
    if own.more {
        writeln!(out, "there are more: see --limit")?;
    }
    Ok(())
}

/// Returns whether messages reach the account, in words.
fn reached(account: &OwnAccount) -> String {
    if account.state != "enrolled" {
        let reason = account
            .reason
            .as_deref()
            .unwrap_or("its key package is gone");
        return format!("takes no messages: {reason}");
    }
    match &account.here {
        None => format!("messages go to {}", account.mediators.join(", ")),
        Some(mail) if !mail.registered => {
            format!(
                "its client has not registered here, {} messages wait",
                mail.waiting
            )
        }
        Some(mail) => {
            let seen = mail.seen_at.as_deref().unwrap_or("never");
            format!("{} messages wait here, last fetched {seen}", mail.waiting)
        }
    }
}
