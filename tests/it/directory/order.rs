//! Older facts and proofs beside newer ones.
