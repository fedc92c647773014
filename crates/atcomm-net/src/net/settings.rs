//! Settings of outbound requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and routes of outbound requests. The default is right for the public network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetSettings {
    /// Allows loopback addresses, plain `http`/`ws` and names under `.test` for addresses named by
    /// the network. Absent: false. Never set it on a machine that others can reach.
    pub development: bool,
    /// Name server for handles and for hosts named by the network, such as `127.0.0.1:5353`.
    /// Absent: those of the system (`/etc/resolv.conf`).
    pub name_server: Option<SocketAddr>,
    /// PEM file of certificate authorities trusted besides the public ones. Absent: none.
    pub extra_ca_file: Option<PathBuf>,
    /// Port of `https` for handles and for a `did:web` without a port. Absent: 443. Another port is
    /// refused at start unless `development` is set.
    pub https_port: u16,
    /// Mail address or page in the User-Agent, by which operators of other servers can reach this
    /// one's operator. Absent: the User-Agent names only the program.
    pub contact: Option<String>,
    /// Time limit for opening a connection, including name look-up and TLS. Absent: 3 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time limit for a request with its redirects and its whole body. Absent: 10 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Requests per second to one registrable domain named by the network (`host.bsky.network` and
    /// its siblings share one). Absent: 10.
    pub host_rate: u32,
    /// Requests to one such domain that may go out at once after a pause. Absent: 20.
    pub host_burst: u32,
    /// Concurrent requests to one such domain. Absent: 4.
    pub host_concurrency: u32,
    /// Concurrent requests to one endpoint of the operator's settings, which has no rate limit.
    /// Absent: 16.
    pub operator_concurrency: u32,
    /// Concurrent requests to all hosts named by the network together. Interactive and background
    /// work take at most two thirds each. Absent: 64.
    pub in_flight: u32,
    /// Longest wait under the limits above; after that the request fails as busy. Absent: 500 ms.
    #[serde(with = "humantime_serde")]
    pub busy_wait: Duration,
}

impl Default for NetSettings {
    fn default() -> Self {
        Self {
            development: false,
            name_server: None,
            extra_ca_file: None,
            https_port: 443,
            contact: None,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            host_rate: 10,
            host_burst: 20,
            host_concurrency: 4,
            operator_concurrency: 16,
            in_flight: 64,
            busy_wait: Duration::from_millis(500),
        }
    }
}
