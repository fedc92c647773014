//! atcomm: the directory beside an atproto host through which people find each other's messaging
//! keys.
//!
//! # Modules by rank
//!
//! A module imports only modules of lower rank (`tests/it/layers.rs` holds us to it). Ranks 0 to 3
//! do no I/O and know no runtime.

// 0
pub mod clock;
pub mod syntax;
// 1
pub mod key;
// 2
pub mod did_peer;
pub mod proof;
pub mod wire;
// 3
pub mod keypackage;
// 4
pub mod net;
pub mod store;
// 5
pub mod identity;
// 6
pub mod directory;
// 7
pub mod resolve;
// 8
pub mod ingest;
// 9
pub mod http;
// 10
pub mod config;
// 11
pub mod server;
// 12
pub mod cli;
