//! The whole program against a real, local network (`tests/network/`).

// Lints of product code that spare tests look for this attribute.
#![cfg(test)]

mod accounts;
mod answers;
mod client;
mod dataset;
mod didcomm;
mod directory;
mod events;
mod faults;
mod forged;
mod frames;
mod gaps;
mod history;
mod hostile;
mod http;
mod identities;
mod jetstream;
mod lexicon;
mod lists;
mod mail;
mod mediator;
mod migration;
mod network;
mod numbers;
mod pages;
mod parameters;
mod proxied;
mod proxy;
mod restarts;
mod service;
mod snapshot;
mod timeline;
mod tls;
mod updates;
mod xrpc_docs;
