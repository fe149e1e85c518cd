//! Converts the configuration of a client to the settings of its calls.

use keepfast_outbound::{
    AllowedAddresses, Authorities, ClientCertificate, Proxies, Proxy, Settings, SettingsError, Trust,
};

use crate::{Address, Config, Error, environment};

/// The longest response in bytes. No response of the API is longer.
const MAX_RESPONSE: usize = 256 << 20;

/// The settings of the calls of a client.
///
/// # Errors
/// When the configuration has a client certificate without a key, or the reverse.
pub(crate) fn settings(config: &Config) -> Result<Settings, Error> {
    let client_certificate = match (&config.client_cert, &config.client_key) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some(ClientCertificate::Files { chain: chain.clone(), key: key.clone() }),
        _ => return Err(Error::Config("both client cert and client key must be provided".to_owned())),
    };
    Ok(Settings {
        connect_timeout: None,
        timeout: config.timeout,
        max_response: MAX_RESPONSE,
        proxies: config.proxies.clone(),
        trust: trust(config),
        client_certificate,
        server_name: config.server_name.clone(),
        socket: match &config.address {
            Address::Unix(path) => Some(path.clone()),
            Address::Http(_) => None,
        },
        addresses: AllowedAddresses::All,
    })
}

fn trust(config: &Config) -> Trust {
    if config.skip_verify {
        return Trust::Anything;
    }
    match (&config.ca_cert, &config.ca_pem, &config.ca_path) {
        (Some(file), _, _) => Trust::Only(vec![Authorities::File(file.clone())]),
        (None, Some(pem), _) => {
            let name = "the PEM text of CACERT_BYTES".to_owned();
            Trust::Only(vec![Authorities::Text { name, pem: pem.clone() }])
        }
        (None, None, Some(directory)) => Trust::Only(vec![Authorities::Directory(directory.clone())]),
        (None, None, None) => Trust::System(Vec::new()),
    }
}

/// The proxies of the environment variables. `VAULT_PROXY_ADDR` takes precedence over `VAULT_HTTP_PROXY` (each also
/// with the prefixes `KEEPFAST_` and `BAO_`), and both over `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
///
/// Source: <https://developer.hashicorp.com/vault/docs/commands#environment-variables>.
///
/// # Errors
/// When a variable is not the URL of a proxy.
pub(crate) fn proxies(source: &impl Fn(&str) -> Option<String>) -> Result<Proxies, Error> {
    let refused = |error: SettingsError| Error::Config(error.to_string());
    let general = Proxies::from_variables(source).map_err(refused)?;
    let named = environment::find("PROXY_ADDR", source).or_else(|| environment::find("HTTP_PROXY", source));
    match named {
        Some((name, value)) => Ok(general.with_proxy_for_all(Proxy::of_variable(&name, &value).map_err(refused)?)),
        None => Ok(general),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn through(pairs: &[(&str, &str)], address: &str) -> Result<Option<String>, Error> {
        let source = |name: &str| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        let proxies = proxies(&source)?;
        let proxy = proxies.for_address(&address.parse().unwrap());
        Ok(proxy.map(|proxy| proxy.uri().unwrap().to_string()))
    }

    #[test]
    fn a_proxy_of_a_vault_variable_serves_every_address() {
        let general = [("HTTP_PROXY", "p"), ("NO_PROXY", "*")];
        for name in ["VAULT_HTTP_PROXY", "BAO_PROXY_ADDR"] {
            let pairs = [&general[..], &[(name, "http://v:1")]].concat();
            let proxy = through(&pairs, "http://127.0.0.1:8200").unwrap();
            assert_eq!(proxy.as_deref(), Some("http://v:1/"), "{name}");
        }
        let both = [("VAULT_HTTP_PROXY", "http://a:1"), ("VAULT_PROXY_ADDR", "https://b")];
        assert_eq!(through(&both, "https://v").unwrap().as_deref(), Some("https://b:443/"));
    }

    #[test]
    fn an_invalid_proxy_variable_is_named_without_its_value() {
        for name in ["VAULT_PROXY_ADDR", "HTTPS_PROXY"] {
            let message = through(&[(name, "socks5://u:hidden@h:1080")], "https://v").unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name} is not")) && !message.contains("hidden"), "{message}");
        }
    }
}
