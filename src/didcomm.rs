//! DIDComm v2 as values: plaintext messages and the protocols that a mediator and its clients
//! speak, in both directions. Nothing here knows a socket, a store or the time.

pub mod message;
pub mod protocol;
