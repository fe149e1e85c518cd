//! A login after its first factor. It is stored while it waits for its MFA.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::token_params::TokenKind;
use serde::{Deserialize, Serialize};

use super::login_identity::LoginIdentity;
use crate::token::BoundCidrs;

/// A login whose credentials an auth method has accepted, with its entity. It is stored while it waits for its MFA.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProvedLogin {
    /// The entity and the alias.
    pub(crate) identity: LoginIdentity,
    /// The accessor of the mount of the auth method.
    pub(crate) mount_accessor: String,
    /// The path of the login.
    pub(crate) path: String,
    /// The policies of the token: canonical, with `default` unless left out, and never root.
    pub(crate) policies: Vec<String>,
    /// The display name of the token, with the mount.
    pub(crate) display_name: String,
    /// The metadata of the token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    /// See [`keepfast_framework::Login`].
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) internal: serde_json::Value,
    /// The terms of the token.
    pub(crate) terms: ProvedTerms,
}

/// The terms of the token of a login.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProvedTerms {
    /// The TTL after issue.
    pub(crate) ttl: Duration,
    /// The maximum TTL with renewals.
    pub(crate) max_ttl: Duration,
    /// A limit that no renewal extends.
    pub(crate) explicit_max_ttl: Duration,
    /// The period; zero if it is not periodic.
    pub(crate) period: Duration,
    /// The number of uses; zero for no limit.
    pub(crate) num_uses: u64,
    /// The networks from which it may be used; empty for any address.
    pub(crate) bound_cidrs: BoundCidrs,
    /// Service or batch.
    pub(crate) kind: TokenKind,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// Whether it lacks the policy `default`.
    pub(crate) no_default_policy: bool,
}
