//! What is stored of a mount.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::Kind;
use keepfast_framework::mount::TtlBounds;
use keepfast_framework::token_params::TokenKind;
use serde::{Deserialize, Serialize};

use crate::namespace::NamespaceId;
use crate::settings::Settings;

/// What is stored of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountEntry {
    /// The name of its storage; never changes.
    pub(crate) uuid: String,
    /// The namespace that it belongs to.
    #[serde(default, skip_serializing_if = "NamespaceId::is_root")]
    pub(crate) namespace: NamespaceId,
    /// Where: `secret/` or `auth/approle/`; ends in `/`.
    pub(crate) path: String,
    /// The engine's type.
    pub(crate) engine: String,
    /// Secrets engine or auth method.
    pub(crate) auth: bool,
    /// The random name that aliases and audit entries refer to.
    pub(crate) accessor: String,
    /// For people.
    #[serde(default)]
    pub(crate) description: String,
    /// Options such as `version=2`; `None` is shown as null.
    #[serde(default)]
    pub(crate) options: Option<BTreeMap<String, String>>,
    /// What was tuned.
    #[serde(default)]
    pub(crate) config: MountConfig,
    /// Not replicated; only shown.
    #[serde(default)]
    pub(crate) local: bool,
    /// Only shown: everything is encrypted twice already.
    #[serde(default)]
    pub(crate) seal_wrap: bool,
    /// Only shown.
    #[serde(default)]
    pub(crate) external_entropy_access: bool,
    /// Whether it is being taken away: it answers no more, and its data is under deletion.
    #[serde(default)]
    pub(crate) leaving: bool,
}

/// What was tuned at a mount. Zero and empty mean "as the system has it".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountConfig {
    /// Seconds.
    pub(crate) default_lease_ttl: u64,
    /// Seconds.
    pub(crate) max_lease_ttl: u64,
    /// Only shown.
    pub(crate) force_no_cache: bool,
    /// Request fields that audit shows in clear.
    pub(crate) audit_non_hmac_request_keys: Vec<String>,
    /// Response fields that audit shows in clear.
    pub(crate) audit_non_hmac_response_keys: Vec<String>,
    /// `unauth`, `hidden` or empty.
    pub(crate) listing_visibility: String,
    /// Request headers that the engine may see; only shown.
    pub(crate) passthrough_request_headers: Vec<String>,
    /// Response headers that the engine may set; only shown.
    pub(crate) allowed_response_headers: Vec<String>,
    /// What kind of token logins get.
    pub(crate) token_type: TokenKind,
    /// Shown when it was given.
    pub(crate) plugin_version: String,
    /// When guessing at a user's secret locks the user out.
    pub(crate) user_lockout: Option<LockoutConfig>,
}

/// What was tuned of a mount's lockout. Zero means "as the system has it".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LockoutConfig {
    /// How many failed attempts lock a user out.
    pub(crate) threshold: u64,
    /// Seconds.
    pub(crate) duration: u64,
    /// Seconds.
    pub(crate) counter_reset: u64,
    /// Whether nobody is locked out.
    pub(crate) disable: bool,
}

/// A number of seconds of a mount, where zero stands for the value that the mount inherits.
pub(crate) fn or_inherited(seconds: u64, inherited: Duration) -> Duration {
    if seconds == 0 { inherited } else { Duration::from_secs(seconds) }
}

impl MountEntry {
    /// Secrets engine or auth method.
    pub(crate) fn kind(&self) -> Kind {
        if self.auth { Kind::Auth } else { Kind::Secrets }
    }

    /// Whether both entries choose the same engine, opened with the same options on the same storage.
    pub(super) fn has_engine_of(&self, other: &MountEntry) -> bool {
        let of = |entry: &MountEntry| (entry.auth, entry.options());
        self.uuid == other.uuid && self.engine == other.engine && of(self) == of(other)
    }

    /// The path without the prefix of its kind, as `sys/auth` shows it.
    pub(crate) fn shown_path(&self) -> &str {
        self.path.strip_prefix(self.kind().prefix()).unwrap_or(&self.path)
    }

    /// Its lease bounds resolved against the system's.
    pub(crate) fn ttl(&self, settings: &Settings) -> TtlBounds {
        TtlBounds {
            default: or_inherited(self.config.default_lease_ttl, settings.default_lease_ttl),
            max: or_inherited(self.config.max_lease_ttl, settings.max_lease_ttl),
        }
    }

    /// The prefix of a storage that only this mount has, which all mounts use but for those of core's own engines.
    pub(crate) fn own_storage(&self) -> String {
        format!("{}/{}/", if self.auth { "auth" } else { "logical" }, self.uuid)
    }

    /// The options, empty where there are none.
    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        self.options.clone().unwrap_or_default()
    }
}
