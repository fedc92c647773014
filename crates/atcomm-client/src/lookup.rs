//! Look-ups over the network: recipients and senders, by a directory and by the accounts' own
//! servers.

pub mod authoritative;
mod candidate;
mod choose;
pub mod directory;
mod mediators;
pub mod outcome;
pub mod recipient;
mod resolve;
pub mod sender;
pub mod trust;
