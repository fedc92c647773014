//! `atcomm server backup` and `atcomm server restore`.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::output::show;
use super::signal::{self, Shutdown};
use super::{CliError, Exit, ServiceFlags};
use crate::backup::{
    self, BackupError, Identities, Made, Recipients, RestorePlan, Restored, Schedule,
};
use crate::store::{CopyError, StoreError};
use atcomm_proto::clock::Clock;

/// `atcomm server backup`.
#[derive(Debug, clap::Args)]
pub(super) struct ServerBackup {
    /// Folder for backups; each is a folder in it [default: backup.dir of the configuration]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on, and make one whenever the newest is older than this, such as 6h
    #[arg(long, value_name = "TIME", value_parser = interval)]
    every: Option<Duration>,
    /// Delete older backups, so that N are left, once a new one is whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Recipient of age to whom it is encrypted; repeat it for more [default: backup.recipients]
    #[arg(long, short = 'r', value_name = "AGE1...")]
    recipient: Vec<String>,
    #[command(flatten)]
    service: ServiceFlags,
}

/// `atcomm server restore`.
#[derive(Debug, clap::Args)]
pub(super) struct ServerRestore {
    /// Folder of the backup, such as /mnt/backup/atcomm-20261201T133000.000Z
    #[arg(value_name = "BACKUP")]
    set: PathBuf,
    /// Data directory to be filled
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// File with the identity of age that opens it, as age-keygen writes it; - is standard input
    #[arg(long, short = 'i', value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Move files of a store that are in DIR aside, into a folder there
    #[arg(long)]
    replace: bool,
    /// Replay a continuous copy up to this segment, and not to its end
    #[arg(long, value_name = "N")]
    until: Option<u64>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let every = humantime_serde::re::humantime::parse_duration(text)
        .map_err(|_| "not a time, such as 6h or 30m".to_owned())?;
    if every < Duration::from_secs(60) {
        return Err("shorter than a minute".to_owned());
    }
    Ok(every)
}

/// Makes one backup, or one after the other.
pub(super) fn backup(args: &ServerBackup, stdout: &mut dyn Write) -> Result<(), CliError> {
    let config = args.service.config()?;
    let settings = config.backup;
    let Some(dir) = args.dir.clone().or(settings.dir) else {
        return Err(CliError {
            exit: Exit::Usage,
            message: "no folder for the backup is named".to_owned(),
            hint: "name one on another disk, or set backup.dir".to_owned(),
        });
    };
    let recipients = if args.recipient.is_empty() {
        &settings.recipients
    } else {
        &args.recipient
    };
    let schedule = Schedule {
        data_dir: config.data_dir,
        dir,
        recipients: Recipients::parse(recipients)?,
        every: args.every.unwrap_or(settings.every),
        keep: args.keep,
        clock: Clock::system(),
    };
    if args.every.is_some() {
        return repeat(schedule);
    }
    let is_stopped = signal::watch().map_err(refused)?;
    let made = schedule.make(&mut || !is_stopped())?;
    show(args.service.json, stdout, &made, |out| {
        made_text(&made, out)
    })
}

/// Makes backups until a signal ends it. Its log is that of a service.
fn repeat(schedule: Schedule) -> Result<(), CliError> {
    super::log::start(&crate::config::LogSettings::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(refused)?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen().map_err(refused)?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let work = tokio::spawn(schedule.run(stop));
        shutdown.requested().await;
        stopping.cancel();
        // A panic was reported by its hook.
        let _ = work.await;
        Ok(())
    })
}

fn refused(error: io::Error) -> CliError {
    CliError {
        exit: Exit::Failed,
        message: format!("cannot start: {error}"),
        hint: "the limits of this user or container may be too low".to_owned(),
    }
}

