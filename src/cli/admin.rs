//! `atcomm relay status`, `atcomm mailbox status`, `list` and `purge`, `atcomm keys rotate`: questions to the
//! service that runs on a data directory.

use std::io::{self, Write};
use std::path::PathBuf;

use super::output::show;
use super::terminal::line;
use super::{CliError, Exit, MailboxList, MailboxPurge, ServiceFlags};
use crate::config::{Config, Overrides};
use crate::server::{
    DIRECTORY_FILE, MailboxQueues, MailboxStatus, Purged, PurgedQueueStatus, RelayStatus,
    ask_mailbox_queues, ask_mailbox_status, ask_relay_status, purge_mailbox, rotate_keys,
};
use crate::store::directory::Queries;
use crate::store::{DirectoryFile, StoreError};

/// What helps where the directory's database cannot be read.
pub(super) const SAME_USER: &str =
    "run this as the user of the service, with the same version of atcomm";

impl ServiceFlags {
    /// Returns the configuration of the service.
    pub(super) fn config(&self) -> Result<Config, CliError> {
        let overrides = Overrides {
            data_dir: self.data_dir.clone(),
            ..Overrides::default()
        };
        Ok(Config::load(self.config.as_deref(), &overrides)?)
    }

    pub(super) fn data_dir(&self) -> Result<PathBuf, CliError> {
        Ok(self.config()?.data_dir)
    }

    /// Returns the path of the directory's database, which is there.
    pub(super) fn directory_file(&self) -> Result<PathBuf, CliError> {
        let path = self.data_dir()?.join(DIRECTORY_FILE);
        if path.is_file() {
            return Ok(path);
        }
        Err(CliError {
            exit: Exit::Failed,
            message: format!("there is no {}", path.display()),
            hint: "name the data directory of a service with --data-dir".to_owned(),
        })
    }

    /// Opens the directory's database for reading, and runs `work` on one state of it.
    pub(super) fn read_directory<T>(
        &self,
        work: impl FnOnce(&Queries<'_>) -> Result<T, StoreError>,
    ) -> Result<T, CliError> {
        let path = self.directory_file()?;
        DirectoryFile::open(&path)
            .and_then(|file| file.query(work))
            .map_err(|error| CliError {
                exit: Exit::Failed,
                message: format!("cannot read {}: {error}", path.display()),
                hint: SAME_USER.to_owned(),
            })
    }
}

/// Prints the mail that waits for other mediators.
pub(super) fn relay_status(flags: &ServiceFlags, stdout: &mut dyn Write) -> Result<(), CliError> {
    let status = ask_relay_status(&flags.data_dir()?)?;
    show(flags.json, stdout, &status, |out| relay_text(&status, out))
}

fn relay_text(status: &RelayStatus, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{} messages wait for other mediators ({} bytes)",
        status.waiting, status.waiting_bytes
    )?;
    if status.destinations.is_empty() {
        return writeln!(out, "nothing was carried anywhere yet");
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:>8} {:>10} {:>8} {:>8} {:>8}  mediator",
        "waiting", "delivered", "failed", "refused", "given up"
    )?;
    for one in &status.destinations {
        writeln!(
            out,
            "{:>8} {:>10} {:>8} {:>8} {:>8}  {}",
            one.waiting, one.delivered, one.failed, one.refused, one.given_up, one.did
        )?;
        if let Some(until) = &one.paused_until {
            writeln!(out, "{:>46}  until {until}, after failures", "paused:")?;
        }
        if one.slow {
            writeln!(out, "{:>46}  it gets one message at a time", "slow:")?;
        }
        if let (Some(error), true) = (
            &one.last_error,
            one.waiting + one.given_up + one.refused > 0,
        ) {
            let at = one.last_at.as_deref().unwrap_or("");
            writeln!(out, "{:>46}  {at} {error}", "last failure:")?;
        }
    }
    Ok(())
}

