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
        /// What the system says.
        error: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// What the system says.
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
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unwritable { error, .. } if is_full(error) => {
                "there is no room left: free some and run it again; nothing was changed".to_owned()
            }
            Self::Unreadable { .. } | Self::Unwritable { .. } => {
                "the wallet has to belong to the user who runs this; --home names another"
                    .to_owned()
            }
            Self::Damaged { path, .. } => format!(
                "put {} back from a backup, or move it away and run `atcomm restore`",
                path.display()
            ),
            Self::Newer { .. } => {
                "it was written by a later version of atcomm: use that one".to_owned()
            }
            Self::Exposed { path } => format!(
                "run `chmod -R go= {}`; if others could read it, run `atcomm rotate` then",
                path.display()
            ),
            Self::TooLong { .. } => "nothing was changed".to_owned(),
            Self::Busy { .. } => "wait for it to end, then run it again".to_owned(),
            Self::NoAccount { .. } => {
                "enrol one with `atcomm enroll`, or bring one here with `atcomm restore`; --home \
                 names another wallet"
                    .to_owned()
            }
            Self::Several { .. } => "say which with --account".to_owned(),
            Self::Unknown { .. } => "`atcomm whoami` shows the accounts that are in it".to_owned(),
        }
    }
}

/// Whether there is no room, on the disk or for this user or process.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}
