//! The life of a message: composed, wrapped, sent, reported, received and opened.

pub mod attempt;
pub mod dm;
pub mod embed;
pub mod open;
pub mod outbox;
pub mod receive;
pub mod self_test;
pub mod send;
pub mod wrap;
