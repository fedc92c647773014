//! The only place that dials out: HTTP, WebSockets and DNS, guarded.
//!
//! Hosts named by the network ([`Trust::Untrusted`]) are dialled only by `https`, on port 443 or a
//! port from 1024 up, and only at public unicast addresses. The address is checked when the
//! connection is made, so a name that resolves differently the second time gains nothing. Endpoints
//! named by the operator ([`Trust::Configured`]) are exempt from the rules for schemes and
//! addresses.
//!
//! Every response has a size limit, which counts decompressed bytes as they arrive. Every request
//! has a time limit over all its parts. Every host has a rate, a number of concurrent requests, and
//! a pause after a `Retry-After`. No log line or metric names a host.

mod address;
mod address_limiter;
mod client;
mod dns;
mod error;
mod host_limiter;
mod policy;
mod request;
mod retry_after;
mod settings;
mod socket;
mod stream;
mod tls;
mod xrpc;

pub use address_limiter::{AddressLimiter, group_of};
pub use client::Net;
pub use error::{AuthoritiesError, DnsError, NetError, Refusal, SettingsError, TlsError};
pub use host_limiter::{Priority, owner_domain, registrable_domain};
pub use policy::Trust;
pub use request::{Request, Response};
pub use settings::NetSettings;
pub use socket::{Wire, WsOptions};
pub use stream::{Received, StreamReader};
pub use xrpc::{CallError, XrpcError};

#[cfg(test)]
mod tests;
