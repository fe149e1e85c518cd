//! Addresses of the cluster port.

/// The port of an address without one, as in Vault.
const DEFAULT_PORT: u16 = 8201;

/// The host and port of a member's `cluster_addr`, which is a URL or only these two.
pub(super) fn host_and_port(cluster_addr: &str) -> Option<String> {
    let url: http::Uri = cluster_addr.parse().ok()?;
    let authority = url.authority()?;
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    Some(format!("{host}:{}", authority.port_u16().unwrap_or(DEFAULT_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_dialled_at_the_host_and_port_of_its_address() {
        for (address, expected) in [
            ("https://10.0.0.1:8301", Some("10.0.0.1:8301")),
            ("https://node.example", Some("node.example:8201")),
            ("https://[::1]:7/x", Some("[::1]:7")),
            ("127.0.0.1:9", Some("127.0.0.1:9")),
            ("node.example", Some("node.example:8201")),
            ("", None),
            ("https://", None),
            ("https://user@host", None),
            ("/path", None),
        ] {
            assert_eq!(host_and_port(address).as_deref(), expected, "{address}");
        }
    }
}
