//! The command line. Data goes to standard output, talk to standard error.

mod admin;
mod backup;
mod check;
mod completions;
mod contacts;
mod context;
mod dataset;
mod enroll;
mod export;
mod hint;
mod log;
mod mail_context;
mod man;
mod output;
mod receive;
mod resolve;
mod secret;
mod send;
mod serve;
mod sign_in;
mod signal;
mod snapshot;
mod stats;
mod terminal;
mod usage;
mod waiting;
mod whoami;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::terminal::line;
use self::waiting::Beside;
use crate::http::listen_address;

/// The end of every `--help`: the exit codes, after examples where there are any.
macro_rules! ending {
    () => {
        "\
Exit codes:
  0  done, or ended as it was told to
  1  failed
  2  wrong usage or configuration
  3  not trusted: a proof fails, or a key has changed and is not accepted
  4  nobody can be reached now; try again later"
    };
    ($examples:literal) => {
        concat!("Examples:\n  ", $examples, "\n\n", ending!())
    };
}

/// The end of a `--help` without examples.
const EXIT_CODES: &str = ending!();

/// Encrypted messages between atproto accounts: directory, mediator and client.
#[derive(Debug, Parser)]
#[command(name = "atcomm", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the directory, and the mediator where mediator.public_url is set
    ///
    /// Without a configuration it follows public sources and serves this machine only; its log
    /// says where. deploy/config.example.toml describes every setting. Each can be given in the
    /// environment too: ATCOMM_HTTP__LISTEN is `listen` under [http].
    #[command(after_help = EXIT_CODES)]
    Serve(Serve),
    /// Let people write to your account
    ///
    /// Makes a messaging key, saves it in the wallet, publishes it in your account's repository
    /// (the record at.didcomm.keyPackage) and has the mediators keep your mail. An app password of
    /// your PDS is needed once; the session that it brings is kept. Run again it finishes what was
    /// interrupted, and changes mediators or label where you name others.
    #[command(after_help = ending!("\
  atcomm enroll alice.example.com --mediator mail.example.com --label laptop
  atcomm enroll alice.example.com -m mail.example.com -m backup.example.org
  atcomm enroll did:plc:ewvi7nxzyoun6zhxrhs64oiz --password-file app-password.txt
  atcomm enroll alice.example.com --label \"\""))]
    Enroll(enroll::Enroll),
    /// Look up how an account is written to, and verify it
    ///
    /// Asks the directory and the account's own servers, believes neither without a proof, and
    /// says what was verified and what cannot be. Needs no account of your own. The key that it
    /// finds is remembered; see atcomm contacts.
    #[command(after_help = ending!("\
  atcomm resolve alice.example.com
  atcomm resolve alice.example.com --directly
  atcomm resolve alice.example.com --proof alice.json
  atcomm resolve --offline alice.json"))]
    Resolve(resolve::Args),
    #[command(after_help = ending!("\
  atcomm send alice.example.com \"good morning\"
  fortune | atcomm send alice.example.com
  atcomm send alice.example.com \"look\" --embed at://bob.example.com/app.bsky.feed.post/3jzfcijpj2z2a"))]
    Send(send::Send),
    #[command(after_help = ending!("\
  atcomm receive
  atcomm receive --follow
  atcomm receive --all --json"))]
    Receive(receive::Receive),
    /// Whom you write with: the keys that are remembered of them
    #[command(after_help = ending!("\
  atcomm contacts
  atcomm contacts show alice.example.com
  atcomm contacts accept alice.example.com
  atcomm contacts forget alice.example.com"))]
    Contacts(contacts::Args),
    /// The accounts of the wallet, their keys, and what their records name
    #[command(after_help = ending!("\
  atcomm whoami
  atcomm whoami --offline --json"))]
    Whoami(whoami::Args),
    #[command(after_help = ending!("\
  atcomm check
  atcomm check --account alice.example.com --json"))]
    Check(check::Check),
    /// Replace your messaging key by a new one
    ///
    /// The old key vouches for the new one in the record, so that those who know it go on without
    /// being asked. Mail to the old one is read for another 14 days. Do it when somebody else may
    /// have seen the wallet, after revoking the app password at your PDS (the session of the wallet
    /// was seen, too), and take a new backup afterwards.
    #[command(after_help = ending!("\
  atcomm rotate
  atcomm rotate --account alice.example.com --json"))]
    Rotate(enroll::Change),
    /// Take your messaging key back, so that nobody can write to you
    ///
    /// Fetches the mail that waits, deletes the record from your repository, and ends the session.
    /// The keys stay in the wallet, and mail that is on its way is read by `atcomm receive` for
    /// another 14 days.
    #[command(after_help = ending!("\
  atcomm unenroll
  atcomm unenroll --account alice.example.com --password-file app-password.txt"))]
    Unenroll(enroll::Change),
    /// Save keys and contacts in an encrypted file
    ///
    /// The file is encrypted to a passphrase, in the format of age: `age -d` opens it too. Mail is
    /// not in it, and neither are sessions.
    #[command(after_help = ending!("\
  atcomm backup atcomm-backup.age
  atcomm backup - --passphrase-file passphrase.txt > /media/usb/atcomm.age"))]
    Backup(backup::Backup),
    /// Bring keys and contacts of a backup into the wallet
    ///
    /// What the wallet has stays; what it does not have is added. Then `atcomm receive` reads on.
    #[command(after_help = ending!("\
  atcomm restore atcomm-backup.age
  atcomm restore atcomm-backup.age --home new-wallet --passphrase-file passphrase.txt"))]
    Restore(backup::Restore),
    /// What waits to be picked up
    #[command(after_help = EXIT_CODES)]
    Mailbox {
        #[command(subcommand)]
        command: Mailbox,
    },
    /// What waits for other mediators
    #[command(after_help = EXIT_CODES)]
    Relay {
        #[command(subcommand)]
        command: Status,
    },
    /// Copy the directory's database, for questions in SQL
    ///
    /// The copy is consistent, and the service may run meanwhile. docs/research.md describes its
    /// tables and has worked queries. It holds public facts only, and no mail.
    #[command(after_help = ending!("\
  atcomm snapshot directory-copy.db
  atcomm snapshot copy.db && sqlite3 copy.db 'SELECT state, count(*) FROM entry GROUP BY state'"))]
    Snapshot(snapshot::Snapshot),
    /// Export the directory row by row: its accounts, or its change log
    ///
    /// For the operator of the service: a row tells of one account. docs/research.md describes the
    /// columns. The service may run meanwhile. With --pseudonyms no row has a DID, handle or
    /// did:peer, and the same secret gives the same pseudonyms; hosts and mediators are not replaced.
    #[command(after_help = ending!("\
  atcomm export accounts.csv
  atcomm export - --table changes | jq -r .kind | sort | uniq -c
  (umask 077; head -c 32 /dev/urandom > secret); atcomm export accounts.csv --pseudonyms secret"))]
    Export(export::Export),
    /// How many accounts there are, and how their number and the coverage of sources change
    ///
    /// The numbers are those of getStats, read from the directory's database; the service may run
    /// meanwhile, or not. A sparkline has a sign for each day: the enrolled accounts at its end, and
    /// of each source the part of it that no gap covers. A dot: the source was not followed.
    #[command(after_help = ending!("\
  atcomm stats
  atcomm stats --days 365
  atcomm stats --json | jq .statistics.totals"))]
    Stats(stats::Stats),
    /// Write the time series as a dataset that anybody may have
    ///
    /// The tables are CSV and Parquet, with descriptions for people and programs. Numbers are
    /// rounded, small groups of accounts are not shown, and no account is named; docs/research.md
    /// says how. Only days that are closed are in it, so the same days give the same bytes. The
    /// service may run meanwhile.
    #[command(after_help = ending!("\
  atcomm dataset accounts-2026
  atcomm dataset december --from 2026-12-01 --to 2026-12-31"))]
    Dataset(dataset::Dataset),
    /// The keys of the mediator
    #[command(after_help = EXIT_CODES)]
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// Completions for a shell
    #[command(after_help = ending!("\
  atcomm completions bash > ~/.local/share/bash-completion/completions/atcomm
  atcomm completions fish > ~/.config/fish/completions/atcomm.fish"))]
    Completions(completions::Completions),
    /// The manual, one page for each command
    #[command(after_help = ending!("\
  atcomm man | man -l -
  atcomm man ~/.local/share/man/man1"))]
    Man(man::Pages),
}

