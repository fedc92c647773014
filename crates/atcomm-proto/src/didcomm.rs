//! DIDComm v2 as values: envelopes, the parties behind them, plaintext messages and the protocols
//! that a mediator and its clients speak, in both directions. Nothing here knows a socket, a store
//! or the time.
//!
//! Source: DIDComm Messaging 2.1.

pub mod envelope;
mod key;
pub mod message;
pub mod party;
pub mod protocol;
