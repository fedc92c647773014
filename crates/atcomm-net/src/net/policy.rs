//! Which URLs may be dialled, decided before any name is looked up.

use url::{Host, Url};

use super::error::{NetError, Refusal};

/// The origin of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The operator's settings: any scheme, port and address.
    Configured,
    /// A document or a record of the network, which an attacker may have written.
    Untrusted,
}

/// Top-level domains that name nothing on the public network (RFC 6761 and relatives).
const RESERVED_TLDS: [&str; 8] = [
    "alt",
    "arpa",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// The schemes of HTTP: encrypted, and plain.
pub(super) const HTTP: (&str, &str) = ("https", "http");

/// The schemes of WebSockets: encrypted, and plain.
pub(super) const WEBSOCKET: (&str, &str) = ("wss", "ws");

/// Checks `url` and returns its host name as the limits of hosts use it: lower case, without a final
/// dot.
pub(super) fn check(
    url: &Url,
    trust: Trust,
    (secure, plain): (&str, &str),
    development: bool,
) -> Result<String, NetError> {
    if url.scheme() != secure && url.scheme() != plain {
        return Err(NetError::Refused(Refusal::Scheme));
    }
    if trust == Trust::Configured {
        let host = url.host_str().ok_or(NetError::Refused(Refusal::HostName))?;
        return Ok(host.trim_end_matches('.').to_owned());
    }
    if url.scheme() == plain && !development {
        return Err(NetError::Refused(Refusal::Scheme));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(NetError::Refused(Refusal::UserInfo));
    }
    // The parser has folded every spelling of an address (decimal, octal, hexadecimal, short,
    // percent-encoded or full-width digits) into `Host::Ipv4`.
    let host = match url.host() {
        Some(Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name),
        Some(_) => return Err(NetError::Refused(Refusal::AddressLiteral)),
        None => return Err(NetError::Refused(Refusal::HostName)),
    };
    let port = url.port_or_known_default().unwrap_or_default();
    let own_port = port == 443 || (development && url.port().is_none());
    if !own_port && port < 1024 {
        return Err(NetError::Refused(Refusal::Port));
    }
    if !is_public_name(host, development) {
        return Err(NetError::Refused(Refusal::HostName));
    }
    Ok(host.to_owned())
}

fn is_public_name(host: &str, development: bool) -> bool {
    let tld = host.rsplit('.').next().unwrap_or_default();
    if development && matches!(tld, "test" | "localhost") {
        return true;
    }
    // The search list of a local network would complete a single label.
    host.contains('.') && !host.ends_with('.') && !RESERVED_TLDS.contains(&tld)
}

/// Whether the name means this machine by definition (RFC 6761), so that it is not looked up.
pub(super) fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn untrusted(s: &str, development: bool) -> Result<String, NetError> {
        check(&Url::parse(s).unwrap(), Trust::Untrusted, HTTP, development)
    }

    #[test]
    fn inv6_untrusted_urls() {
        use Refusal::*;
        for (s, host) in [
            ("https://pds.example.com/x", "pds.example.com"),
            ("https://PDS.Example.com.:8443/", "pds.example.com"),
            ("https://pds.example.com:1024/", "pds.example.com"),
            (
                "https://xn--bcher-kva.example.com/",
                "xn--bcher-kva.example.com",
            ),
        ] {
            assert_eq!(untrusted(s, false).unwrap(), host);
        }
        for (s, refusal) in [
            ("http://pds.example.com/", Scheme),
            ("ftp://pds.example.com/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("wss://pds.example.com/", Scheme),
            ("https://pds.example.com:80/", Port),
            ("https://pds.example.com:22/", Port),
            ("https://pds.example.com:1023/", Port),
            ("https://user@pds.example.com/", UserInfo),
            ("https://:pw@pds.example.com/", UserInfo),
            ("https://127.0.0.1/", AddressLiteral),
            ("https://2130706433/", AddressLiteral),
            ("https://0x7f000001/", AddressLiteral),
            ("https://0177.0.0.1/", AddressLiteral),
            ("https://127.1/", AddressLiteral),
            ("https://%31%32%37.0.0.1/", AddressLiteral),
            ("https://１２７.0.0.1/", AddressLiteral),
            ("https://127.0.0.1./", AddressLiteral),
            ("https://8.8.8.8/", AddressLiteral),
            ("https://[::1]/", AddressLiteral),
            ("https://[::ffff:169.254.169.254]/", AddressLiteral),
            ("https://localhost/", HostName),
            ("https://localhost./", HostName),
            ("https://x.localhost/", HostName),
            ("https://metadata/", HostName),
            ("https://metadata.google.internal/", HostName),
            ("https://printer.local/", HostName),
            ("https://a.onion/", HostName),
            ("https://pds.test/", HostName),
            ("https://pds.example.com../", HostName),
        ] {
            assert_eq!(untrusted(s, false), Err(NetError::Refused(refusal)), "{s}");
        }
    }

    #[test]
    fn development_opens_plain_http_and_test_names() {
        for good in [
            "http://localhost:2583/",
            "http://a.pds0.test/",
            "https://pds.test:8443/",
        ] {
            assert!(untrusted(good, true).is_ok(), "{good}");
        }
        for bad in [
            "http://127.0.0.1:2583/",
            "http://169.254.169.254/",
            "http://localhost:22/",
            "http://metadata/",
            "http://metadata.google.internal/",
        ] {
            assert!(untrusted(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn configured_endpoints_are_exempt_but_not_from_the_protocol() {
        let check = |s: &str| check(&Url::parse(s).unwrap(), Trust::Configured, HTTP, false);
        assert_eq!(check("http://10.0.0.1:80/").unwrap(), "10.0.0.1");
        assert_eq!(check("http://pds:3000/").unwrap(), "pds");
        assert_eq!(check("http://[::1]:3000/").unwrap(), "[::1]");
        assert!(check("file:///etc/passwd").is_err());
    }

    proptest! {
        /// Every URL that passes names a domain on an allowed port, in any spelling of the text.
        #[test]
        fn what_passes_is_a_name(
            s in "(https|http|wss|ftp)://[a-zA-Z0-9.%@:\\[\\]xX_-]{1,30}(:[0-9]{1,5})?/?"
        ) {
            if let Ok(url) = Url::parse(&s)
                && let Ok(host) = check(&url, Trust::Untrusted, HTTP, false)
            {
                prop_assert!(matches!(url.host(), Some(Host::Domain(_))));
                prop_assert!(host.parse::<std::net::IpAddr>().is_err());
                prop_assert!(url.port().is_none_or(|p| p >= 1024));
                prop_assert!(url.username().is_empty());
            }
        }
    }
}
