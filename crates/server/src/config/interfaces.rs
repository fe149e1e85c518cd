//! The IP addresses of this machine's network interfaces, for address templates.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use nix::net::if_::InterfaceFlags;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    /// The interface's name, such as `eth0`.
    pub(super) interface: String,
    /// The address with the length of its network's prefix.
    pub(super) address: IpNet,
    /// The interface's flags (`SIOCGIFFLAGS`, netdevice(7)).
    pub(super) flags: InterfaceFlags,
    /// Whether the IPv4 default route leaves by this interface.
    pub(super) has_default_route: bool,
}

/// All addresses, grouped by interface in the kernel's order of interfaces.
///
/// # Errors
/// When `getifaddrs` fails.
pub(super) fn of_this_machine() -> io::Result<Vec<InterfaceAddress>> {
    let default = default_interface(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let mut order: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for one in nix::ifaddrs::getifaddrs()? {
        if !order.contains(&one.interface_name) {
            order.push(one.interface_name.clone());
        }
        let (Some(address), Some(mask)) = (ip(one.address.as_ref()), ip(one.netmask.as_ref())) else { continue };
        let Ok(prefix) = ipnet::ip_mask_to_prefix(mask) else { continue };
        let Ok(address) = IpNet::new(address, prefix) else { continue };
        let has_default_route = default.as_deref() == Some(one.interface_name.as_str());
        found.push(InterfaceAddress { interface: one.interface_name, address, flags: one.flags, has_default_route });
    }
    found.sort_by_key(|one| order.iter().position(|name| *name == one.interface));
    Ok(found)
}

fn ip(address: Option<&nix::sys::socket::SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::from(*v4).ip()),
        (None, Some(v6)) => Some(SocketAddr::from(*v6).ip()),
        (None, None) => None,
    }
}

/// The interface of the default route with the lowest metric in the text of `/proc/net/route`.
fn default_interface(routes: &str) -> Option<String> {
    let default = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, "00000000", _, _, _, _, metric, "00000000", ..] = fields[..] else { return None };
        Some((metric.parse::<u32>().ok()?, name))
    });
    default.min_by_key(|(metric, _)| *metric).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_default_interface_has_the_route_with_the_lowest_metric() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                      wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                      eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                      eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        assert_eq!(default_interface(routes).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let all = of_this_machine().unwrap();
        assert!(all.iter().any(|one| one.address.addr().is_loopback()), "{all:?}");
    }
}
