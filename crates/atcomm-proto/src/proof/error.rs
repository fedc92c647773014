//! Errors of verifying a proof.

/// Errors of verifying a proof. Each has a stable code for metrics and for the stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProofError {
    /// The CAR, the record's path or a node of it is larger than allowed.
    #[error("the proof is larger than allowed")]
    Oversize,
    /// The bytes are not a well-formed CAR.
    #[error("the proof is not a well-formed CAR")]
    Malformed,
    /// The CAR has no root, far too many, or a first one whose block is missing.
    #[error("the proof has no root that is one of its blocks")]
    Roots,
    /// The bytes of a block do not hash to its CID.
    #[error("a block of the proof does not match its CID")]
    Hash,
    /// A block on the path is missing, so neither presence nor absence is proven.
    #[error("a block on the path to the record is missing")]
    Incomplete,
    /// The root is not a version 3 commit in canonical form.
    #[error("the root is not a version 3 commit")]
    Commit,
    /// The commit belongs to another account.
    #[error("the commit belongs to another account")]
    WrongDid,
    /// The signature is not by the account's current key.
    #[error("the commit is not signed by the account's current key")]
    Signature,
    /// The revision is not a TID.
    #[error("the revision is not a TID")]
    Rev,
    /// The revision lies more than five minutes in the future.
    #[error("the revision lies in the future")]
    Future,
    /// A node of the tree breaks the rules of its form.
    #[error("the repository tree in the proof is malformed")]
    Tree,
    /// The record block is not a map in strict DAG-CBOR.
    #[error("the record is not valid DAG-CBOR")]
    Record,
}

impl ProofError {
    /// Returns a stable code for metrics and for the stored entry.
    pub fn code(self) -> &'static str {
        match self {
            Self::Oversize => "proof_oversize",
            Self::Malformed => "proof_malformed",
            Self::Roots => "proof_roots",
            Self::Hash => "proof_hash",
            Self::Incomplete => "proof_incomplete",
            Self::Commit => "proof_commit",
            Self::WrongDid => "proof_wrong_did",
            Self::Signature => "proof_signature",
            Self::Rev => "proof_rev",
            Self::Future => "proof_future",
            Self::Tree => "proof_tree",
            Self::Record => "proof_record",
        }
    }
}
