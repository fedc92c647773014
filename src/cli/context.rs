//! Flags and settings that commands of the client share.

use std::path::PathBuf;

use clap::Args;

use super::terminal::line;
use super::waiting::wait_for;
use super::{CliError, Exit};
use crate::config::{Config, Overrides};
use atcomm_client::Client;
use atcomm_proto::syntax::Actor;
use atcomm_proto::typed;

/// Flags of every command of the client.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Configuration file (TOML); its sections client, net and identity are read
    #[arg(long, value_name = "FILE", env = "ATCOMM_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of the wallet [default: $XDG_DATA_HOME/atcomm/wallet, else
    /// ~/.local/share/atcomm/wallet]
    #[arg(long, value_name = "DIR", env = "ATCOMM_HOME")]
    home: Option<PathBuf>,
    /// The directory to ask, such as https://mail.example.com [default: the one that your
    /// mediator names]
    #[arg(long, value_name = "URL", env = "ATCOMM_DIRECTORY")]
    directory: Option<String>,
    /// Show JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of commands that work on one account of the wallet.
#[derive(Debug, Args)]
pub(super) struct Own {
    /// Your account, by handle or DID; needed where the wallet has several
    #[arg(long, value_name = "ACTOR", env = "ATCOMM_ACCOUNT")]
    pub(super) account: Option<String>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Reads the account that a command is about.
pub(super) fn actor(text: &str) -> Result<Actor, CliError> {
    typed::actor(text).map_err(|error| CliError {
        exit: Exit::Usage,
        message: format!("{}: {error}", line(text)),
        hint: "name a handle such as alice.example.com, or a DID such as did:plc:...".to_owned(),
    })
}

/// Reads the directory that a flag or the environment names.
fn directory(text: &str) -> Result<String, CliError> {
    let origin = typed::origin(text).map_err(|error| CliError {
        exit: Exit::Usage,
        message: format!("{} is no directory: {}", line(text), error.reason),
        hint: "name its host, such as mail.example.com, or its address".to_owned(),
    })?;
    Ok(origin.to_string())
}

/// Returns an error that names the account which it is about, as it was given.
pub(super) fn about(actor: &Actor, error: impl Into<CliError>) -> CliError {
    let mut error = error.into();
    let name = match actor {
        Actor::Did(did) => did.as_str(),
        Actor::Handle(handle) => handle.as_str(),
    };
    if !error.message.contains(name) {
        error.message = format!("{name}: {}", error.message);
    }
    error
}

/// The client and the runtime of one run.
pub(super) struct CommandContext {
    pub(super) client: Client,
    /// Directory of the wallet.
    pub(super) home: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl CommandContext {
    /// Reads the settings and prepares the network; dials nothing and writes nothing.
    pub(super) fn open(common: &Common) -> Result<Self, CliError> {
        let directory = common.directory.as_deref().map(directory).transpose()?;
        let overrides = Overrides {
            home: common.home.clone(),
            directory,
            ..Overrides::default()
        };
        let config = Config::load(common.config.as_deref(), &overrides)?;
        let home = config.home();
        let client = Client::bind(config.net, config.identity, config.client.directory).map_err(
            |error| CliError {
                exit: Exit::Usage,
                message: error.to_string(),
                hint: "look at the section net of the configuration".to_owned(),
            },
        )?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| CliError {
                exit: Exit::Failed,
                message: format!("cannot start: {error}"),
                hint: "the limits of this user or container may be too low".to_owned(),
            })?;
        Ok(Self {
            client,
            home,
            runtime,
        })
    }

    /// Runs a future that waits for the network.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(wait_for(work))
    }
}
