//! The addresses of the cluster port: where this node listens, and where other nodes reach it. The defaults are those of
//! Vault: one port above the address for clients.

use std::net::IpAddr;

use keepfast_edge::Bind;

use super::{Config, Storage};

/// The port of a URL without one, as Vault has it.
const HTTPS: u16 = 443;

impl Config {
    /// The addresses of the cluster port, one for each TCP listener; none without storage "raft".
    pub(crate) fn cluster_bind_addresses(&self) -> Vec<String> {
        if !matches!(self.storage, Storage::Raft { .. }) {
            return Vec::new();
        }
        let own = self.cluster_addresses.iter().map(Option::as_deref).chain(std::iter::repeat(None));
        let address = |bind: &Bind, own: Option<&str>| match (bind, own) {
            (_, Some(own)) => Some(own.to_owned()),
            (Bind::Tcp(address), None) => next_port(address),
            (Bind::Unix { .. }, None) => None,
        };
        self.listeners.iter().zip(own).filter_map(|(listener, own)| address(&listener.bind, own)).collect()
    }
}

/// The same host with the next port; `None` behind the last port. Port 0 stays: the system chooses it.
fn next_port(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port = match port.parse::<u16>().ok()? {
        0 => 0,
        port => port.checked_add(1)?,
    };
    Some(format!("{host}:{port}"))
}

/// The `cluster_addr` of a node without one: its `api_addr` with the next port, and always with TLS.
pub(crate) fn advertised(api_addr: &str) -> Option<String> {
    let url: http::Uri = api_addr.parse().ok()?;
    let port = url.port_u16().unwrap_or(HTTPS).checked_add(1)?;
    Some(format!("https://{}:{port}", url.host()?))
}

/// Whether other nodes cannot use an address: it means every address of this machine.
pub(crate) fn is_unspecified(cluster_addr: &str) -> bool {
    let url: Option<http::Uri> = cluster_addr.parse().ok();
    let host = url.as_ref().and_then(|url| url.host()).unwrap_or_default();
    let address: Result<IpAddr, _> = host.trim_start_matches('[').trim_end_matches(']').parse();
    address.is_ok_and(|address| address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_next_port_with_tls() {
        for (api_addr, expected) in [
            ("http://10.0.0.1:8200", Some("https://10.0.0.1:8201")),
            ("https://[::1]:8200", Some("https://[::1]:8201")),
            ("https://vault.example", Some("https://vault.example:444")),
            ("https://vault.example:65535", None),
            ("", None),
        ] {
            assert_eq!(advertised(api_addr).as_deref(), expected, "{api_addr}");
        }
        for (address, expected) in [
            (":8200", Some(":8201")),
            ("[::]:8200", Some("[::]:8201")),
            ("localhost:1", Some("localhost:2")),
            ("localhost:0", Some("localhost:0")),
            ("localhost:65535", None),
        ] {
            assert_eq!(next_port(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn an_address_of_every_interface_is_none_for_other_nodes() {
        for (address, expected) in [
            ("https://0.0.0.0:8201", true),
            ("https://[::]:8201", true),
            ("https://[::1]:8201", false),
            ("https://vault.example:8201", false),
        ] {
            assert_eq!(is_unspecified(address), expected, "{address}");
        }
    }
}
