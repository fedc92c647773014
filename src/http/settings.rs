//! Settings of the public listener (`[http]`).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::client_address::Network;
use super::updates::UpdatesSettings;

/// Settings of the public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on, such as `127.0.0.1:2590`; port 0 takes any free one. A port alone, and
    /// `localhost`, are of this machine. Absent: `127.0.0.1:2590`, for a reverse
    /// proxy on the same machine, which also terminates TLS.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Where others reach this server, such as `https://dir.example.com`: PDSes pass the requests of
    /// their users on to the `did:web` of that host. Absent: `mediator.public_url`, if that is set.
    pub public_url: Option<String>,
    /// Proxies whose `X-Forwarded-For` is trusted, as addresses or networks (`10.0.0.0/8`).
    /// Absent: this machine. Empty: none, and the client is always the connected peer.
    pub trusted_proxies: Vec<Network>,
    /// Maximum simultaneous connections; more wait until one ends. Absent: 4096.
    pub max_connections: usize,
    /// Maximum simultaneous requests that are not answered from memory; more get 503 with
    /// `Retry-After`. A quarter of this number limits the answers with proofs or histories that
    /// are held until they are written. Absent: 512.
    pub max_requests: usize,
    /// XRPC requests that one client address may make in five minutes (IPv6: its /64), beside those
    /// that are answered from memory; more get 429 with `Retry-After`. 0: no limit. Absent: 3000.
    pub rate_limit: u32,
    /// Addresses or networks that are not limited by `rate_limit` and `resolve.misses_per_minute`.
    /// Absent: none.
    pub rate_limit_bypass: Vec<Network>,
    /// Maximum duration of one request, its body included. Absent: 30 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The stream of changes and the channel.
    pub updates: UpdatesSettings,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2590)),
            public_url: None,
            trusted_proxies: vec![
                Network::host(Ipv4Addr::LOCALHOST.into()),
                Network::host(Ipv6Addr::LOCALHOST.into()),
            ],
            max_connections: 4096,
            max_requests: 512,
            rate_limit: 3000,
            rate_limit_bypass: Vec::new(),
            timeout: Duration::from_secs(30),
            updates: UpdatesSettings::default(),
        }
    }
}

/// A text that is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address and a port, such as 127.0.0.1:2590 for this machine or 0.0.0.0:2590 for every \
     interface"
)]
pub struct NoListenAddress;

/// Reads an address to listen on. A port alone, and a port of `localhost`, are ports of this
/// machine: nothing is opened to the network that is not named.
pub fn listen_address(text: &str) -> Result<SocketAddr, NoListenAddress> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = match text.rsplit_once(':') {
        Some((host, port)) if host.is_empty() || host.eq_ignore_ascii_case("localhost") => port,
        None => text,
        Some(_) => return Err(NoListenAddress),
    };
    // A sign before the number would be taken, too.
    if !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(NoListenAddress);
    }
    let port: u16 = port.parse().map_err(|_| NoListenAddress)?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Reads the setting of an address to listen on: a text, or a number as a port.
fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_any(ListenVisitor)
}

/// Reads such a setting that may be absent.
pub fn optional_listen<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    listen(deserializer).map(Some)
}

struct ListenVisitor;

impl Visitor<'_> for ListenVisitor {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address and a port")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketAddr, E> {
        listen_address(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, port: u64) -> Result<SocketAddr, E> {
        self.visit_str(&port.to_string())
    }

    fn visit_i64<E: de::Error>(self, port: i64) -> Result<SocketAddr, E> {
        self.visit_str(&port.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_is_read_as_people_write_it() {
        for (text, address) in [
            ("127.0.0.1:2590", "127.0.0.1:2590"),
            (" 0.0.0.0:80 ", "0.0.0.0:80"),
            ("[::]:443", "[::]:443"),
            ("2590", "127.0.0.1:2590"),
            (":2590", "127.0.0.1:2590"),
            ("localhost:2590", "127.0.0.1:2590"),
            ("LOCALHOST:0", "127.0.0.1:0"),
        ] {
            let read = listen_address(text).map(|address| address.to_string());
            assert_eq!(read.as_deref(), Ok(address), "{text}");
        }
        for text in [
            "",
            "here",
            "127.0.0.1",
            "mail.example.com:2590",
            "*:2590",
            "65536",
            ":-1",
            "+2590",
            "localhost:",
            "::1",
        ] {
            assert_eq!(listen_address(text), Err(NoListenAddress), "{text}");
        }
    }
}
