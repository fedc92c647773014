//! Settings of everything that dials out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How this service reaches others. The default is right for production on the public network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetSettings {
    /// Allows loopback addresses, plain `http`/`ws` and names under `.test` for what is learnt from
    /// the network. Absent: false. Never set it on a machine that others can reach.
    pub development: bool,
    /// Name server asked for handles and for hosts learnt from the network, such as
    /// `127.0.0.1:5353`. Absent: those of the system (`/etc/resolv.conf`).
    pub name_server: Option<SocketAddr>,
    /// PEM file of certificate authorities trusted besides the public ones. Absent: only those.
    pub extra_ca_file: Option<PathBuf>,
    /// Port used instead of 443 where a handle or a `did:web` names none. Absent: 443. Anything
    /// else is refused at start unless `development` is set.
    pub https_port: u16,
    /// Address or page put into the User-Agent, so that operators whom we ask can reach ours.
    /// Absent: the User-Agent names only the program.
    pub contact: Option<String>,
    /// Time for one connection to stand, name look-up and TLS included. Absent: 3 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Time for one request with its redirects and its whole body. Absent: 10 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Requests per second to one registrable domain (`host.bsky.network` and its siblings share
    /// one) learnt from the network. Absent: 10.
    pub host_rate: u32,
    /// Requests to one such domain that may go out at once after a silence. Absent: 20.
    pub host_burst: u32,
    /// Requests under way to one such domain. Absent: 4.
    pub host_concurrency: u32,
    /// Requests under way to one endpoint that the operator named, which has no rate limit.
    /// Absent: 16.
    pub operator_concurrency: u32,
    /// Requests under way to all hosts learnt from the network together. Askers' work and the
    /// background's take at most two thirds each. Absent: 64.
    pub in_flight: u32,
    /// Longest wait for a turn under the limits above; then the request fails as busy.
    /// Absent: 500 ms.
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
