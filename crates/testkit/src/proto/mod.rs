//! Accounts made in memory: their operation logs, their repositories and the proofs of both.

pub mod account;
pub mod plc;
pub mod repo;