/// Prints the mail that waits to be picked up.
pub(super) fn mailbox_status(flags: &ServiceFlags, stdout: &mut dyn Write) -> Result<(), CliError> {
    let status = ask_mailbox_status(&flags.data_dir()?)?;
    show(flags.json, stdout, &status, |out| {
        let MailboxStatus {
            did,
            accounts,
            messages,
            bytes,
            file_bytes,
        } = &status;
        writeln!(out, "{did}")?;
        writeln!(out, "{accounts} accounts are registered")?;
        writeln!(
            out,
            "{messages} messages wait to be picked up ({bytes} bytes)"
        )?;
        writeln!(out, "mailbox.db takes {file_bytes} bytes")
    })
}

/// Prints the largest queues.
pub(super) fn mailbox_list(args: &MailboxList, stdout: &mut dyn Write) -> Result<(), CliError> {
    let data_dir = args.service.data_dir()?;
    let queues = ask_mailbox_queues(&data_dir, usize::from(args.limit))?;
    show(args.service.json, stdout, &queues, |out| {
        queues_text(&queues, out)
    })
}

fn queues_text(all: &MailboxQueues, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{} messages wait to be picked up ({} bytes)",
        all.messages, all.bytes
    )?;
    if all.queues.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:>8} {:>12}  {:<24}  for",
        "messages", "bytes", "oldest"
    )?;
    for queue in &all.queues {
        let oldest = queue.oldest.as_deref().unwrap_or("");
        writeln!(
            out,
            "{:>8} {:>12}  {oldest:<24}  {}",
            queue.messages,
            queue.bytes,
            line(&queue.did)
        )?;
        let claimed = match queue.accounts.as_slice() {
            [] => "claimed by no account".to_owned(),
            accounts => format!("claimed by {}", accounts.join(", ")),
        };
        let registered = if queue.registered {
            "an account reads it"
        } else {
            "no account reads it"
        };
        writeln!(out, "{:>48}  {}; {registered}", "", line(&claimed))?;
    }
    Ok(())
}

/// Deletes the mail that waits for a DID, and prints how much it was.
pub(super) fn mailbox_purge(args: &MailboxPurge, stdout: &mut dyn Write) -> Result<(), CliError> {
    let purged = purge_mailbox(&args.service.data_dir()?, &args.did, args.dry_run)?;
    show(args.service.json, stdout, &purged, |out| {
        purged_text(&purged, out)
    })
}

fn purged_text(purged: &Purged, out: &mut dyn Write) -> io::Result<()> {
    let done = if purged.dry_run {
        "would be deleted"
    } else {
        "are deleted"
    };
    let Purged {
        messages, bytes, ..
    } = purged;
    writeln!(out, "{messages} messages {done} ({bytes} bytes)")?;
    let queue = |queue: &PurgedQueueStatus| {
        let did = line(&queue.did);
        format!("{:>8} {:>12}  {did}", queue.messages, queue.bytes)
    };
    for emptied in &purged.queues {
        writeln!(out, "{}", queue(emptied))?;
    }
    if !purged.kept.is_empty() {
        writeln!(
            out,
            "left alone, since other accounts claim the same did:peer:"
        )?;
        for kept in &purged.kept {
            writeln!(out, "{}", queue(kept))?;
        }
    }
    Ok(())
}

/// Makes new keys for the mediator.
pub(super) fn rotate(flags: &ServiceFlags, stdout: &mut dyn Write) -> Result<(), CliError> {
    let rotated = rotate_keys(&flags.data_dir()?)?;
    show(flags.json, stdout, &rotated, |out| {
        writeln!(
            out,
            "the mediator has new keys, generation {}; messages to the old ones are opened for \
             another 30 days",
            rotated.generation
        )?;
        if !rotated.in_use {
            writeln!(out, "no service runs; they are used when it is started")?;
        }
        writeln!(out, "take a new backup of mediator-keys.json")
    })
}
