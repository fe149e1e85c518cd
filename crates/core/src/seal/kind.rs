//! The types of seals.

use serde::{Deserialize, Serialize};

/// A type of seal, by its name in the configuration, the stored record and `sys/seal-status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealKind {
    /// Shares of an unseal key, which operators hold.
    #[default]
    Shamir,
}

impl SealKind {
    /// The type with this name; `None` for one that this server does not have.
    pub fn parse(name: &str) -> Option<Self> {
        [SealKind::Shamir].into_iter().find(|kind| kind.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SealKind::Shamir => "shamir",
        }
    }
}
