//! Accounts made in memory: their operation logs, their repositories, and what proves both.

pub mod account;
pub mod plc;
pub mod repo;
