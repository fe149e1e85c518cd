//! The addresses that a caller's host name must not lead to: the metadata services of clouds give out the credentials of the
//! machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::AllowedAddresses;

/// Metadata services outside of the link-local networks: Alibaba Cloud, Azure, Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// The network of the metadata services of AWS: `fd00:ec2::/32`.
const METADATA_AWS: [u16; 2] = [0xfd00, 0x0ec2];
/// Metadata services of Google Cloud, Oracle Cloud and Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];
/// The prefix of IPv4 addresses behind NAT64: `64:ff9b::/96` (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
/// The prefix of IPv4 addresses behind a NAT64 of the local network: `64:ff9b:1::/48` (RFC 8215). Where in it the IPv4
/// address is, only that network knows.
const LOCAL_NAT64: [u16; 3] = [0x64, 0xff9b, 1];
/// Names of metadata services, which a proxy would resolve.
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];

impl AllowedAddresses {
    /// Whether connections to this address are allowed.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match (self, address) {
            (AllowedAddresses::All, _) => true,
            (AllowedAddresses::NoMetadata, IpAddr::V4(address)) => allows_v4(address),
            (AllowedAddresses::NoMetadata, IpAddr::V6(address)) => allows_v6(address),
        }
    }

    /// Whether a host of a URL is allowed as far as its text says: a proxy resolves it.
    pub(crate) fn allows_host(self, host: &str) -> bool {
        if self == AllowedAddresses::All {
            return true;
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            Ok(address) => self.allows(address),
            // Other spellings of an IPv4 address, such as `0xa9fea9fe`, have no dot or a last label that is a number.
            Err(_) => {
                let last = name.rsplit('.').next().unwrap_or_default();
                let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
                !is_number && !METADATA_NAMES.contains(&name.as_str())
            }
        }
    }
}

fn allows_v4(address: Ipv4Addr) -> bool {
    let refused = address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_unspecified()
        || METADATA_V4.contains(&address);
    !refused
}

fn allows_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [.., a, b, c, d] = address.octets();
    let embedded = Ipv4Addr::new(a, b, c, d);
    if address.to_ipv4_mapped().is_some() || segments[..6] == NAT64 {
        return allows_v4(embedded);
    }
    // `::1` is the loopback address; the other addresses of `::/96` are obsolete forms of IPv4 addresses.
    if segments[..6] == [0; 6] && !address.is_loopback() {
        return allows_v4(embedded);
    }
    // `2002::/16` contains an IPv4 address after its prefix (RFC 3056).
    if segments[0] == 0x2002 {
        let [first, second] = [segments[1].to_be_bytes(), segments[2].to_be_bytes()];
        return allows_v4(Ipv4Addr::new(first[0], first[1], second[0], second[1]));
    }
    // Site-local addresses, `fec0::/10`, are obsolete (RFC 3879).
    let is_site_local = segments[0] & 0xffc0 == 0xfec0;
    let refused = address.is_unicast_link_local()
        || is_site_local
        || address.is_multicast()
        || segments[..2] == METADATA_AWS
        || segments[..3] == LOCAL_NAT64
        || METADATA_V6.contains(&address);
    !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_metadata_services_are_refused_in_every_form() {
        for (address, allowed) in [
            ("169.254.169.254", false),
            ("169.254.170.2", false),
            ("100.100.100.200", false),
            ("168.63.129.16", false),
            ("192.0.0.192", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::ffff:169.254.169.254", false),
            ("::169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:a9fe:a9fe::1", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("fd00:ec2::23", false),
            ("fd20:ce::254", false),
            ("fd00:c1::a9fe:a9fe", false),
            ("fd00:42::42", false),
            ("64:ff9b:1::a9fe:a9fe", false),
            ("64:ff9b:1:a9fe:a9:fe00::", false),
            ("fec0::1", false),
            ("feff::1", false),
            ("ff02::1", false),
            ("::", false),
            ("127.0.0.1", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd12:3456::1", true),
            ("2001:db8::1", true),
            ("64:ff9b::a00:1", true),
            ("::ffff:10.0.0.1", true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(AllowedAddresses::NoMetadata.allows(address), allowed, "{address}");
            assert!(AllowedAddresses::All.allows(address));
        }
    }

    #[test]
    fn a_host_behind_a_proxy_is_refused_by_its_text() {
        for (host, allowed) in [
            ("169.254.169.254", false),
            ("metadata.google.internal", false),
            ("METADATA.google.internal.", false),
            ("2852039166", false),
            ("0xa9fea9fe", false),
            ("169.254.43518", false),
            ("kms.us-east-1.amazonaws.com", true),
            ("10.0.0.1", true),
            ("bao", true),
        ] {
            assert_eq!(AllowedAddresses::NoMetadata.allows_host(host), allowed, "{host}");
        }
    }
}
