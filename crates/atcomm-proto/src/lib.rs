//! The formats of atcomm as values: checked identifiers, signing keys, operation logs, repository
//! proofs, frames and events of streams, key packages, DIDComm messages, and the verification of
//! all of them.
//!
//! This crate does no I/O and uses no runtime: its functions take bytes and time and return values.
//! All input is treated as hostile until it is verified. Malformed input causes a typed error, never
//! a panic.
//!
//! # Modules by rank
//!
//! A module imports only modules of lower rank (`tests/structure` of the program checks).
//!
//! | rank | module | holds |
//! |---|---|---|
//! | 0 | [`syntax`], [`clock`] | checked identifiers, text of other servers made harmless; time as a value |
//! | 1 | [`key`], [`typed`] | signing keys in every shape, the signature check; names as people type them |
//! | 2 | [`did_peer`], [`plc`], [`proof`], [`service_token`], [`wire`] | did:peer:2 and 4; a did:plc's log to its keys; CAR bytes and a key to a verified record or absence; tokens by which an account calls a service; frames and events as values |
//! | 3 | [`keypackage`], [`didcomm`] | the rules of the record; DIDComm messages in both directions |
//! | 4 | [`verify`] | evidence, attribution, pinning, succession, fingerprints: the decisions of a client |

// 0
pub mod clock;
pub mod syntax;
// 1
pub mod key;
pub mod typed;
// 2
pub mod did_peer;
pub mod plc;
pub mod proof;
pub mod service_token;
pub mod wire;
// 3
pub mod didcomm;
pub mod keypackage;
// 4
pub mod verify;

#[cfg(test)]
extern crate self as atcomm_proto;
#[cfg(test)]
#[path = "../../testkit/src/proto/mod.rs"]
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the same source as in testkit, compiled against the crate under test"
)]
mod testing;
