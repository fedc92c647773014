//! Errors of verifying a log.

/// Why a log is not the log of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Only a `did:plc` has an operation log.
    #[error("the account is not a did:plc")]
    NotPlc,
    /// Longer than [`MAX_LOG_LEN`](super::MAX_LOG_LEN).
    #[error("the log is longer than 512 KiB")]
    TooLong,
    /// Not a JSON array of entries with `cid`, `createdAt`, `nullified` and `operation`.
    #[error("the log is not a list of operations")]
    NotALog,
    /// No operation at all.
    #[error("the log is empty")]
    Empty,
    /// More than [`MAX_OPERATIONS`](super::MAX_OPERATIONS).
    #[error("the log has more than 1000 operations")]
    TooMany,
    /// One of its entries does not hold.
    #[error("operation {index} of the log: {fault}")]
    Operation {
        /// Place in the log, from zero.
        index: usize,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with an entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry is about another account.
    #[error("it is of another account")]
    WrongDid,
    /// `createdAt` is no time, or before that of the entry above it.
    #[error("its time is missing or out of order")]
    Time,
    /// A member is missing, of the wrong type, or of a type that operations do not have.
    #[error("it does not have the shape of an operation")]
    Shape,
    /// Not one to five keys of the two curves.
    #[error("its rotation keys are not one to five keys of K-256 or P-256")]
    RotationKeys,
    /// The first operation's hash is not the account's identifier.
    #[error("its hash is not the account's identifier")]
    Genesis,
    /// The entry's `cid` is not the operation's.
    #[error("its hash is not its cid")]
    Cid,
    /// `prev` names no operation that counts at this point.
    #[error("it does not follow an operation that counts")]
    Prev,
    /// Not 64 bytes in base64url, high-S, or not by a key that may sign here.
    #[error("it is not signed by a key that may")]
    Signature,
    /// It undoes operations later than 72 hours after the first of them.
    #[error("it undoes operations too late")]
    Late,
    /// `nullified` is not what the operations themselves say.
    #[error("it is marked as undone and is not, or the other way round")]
    Nullified,
}
