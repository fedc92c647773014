//! Helpers of the tests and benches of several crates: servers on loopback, repositories and
//! operation logs made in memory, mediators with their secret keys, the network of
//! `tests/network/`, a load client and figures of benches.
//!
//! The unit tests of `atcomm-proto` and `atcomm-net` compile [`proto`] and [`net`] a second time
//! (`#[path]`). To cargo, a crate under test is a different crate from the one that this library
//! links, and the types of the two do not mix. Those two modules therefore name the crate that they
//! serve by its outer name, and import nothing else of this library.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fault in a test's preparation fails the test"
)]

pub mod bench;
pub mod load;
pub mod mediator;
pub mod net;
pub mod network;
pub mod proto;
