//! `atcomm server`: what the operator of a service asks and does.

mod accounts;
mod config;
mod doctor;
mod drain;
mod status;

use std::io::Write;

use clap::Subcommand;

use super::health::{Health, health};
use super::server_backup::{self, ServerBackup, ServerRestore};
use super::{CliError, EXIT_CODES, MailboxList, MailboxPurge, ServiceFlags, admin, ending};

/// The commands below `atcomm server`.
#[derive(Debug, Subcommand)]
pub(super) enum Server {
    /// Check that everything works, from the configuration to the public address
    ///
    /// Prints a line for each check, and a hint for each that fails. Run it as the user of the service
    /// and with its configuration, best while the service runs. Nothing is changed.
    #[command(after_help = ending!("\
  atcomm server doctor --config /etc/atcomm.toml
  atcomm server doctor --json | jq '.checks[] | select(.ok | not)'"))]
    Doctor(ServiceFlags),
    /// Show the state of the running service
    ///
    /// Exits with 0 only if a service runs and can write its databases, so it serves as a health
    /// check.
    #[command(after_help = ending!("\
  atcomm server status
  atcomm server status --json | jq .sources"))]
    Status(ServiceFlags),
    /// Ask whether the service answers and its stores can be written
    ///
    /// For the health check of a container: ends with 0 if all is well. It asks the address of
    /// http.listen on this machine.
    #[command(after_help = ending!("\
  atcomm server health
  atcomm server health --config /etc/atcomm/atcomm.toml"))]
    Health(Health),
    /// Show the accounts of your PDS: who is enrolled, since when, and whether messages reach them
    #[command(after_help = ending!("\
  atcomm server accounts
  atcomm server accounts --json | jq '.accounts[] | select(.new)'"))]
    Accounts(accounts::Accounts),
    /// Show the largest queues: for which DID, claimed by which accounts, how much and since when
    #[command(after_help = ending!("\
  atcomm server queues
  atcomm server queues --limit 100 --json"))]
    Queues(MailboxList),
    /// Delete the messages that wait for a DID, unread
    ///
    /// The DID is a did:peer as `atcomm server queues` shows it, or that of an atproto account: then
    /// for every did:peer that its key packages claim and no other account does. Senders and
    /// recipient are not told. Messages that come afterwards are kept as before; to refuse them, put
    /// the account into mediator.deny, which deletes what waits, too.
    #[command(after_help = ending!("\
  atcomm server purge did:plc:ewvi7nxzyoun6zhxrhs64oiz --dry-run
  atcomm server purge did:plc:ewvi7nxzyoun6zhxrhs64oiz"))]
    Purge(MailboxPurge),
    /// Retire the mediator: tell its accounts, take no new ones, and take messages for some days more
    ///
    /// Each registered account gets a message that names the day, so that its client can ask for
    /// another mediator. Messages for an account that has named another one go on to that one. After
    /// the day nothing is taken any more; what waits can still be fetched.
    #[command(after_help = ending!("\
  atcomm server drain
  atcomm server drain --days 90
  atcomm server drain --cancel"))]
    Drain(drain::Drain),
    /// Copy both databases and the mediator's keys, while the service runs
    ///
    /// A backup is a folder with a manifest. It holds everything that was acknowledged before it
    /// began, and is on disk and checked when it gets its name. Without recipients it is not
    /// encrypted, and holds the mediator's secret keys. The service makes backups by itself where
    /// backup.dir is set.
    #[command(after_help = ending!("\
  atcomm server backup /mnt/backup
  atcomm server backup /mnt/backup --keep 7 --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  atcomm server backup /mnt/backup --every 6h --keep 28"))]
    Backup(ServerBackup),
    /// Fill a data directory from a backup
    ///
    /// Checks all of the backup before anything is changed. Refuses a directory that a service uses
    /// or that has files of a store; those are moved aside with --replace, none is deleted. If it is
    /// interrupted, the service does not start there until the restore was run again.
    #[command(after_help = ending!("\
  atcomm server restore /mnt/backup/atcomm-20261201T133000.000Z /var/lib/atcomm
  atcomm server restore atcomm-20261201T133000.000Z new --identity key.txt"))]
    Restore(ServerRestore),
    /// Show the messages that wait for other mediators
    #[command(after_help = EXIT_CODES)]
    Relay(ServiceFlags),
    /// Make new keys for the mediator; messages to the old ones are still opened for 30 days
    ///
    /// Works with the service running or not. Its DID stays the same; the did:peer in its
    /// invitation becomes a new one.
    #[command(after_help = EXIT_CODES)]
    RotateKeys(ServiceFlags),
    /// Print, check or explain the configuration
    #[command(after_help = EXIT_CODES)]
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
}

/// Runs a command below `atcomm server`.
pub(super) fn run(command: &Server, stdout: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Server::Doctor(flags) => doctor::run(flags, stdout),
        Server::Status(flags) => status::run(flags, stdout),
        Server::Health(args) => health(args, stdout),
        Server::Accounts(args) => accounts::run(args, stdout),
        Server::Queues(args) => admin::mailbox_list(args, stdout),
        Server::Purge(args) => admin::mailbox_purge(args, stdout),
        Server::Drain(args) => drain::run(args, stdout),
        Server::Backup(args) => server_backup::backup(args, stdout),
        Server::Restore(args) => server_backup::restore(args, stdout),
        Server::Relay(flags) => admin::relay_status(flags, stdout),
        Server::RotateKeys(flags) => admin::rotate(flags, stdout),
        Server::Config { command } => config::run(command, stdout),
    }
}
