//! The whole program against a real, local network (`tests/network/`).

// Lints of product code that spare tests look for this attribute.
#![cfg(test)]

mod accounts;
mod answers;
mod client;
mod dataset;
mod didcomm;
mod directory;
mod dist;
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
mod metrics;
mod migration;
mod network;
mod numbers;
mod operator;
mod pages;
mod parameters;
mod proxied;
mod proxies;
mod proxy;
mod rehearse;
mod restarts;
mod service;
mod snapshot;
mod timeline;
mod tls;
mod updates;
mod watched;
mod xrpc_docs;
