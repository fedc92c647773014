//! atcomm: the directory beside an atproto host through which people find each other's messaging
//! keys, the mediator that keeps their mail, and the client with which they write and read it.
//!
//! An account enrols by writing one record, `at.didcomm.keyPackage`, into its own repository. This
//! service learns of such records from event streams, proves each of them under the account's own
//! signing key, keeps them, and answers in one hop what a client needs to send an encrypted
//! message, with the proof. Where a record names this service as the mediator, it takes DIDComm
//! messages for the did:peer in the record, keeps them until they are picked up, and carries
//! others on; it cannot read any of them.
//!
//! # Modules by rank
//!
//! A module imports only modules of lower rank (`tests/it/layers.rs` holds us to it). Ranks 0 to 3
//! do no I/O and know no runtime.
//!
//! | rank | module | holds |
//! |---|---|---|
//! | 0 | [`syntax`], [`clock`] | checked identifiers; injected time |
//! | 1 | [`key`] | signing keys in every shape, the signature check |
//! | 2 | [`did_peer`], [`plc`], [`proof`], [`wire`] | did:peer:2 and 4; a did:plc's log to its keys; CAR bytes and a key to a verified record or absence; frames and events as values |
//! | 3 | [`keypackage`], [`didcomm`] | the rules of the record; DIDComm messages in both directions |
//! | 4 | [`store`], [`net`] | the only user of SQLite; the only place that dials out |
//! | 5 | [`identity`] | DID documents, handles and mediators, cached |
//! | 6 | [`directory`] | verified findings applied, questions answered |
//! | 7 | [`resolve`] | one account: fetch, prove, apply; owed work |
//! | 8 | [`ingest`], [`mediator`], [`client`] | streams, walks and their cursors; mail: admission, sessions, queues, relay; wallet, recipients and writers verified |
//! | 9 | [`http`] | XRPC, DIDComm over HTTP and WebSockets, health, metrics page |
//! | 10 | [`config`] | every module's settings, from file, environment and flags |
//! | 11 | [`server`] | wiring, start and end |
//! | 12 | [`cli`] | commands |
//!
//! # The flows
//!
//! Of records:
//!
//! ```text
//! stream event -> inline proof, or an owed look ---+
//! walk, age, asker -> look -> identity -> PDS -> proof -> keypackage -> directory -> change log
//! resolveRecipient -> ready answer, or entry, or a look within budgets
//! ```
//!
//! Of mail:
//!
//! ```text
//! change log -> admission: whose mail is kept, and how long still
//! envelope by POST or WebSocket -> unpack -> session by what is known of the sender
//! forward -> queue or outbox -> commit -> 202 -> sockets in live mode, or the relay's next hop
//! pickup -> delivery -> messages-received -> gone from the queue
//! ```
//!
//! Of the client:
//!
//! ```text
//! enroll: key in the wallet -> record -> directory -> mediators, each step written down before
//! send: directory, or the account's own servers -> proof -> pin -> authcrypt, forwards -> own mediator
//! receive: envelope -> writer -> account that it claims, looked up -> wallet -> acknowledged
//! ```
//!
//! # Invariants
//!
//! The test that guards one carries its number in its name.
//!
//! 1. Nothing unverified is served as verified; what a Jetstream says is never indexed.
//! 2. A cursor passes only work that is durable: applied, or owed in the same transaction.
//! 3. No 2xx for mail to a known recipient before it is on disk; nothing leaves a queue before its
//!    recipient acknowledged it or its time to live ended.
//! 4. Under one account, PDS and key the revision only goes forward: a lower one is ignored from a
//!    stream, and from the account's own PDS kept as evidence, the entry marked `regressed`.
//! 5. Absence is only what an exclusion proof shows; unproven, unknown, unreachable and
//!    inconclusive are told apart.
//! 6. Names learnt from the network are dialled only at addresses that pass the policy when the
//!    connection is made; endpoints that the operator names are exempt.
//! 7. Every queue, cache, channel, body and loop is bounded.
//! 8. Hostile input ends in a counted drop or a typed error, never a panic.
//! 9. No log line or metric joins who asked with whom they asked for, or a sender with a
//!    recipient.
//! 10. After `kill -9` at any point a restart goes on with nothing acknowledged lost.

// 0
pub mod clock;
pub mod syntax;
// 1
pub mod key;
// 2
pub mod did_peer;
pub mod plc;
pub mod proof;
pub mod wire;
// 3
pub mod didcomm;
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
pub mod client;
pub mod ingest;
pub mod mediator;
// 9
pub mod http;
// 10
pub mod config;
// 11
pub mod server;
// 12
pub mod cli;
