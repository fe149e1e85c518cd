//! The stored entry of a mount.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::Kind;
use keepfast_framework::mount::TtlBounds;
use keepfast_framework::token_params::TokenKind;
use serde::{Deserialize, Serialize};

use crate::namespace::NamespaceId;
use crate::settings::Settings;

/// The stored entry of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountEntry {
    /// The name of its storage; it never changes.
    pub(crate) uuid: String,
    /// The namespace of the mount.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// The path, such as `secret/` or `auth/approle/`, with a trailing slash.
    pub(crate) path: String,
    /// The type of the engine.
    pub(crate) engine: String,
    /// Whether it is an auth method; otherwise it is a secrets engine.
    pub(crate) auth: bool,
    /// The random name that aliases and audit entries refer to.
    pub(crate) accessor: String,
    /// The description.
    #[serde(default)]
    pub(crate) description: String,
    /// Options such as `version=2`; `None` is shown as null.
    #[serde(default)]
    pub(crate) options: Option<BTreeMap<String, String>>,
    /// The tuned settings.
    #[serde(default)]
    pub(crate) config: MountConfig,
    /// Stored and returned, without effect.
    #[serde(default)]
    pub(crate) local: bool,
    /// Whether all its values are wrapped; otherwise those that its engine declares are.
    #[serde(default)]
    pub(crate) seal_wrap: bool,
    /// Stored and returned, without effect.
    #[serde(default)]
    pub(crate) external_entropy_access: bool,
    /// Whether it is being unmounted: it handles no requests, and its data is being deleted.
    #[serde(default)]
    pub(crate) leaving: bool,
}

/// The tuned settings of a mount. Zero and empty select the setting of the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountConfig {
    /// The default TTL in seconds.
    pub(crate) default_lease_ttl: u64,
    /// The max_ttl in seconds.
    pub(crate) max_lease_ttl: u64,
    /// Stored and returned, without effect.
    pub(crate) force_no_cache: bool,
    /// Request fields that audit entries have in plaintext.
    pub(crate) audit_non_hmac_request_keys: Vec<String>,
    /// Response fields that audit entries have in plaintext.
    pub(crate) audit_non_hmac_response_keys: Vec<String>,
    /// `unauth`, `hidden` or empty.
    pub(crate) listing_visibility: String,
    /// Request headers that the engine may read. Stored and returned, without effect.
    pub(crate) passthrough_request_headers: Vec<String>,
    /// Response headers that the engine may set. Stored and returned, without effect.
    pub(crate) allowed_response_headers: Vec<String>,
    /// The type of the tokens of logins.
    pub(crate) token_type: TokenKind,
    /// Returned if it was set.
    pub(crate) plugin_version: String,
    /// The settings of the user lockout.
    pub(crate) user_lockout: Option<LockoutConfig>,
}

/// The tuned user lockout of a mount. Zero selects the setting of the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LockoutConfig {
    /// The number of failed logins that lock a user out.
    pub(crate) threshold: u64,
    /// The duration of a lock in seconds.
    pub(crate) duration: u64,
    /// The number of seconds without a failed login after which the count restarts.
    pub(crate) counter_reset: u64,
    /// Whether the lockout is off.
    pub(crate) disable: bool,
}

/// A duration of a mount from its number of seconds, where zero selects the inherited value.
pub(crate) fn or_inherited(seconds: u64, inherited: Duration) -> Duration {
    if seconds == 0 { inherited } else { Duration::from_secs(seconds) }
}

impl MountEntry {
    /// Secrets engine or auth method.
    pub(crate) fn kind(&self) -> Kind {
        if self.auth { Kind::Auth } else { Kind::Secrets }
    }

    /// Whether both entries have the same engine, opened with the same options on the same storage.
    pub(super) fn has_engine_of(&self, other: &MountEntry) -> bool {
        let of = |entry: &MountEntry| (entry.auth, entry.options());
        self.uuid == other.uuid && self.engine == other.engine && of(self) == of(other)
    }

    /// The path without the prefix of its kind, as `sys/auth` shows it.
    pub(crate) fn shown_path(&self) -> &str {
        self.path.strip_prefix(self.kind().prefix()).unwrap_or(&self.path)
    }

    /// Its TTL bounds, resolved with those of the system.
    pub(crate) fn ttl(&self, settings: &Settings) -> TtlBounds {
        TtlBounds {
            default: or_inherited(self.config.default_lease_ttl, settings.default_lease_ttl),
            max: or_inherited(self.config.max_lease_ttl, settings.max_lease_ttl),
        }
    }

    /// The storage prefix that only this mount has. All mounts use it except those of core's own engines.
    pub(crate) fn own_storage(&self) -> String {
        format!("{}/{}/", if self.auth { "auth" } else { "logical" }, self.uuid)
    }

    /// The options; empty if there are none.
    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        self.options.clone().unwrap_or_default()
    }
}
