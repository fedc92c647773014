//! The whole program against a real, local network (`tests/network/`), and rules about the source.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod client;
#[cfg(test)]
mod didcomm;
#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forged;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod gaps;
#[cfg(test)]
mod history;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod jetstream;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod lexicon;
#[cfg(test)]
mod mediator;
#[cfg(test)]
mod moves;
#[cfg(test)]
mod network;
#[cfg(test)]
mod post;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod service;
#[cfg(test)]
mod tls;
