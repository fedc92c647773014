//! Which IP addresses an untrusted name may resolve to.
//!
//! Source: IANA special-purpose address registries (RFC 6890 and successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `ip` may be dialled for an untrusted name: public unicast, and in development loopback.
pub(super) fn is_allowed(ip: IpAddr, development: bool) -> bool {
    match ip {
        IpAddr::V4(v4) => v4_allowed(v4, development),
        IpAddr::V6(v6) => v6_allowed(v6, development),
    }
}

fn v4_allowed(ip: Ipv4Addr, development: bool) -> bool {
    if ip.is_loopback() {
        return development;
    }
    let refused = match ip.octets() {
        // "This network", private, shared (CGNAT), link-local with the clouds' metadata service.
        [0 | 10, ..] | [172, 16..=31, ..] | [192, 168, ..] => true,
        [100, 64..=127, ..] | [169, 254, ..] => true,
        // Protocol assignments, documentation, the retired 6to4 relay, benchmarking.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => true,
        [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved and broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !refused
}

fn v6_allowed(ip: Ipv6Addr, development: bool) -> bool {
    if ip.is_loopback() {
        return development;
    }
    // An address that embeds an IPv4 address leads there.
    if let Some(v4) = embedded_v4(ip) {
        return v4_allowed(v4, development);
    }
    match ip.segments() {
        // Protocol assignments (Teredo, ORCHID, benchmarking among them) and documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Global unicast. All other addresses are local, multicast or unassigned.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

/// Returns the IPv4 address inside a mapped, 6to4 or NAT64 address. IPv4-compatible addresses
/// (`::a.b.c.d`) are retired, and Teredo inverts its client's address; the table above refuses both.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = ip.octets();
    let at = |i: usize| Ipv4Addr::new(o[i], o[i + 1], o[i + 2], o[i + 3]);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(at(12)),
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] => Some(at(12)),
        [0x2002, ..] => Some(at(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn inv6_only_public_unicast_is_allowed() {
        for good in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.1.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_allowed(good.parse().unwrap(), false), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:53aa:64c:0:fbff:ad4d:5b91",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_allowed(bad.parse().unwrap(), false), "{bad}");
        }
    }

    #[test]
    fn development_adds_loopback_and_nothing_else() {
        for good in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(is_allowed(good.parse().unwrap(), true), "{good}");
        }
        for bad in [
            "169.254.169.254",
            "10.0.0.1",
            "192.168.0.1",
            "0.0.0.0",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!is_allowed(bad.parse().unwrap(), true), "{bad}");
        }
    }

    proptest! {
        /// Addresses that the standard library calls special never pass.
        #[test]
        fn no_v4_that_std_knows_as_special_passes(raw in any::<u32>()) {
            let ip = Ipv4Addr::from(raw);
            if ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast()
                || ip.is_broadcast() || ip.is_documentation() || ip.is_unspecified()
            {
                prop_assert!(!v4_allowed(ip, false));
            }
        }

        /// An IPv4 address inside an IPv6 address is allowed exactly where it is by itself.
        #[test]
        fn embedding_in_v6_changes_nothing(raw in any::<u32>(), development: bool) {
            let ip = Ipv4Addr::from(raw);
            let o = ip.octets();
            let (hi, lo) = (u16::from_be_bytes([o[0], o[1]]), u16::from_be_bytes([o[2], o[3]]));
            for embedded in [
                ip.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, hi, lo),
                Ipv6Addr::new(0x2002, hi, lo, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(v6_allowed(embedded, development), v4_allowed(ip, development));
            }
            let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, hi, lo);
            prop_assert!(!v6_allowed(compatible, false));
        }

        #[test]
        fn v6_outside_global_unicast_never_passes(raw in any::<u128>()) {
            let ip = Ipv6Addr::from(raw);
            let global = (0x2000..=0x3fff).contains(&ip.segments()[0]);
            if !global && embedded_v4(ip).is_none() {
                prop_assert!(!v6_allowed(ip, false));
            }
        }
    }
}
