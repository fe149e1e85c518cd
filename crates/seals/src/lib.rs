//! Seals whose key is outside of the server, one file or folder each, behind
//! [`keepfast_framework::seal::Seal`]: a key in a file, another server, key management services.
//!
//! [`from_stanza`] creates a seal from the keys of a `seal` stanza and the environment; it sends nothing. A seal keeps
//! its connections and credentials, and no state of the storage. `docs/seals.md` has the keys and variables of each.
//!
//! | file | contents |
//! |---|---|
//! | `stanza` | the keys of a stanza, the environment, `env://` and `file://` |
//! | `deferred` | seals with a file that cannot be read yet |
//! | `call` | calls of services: repetition, classes of failures, wiped bodies |
//! | `credentials` | credentials that expire: one renewal at a time, before the expiry |
//! | `aws`, `google`, `azure` | credentials of a cloud and the seals that use them |

mod alicloud;
mod aws;
mod azure;
mod bearer;
mod call;
mod credentials;
mod deferred;
mod google;
mod kmip;
mod oci;
mod pkcs11;
mod profile;
#[cfg(test)]
mod stand_in;
mod stanza;
mod static_key;
#[cfg(test)]
mod suite;
mod transit;

use std::sync::Arc;

use keepfast_framework::Clock;
use keepfast_framework::seal::Seal;

use deferred::Deferred;
use stanza::Stanza;
pub use stanza::{Environment, SealConfigError, SealStanza, variable_suffix};

/// Creates the seal of a stanza.
type Create = fn(&Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError>;

/// A type of seals: the label of the stanza, its keys, its constructor.
type Kind = (&'static str, &'static [stanza::Key], Create);

/// The types of seals.
const KINDS: &[Kind] = &[
    ("static", static_key::KEYS, static_key::create),
    ("transit", transit::KEYS, transit::create),
    ("awskms", aws::kms::KEYS, aws::kms::create),
    ("gcpckms", google::kms::KEYS, google::kms::create),
    ("ocikms", oci::kms::KEYS, oci::kms::create),
    ("alicloudkms", alicloud::kms::KEYS, alicloud::kms::create),
    ("pkcs11", pkcs11::KEYS, pkcs11::create),
    ("kmip", kmip::KEYS, kmip::create),
    ("azurekeyvault", azure::key_vault::KEYS, azure::key_vault::create),
];

/// A seal, and what the operator should know of its stanza.
pub struct CreatedSeal {
    /// The seal.
    pub seal: Arc<dyn Seal>,
    /// Unknown keys, and settings that weaken the seal.
    pub warnings: Vec<String>,
}

/// The types of seals that [`from_stanza`] creates.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, ..)| *kind)
}

/// Creates the seal of a stanza without sending anything. Files that the stanza names are read; where that of a secret
/// cannot be, the seal reads it at its calls, and there is a warning.
///
/// # Errors
/// [`SealConfigError`] for an unknown type, and for keys that are missing or invalid. The text contains no values.
pub fn from_stanza(
    stanza: &SealStanza<'_>,
    environment: &dyn Environment,
    clock: &Arc<dyn Clock>,
) -> Result<CreatedSeal, SealConfigError> {
    let found = KINDS.iter().find(|(kind, ..)| *kind == stanza.kind);
    let Some(kind) = found else {
        let all: Vec<&str> = kinds().collect();
        return Err(SealConfigError::new(
            stanza.name,
            format!("type {:?} is not one of {}", stanza.kind, all.join(", ")),
        ));
    };
    let (_, keys, create) = kind;
    let read = Stanza::new(stanza, keys, environment, clock);
    let seal = match create(&read) {
        Err(error) if error.is_of_file => {
            read.warn(format!("{}; it is read again at each call", error.reason));
            Arc::new(Deferred::new(kind, stanza, environment.kept(), clock.clone()))
        }
        created => created?,
    };
    Ok(CreatedSeal { seal, warnings: read.warnings() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stanza::tests::Variables;

    #[test]
    fn an_unknown_type_is_refused_with_the_known_ones() {
        let options = BTreeMap::new();
        let clock: Arc<dyn Clock> = Arc::new(keepfast_framework::clock::TestClock::default());
        let error =
            from_stanza(&SealStanza::new("none", "none", &options), &Variables::default(), &clock).err().unwrap();
        assert!(error.to_string().contains("static, transit"), "{error}");
    }

    #[test]
    fn the_page_of_seals_has_every_key_and_variable() {
        let page = include_str!("../../../docs/seals.md");
        for (kind, keys, _) in KINDS {
            let section = page.split("\n## ").find(|part| part.starts_with(&format!("`{kind}`"))).unwrap_or_default();
            for (key, variables) in *keys {
                let named = std::iter::once(key).chain(*variables);
                for word in named {
                    assert!(section.contains(&format!("`{word}`")), "docs/seals.md, {kind}: {word} is missing");
                }
            }
        }
    }
}
