//! The networks from which a token may be used: parsed once, stored as texts.

use std::net::IpAddr;

use ipnet::IpNet;
use keepfast_framework::token_params::{parse_cidr, shown_cidr};
use serde::{Deserialize, Serialize, Serializer};

/// The networks from which a token may be used; empty for any address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BoundCidrs(Vec<BoundCidr>);

/// A network, or a stored text that is no network and has no address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
struct BoundCidr {
    text: String,
    network: Option<IpNet>,
}

impl BoundCidrs {
    /// Whether the token may be used from any address.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a token may be used from `remote`. A bound token may not be used from an unknown address.
    pub(crate) fn allow(&self, remote: Option<IpAddr>) -> bool {
        let has =
            |remote: &IpAddr| self.0.iter().filter_map(|cidr| cidr.network).any(|network| network.contains(remote));
        self.is_empty() || remote.is_some_and(|remote| has(&remote))
    }
}

impl FromIterator<IpNet> for BoundCidrs {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let of = |network| BoundCidr { text: shown_cidr(&network), network: Some(network) };
        BoundCidrs(networks.into_iter().map(of).collect())
    }
}

impl FromIterator<String> for BoundCidrs {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        BoundCidrs(texts.into_iter().map(BoundCidr::from).collect())
    }
}

impl From<String> for BoundCidr {
    fn from(text: String) -> Self {
        BoundCidr { network: parse_cidr(&text), text }
    }
}

impl Serialize for BoundCidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_are_stored_as_their_texts() {
        let stored = r#"["10.1.2.3/8","1.2.3.4","fe80::/10","no network"]"#;
        let read: BoundCidrs = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        let networks = ["10.1.2.3/8", "1.2.3.4", "fe80::/10"].map(|text| parse_cidr(text).unwrap());
        let made: BoundCidrs = networks.into_iter().collect();
        assert_eq!(serde_json::to_string(&made).unwrap(), r#"["10.1.2.3/8","1.2.3.4","fe80::/10"]"#);
    }

    #[test]
    fn a_text_that_is_no_network_allows_no_address() {
        let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BoundCidrs>();
        let remote = |text: &str| Some(text.parse().unwrap());
        assert!(!of(&["no network"]).allow(remote("10.0.0.1")));
        assert!(of(&["no network", "10.0.0.0/8"]).allow(remote("10.0.0.1")));
        assert!(!of(&["10.0.0.0/8"]).allow(remote("11.0.0.1")) && !of(&["10.0.0.0/8"]).allow(None));
        assert!(of(&[]).allow(None) && of(&[]).allow(remote("10.0.0.1")));
    }
}
