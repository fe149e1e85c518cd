//! Plugins of external keys: `transit`, `pkcs11` and `awskms`, with the clients of the seals of these types.
//!
//! A caller of the API sets the parameters, not the operator of the server. So no parameter is a path, a variable or a
//! reference to one; no connection leads to a metadata service; and no credential of the machine is used.
//!
//! Source: <https://openbao.org/docs/concepts/external-keys>.

mod awskms;
pub(crate) mod depth;
mod pkcs11;
mod signing;
mod transit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Clock;
use keepfast_framework::external_key::{ExternalKeyPlugin, ExternalKeyPlugins, FoundPlugin};
use keepfast_outbound::{AllowedAddresses, Proxies, Settings, SettingsError};

use crate::kinds;
use crate::stanza::{Environment, is_loopback, service_url};

/// The timeout of one call of another system.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest response of a service: an input of 1 MiB, encrypted and in base64.
const MAX_RESPONSE: usize = 2 * 1024 * 1024;

/// A library of an HSM that the configuration of the server declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HsmLibrary {
    /// The path of the library.
    pub path: String,
    /// Further variables of the process that the library gets.
    pub variables: Vec<String>,
    /// The program that loads the library; `None` for `keepfast-pkcs11` beside this program.
    pub helper_program: Option<PathBuf>,
}

/// The plugins of external keys. `libraries` are those of HSMs by their alias.
///
/// # Errors
/// When the variables of proxies are invalid.
pub fn external_key_plugins(
    libraries: &BTreeMap<String, HsmLibrary>,
    environment: &dyn Environment,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ExternalKeyPlugins>, SettingsError> {
    let calls = CallSettings {
        settings: Settings {
            connect_timeout: Some(CONNECT_TIMEOUT),
            timeout: Some(TIMEOUT),
            max_response: MAX_RESPONSE,
            proxies: Proxies::from_variables(&|name: &str| environment.variable(name))?,
            addresses: AllowedAddresses::NoMetadata,
            ..Settings::default()
        },
        clock: clock.clone(),
    };
    Ok(Arc::new(Plugins {
        transit: Arc::new(transit::TransitPlugin(calls.clone())),
        awskms: Arc::new(awskms::AwsKmsPlugin(calls)),
        pkcs11: Arc::new(pkcs11::Pkcs11Plugin::new(libraries, environment, clock)),
    }))
}

/// The settings of calls of a plugin.
#[derive(Clone)]
struct CallSettings {
    settings: Settings,
    clock: Arc<dyn Clock>,
}

/// The URL of a service. Only this machine is called without TLS: the call has credentials.
fn external_url(name: &str, value: &str) -> Result<String, String> {
    let url = service_url(name, value)?;
    let parsed: Option<http::Uri> = url.parse().ok();
    match parsed {
        Some(url) if url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or_default()) => {
            Err(format!("{name} must be a URL with https:// for another host than this one"))
        }
        _ => Ok(url),
    }
}

struct Plugins {
    transit: Arc<dyn ExternalKeyPlugin>,
    awskms: Arc<dyn ExternalKeyPlugin>,
    pkcs11: Arc<dyn ExternalKeyPlugin>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExternalKeyPlugins")
    }
}

impl ExternalKeyPlugins for Plugins {
    fn find(&self, name: &str) -> FoundPlugin {
        match name {
            "transit" => FoundPlugin::Plugin(self.transit.clone()),
            "awskms" => FoundPlugin::Plugin(self.awskms.clone()),
            "pkcs11" => FoundPlugin::Plugin(self.pkcs11.clone()),
            other if kinds().any(|kind| kind == other) => FoundPlugin::Unsupported,
            _ => FoundPlugin::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::clock::TestClock;
    use keepfast_framework::external_key::{ExternalKeyConnection, Parameters};

    use super::*;
    use crate::stanza::tests::Variables;

    fn plugin(name: &str, variables: &[(&str, &str)]) -> Arc<dyn ExternalKeyPlugin> {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let library = HsmLibrary { path: "/none/lib.so".to_owned(), variables: Vec::new(), helper_program: None };
        let libraries = BTreeMap::from([("hsm".to_owned(), library)]);
        let plugins = external_key_plugins(&libraries, &Variables::of(variables), &clock).unwrap();
        let FoundPlugin::Plugin(plugin) = plugins.find(name) else { panic!("{name}") };
        plugin
    }

    fn connect(name: &str, given: &[(&'static str, &str)]) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        let mut parameters = Parameters::default();
        for (name, value) in given {
            parameters.insert(name, keepfast_crypto::secret::SecretString::new((*value).to_owned()));
        }
        plugin(name, &[("VAULT_TOKEN", "of the server"), ("AWS_ACCESS_KEY_ID", "of the server")]).connect(&parameters)
    }

    #[test]
    fn each_type_of_seal_has_external_keys_or_says_that_it_has_none() {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let plugins = external_key_plugins(&BTreeMap::new(), &Variables::default(), &clock).unwrap();
        let with = |name: &str| matches!(plugins.find(name), FoundPlugin::Plugin(_));
        let found: Vec<&str> = kinds().filter(|kind| with(kind)).collect();
        assert_eq!(found, ["transit", "awskms", "pkcs11"]);
        assert!(matches!(plugins.find("gcpckms"), FoundPlugin::Unsupported));
        assert!(matches!(plugins.find("nope"), FoundPlugin::Unknown));
    }

    #[test]
    fn sec_no_parameter_of_an_external_key_names_a_file_or_variable() {
        for (plugin, given, error) in [
            ("transit", &[("token", "t"), ("address", "file:///etc/passwd")][..], "address"),
            ("transit", &[("token", "t"), ("address", "https://v/v1/sys/x#")], "address"),
            ("transit", &[("token", "t"), ("address", "http://10.0.0.1:8200")], "address must be a URL with https://"),
            ("awskms", &[("access_key", "a"), ("secret_key", "s"), ("endpoint", "http://kms")], "endpoint"),
            ("transit", &[("token", "t"), ("tls_ca_cert_bytes", "/etc/ssl/certs/ca.pem")], "no CA certificate"),
            ("transit", &[("token", "t"), ("mount_path", "../sys")], "mount_path"),
            ("pkcs11", &[("lib", "/usr/lib/softhsm/libsofthsm2.so"), ("pin", "1"), ("slot", "0")], "lib"),
            ("pkcs11", &[("lib", "../hsm"), ("pin", "1"), ("slot", "0")], "lib"),
            ("pkcs11", &[("lib", "hsm"), ("pin", "1")], "slot"),
            ("awskms", &[("access_key", "a"), ("secret_key", "s"), ("region", "x/y")], "region"),
        ] {
            let refused = connect(plugin, given).err().unwrap();
            assert!(refused.contains(error) && !refused.contains("passwd"), "{plugin}: {refused}");
        }
        assert!(connect("pkcs11", &[("lib", "hsm"), ("pin", "1"), ("slot", "0x1")]).is_ok());
        assert!(connect("transit", &[("token", "t"), ("address", "http://[::1]:8200")]).is_ok());
        assert!(connect("awskms", &[("access_key", "a"), ("secret_key", "env://HOME")]).is_ok(), "the text itself");
    }
}
