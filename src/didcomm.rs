//! DIDComm v2: envelopes, and the parties that write them.
//!
//! Everything takes bytes and gives values; nothing here resolves a name over the network or keeps
//! a state.

pub mod envelope;
pub mod party;
