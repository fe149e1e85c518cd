//! What is stored of a token.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::hash::sha256;
use keepfast_framework::Timestamp;
use keepfast_framework::token_params::parse_cidr;
use serde::{Deserialize, Serialize};

use super::id::TokenKey;
use crate::namespace::NamespaceId;

/// What a token may do. `Root` is a variant and not a policy name: no string can produce it.
///
/// ```
/// use keepfast_core::token::Authority;
/// assert!(!Authority::Policies(vec!["root".to_owned()]).is_root());
/// assert!(keepfast_core::policy::builtin::PolicyName::new("Root ").is_err());
/// ```
///
/// ```compile_fail,E0277
/// use keepfast_core::token::Authority;
/// let root: Authority = "root".parse().unwrap();
/// ```
///
/// ```compile_fail,E0277
/// use keepfast_core::token::Authority;
/// let root: Authority = "root".into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// Everything.
    Root,
    /// What these policies grant; sorted, each once.
    Policies(Vec<String>),
}

impl Authority {
    /// The names as the API shows them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Authority::Root => vec!["root".to_owned()],
            Authority::Policies(names) => names.clone(),
        }
    }

    /// Whether it has the policy of this canonical name. Root has none.
    pub fn has(&self, policy: &str) -> bool {
        matches!(self, Authority::Policies(names) if names.iter().any(|name| name == policy))
    }

    /// Whether it is root.
    pub fn is_root(&self) -> bool {
        matches!(self, Authority::Root)
    }
}

/// Until when a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// For ever: only root tokens.
    Endless,
    /// Until this moment.
    Until(Timestamp),
}

/// Who made a token, and so who can renew it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The mount of the auth method that logged it in; `None` for tokens made by tokens.
    pub mount: Option<String>,
    /// The accessor of that mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accessor: Option<String>,
    /// What the method stored for renewals.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub internal: serde_json::Value,
}

/// What is stored of a token; of a batch token, what is encrypted into it. Its id is not part of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Keyed hash of the id.
    #[serde(with = "hex::serde")]
    pub hash: [u8; 32],
    /// Names the token without being able to act as it; empty for batch tokens.
    pub accessor: String,
    /// The token that made it, whose end is its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TokenKey>,
    /// What it may do.
    pub authority: Authority,
    /// The path that made it, such as `auth/approle/login`.
    pub path: String,
    /// For people.
    pub display_name: String,
    /// What it carries for audit and templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Whether it is shown though it is empty, because an empty one was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_meta: bool,
    /// Uses left; zero for any number, -1 while the last use is under way.
    #[serde(default)]
    pub num_uses: i64,
    /// When it was made.
    pub created: Timestamp,
    /// The life it was given, in seconds.
    pub creation_ttl: u64,
    /// Until when it lives.
    pub life: Life,
    /// A bound that no renewal moves, in seconds after it was made; zero for none.
    #[serde(default)]
    pub explicit_max_ttl: u64,
    /// Periodic when not zero, in seconds.
    #[serde(default)]
    pub period: u64,
    /// What the request said of `explicit_max_ttl` and `period` under a role, which is what `lookup` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<(u64, u64)>,
    /// The longest life with renewals that its role gives, in seconds; zero leaves it to the mount.
    #[serde(default)]
    pub max_ttl: u64,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewal: Option<Timestamp>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The entity behind it; empty for none.
    #[serde(default)]
    pub entity_id: String,
    /// The id of the alias by which that entity was authenticated; empty for none. Templates see no other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Where it may be used from; empty for anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_cidrs: Vec<String>,
    /// The token role that made it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Who made it.
    #[serde(default)]
    pub origin: Origin,
    /// The namespace in which it lives.
    pub namespace: NamespaceId,
    /// Whether it is a batch token.
    #[serde(default)]
    pub batch: bool,
    /// Whether it is a wrapping token, which can do nothing but be unwrapped.
    #[serde(default)]
    pub wrapping: bool,
}

impl TokenRecord {
    /// Who acts with the token: its entity, or for a token without one, as OpenBao forms it, a hash of its policies and its
    /// namespace, which all tokens of the same policies share.
    pub fn client_id(&self) -> String {
        if !self.entity_id.is_empty() {
            return self.entity_id.clone();
        }
        let mut policies = self.authority.names();
        policies.sort_unstable();
        STANDARD.encode(sha256(format!("{}\0root", policies.join("\x7f")).as_bytes()))
    }

    /// Whether it is alive at `now`.
    pub fn lives_at(&self, now: Timestamp) -> bool {
        match self.life {
            Life::Endless => true,
            Life::Until(end) => now < end,
        }
    }

    /// Seconds left at `now`; zero for an endless one, as the API shows it.
    pub fn ttl_at(&self, now: Timestamp) -> u64 {
        match self.life {
            Life::Endless => 0,
            Life::Until(end) => end.since(now).as_secs(),
        }
    }

    /// Whether it may be used from `remote`; a bound token may not be used from an unknown place.
    pub fn allows_from(&self, remote: Option<IpAddr>) -> bool {
        if self.bound_cidrs.is_empty() {
            return true;
        }
        let Some(remote) = remote else { return false };
        self.bound_cidrs.iter().filter_map(|c| parse_cidr(c)).any(|net| net.contains(&remote))
    }

    /// Whether it has no parent.
    pub fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// What it carries as the API shows it: null if nothing was asked for.
    pub fn shown_meta(&self) -> Option<BTreeMap<String, String>> {
        (self.empty_meta || !self.meta.is_empty()).then(|| self.meta.clone())
    }

    /// `service` or `batch`.
    pub fn kind(&self) -> &'static str {
        if self.batch { "batch" } else { "service" }
    }
}
