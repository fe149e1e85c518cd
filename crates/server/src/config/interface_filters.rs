//! Filters and orders interface addresses: `include`, `exclude`, `sort`, `unique` and the attributes of go-sockaddr's
//! templates (<https://pkg.go.dev/github.com/hashicorp/go-sockaddr/template>).

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::net::if_::InterfaceFlags;
use regex_lite::Regex;

use super::interfaces::InterfaceAddress;

/// The longest pattern for names and addresses, in bytes.
const MAX_PATTERN: usize = 256;

/// The special-purpose addresses of RFC 6890, which no public interface has.
const RFC_6890: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "::ffff:0:0/96",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
];

/// The networks of RFC 6890 whose addresses no router forwards.
const NOT_FORWARDABLE: &[&str] = &[
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "2001:db8::/32",
    "fe80::/10",
];

/// Keeps the addresses that match a selector (`include`), or drops them (`exclude`).
///
/// # Errors
/// When the selector or its parameter is invalid; the text is the reason.
pub(super) fn select(
    addresses: Vec<InterfaceAddress>,
    selector: &str,
    parameter: &str,
    include: bool,
) -> Result<Vec<InterfaceAddress>, String> {
    let matches = matcher(selector, parameter)?;
    Ok(addresses.into_iter().filter(|one| matches(one) == include).collect())
}

type Matcher = Box<dyn Fn(&InterfaceAddress) -> bool>;

fn matcher(selector: &str, parameter: &str) -> Result<Matcher, String> {
    match selector.to_ascii_lowercase().as_str() {
        "name" => {
            let pattern = pattern(parameter)?;
            Ok(Box::new(move |one| pattern.is_match(&one.interface)))
        }
        "address" => {
            let pattern = pattern(parameter)?;
            Ok(Box::new(move |one| pattern.is_match(&one.address.to_string())))
        }
        "network" => {
            let networks: Result<Vec<IpNet>, String> = parameter.split('|').map(network).collect();
            let networks = networks?;
            Ok(Box::new(move |one| networks.iter().any(|network| network.contains(&one.address.addr()))))
        }
        "rfc" | "rfcs" => {
            let networks: Result<Vec<&[&str]>, String> = parameter.split('|').map(rfc).collect();
            let networks = networks?;
            Ok(Box::new(move |one| networks.iter().any(|networks| is_in(networks, one))))
        }
        "size" => {
            let prefix: u8 = parameter.parse().map_err(|_| format!("size {parameter:?} is no length of a prefix"))?;
            Ok(Box::new(move |one| one.address.prefix_len() == prefix))
        }
        "type" => {
            let types: Result<Vec<Family>, String> = parameter.split('|').map(family).collect();
            let types = types?;
            Ok(Box::new(move |one| types.iter().any(|family| family.includes(one))))
        }
        "flag" | "flags" => {
            let flags: Result<Vec<Flag>, String> = parameter.split('|').map(flag).collect();
            let flags = flags?;
            Ok(Box::new(move |one| flags.iter().all(|flag| flag(one))))
        }
        other => {
            Err(format!("unknown selector {other:?}; there are address, flags, name, network, rfc, size and type"))
        }
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_PATTERN {
        return Err(format!("a pattern is longer than {MAX_PATTERN} bytes"));
    }
    Regex::new(text).map_err(|error| format!("pattern {text:?}: {error}"))
}

fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single).ok_or_else(|| format!("{text:?} is neither an address nor a network"))
}

fn rfc(number: &str) -> Result<&'static [&'static str], String> {
    Ok(match number {
        "1918" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        "3927" => &["169.254.0.0/16"],
        "4193" => &["fc00::/7"],
        "5737" => &["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
        "6598" => &["100.64.0.0/10"],
        "6890" => RFC_6890,
        _ => return Err(format!("unsupported RFC {number:?}; there are 1918, 3927, 4193, 5737, 6598 and 6890")),
    })
}

fn is_in(networks: &[&str], one: &InterfaceAddress) -> bool {
    networks.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|network| network.contains(&one.address.addr()))
}

