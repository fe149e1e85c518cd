//! Bound networks of secret ids: validation, and the subset check against those of the role.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;
use keepfast_framework::fields::Quoted;
use keepfast_framework::token_params::parse_cidrs;
use keepfast_framework::{Error, Result};

/// Validates networks in CIDR notation; an address without a prefix length is invalid.
///
/// # Errors
/// 400 with `what` and the invalid network.
pub(super) fn validated(cidrs: Vec<String>, what: &str) -> Result<Vec<String>> {
    match cidrs.iter().find(|cidr| cidr.parse::<IpNet>().is_err()) {
        Some(bad) => Err(Error::invalid(format!("failed to validate {what}: invalid CIDR address: {bad}"))),
        None => Ok(cidrs),
    }
}

/// Checks that the networks of a secret id are within those of its role.
///
/// # Errors
/// 400 with both lists.
pub(super) fn check_subset(role: &[String], secret_id: &[String]) -> Result<()> {
    if is_subset(&parse_cidrs(role), &parse_cidrs(secret_id)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "failed to verify subset relationship between CIDR blocks on the role [{}] and CIDR blocks on the secret ID [{}]",
        quoted(role),
        quoted(secret_id)
    )))
}

/// Whether each of `inner` is within one of `outer`; an empty `outer` means any network.
pub(super) fn is_subset(outer: &[IpNet], inner: &[IpNet]) -> bool {
    if outer.is_empty() {
        return true;
    }
    // Clients determine the length of both lists, so each network is looked up together with its supernets, 128 at
    // most.
    let outer: HashSet<Network> = outer.iter().map(|net| Network(net.trunc())).collect();
    let is_within = |net: &IpNet| {
        std::iter::successors(Some(net.trunc()), IpNet::supernet).any(|net| outer.contains(&Network(net)))
    };
    inner.iter().all(is_within)
}

/// A network as a key of a set. Tests count hashes and comparisons, so a loop over all pairs of networks fails a test.
struct Network(IpNet);

impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(test)]
        steps::add();
        self.0 == other.0
    }
}

impl Eq for Network {}

impl Hash for Network {
    fn hash<H: Hasher>(&self, state: &mut H) {
        #[cfg(test)]
        steps::add();
        self.0.hash(state);
    }
}

#[cfg(test)]
mod steps {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn add() {
        COUNT.set(COUNT.get() + 1);
    }

    /// The number of steps that `work` takes in this thread.
    pub(super) fn during(work: impl FnOnce()) -> usize {
        let before = COUNT.get();
        work();
        COUNT.get() - before
    }
}

/// Whether `nets` contain the address. Empty `nets` contain every address; other `nets` do not contain an unknown one.
pub(super) fn allow(nets: &[IpNet], remote: Option<IpAddr>) -> bool {
    nets.is_empty() || remote.is_some_and(|remote| nets.iter().any(|net| net.contains(&remote.to_canonical())))
}

fn quoted(cidrs: &[String]) -> String {
    cidrs.iter().map(|cidr| Quoted(cidr).to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        parse_cidrs(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn sec_kf50_the_subset_check_of_long_lists_takes_linear_steps() {
        const COUNT: u32 = 10_000;
        let role: Vec<IpNet> =
            (0..COUNT).map(|n| IpNet::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()).collect();
        let secret_id: Vec<IpNet> = role.iter().map(|net| IpNet::new(net.addr(), 32).unwrap()).collect();
        let taken = steps::during(|| {
            assert!(is_subset(&role, &secret_id) && !is_subset(&role, &nets(&["10.0.0.0/23"])));
        });
        // Each address is looked up with the 8 networks between it and that of the role.
        let (least, most) = (10 * COUNT as usize, 30 * COUNT as usize);
        assert!((least..most).contains(&taken), "{taken}");
    }

    #[test]
    fn a_subset_lies_within_one_network_of_the_role() {
        for (role, secret_id, expected) in [
            (&["10.0.0.0/8"][..], &["10.1.0.0/16"][..], true),
            (&["10.0.0.0/8", "1.2.3.4"], &["1.2.3.4/32", "10.0.0.1/32"], true),
            (&["127.0.0.0/8"], &["127.0.0.0/7"], false),
            (&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.0/8"], false),
            (&["0.0.0.0/0"], &["::1/128"], false),
            (&[], &["1.0.0.0/8"], true),
            (&["1.0.0.0/8"], &[], true),
        ] {
            assert_eq!(is_subset(&nets(role), &nets(secret_id)), expected, "{role:?} {secret_id:?}");
        }
    }

    #[test]
    fn unknown_and_mapped_addresses_pass_only_matching_networks() {
        assert!(allow(&[], None));
        assert!(!allow(&nets(&["0.0.0.0/0"]), None));
        assert!(allow(&nets(&["10.0.0.0/8"]), "::ffff:10.1.1.1".parse().ok()));
        assert!(!allow(&nets(&["10.0.0.0/8"]), "11.1.1.1".parse().ok()));
    }
}