#[derive(Debug, Subcommand)]
enum Status {
    /// Ask the service that runs on the data directory
    #[command(after_help = EXIT_CODES)]
    Status(ServiceFlags),
}

#[derive(Debug, Subcommand)]
enum Mailbox {
    /// Ask the service that runs on the data directory
    #[command(after_help = EXIT_CODES)]
    Status(ServiceFlags),
    /// Show the largest queues: for which DID, claimed by which accounts, how much and since when
    #[command(after_help = ending!("\
  atcomm mailbox list
  atcomm mailbox list --limit 100 --json"))]
    List(MailboxList),
    /// Delete the mail that waits for a DID, unread
    ///
    /// The DID is a did:peer as `atcomm mailbox list` shows it, or that of an atproto account: then
    /// for every did:peer that its key packages claim and no other account does. Senders and
    /// recipient are not told. Mail that comes afterwards is kept as before; to refuse it, put the
    /// account into mediator.deny, which deletes what waits, too.
    #[command(after_help = ending!("\
  atcomm mailbox purge did:plc:ewvi7nxzyoun6zhxrhs64oiz --dry-run
  atcomm mailbox purge did:plc:ewvi7nxzyoun6zhxrhs64oiz"))]
    Purge(MailboxPurge),
}

#[derive(Debug, Args)]
struct MailboxList {
    /// Number of queues
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    service: ServiceFlags,
}