#[derive(Clone, Copy)]
enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn includes(self, one: &InterfaceAddress) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => one.address.addr().is_ipv4(),
            Family::V6 => one.address.addr().is_ipv6(),
        }
    }
}

fn family(text: &str) -> Result<Family, String> {
    match text.to_ascii_lowercase().as_str() {
        "ip" => Ok(Family::Any),
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        other => Err(format!("unknown type {other:?}; there are IP, IPv4 and IPv6")),
    }
}

type Flag = fn(&InterfaceAddress) -> bool;

fn flag(text: &str) -> Result<Flag, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "up" => |one| one.flags.contains(InterfaceFlags::IFF_UP),
        "down" => |one| !one.flags.contains(InterfaceFlags::IFF_UP),
        "broadcast" => |one| one.flags.contains(InterfaceFlags::IFF_BROADCAST),
        "multicast" => |one| one.flags.contains(InterfaceFlags::IFF_MULTICAST),
        "point-to-point" => |one| one.flags.contains(InterfaceFlags::IFF_POINTOPOINT),
        "loopback" => |one| one.address.addr().is_loopback(),
        "forwardable" => |one| !is_in(NOT_FORWARDABLE, one),
        "link-local unicast" => |one| is_in(&["169.254.0.0/16", "fe80::/10"], one),
        "global unicast" => |one| {
            let ip = one.address.addr();
            !ip.is_loopback()
                && !ip.is_multicast()
                && !ip.is_unspecified()
                && !is_in(&["169.254.0.0/16", "fe80::/10"], one)
        },
        other => return Err(format!("unknown flag {other:?}")),
    })
}

/// Orders by the comma-separated keys of `sort`; a minus reverses a key.
///
/// # Errors
/// The unknown key.
pub(super) fn sort(addresses: &mut [InterfaceAddress], keys: &str) -> Result<(), String> {
    let orders: Result<Vec<_>, String> = keys.split(',').map(|key| order(key.trim())).collect();
    let orders = orders?;
    addresses.sort_by(|a, b| {
        orders.iter().fold(Ordering::Equal, |so_far, (compare, reversed)| {
            so_far.then_with(|| if *reversed { compare(b, a) } else { compare(a, b) })
        })
    });
    Ok(())
}

type Compare = fn(&InterfaceAddress, &InterfaceAddress) -> Ordering;

fn order(key: &str) -> Result<(Compare, bool), String> {
    let (name, reversed) = match key.strip_prefix('-') {
        Some(name) => (name, true),
        None => (key.strip_prefix('+').unwrap_or(key), false),
    };
    let compare: Compare = match name.to_ascii_lowercase().as_str() {
        "address" => |a, b| a.address.addr().cmp(&b.address.addr()),
        "default" => |a, b| b.has_default_route.cmp(&a.has_default_route),
        "name" => |a, b| a.interface.cmp(&b.interface),
        "private" => |a, b| is_in(RFC_6890, b).cmp(&is_in(RFC_6890, a)),
        "size" => |a, b| a.address.prefix_len().cmp(&b.address.prefix_len()),
        "type" => |a, b| a.address.addr().is_ipv6().cmp(&b.address.addr().is_ipv6()),
        other => {
            return Err(format!(
                "unknown sort key {other:?}; there are address, default, name, private, size and type"
            ));
        }
    };
    Ok((compare, reversed))
}

/// The value of an attribute, as `attr` and `join` print it.
///
/// # Errors
/// The unknown attribute.
pub(super) fn attribute(one: &InterfaceAddress, name: &str) -> Result<String, String> {
    let net = one.address;
    Ok(match name.to_ascii_lowercase().as_str() {
        "address" | "host" => net.addr().to_string(),
        "string" => net.to_string(),
        "name" => one.interface.clone(),
        "network" => net.trunc().to_string(),
        "mask_bits" => net.prefix_len().to_string(),
        "netmask" => net.netmask().to_string(),
        "broadcast" if net.addr().is_ipv4() => net.broadcast().to_string(),
        "type" => if net.addr().is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        other => {
            return Err(format!(
                "unknown attribute {other:?}; there are address, broadcast, host, mask_bits, name, netmask, network, \
                 string and type"
            ));
        }
    })
}
