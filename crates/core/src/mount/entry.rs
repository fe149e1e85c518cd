//! What is stored of a mount.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::Kind;
use keepfast_framework::mount::TtlBounds;
use keepfast_framework::token_params::TokenKind;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// What is stored of a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountEntry {
    /// The name of its storage; never changes.
    pub uuid: String,
    /// Where: `secret/` or `auth/approle/`; ends in `/`.
    pub path: String,
    /// The engine's type.
    pub engine: String,
    /// Secrets engine or auth method.
    pub auth: bool,
    /// The random name that aliases and audit entries refer to.
    pub accessor: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Options such as `version=2`; `None` is shown as null.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// What was tuned.
    #[serde(default)]
    pub config: MountConfig,
    /// Not replicated; only shown.
    #[serde(default)]
    pub local: bool,
    /// Only shown: everything is encrypted twice already.
    #[serde(default)]
    pub seal_wrap: bool,
    /// Only shown.
    #[serde(default)]
    pub external_entropy_access: bool,
    /// Whether it is being taken away: it answers no more, and its data is under deletion.
    #[serde(default)]
    pub leaving: bool,
}

/// What was tuned at a mount. Zero and empty mean "as the system has it".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Seconds.
    pub default_lease_ttl: u64,
    /// Seconds.
    pub max_lease_ttl: u64,
    /// Only shown.
    pub force_no_cache: bool,
    /// Request fields that audit shows in clear.
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Response fields that audit shows in clear.
    pub audit_non_hmac_response_keys: Vec<String>,
    /// `unauth`, `hidden` or empty.
    pub listing_visibility: String,
    /// Request headers that the engine may see; only shown.
    pub passthrough_request_headers: Vec<String>,
    /// Response headers that the engine may set; only shown.
    pub allowed_response_headers: Vec<String>,
    /// What kind of token logins get.
    pub token_type: TokenKind,
    /// Shown when it was given.
    pub plugin_version: String,
    /// When guessing at a user's secret locks the user out.
    pub user_lockout: Option<LockoutConfig>,
}

/// What was tuned of a mount's lockout. Zero means "as the system has it".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockoutConfig {
    /// How many failed attempts lock a user out.
    pub threshold: u64,
    /// Seconds.
    pub duration: u64,
    /// Seconds.
    pub counter_reset: u64,
    /// Whether nobody is locked out.
    pub disable: bool,
}

/// A number of seconds of a mount, where zero stands for the value that the mount inherits.
pub(crate) fn or_inherited(seconds: u64, inherited: Duration) -> Duration {
    if seconds == 0 { inherited } else { Duration::from_secs(seconds) }
}

impl MountEntry {
    /// Secrets engine or auth method.
    pub fn kind(&self) -> Kind {
        if self.auth { Kind::Auth } else { Kind::Secrets }
    }

    /// Whether it is a KV secrets engine, under its current or its former type.
    pub fn is_kv(&self) -> bool {
        !self.auth && matches!(self.engine.as_str(), "kv" | "generic")
    }

    /// The path without the prefix `auth/`, as `sys/auth` shows it.
    pub fn shown_path(&self) -> &str {
        if self.auth { self.path.strip_prefix("auth/").unwrap_or(&self.path) } else { &self.path }
    }

    /// Its lease bounds resolved against the system's.
    pub fn ttl(&self, settings: &Settings) -> TtlBounds {
        TtlBounds {
            default: or_inherited(self.config.default_lease_ttl, settings.default_lease_ttl),
            max: or_inherited(self.config.max_lease_ttl, settings.max_lease_ttl),
        }
    }

    /// The prefix of its storage: a mount's data is below it and nothing else is.
    pub fn storage_prefix(&self) -> String {
        match self.engine.as_str() {
            "system" => "sys/".to_owned(),
            "token" => "token/".to_owned(),
            _ => format!("{}/{}/", if self.auth { "auth" } else { "logical" }, self.uuid),
        }
    }

    /// The options, empty where there are none.
    pub fn options(&self) -> BTreeMap<String, String> {
        self.options.clone().unwrap_or_default()
    }
}
