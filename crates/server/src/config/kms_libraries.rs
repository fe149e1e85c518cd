//! `kms_library "pkcs11"`: the libraries of HSMs for external keys, by the alias that a config names in place of a path.
//!
//! Source: <https://developer.hashicorp.com/vault/docs/configuration/kms-library>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keepfast_framework::Clock;
use keepfast_framework::clock::SystemClock;
use keepfast_framework::external_key::ExternalKeyPlugins;
use keepfast_seals::HsmLibrary;

use super::environment::Environment;
use super::error::{ConfigError, Warning};
use super::stanza::{Labelled, Stanza};

/// Reads the libraries of all files, and creates the plugins of external keys.
pub(super) fn read(
    roots: &mut [Stanza<'_>],
    environment: &Environment,
    warnings: &mut Vec<Warning>,
) -> Result<Arc<dyn ExternalKeyPlugins>, ConfigError> {
    let mut libraries = BTreeMap::new();
    for root in roots {
        for block in root.blocks("kms_library", 1)? {
            add_library(&mut libraries, block, warnings)?;
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    keepfast_seals::external_key_plugins(&libraries, environment, &clock)
        .map_err(|error| ConfigError::Whole(error.to_string()))
}

fn add_library(
    libraries: &mut BTreeMap<String, HsmLibrary>,
    block: Labelled<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    let Labelled { labels, position, mut stanza } = block;
    if labels.first().is_none_or(|kind| !kind.eq_ignore_ascii_case("pkcs11")) {
        return Err(stanza.fault(position, "the type of a kms_library is \"pkcs11\""));
    }
    let name = stanza.text("name")?.unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(stanza.fault(position, "kms_library needs a name of letters, digits, '-', '_' and '.'"));
    }
    let path = stanza.text("library")?.unwrap_or_default();
    if !Path::new(&path).is_absolute() {
        return Err(stanza.fault(position, "kms_library needs library, the absolute path of the library of the HSM"));
    }
    let helper_program = stanza.text("helper_program")?.filter(|path| !path.is_empty()).map(PathBuf::from);
    let variables = stanza.text("library_variables")?.unwrap_or_default();
    let variables = variables.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if libraries.insert(name.clone(), HsmLibrary { path, variables, helper_program }).is_some() {
        return Err(stanza.fault(position, format!("two kms_library blocks are named {name:?}")));
    }
    stanza.finish(warnings);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_texts;

    const BASE: &str = "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = true }\n";

    #[test]
    fn a_library_of_an_hsm_has_a_type_a_name_and_an_absolute_path() {
        for (stanza, refused) in [
            ("kms_library \"pkcs11\" { name = \"hsm\" library = \"/usr/lib/hsm.so\" }", None),
            ("kms_library \"pkcs11\" { name = \"hsm\" library = \"hsm.so\" }", Some("absolute path")),
            ("kms_library \"pkcs11\" { library = \"/usr/lib/hsm.so\" }", Some("needs a name")),
            ("kms_library \"pkcs11\" { name = \"a/b\" library = \"/usr/lib/hsm.so\" }", Some("needs a name")),
            ("kms_library \"other\" { name = \"hsm\" library = \"/usr/lib/hsm.so\" }", Some("\"pkcs11\"")),
            (
                "kms_library \"pkcs11\" { name = \"a\" library = \"/x\" }\nkms_library \"pkcs11\" { name = \"a\" library = \"/y\" }",
                Some("are named"),
            ),
        ] {
            let loaded = load_texts(&[BASE, stanza], &[]);
            match refused {
                None => assert!(loaded.unwrap().0.external_keys.is_some()),
                Some(text) => assert!(loaded.unwrap_err().contains(text), "{stanza}"),
            }
        }
    }
}
