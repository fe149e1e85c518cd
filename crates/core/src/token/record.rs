//! The stored record of a token.

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

/// The authority of a token. `Root` is a variant and not a policy name: no string can produce it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Authority {
    /// Every capability on every path.
    Root,
    /// The capabilities that these policies grant; sorted, without duplicates.
    Policies(Vec<String>),
}

/// Does not compile when a text can be converted into an [`Authority`]: the call below is then ambiguous.
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
    /// The policy names as the API shows them.
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

/// The expiry of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TokenExpiry {
    /// No expiry: only root tokens.
    #[serde(rename = "endless")]
    Never,
    /// Expires at this time.
    #[serde(rename = "until")]
    At(Timestamp),
}

/// The auth method that created a token and renews it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The mount of the auth method of the login; `None` for tokens that a token created.
    pub(crate) mount: Option<String>,
    /// The accessor of that mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accessor: Option<String>,
    /// The data that the method stored for renewals.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) internal: serde_json::Value,
}

/// The stored record of a token; in a batch token, the encrypted content. It lacks the id.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    /// The keyed hash of the id.
    #[serde(with = "hex::serde")]
    pub(crate) hash: [u8; 32],
    /// The accessor: identifies the token without its authority; empty for batch tokens.
    pub(crate) accessor: String,
    /// The token that created it; revoking the parent revokes this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<TokenKey>,
    /// Its policies, or root.
    pub(crate) authority: Authority,
    /// The path that created it, such as `auth/approle/login`.
    pub(crate) path: String,
    /// The display name.
    pub(crate) display_name: String,
    /// The metadata, for audit and templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
    /// Whether empty metadata is shown, because the request had it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) empty_meta: bool,
    /// The remaining uses; zero for no limit, -1 while the last use is in progress.
    #[serde(default)]
    pub(crate) num_uses: i64,
    /// The time of creation.
    pub(crate) created: Timestamp,
    /// The TTL at creation, in seconds.
    pub(crate) creation_ttl: u64,
    /// The expiry.
    #[serde(rename = "life")]
    pub(crate) expiry: TokenExpiry,
    /// A max_ttl that no renewal changes, in seconds after creation; zero for none.
    #[serde(default)]
    pub(crate) explicit_max_ttl: u64,
    /// The period in seconds; zero if it is not periodic.
    #[serde(default)]
    pub(crate) period: u64,
    /// The `explicit_max_ttl` and `period` of the request under a role, which `lookup` shows.
    #[serde(rename = "asked", default, skip_serializing_if = "Option::is_none")]
    pub(crate) requested: Option<(u64, u64)>,
    /// The max_ttl of its role with renewals, in seconds; zero selects that of the mount.
    #[serde(default)]
    pub(crate) max_ttl: u64,
    /// The time of the last renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_renewal: Option<Timestamp>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// The entity; empty for none.
    #[serde(default)]
    pub(crate) entity_id: String,
    /// The id of the alias that authenticated the entity; empty for none. Templates see no other alias.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) alias: String,
    /// The networks from which it may be used; empty for any address.
    #[serde(default, skip_serializing_if = "BoundCidrs::is_empty")]
    pub(crate) bound_cidrs: BoundCidrs,
    /// The token role that created it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) role: String,
    /// The auth method that created it.
    #[serde(default)]
    pub(crate) origin: Origin,
    /// The namespace of the token.
    pub(crate) namespace: NamespaceId,
    /// Whether it is a batch token.
    #[serde(default)]
    pub(crate) batch: bool,
    /// Whether it is a wrapping token, which can only be unwrapped.
    #[serde(default)]
    pub(crate) wrapping: bool,
    /// The counter of the lease count quota that has counted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counter: Option<String>,
    /// Whether it is the wrapping token of a request that a control group stores: a use of it is counted only when that
    /// request runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) control_group: bool,
    /// The grant of an access token of an OIDC provider, which may call `userinfo` only: it has no policies, also not
    /// those of its entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) userinfo: Option<Box<UserinfoGrant>>,
}

/// The grant of an access token of an OIDC provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UserinfoGrant {
    /// The name of the provider.
    #[serde(rename = "p")]
    pub(crate) provider: String,
    /// The id of the client.
    #[serde(rename = "c")]
    pub(crate) client_id: String,
    /// The granted scopes without `openid`.
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scopes: Vec<String>,
}

impl TokenRecord {
    /// The client of the token: its entity, or without one, as in OpenBao, a hash of its policies and its namespace,
    /// which all tokens with the same policies share.
    pub(crate) fn client_id(&self) -> String {
        if !self.entity_id.is_empty() {
            return self.entity_id.clone();
        }
        let mut policies = self.authority.names();
        policies.sort_unstable();
        STANDARD.encode(sha256(format!("{}\0{}", policies.join("\x7f"), self.namespace.as_str()).as_bytes()))
    }

    /// Whether it is not expired at `now`.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        match self.expiry {
            TokenExpiry::Never => true,
            TokenExpiry::At(end) => now < end,
        }
    }

    /// The seconds until expiry at `now`; zero for a token without expiry, as the API shows it.
    pub(crate) fn ttl_at(&self, now: Timestamp) -> u64 {
        match self.expiry {
            TokenExpiry::Never => 0,
            TokenExpiry::At(end) => end.since(now).as_secs(),
        }
    }

    /// Whether it may be used from `remote`. A bound token may not be used from an unknown address.
    pub(crate) fn allows_from(&self, remote: Option<IpAddr>) -> bool {
        self.bound_cidrs.allow(remote)
    }

    /// Whether it has no parent.
    pub(crate) fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// The metadata as the API shows it: null if the request had none.
    pub(crate) fn meta_response(&self) -> Option<BTreeMap<String, String>> {
        (self.empty_meta || !self.meta.is_empty()).then(|| self.meta.clone())
    }

    /// `service` or `batch`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.batch { "batch" } else { "service" }
    }
}
