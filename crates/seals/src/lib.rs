//! Seals whose key is outside of the server, one file or folder each, behind
//! [`keepfast_framework::seal::Seal`]: a key in a file, another server, key management services. The clients of some
//! also use external keys, behind [`keepfast_framework::external_key::ExternalKey`].
//!
//! [`from_stanza`] creates a seal from the keys of a `seal` stanza and the environment; it sends nothing. A seal keeps
//! its connections and credentials, and no state of the storage. `docs/seals.md` has the keys and variables of each.
//!
//! | file | contents |
//! |---|---|
//! | `stanza` | the keys of a stanza, the environment, `env://` and `file://` |
//! | `secret_file` | files with secrets, read within a time, also on a dead mount |
//! | `call` | calls of services: repetition, classes of failures, wiped bodies |
//! | `waiting` | a seal whose secret is in a file that is not there yet |
//! | `credentials` | credentials that expire: one renewal at a time, before the expiry |
//! | `external` | the plugins of external keys: `transit`, `pkcs11`, `awskms` |
//! | `tpm` | the commands and sessions of a TPM 2.0 |
//! | `aws`, `google`, `azure` | credentials of a cloud and the seals that use them |

mod alicloud;
mod aws;
mod azure;
mod bearer;
mod call;
mod credentials;
mod external;
mod google;
mod kmip;
mod oci;
mod pkcs11;
mod profile;
mod secret_file;
#[cfg(test)]
mod stand_in;
mod stanza;
mod static_key;
#[cfg(test)]
mod suite;
mod tpm;
mod transit;
mod waiting;

use std::sync::Arc;

use keepfast_framework::Clock;
use keepfast_framework::seal::Seal;

pub use external::depth::{at_external_key_depth, external_key_depth};
pub use external::{HsmLibrary, external_key_plugins};
use stanza::Stanza;
pub use stanza::{Environment, SealConfigError, SealStanza, variable_suffix};
use waiting::Waiting;

/// A type of seals: the label of the stanza, its keys, its constructor.
type Type = (&'static str, &'static [stanza::Key], Create);

/// Creates the seal of a stanza.
type Create = fn(&Stanza<'_>) -> Result<Arc<dyn Seal>, SealConfigError>;

/// The types of seals.
const KINDS: &[Type] = &[
    ("static", static_key::KEYS, static_key::create),
    ("transit", transit::KEYS, transit::create),
    ("awskms", aws::kms::KEYS, aws::kms::create),
    ("gcpckms", google::kms::KEYS, google::kms::create),
    ("ocikms", oci::kms::KEYS, oci::kms::create),
    ("alicloudkms", alicloud::kms::KEYS, alicloud::kms::create),
    ("pkcs11", pkcs11::KEYS, pkcs11::create),
    ("kmip", kmip::KEYS, kmip::create),
    ("tpm", tpm::KEYS, tpm::create),
    ("azurekeyvault", azure::key_vault::KEYS, azure::key_vault::create),
];

/// A seal, and what the operator should know of its stanza.
pub struct CreatedSeal {
    /// The seal.
    pub seal: Arc<dyn Seal>,
    /// Unknown keys, settings that weaken the seal, and what it waits for.
    pub warnings: Vec<String>,
    /// What it waits for: the file of a secret that cannot be read, or has no valid content.
    pub waits_for: Option<String>,
    /// A digest of the stanza and the files of its secrets, for a seal that counts its attempts.
    pub origin: Option<[u8; 32]>,
}

/// The types of seals that [`from_stanza`] creates.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, ..)| *kind)
}

/// Creates the seal of a stanza without sending anything. Files that the stanza names are read. A seal whose secret is in a
/// file that cannot be read, or has no valid content, reads it again at each call until it is valid.
///
/// # Errors
/// [`SealConfigError`] for an unknown type, and for keys that are missing or invalid. The text contains no values.
pub fn from_stanza(
    stanza: &SealStanza<'_>,
    environment: &dyn Environment,
    clock: &Arc<dyn Clock>,
) -> Result<CreatedSeal, SealConfigError> {
    let found = KINDS.iter().find(|(kind, ..)| *kind == stanza.kind);
    let Some((kind, keys, create)) = found else {
        let all: Vec<&str> = kinds().collect();
        return Err(SealConfigError::new(
            stanza.name,
            format!("type {:?} is not one of {}", stanza.kind, all.join(", ")),
        ));
    };
    let read = Stanza::new(stanza, keys, environment, clock);
    let (seal, waits_for) = match create(&read) {
        Ok(seal) => (seal, None),
        Err(error) if error.is_of_file => {
            read.warn(format!("{}; the seal waits for it", error.reason));
            let waiting = Waiting::new((kind, keys, *create), stanza, environment, clock);
            (Arc::new(waiting) as Arc<dyn Seal>, Some(error.reason))
        }
        Err(error) => return Err(error),
    };
    let origin = seal.counts_attempts().then(|| read.origin());
    Ok(CreatedSeal { seal, warnings: read.warnings(), waits_for, origin })
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
