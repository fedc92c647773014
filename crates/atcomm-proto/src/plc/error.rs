//! Errors of verifying a log.

/// Errors of verifying an operation log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The account is not a `did:plc`; only a `did:plc` has an operation log.
    #[error("the account is not a did:plc")]
    NotPlc,
    /// The log is longer than [`MAX_LOG_LEN`](super::MAX_LOG_LEN).
    #[error("the log is longer than 512 KiB")]
    TooLong,
    /// The log is not a JSON array of entries with `cid`, `createdAt`, `nullified` and `operation`.
    #[error("the log is not a list of operations")]
    NotALog,
    /// The log has no operation.
    #[error("the log is empty")]
    Empty,
    /// The log has more than [`MAX_OPERATIONS`](super::MAX_OPERATIONS).
    #[error("the log has more than 1000 operations")]
    TooMany,
    /// One entry is invalid.
    #[error("operation {index} of the log: {fault}")]
    Operation {
        /// Index of the entry in the log.
        index: usize,
        /// The rule that the entry breaks.
        #[source]
        fault: Fault,
    },
}

/// Rules that an entry of a log can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry names another account.
    #[error("it is of another account")]
    WrongDid,
    /// `createdAt` is not a time, or is earlier than that of the previous entry.
    #[error("its time is missing or out of order")]
    Time,
    /// A member is missing, of the wrong type, or of a type that no operation has.
    #[error("it does not have the shape of an operation")]
    Shape,
    /// The rotation keys are not one to five keys of the two curves.
    #[error("its rotation keys are not one to five keys of K-256 or P-256")]
    RotationKeys,
    /// The hash of the first operation is not the account's identifier.
    #[error("its hash is not the account's identifier")]
    Genesis,
    /// `cid` is not the CID of the operation.
    #[error("its hash is not its cid")]
    Cid,
    /// `prev` names no operation in effect at this point.
    #[error("it does not follow an operation that counts")]
    Prev,
    /// The signature is not 64 bytes in base64url, is high-S, or is not by an authorised key.
    #[error("it is not signed by a key that may")]
    Signature,
    /// The operation undoes others more than 72 hours after the first of them.
    #[error("it undoes operations too late")]
    Late,
    /// `nullified` contradicts the operations.
    #[error("it is marked as undone and is not, or the other way round")]
    Nullified,
}
