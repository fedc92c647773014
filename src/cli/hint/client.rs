//! Hints and exit codes of the client library's errors.

use std::error::Error;

use crate::cli::terminal::line;
use crate::cli::{CliError, Exit};
use atcomm_client::backup::BackupError;
use atcomm_client::{
    AccountError, AccountIdentityError, EnrolError, LookupError, MailError, OpenError,
    RecipientError, Source, WalletError,
};
use atcomm_net::identity::HandleError;

impl From<WalletError> for CliError {
    fn from(error: WalletError) -> Self {
        let exit = match error {
            WalletError::NoAccount { .. }
            | WalletError::Several { .. }
            | WalletError::Unknown { .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: error.to_string(),
            hint: of_wallet(&error),
        }
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        let exit = match error {
            BackupError::Empty => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: error.to_string(),
            hint: of_backup(&error),
        }
    }
}

impl From<AccountError> for CliError {
    fn from(error: AccountError) -> Self {
        EnrolError::from(error).into()
    }
}

impl From<EnrolError> for CliError {
    fn from(error: EnrolError) -> Self {
        if let EnrolError::Wallet(error) = error {
            return error.into();
        }
        let exit = match &error {
            error if error.is_transient() => Exit::Unreachable,
            EnrolError::Identity {
                error: AccountIdentityError::Unproven(_),
                ..
            } => Exit::Untrusted,
            EnrolError::NoMediator
            | EnrolError::TooManyMediators(_)
            | EnrolError::TooManyDropped(_)
            | EnrolError::Label
            | EnrolError::NotEnrolled(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self {
            exit,
            message: error.to_string(),
            hint: of_enrolment(&error),
        }
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
        let (exit, hint) = of_recipient(&error);
        Self {
            exit,
            message: line(&error.to_string()),
            hint: hint.to_owned(),
        }
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Wallet(error) => error.into(),
            OpenError::NotEnrolled(_) => not_enrolled(&error),
            OpenError::Net(error) => Self {
                exit: Exit::Usage,
                message: error.to_string(),
                hint: "look at the section net of the configuration".to_owned(),
            },
        }
    }
}

/// Returns the error of an account without a messaging key.
pub(in crate::cli) fn not_enrolled(error: &dyn Error) -> CliError {
    CliError {
        exit: Exit::Failed,
        message: error.to_string(),
        hint: "make and publish one with `atcomm enroll`".to_owned(),
    }
}

/// Returns the exit code of an error of a mediator.
pub(in crate::cli) fn exit_of_mail(error: &MailError) -> Exit {
    if error.is_transient() {
        Exit::Unreachable
    } else {
        Exit::Failed
    }
}

fn of_recipient(error: &RecipientError) -> (Exit, &'static str) {
    match error {
        RecipientError::Handle {
            why: HandleError::Unreachable,
            ..
        }
        | RecipientError::Unreachable(_) => (Exit::Unreachable, "try again later"),
        RecipientError::Handle { .. } | RecipientError::NoAccount => {
            (Exit::Failed, "check the spelling")
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
                Source::Directory => {
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
    }
}

fn of_wallet(error: &WalletError) -> String {
    let hint = match error {
        error if error.is_out_of_space() => {
            "there is no room left: free some and run it again; nothing was changed"
        }
        WalletError::Unreadable { .. } | WalletError::Unwritable { .. } => {
            "the wallet must be owned by the current user; --home names another"
        }
        WalletError::Damaged { path, .. } => {
            return format!(
                "put {} back from a backup, or move it away and run `atcomm restore`",
                path.display()
            );
        }
        WalletError::Newer { .. } => "it was written by a later version of atcomm: use that one",
        WalletError::Exposed { path } => {
            return format!(
                "run `chmod -R go= {}`; if others could read it, run `atcomm rotate` then",
                path.display()
            );
        }
        WalletError::TooLong { .. } => "nothing was changed",
        WalletError::Busy { .. } => "wait for it to end, then run it again",
        WalletError::NoAccount { .. } => {
            "enrol one with `atcomm enroll`, or bring one here with `atcomm restore`; --home names \
             another wallet"
        }
        WalletError::Several { .. } => "say which with --account",
        WalletError::Unknown { .. } => "`atcomm whoami` shows the accounts that are in it",
    };
    hint.to_owned()
}

fn of_backup(error: &BackupError) -> String {
    let hint = match error {
        BackupError::WeakPassphrase => {
            "take several words; whoever finds the file can try as many as he likes"
        }
        BackupError::WrongPassphrase => "try again; if you are sure of it, the file is damaged",
        BackupError::Foreign(_) => {
            "a backup is what `atcomm backup` has written; nothing was changed"
        }
        BackupError::Damaged(_) => "take another copy of the backup; nothing was changed",
        BackupError::TooMuchWork(_) => "it was not made by `atcomm backup`; nothing was changed",
        BackupError::Exists(_) => "name another file, or give --force to replace it",
        BackupError::Conflict(_) => {
            "nothing was changed; --force puts the backup's key in its place and keeps the \
             wallet's for reading"
        }
        BackupError::TooManyKeys(_) => {
            "nothing was changed; restore it into another wallet, which --home names"
        }
        BackupError::TooLarge(_) => {
            "nothing was written; forget contacts that you do not need with `atcomm contacts \
             forget`"
        }
        BackupError::Empty => "enrol one with `atcomm enroll` first",
        BackupError::Unwritable { .. } => {
            "nothing was written; look at the disk and its permissions"
        }
        BackupError::Wallet(error) => return of_wallet(error),
    };
    hint.to_owned()
}

/// Returns the hint of an error of the account's PDS.
pub(in crate::cli) fn of_account(error: &AccountError) -> String {
    let hint = match error {
        AccountError::WrongPassword => {
            "make an app password in the settings of your account and use that"
        }
        AccountError::CodeNeeded => "give it with --code, or use an app password, which needs none",
        AccountError::SignedOut => "run it again with your app password",
        AccountError::Forbidden(_) => "make an app password in the settings of your account",
        AccountError::Inactive(_) => "only an active account can be enrolled",
        AccountError::Swapped => {
            "nothing was overwritten; look at it with `atcomm whoami`, then run it again"
        }
        AccountError::RateLimited {
            retry_after: Some(wait),
        } => return format!("try again in {} seconds", wait.as_secs().max(1)),
        AccountError::RateLimited { retry_after: None } => "try again in some minutes",
        AccountError::Unreachable(_) | AccountError::Failing(_) => {
            "try again later; what was done is kept"
        }
        AccountError::Refused { .. } | AccountError::Unusable(_) | AccountError::Malformed(_) => {
            "its operator may know more; run it again later, what was done is recognised"
        }
        AccountError::Wallet(error) => return of_wallet(error),
    };
    hint.to_owned()
}

fn of_enrolment(error: &EnrolError) -> String {
    let hint = match error {
        EnrolError::Account(error) => return of_account(error),
        EnrolError::Wallet(error) => return of_wallet(error),
        error if error.is_transient() => "try again later; what was done is kept",
        EnrolError::Handle { .. } | EnrolError::NotItsHandle { .. } => {
            "look for a slip in the handle, or give the DID of the account"
        }
        EnrolError::Identity {
            error: AccountIdentityError::Unproven(_),
            ..
        } => "somebody may be between you and the directory of DIDs; try again from elsewhere",
        EnrolError::Identity { .. } | EnrolError::NoPds(_) => {
            "look for a slip in the DID; it has to be one of an account with a PDS"
        }
        EnrolError::Mediator { .. } => {
            "look for a slip in its name; nothing is published before every mediator answers"
        }
        EnrolError::NoMediator => {
            "name who is to keep your mail, such as --mediator mail.example.com"
        }
        EnrolError::TooManyMediators(_) => "one or two are what senders try",
        EnrolError::TooManyDropped(_) => {
            "each is asked for 14 days; go on with one of them, or change the key with `atcomm \
             rotate` first"
        }
        EnrolError::Label => "take a short name, such as phone",
        EnrolError::Foreign { .. } => {
            "another device or a lost wallet has written it: bring its keys here with `atcomm \
             restore`, or give --replace; mail to that key cannot be read here"
        }
        EnrolError::NotEnrolled(_) => "enrol it with `atcomm enroll` first",
        EnrolError::Unpublished(_) => {
            "it was removed elsewhere; `atcomm enroll` publishes it again"
        }
        EnrolError::Succession(_) => "this is a defect; please report it",
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use atcomm_net::net::NetError;
    use atcomm_proto::syntax::Did;

    fn path() -> PathBuf {
        PathBuf::from("/wallet")
    }

    fn hint(error: impl Into<CliError>) -> String {
        error.into().hint
    }

    #[test]
    fn a_wallets_hint_says_what_the_user_can_do() {
        let exposed = WalletError::Exposed { path: path() };
        assert!(hint(exposed).starts_with("run `chmod -R go= /wallet`"));
        let several = || WalletError::Several {
            accounts: Vec::new(),
        };
        assert_eq!(hint(several()), "say which with --account");
        assert_eq!(CliError::from(several()).exit, Exit::Usage);
        let unwritable = |kind: io::ErrorKind| WalletError::Unwritable {
            path: path(),
            error: kind.into(),
        };
        assert_eq!(
            hint(unwritable(io::ErrorKind::StorageFull)),
            "there is no room left: free some and run it again; nothing was changed"
        );
        assert!(hint(unwritable(io::ErrorKind::PermissionDenied)).contains("--home"));
    }

    #[test]
    fn an_error_below_another_gives_its_own_hint() {
        let wallet = || WalletError::Busy { path: path() };
        let wanted = hint(wallet());
        assert_eq!(hint(BackupError::from(wallet())), wanted);
        assert_eq!(hint(AccountError::from(wallet())), wanted);
        assert_eq!(hint(EnrolError::from(wallet())), wanted);
        assert_eq!(hint(EnrolError::from(AccountError::from(wallet()))), wanted);
    }

    #[test]
    fn transient_errors_of_the_pds_say_when_to_try_again() {
        let limited = AccountError::RateLimited {
            retry_after: Some(Duration::from_millis(200)),
        };
        assert_eq!(hint(limited), "try again in 1 seconds");
        let unreachable = || AccountError::Unreachable(NetError::Timeout);
        assert!(hint(unreachable()).starts_with("try again later"));
        assert_eq!(CliError::from(unreachable()).exit, Exit::Unreachable);
        let account = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        let error = CliError::from(EnrolError::NotEnrolled(account));
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.hint.contains("atcomm enroll"));
    }
}