#[derive(Debug, Args)]
struct MailboxPurge {
    /// A did:peer, or the DID of an atproto account
    #[arg(value_name = "DID")]
    did: String,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    service: ServiceFlags,
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Make new keys; messages to the old ones are still opened for 30 days
    ///
    /// Works with the service running or not. Its DID stays the same; the did:peer in its
    /// invitation becomes a new one.
    #[command(after_help = EXIT_CODES)]
    Rotate(ServiceFlags),
}

/// Flags of commands that ask a service on this machine.
#[derive(Debug, Args)]
struct ServiceFlags {
    /// Configuration file of the service (TOML)
    #[arg(long, value_name = "FILE", env = "ATCOMM_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of the store
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "ATCOMM_CONFIG")]
    config: Option<PathBuf>,
    /// Address to serve the world at; a port alone is one of this machine [default: 127.0.0.1:2590]
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Directory of the store
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to show metrics at; none are shown without one
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    metrics: Option<SocketAddr>,
    /// What to log: a level, or a filter such as atcomm=debug,warn [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or ended as it was told to.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// A proof fails, or a key has changed and is not accepted.
    Untrusted,
    /// A server that is needed cannot be reached now.
    Unreachable,
}

impl Exit {
    /// Returns the exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Untrusted => 3,
            Self::Unreachable => 4,
        }
    }
}

/// The error of a command.
#[derive(Debug)]
struct CliError {
    exit: Exit,
    /// One line, in lower case and without a full stop.
    message: String,
    /// One line of advice.
    hint: String,
}

/// Runs the command that `args` name, the program's name first.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let (stdout, stderr): (&mut dyn Write, &mut dyn Write) =
        (&mut Beside::new(stdout), &mut Beside::new(stderr));
    let result = match Cli::try_parse_from(&args) {
        Ok(Cli { command }) => match command {
            Command::Serve(args) => serve::serve(args),
            Command::Enroll(args) => enroll::enroll(&args, stdout, stderr),
            Command::Unenroll(args) => enroll::unenroll(&args, stdout, stderr),
            Command::Rotate(args) => enroll::rotate(&args, stdout, stderr),
            Command::Whoami(args) => whoami::run(&args, stdout),
            Command::Backup(args) => backup::backup(&args, stdout),
            Command::Restore(args) => backup::restore(&args, stdout, stderr),
            Command::Completions(args) => completions::completions(&args, stdout),
            Command::Man(args) => man::man(&args, stdout),
            Command::Relay {
                command: Status::Status(flags),
            } => admin::relay_status(&flags, stdout),
            Command::Mailbox { command } => match command {
                Mailbox::Status(flags) => admin::mailbox_status(&flags, stdout),
                Mailbox::List(args) => admin::mailbox_list(&args, stdout),
                Mailbox::Purge(args) => admin::mailbox_purge(&args, stdout),
            },
            Command::Resolve(args) => resolve::run(&args, stdout, stderr),
            Command::Contacts(args) => contacts::run(&args, stdout, stderr),
            Command::Keys {
                command: Keys::Rotate(flags),
            } => admin::rotate(&flags, stdout),
            Command::Snapshot(args) => snapshot::snapshot(&args, stdout),
            Command::Stats(args) => stats::stats(&args, stdout),
            Command::Export(args) => export::export(&args, stdout),
            Command::Dataset(args) => dataset::dataset(&args, stdout),
            Command::Send(args) => send::run(&args, stdout, stderr),
            Command::Receive(args) => receive::run(&args, stdout, stderr),
            Command::Check(args) => check::run(&args, stdout, stderr),
        },
        Err(error) => usage::usage_error(&error, &args, stdout),
    };
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            // If writing to stderr fails there is nothing left to report to. The message can contain text
            // from remote servers, so it is sanitized.
            let _ = writeln!(stderr, "atcomm: {}", line(&error.message))
                .and_then(|()| writeln!(stderr, "hint: {}", line(&error.hint)));
            error.exit
        }
    }
}
