//! What the tests and benches of several crates share: servers on loopback, repositories and
//! operation logs made in memory, mediators with their secret keys, the network of
//! `tests/network/`, the load client and the figures of benches.
//!
//! `atcomm-proto` and `atcomm-net` compile [`proto`] and [`net`] a second time into their own unit
//! tests (`#[path]`), because a crate under test is another crate to cargo than the one that this
//! library is linked with, and the types of the two do not mix. Those two modules therefore name
//! the crate that they serve by its outer name, and import nothing else of this library.
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
