//! DIDComm v2 as values: envelopes, the parties behind them, plaintext messages, and the protocols
//! that a mediator and its clients use, in both directions. Nothing here uses a socket, a store or
//! a clock.
//!
//! Source: DIDComm Messaging 2.1.

pub mod envelope;
pub mod i_json;
mod key;
pub mod message;
pub mod party;
pub mod protocol;
