//! What is stored of a token.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash::sha256;
use keepfast_framework::Timestamp;
use serde::{Deserialize, Serialize};

use super::bound_cidrs::BoundCidrs;
use super::id::TokenKey;
use crate::namespace::NamespaceId;

/// The creation path of the first token of a cluster.
pub(crate) const FIRST_TOKEN_PATH: &str = "auth/token/root";

/// The creation path of a token that another token has created.
pub(crate) const CREATED_TOKEN_PATH: &str = "auth/token/create";

/// What a token may do. `Root` is a variant and not a policy name: no string can produce it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Authority {
    /// Everything.
    Root,
    /// What these policies grant; sorted, each once.
    Policies(Vec<String>),
}

/// Does not compile when a text can be turned into an [`Authority`]: the call below is then ambiguous.
const _: () = {
    trait NotFrom<Text> {
        fn holds() {}
    }
    impl<T> NotFrom<()> for T {}
    impl<T: From<&'static str>> NotFrom<&'static str> for T {}
    impl<T: From<String>> NotFrom<String> for T {}
    impl<T: std::str::FromStr> NotFrom<char> for T {}
    let _ = <Authority as NotFrom<_>>::holds;
};

impl Authority {
    /// The names as the API shows them.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Authority::Root => vec!["root".to_owned()],
            Authority::Policies(names) => names.clone(),
        }
    }

    /// Whether it has the policy of this canonical name. Root has none.
    pub(crate) fn has(&self, policy: &str) -> bool {
        matches!(self, Authority::Policies(names) if names.iter().any(|name| name == policy))
    }

    /// Whether it is root.
    pub(crate) fn is_root(&self) -> bool {
        matches!(self, Authority::Root)
    }
}

/// Until when a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Life {
    /// For ever: only root tokens.
    Endless,
    /// Until this moment.
    Until(Timestamp),
}

/// Who made a token, and so who can renew it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The mount of the auth method that logged it in; `None` for tokens made by tokens.
    pub(crate) mount: Option<String>,
    /// The accessor of that mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accessor: Option<String>,
    /// What the method stored for renewals.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) internal: serde_json::Value,
}

/// What is stored of a token; of a batch token, what is encrypted into it. Its id is not part of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// Keyed hash of the id.
    #[serde(with = "hex::serde")]
    pub(crate) hash: [u8; 32],
    /// Names the token without being able to act as it; empty for batch tokens.
    pub(crate) accessor: String,
    /// The token that made it, whose end is its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<TokenKey>,
    /// What it may do.
    pub(crate) authority: Authority,
    /// The path that made it, such as `auth/approle/login`.
    pub(crate) path: String,
    /// For people.
    pub(crate) display_name: String,
    /// What it carries for audit and templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
    /// Whether it is shown though it is empty, because an empty one was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) empty_meta: bool,
    /// Uses left; zero for any number, -1 while the last use is under way.
    #[serde(default)]
    pub(crate) num_uses: i64,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// The life it was given, in seconds.
    pub(crate) creation_ttl: u64,
    /// Until when it lives.
    pub(crate) life: Life,
    /// A bound that no renewal moves, in seconds after it was made; zero for none.
    #[serde(default)]
    pub(crate) explicit_max_ttl: u64,
    /// Periodic when not zero, in seconds.
    #[serde(default)]
    pub(crate) period: u64,
    /// What the request said of `explicit_max_ttl` and `period` under a role, which is what `lookup` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<(u64, u64)>,
    /// The longest life with renewals that its role gives, in seconds; zero leaves it to the mount.
    #[serde(default)]
    pub(crate) max_ttl: u64,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_renewal: Option<Timestamp>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// The entity behind it; empty for none.
    #[serde(default)]
    pub(crate) entity_id: String,
    /// The id of the alias by which that entity was authenticated; empty for none. Templates see no other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) alias: String,
    /// Where it may be used from; empty for anywhere.
    #[serde(default, skip_serializing_if = "BoundCidrs::is_empty")]
    pub(crate) bound_cidrs: BoundCidrs,
    /// The token role that made it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) role: String,
    /// Who made it.
    #[serde(default)]
    pub(crate) origin: Origin,
    /// The namespace that it belongs to.
    pub(crate) namespace: NamespaceId,
    /// Whether it is a batch token.
    #[serde(default)]
    pub(crate) batch: bool,
    /// Whether it is a wrapping token, which can do nothing but be unwrapped.
    #[serde(default)]
    pub(crate) wrapping: bool,
}

impl TokenRecord {
    /// Who acts with the token: its entity, or for a token without one, as OpenBao forms it, a hash of its policies and its
    /// namespace, which all tokens of the same policies share.
    pub(crate) fn client_id(&self) -> String {
        if !self.entity_id.is_empty() {
            return self.entity_id.clone();
        }
        let mut policies = self.authority.names();
        policies.sort_unstable();
        STANDARD.encode(sha256(format!("{}\0{}", policies.join("\x7f"), self.namespace.as_str()).as_bytes()))
    }

    /// Whether it is alive at `now`.
    pub(crate) fn lives_at(&self, now: Timestamp) -> bool {
        match self.life {
            Life::Endless => true,
            Life::Until(end) => now < end,
        }
    }

    /// Seconds left at `now`; zero for an endless one, as the API shows it.
    pub(crate) fn ttl_at(&self, now: Timestamp) -> u64 {
        match self.life {
            Life::Endless => 0,
            Life::Until(end) => end.since(now).as_secs(),
        }
    }

    /// Whether it may be used from `remote`; a bound token may not be used from an unknown place.
    pub(crate) fn allows_from(&self, remote: Option<IpAddr>) -> bool {
        self.bound_cidrs.allow(remote)
    }

    /// Whether it has no parent.
    pub(crate) fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// What it carries as the API shows it: null if nothing was asked for.
    pub(crate) fn shown_meta(&self) -> Option<BTreeMap<String, String>> {
        (self.empty_meta || !self.meta.is_empty()).then(|| self.meta.clone())
    }

    /// `service` or `batch`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.batch { "batch" } else { "service" }
    }
}
