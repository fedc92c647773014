//! Settings of the public listener (`[http]`).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_address::Network;

/// Settings of the public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on; port 0 takes any free one. Absent: `127.0.0.1:2590`, for a reverse
    /// proxy on the same machine, which also terminates TLS.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is trusted, as addresses or networks (`10.0.0.0/8`).
    /// Absent: this machine. Empty: none, and the client is always the connected peer.
    pub trusted_proxies: Vec<Network>,
    /// Maximum simultaneous connections; more wait until one ends. Absent: 4096.
    pub max_connections: usize,
    /// Maximum simultaneous requests that are not answered from memory; more get 503 with
    /// `Retry-After`. A quarter of this number limits the answers with proofs or histories that
    /// are held until they are written. Absent: 512.
    pub max_requests: usize,
    /// Maximum duration of one request, its body included. Absent: 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2590)),
            trusted_proxies: vec![
                Network::host(Ipv4Addr::LOCALHOST.into()),
                Network::host(Ipv6Addr::LOCALHOST.into()),
            ],
            max_connections: 4096,
            max_requests: 512,
            timeout: Duration::from_secs(30),
        }
    }
}
