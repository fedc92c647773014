//! Hints: the advice that follows an error, one line each.
//!
//! Hints name commands, flags and keys of the configuration, of which the library knows nothing.

mod client;

use super::{CliError, Exit};
use crate::config::ConfigError;
use crate::mediator::{KeysError, MediatorError};
use crate::server::{AdminError, MAILBOX_FILE, ServerError};
use crate::store::StoreError;

pub(super) use client::{exit_of_mail, not_enrolled, of_account};

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::UnknownKey { known, .. } => {
                format!("keys known there: {}", known.join(", "))
            }
            _ => "deploy/config.example.toml shows every key with its default".to_owned(),
        };
        Self {
            exit: Exit::Usage,
            message: error.to_string(),
            hint,
        }
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        let exit = if error.is_configuration() {
            Exit::Usage
        } else {
            Exit::Failed
        };
        Self {
            exit,
            message: error.to_string(),
            hint: of_server(&error).to_owned(),
        }
    }
}

impl From<AdminError> for CliError {
    fn from(error: AdminError) -> Self {
        Self {
            exit: Exit::Failed,
            message: error.to_string(),
            hint: of_admin(&error).to_owned(),
        }
    }
}

fn of_server(error: &ServerError) -> &'static str {
    match error {
        ServerError::DataDir { .. } | ServerError::Datasets { .. } => {
            "set data_dir, or --data-dir, to a directory that can be written"
        }
        ServerError::Locked(_) => "stop the other process, or give this one its own --data-dir",
        ServerError::Store {
            error: StoreError::Newer { .. },
            ..
        } => "the file was written by a newer version of atcomm; use that one",
        ServerError::Store {
            error: StoreError::ForeignLog(_),
            ..
        } => {
            "to use the copy, remove the files beside it that end in -wal and -shm, with what came \
             after the copy; or put the file back that was there"
        }
        ServerError::Store { path, .. } if path.ends_with(MAILBOX_FILE) => {
            "mail is nowhere else: put the file back from a backup before you give it up"
        }
        ServerError::Store { .. } => {
            "what the file holds can be fetched again: move it away and start anew"
        }
        ServerError::Mediator(MediatorError::Keys(error)) => of_keys(error),
        ServerError::Mediator(_) => "see [mediator] in the configuration",
        ServerError::PublicUrl(_) | ServerError::TwoAddresses => {
            "see [http] and [mediator] in the configuration"
        }
        ServerError::Admin(_) => "the path of the data directory may be too long for a socket",
        ServerError::Net(_) => "see [net] in the configuration",
        ServerError::Sources(_) => "see [[sources]] in the configuration",
        ServerError::Http(_) => "choose another address with http.listen, --listen or --metrics",
        ServerError::Recorder | ServerError::Ended(_) => {
            "this is a defect; please report it with the log"
        }
    }
}

fn of_admin(error: &AdminError) -> &'static str {
    match error {
        AdminError::NotRunning(_) => "start it with `atcomm serve`, or name its --data-dir",
        AdminError::Connection(_) => "run this as the user of the service",
        AdminError::Refused(_) => "see [mediator] in the configuration, and the service's log",
        AdminError::Keys(error) => of_keys(error),
        AdminError::NoKeys(_) => "name the data directory of a mediator with --data-dir",
        AdminError::DataDir(error) => of_server(error),
    }
}

fn of_keys(error: &KeysError) -> &'static str {
    match error {
        KeysError::File { .. } => "the data directory must be writable by the user of the service",
        KeysError::Damaged { .. } | KeysError::Vanished(_) => {
            "put the file back from a backup; without it mail under way cannot be opened. To start \
             anew all the same, move mailbox.db away too"
        }
        KeysError::Exposed(_) => {
            "chmod 600 the file; if others could read it, run `atcomm keys rotate`"
        }
        KeysError::Making(_) => "this is a defect; please report it",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use atcomm_proto::syntax::SyntaxError;

    fn hint(error: impl Into<CliError>) -> String {
        error.into().hint
    }

    #[test]
    fn a_hint_names_what_the_operator_can_change() {
        let path = || PathBuf::from("/data");
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        let unwritable = ServerError::DataDir {
            path: path(),
            error: io(),
        };
        assert!(hint(unwritable).contains("data_dir"));
        let address = || {
            ServerError::Mediator(MediatorError::Address(SyntaxError {
                kind: "address",
                reason: "not an URL",
            }))
        };
        assert!(hint(address()).contains("[mediator]"));
        assert_eq!(CliError::from(address()).exit, Exit::Usage);
        let keys = |error| ServerError::Mediator(MediatorError::Keys(error));
        assert!(hint(keys(KeysError::Exposed(path()))).contains("chmod 600"));
        assert!(hint(keys(KeysError::Vanished(path()))).contains("backup"));
        let refused = AdminError::Refused("this service is no mediator".to_owned());
        assert!(hint(refused).contains("[mediator]"));
        let locked = AdminError::DataDir(Box::new(ServerError::Locked(path())));
        assert!(hint(locked).contains("--data-dir"));
    }

    #[test]
    fn only_the_directorys_store_may_be_moved_away() {
        let hint_for = |file: &str| {
            hint(ServerError::Store {
                path: PathBuf::from("/data").join(file),
                error: StoreError::Full,
            })
        };
        assert!(hint_for("directory.db").contains("move it away"));
        assert!(hint_for(MAILBOX_FILE).contains("backup"));
    }

    #[test]
    fn an_unknown_key_comes_with_those_that_exist() {
        let unknown = ConfigError::UnknownKey {
            key: "log.level".to_owned(),
            origin: "atcomm.toml".to_owned(),
            known: &["filter", "format"],
        };
        assert_eq!(hint(unknown), "keys known there: filter, format");
    }
}
