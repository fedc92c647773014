//! Errors of the wallet.

use std::io;
use std::path::PathBuf;

use atcomm_net::durable::ReadError;
use atcomm_proto::syntax::Did;

/// Errors of reading and writing a wallet. A failed write leaves the former content in place.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A file does not hold what belongs there.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault, without any of the content, which may be secret.
        #[source]
        reason: Damage,
    },
    /// A file was written by a later version of this program.
    #[error("{} has version {version}, which is not known", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// A file or directory may be read by users other than its owner.
    #[error("{} may be read by others than its owner", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
    },
    /// The new content of a file is longer than a file that is read.
    #[error("{} would be longer than {cap} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        cap: usize,
    },
    /// Another process holds the lock.
    #[error("another atcomm works on {}", path.display())]
    Busy {
        /// The locked directory.
        path: PathBuf,
    },
    /// No account was enrolled from this wallet.
    #[error("there is no account in the wallet {}", home.display())]
    NoAccount {
        /// The wallet.
        home: PathBuf,
    },
    /// Several accounts match.
    #[error("the wallet has several accounts: {}", listed(accounts))]
    Several {
        /// The accounts that match.
        accounts: Vec<Did>,
    },
    /// The wallet does not have the account.
    #[error("{actor} is not in the wallet {}", home.display())]
    Unknown {
        /// The handle or DID that was asked for.
        actor: String,
        /// The wallet.
        home: PathBuf,
    },
}

/// Causes of [`WalletError::Damaged`].
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The file is too long.
    #[error(transparent)]
    TooLong(ReadError),
    /// The file is not JSON of the expected form. Only the place is kept, since the text of the
    /// parser can repeat a secret.
    #[error("not what is expected at line {line} column {column}")]
    Json {
        /// Line of the file.
        line: usize,
        /// Column of the line.
        column: usize,
    },
    /// The file is about another account than its name says.
    #[error("it is about another account")]
    OtherAccount,
    /// The account in the file breaks a rule: the rule in words.
    #[error("{0}")]
    Enrolment(String),
}

fn listed(accounts: &[Did]) -> String {
    let texts: Vec<&str> = accounts.iter().map(Did::as_str).collect();
    texts.join(", ")
}

impl WalletError {
    /// Whether the disk is full, or a limit of this user or process reached.
    pub fn is_out_of_space(&self) -> bool {
        matches!(
            self,
            Self::Unwritable { error, .. } if matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::WriteZero
            )
        )
    }
}