fn made_text(made: &Made, out: &mut dyn Write) -> io::Result<()> {
    let sealed = if made.encrypted { ", encrypted" } else { "" };
    writeln!(
        out,
        "{} holds {} ({} bytes{sealed})",
        made.path.display(),
        made.files.join(", "),
        made.bytes
    )?;
    writeln!(out, "it has everything from before {}", made.began_at)?;
    match made.deleted {
        0 => Ok(()),
        1 => writeln!(out, "1 older backup is deleted"),
        more => writeln!(out, "{more} older backups are deleted"),
    }
}

/// Puts a backup into a data directory.
pub(super) fn restore(args: &ServerRestore, stdout: &mut dyn Write) -> Result<(), CliError> {
    let identities = match &args.identity {
        None => Identities::default(),
        Some(path) if path == Path::new("-") => Identities::read(io::stdin().lock())?,
        Some(path) => {
            let file = File::open(path).map_err(|error| CliError {
                exit: Exit::Failed,
                message: format!("cannot read {}: {error}", path.display()),
                hint: "name the file that age-keygen has written".to_owned(),
            })?;
            Identities::read(BufReader::new(file))?
        }
    };
    let restored = backup::restore(&RestorePlan {
        set: &args.set,
        data_dir: &args.dir,
        identities: &identities,
        replace: args.replace,
        until: args.until,
        now: Clock::system().now(),
    })?;
    show(args.json, stdout, &restored, |out| {
        restored_text(&restored, &args.dir, out)
    })
}

fn restored_text(restored: &Restored, dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{} holds {} as of {}",
        dir.display(),
        restored.files.join(", "),
        restored.until
    )?;
    if restored.segments > 0 {
        writeln!(out, "{} segments were replayed", restored.segments)?;
    }
    if let Some(replaced) = &restored.replaced {
        writeln!(out, "the files before it are in {}", replaced.display())?;
    }
    writeln!(
        out,
        "messages that were picked up since are delivered again; clients recognize them"
    )?;
    writeln!(
        out,
        "next: check that {} belongs to the user of the service, and start it",
        dir.display()
    )
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        let exit = match error {
            BackupError::Recipient(_) | BackupError::NoRecipients => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: error.to_string(),
            hint: hint(&error).to_owned(),
        }
    }
}

/// Returns the advice about an error of backups.
pub(super) fn hint(error: &BackupError) -> &'static str {
    if error.is_full() {
        return "make room on the disk, or name another one; nothing half is left there";
    }
    match error {
        BackupError::NoStore(_) => "name the data directory of a service with --data-dir",
        BackupError::NoKeys(_) => {
            "put mediator-keys.json back: without it the mailbox is of no use"
        }
        BackupError::Busy(_) => "wait for it to end",
        BackupError::Copy { error, .. } => match error {
            CopyError::Outrun(_) => "try again when there is less traffic, or name a faster disk",
            CopyError::Store(StoreError::Newer { .. }) => {
                "the file was written by a newer version of atcomm; use that one"
            }
            CopyError::Store(StoreError::Corrupt(_)) => {
                "the disk may fail; older backups are untouched"
            }
            _ => "run this as the user of the service, with the same version of atcomm",
        },
        BackupError::File { .. } => "the folder must be writable by the user who runs this",
        BackupError::Recipient(_) | BackupError::NoRecipients => {
            "`age-keygen -o key.txt` makes an identity and shows its recipient"
        }
        BackupError::Identity(_) | BackupError::WrongIdentity | BackupError::Encrypted => {
            "name the file of the identity that belongs to the recipient with --identity"
        }
        BackupError::NotASet { .. } => "name a folder that `atcomm server backup` has made",
        BackupError::Damaged { .. } => "nothing was changed; restore another backup",
        BackupError::Newer { .. } => "install that version or a later one, and restore with it",
        BackupError::Locked(_) => "stop the service first",
        BackupError::Occupied(_) => {
            "name an empty directory, or move the files there aside with --replace"
        }
        BackupError::Stopped => "nothing half is left behind",
    }
}
