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
//! # Crates, and modules by rank
//!
//! This package is the service and the command line. What it stands on are three libraries, each of
//! which depends only on those before it:
//!
//! - `atcomm_proto`: what is read and written, as values, and its verification; no I/O, no runtime;
//! - `atcomm_net`: guarded network access, DID documents, handles, private files;
//! - `atcomm_client`: what a person's program does; nothing of the service is in its tree.
//!
//! A module imports only modules of lower rank; `tests/structure` checks that here and in the
//! libraries.
//!
//! | rank | module | holds |
//! |---|---|---|
//! | 0 | [`store`] | the only user of SQLite |
//! | 1 | [`directory`] | verified findings applied, questions answered |
//! | 2 | [`resolve`], [`dataset`] | one account refreshed: fetch, prove, apply; pending refreshes. The time series as files for the public |
//! | 3 | [`ingest`], [`mediator`] | streams, backfill and their cursors; mail: admission, sessions, queues, relay |
//! | 4 | [`http`] | XRPC, DIDComm over HTTP and WebSockets, health, metrics page |
//! | 5 | [`config`] | every module's settings, from file, environment and flags |
//! | 6 | [`server`] | wiring, start and end |
//! | 7 | [`cli`] | arguments, printing, exit codes |
//!
//! # The flows
//!
//! Of records:
//!
//! ```text
//! stream event -> inline proof, or pending refresh
//! backfill, expiry, request -> refresh -> identity -> PDS -> proof -> key package -> directory -> change log
//! resolveRecipient -> cached answer, or entry, or a refresh within budgets
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
//! 2. A cursor passes only work that is durable: applied, or pending in the same transaction.
//! 3. No 2xx for mail to a known recipient before it is on disk; nothing leaves a queue before its
//!    recipient acknowledged it, its time to live ended, or the operator denied the account or
//!    purged the queue. Of the client: nothing is given up before it is fetched; the client keeps,
//!    then shows, then acknowledges.
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
pub mod store;
// 1
pub mod directory;
// 2
pub mod dataset;
pub mod resolve;
// 3
pub mod ingest;
pub mod mediator;
// 4
pub mod http;
// 5
pub mod config;
// 6
pub mod server;
// 7
pub mod cli;
