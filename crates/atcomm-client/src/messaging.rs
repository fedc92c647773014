//! The life of a message: composed, wrapped, sent, reported, received and opened.

pub mod attempt;
pub mod attribute;
pub mod compose;
pub mod dm;
pub mod embed;
mod follow;
pub mod inbox;
mod leave;
pub mod outbox;
pub mod receive;
pub mod self_test;
pub mod send;
pub mod unpack;
pub mod wrap;
