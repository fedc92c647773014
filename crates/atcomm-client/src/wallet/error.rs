//! Why a wallet cannot be used.

use std::io;
use std::path::PathBuf;

use atcomm_proto::syntax::Did;

/// Why a wallet, or something in it, cannot be used. Whatever failed, what was in the wallet before
/// is still there.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; nothing of what it holds.
        reason: String,
    },
    /// A file of a later version of this program.
    #[error("{} has version {version}, which is not known", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// Others may look into it.
    #[error("{} may be read by others than its owner", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
    },
    /// More than would be read again.
    #[error("{} would be longer than {cap} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Most bytes.
        cap: usize,
    },
    /// Another process holds the lock.
    #[error("another atcomm works on {}", path.display())]
    Busy {
        /// What it works on.
        path: PathBuf,
    },
    /// No account was enrolled from this wallet.
    #[error("there is no account in the wallet {}", home.display())]
    NoAccount {
        /// The wallet.
        home: PathBuf,
    },
    /// Which account is meant has to be said.
    #[error("the wallet has several accounts: {}", listed(accounts))]
    Several {
        /// Those it may be.
        accounts: Vec<Did>,
    },
    /// It has others.
    #[error("{actor} is not in the wallet {}", home.display())]
    Unknown {
        /// What was asked for.
        actor: String,
        /// The wallet.
        home: PathBuf,
    },
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
