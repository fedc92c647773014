//! The address of the client, which the limits per address are charged to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use atcomm_proto::syntax::SyntaxError;

/// Addresses of a network in CIDR notation, such as `10.0.0.0/8`; without a length, one address.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self(address.into())
    }

    /// Whether the network holds an address; an IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = SyntaxError;

    fn from_str(s: &str) -> Result<Self, SyntaxError> {
        let invalid = |reason| SyntaxError {
            kind: "network",
            reason,
        };
        let (address, length) = match s.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (s, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid("not an IP address"))?;
        let Some(length) = length else {
            return Ok(Self::host(address));
        };
        length
            .parse()
            .ok()
            .and_then(|length| IpNet::new(address, length).ok())
            .map(Self)
            .ok_or(invalid("the length after / is not one of its addresses"))
    }
}

impl TryFrom<String> for Network {
    type Error = SyntaxError;

    fn try_from(s: String) -> Result<Self, SyntaxError> {
        s.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address of the client. Handlers take it from the extensions of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

impl ClientAddress {
    /// Reads the address from `X-Forwarded-For`. Entries count from the right while the address
    /// found so far is a trusted proxy; a client can have written everything further left.
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let mut client = peer.to_canonical();
        // Each entry is read by itself: what a client has written further left, also bytes that are
        // no text, does not hide what a proxy has appended.
        let entries = headers
            .get_all("x-forwarded-for")
            .iter()
            .rev()
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries {
            if !trusted.iter().any(|network| network.contains(client)) {
                break;
            }
            let Some(address) = read_entry(entry) else {
                break;
            };
            client = address;
        }
        Self(client)
    }
}

/// Reads an entry: an address, with the port that some proxies append.
fn read_entry(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let address = entry.parse().ok().or_else(|| {
        let with_port: Option<SocketAddr> = entry.parse().ok();
        with_port.map(|address| address.ip())
    });
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn network(s: &str) -> Network {
        s.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (net, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let found = network(net).contains(address.parse().unwrap());
            assert_eq!(found, inside, "{address} in {net}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/x",
            "host/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!(network("::1").to_string(), "::1/128");
    }

    #[test]
    fn only_entries_of_trusted_proxies_count() {
        let trusted = [network("127.0.0.0/8"), network("10.0.0.0/8")];
        let client = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            ClientAddress::of(peer.parse().unwrap(), &headers, &trusted)
                .0
                .to_string()
        };
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["203.0.113.5"]), "203.0.113.5");
        assert_eq!(client("198.51.100.1", &["203.0.113.5"]), "198.51.100.1");
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 203.0.113.5, 10.0.0.2"]),
            "203.0.113.5"
        );
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6", "203.0.113.5,10.0.0.2"]),
            "203.0.113.5"
        );
        assert_eq!(client("127.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("127.0.0.1", &["203.0.113.5, unknown"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(
            client("::ffff:127.0.0.1", &["203.0.113.5:99"]),
            "203.0.113.5"
        );
    }
    proptest! {
        /// The client writes any bytes that a header may hold, the proxy appends what it saw.
        #[test]
        fn no_bytes_of_a_client_hide_the_entry_of_a_trusted_proxy(
            written in prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..40),
            by_space in any::<bool>(),
        ) {
            let separator: &[u8] = if by_space { b", " } else { b"," };
            let line = [&written, separator, b"203.0.113.5"].concat();
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", HeaderValue::from_bytes(&line).unwrap());
            let client = ClientAddress::of("127.0.0.1".parse().unwrap(), &headers, &[network("127.0.0.1")]);
            prop_assert_eq!(client.0.to_string(), "203.0.113.5");
        }
    }
}
