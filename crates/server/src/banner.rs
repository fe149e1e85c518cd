//! The output of the server on standard output at its start. Harnesses read the lines "Unseal Key:" and "Root Token:".

use std::fmt::Write;

use keepfast_crypto::secret::SecretString;

use crate::config::{Config, ListenerConfig};

/// The width of the names of the summary.
const WIDTH: usize = 24;

/// The summary of the configuration.
pub(crate) fn summary(config: &Config, version: &str, log_level: &str, locked: bool) -> String {
    let mut lines = vec![
        ("Api Address".to_owned(), config.api_addr.clone()),
        ("Cluster Address".to_owned(), config.cluster_addr.clone()),
    ];
    for (at, listener) in config.listeners.iter().enumerate() {
        lines.push((format!("Listener {}", at + 1), describe(listener)));
    }
    for device in &config.audit {
        lines.push(("Audit Device".to_owned(), format!("{} ({}/)", device.device, device.name)));
    }
    lines.push(("Log Level".to_owned(), if log_level.is_empty() { "info".into() } else { log_level.to_owned() }));
    lines.push(("Mlock".to_owned(), format!("supported: true, enabled: {locked}")));
    lines.extend(config.seals.iter().map(|seal| ("Seal".to_owned(), seal.to_string())));
    lines.push(("Storage".to_owned(), config.storage.kind().to_owned()));
    lines.push(("Version".to_owned(), format!("Keepfast v{version}")));
    let mut out = String::from("==> Keepfast server configuration:\n\n");
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(out, "{name:>WIDTH$}: {value}");
    }
    out.push('\n');
    out
}

fn describe(listener: &ListenerConfig) -> String {
    let limits = &listener.limits;
    format!(
        "{} (addr: \"{}\", max_request_duration: \"{}s\", max_request_json_strings: \"{}\", max_request_size: \"{}\", tls: \"{}\")",
        listener.kind(),
        listener.address(),
        limits.duration.as_secs(),
        limits.json.strings,
        limits.body,
        if listener.tls.is_some() { "enabled" } else { "disabled" },
    )
}

/// The line before the log.
pub(crate) const STARTED: &str = "==> Keepfast server started! Log data will stream in below:\n\n";
/// The line of an orderly shutdown.
pub(crate) const STOPPING: &str = "==> Keepfast shutdown triggered\n";

/// The values of the banner of a development server.
pub(crate) struct Development<'a> {
    /// The address of the server, as a URL.
    pub(crate) address: &'a str,
    /// The CA to trust, with `-dev-tls`.
    pub(crate) ca: Option<&'a std::path::Path>,
    /// The only unseal key, base64.
    pub(crate) unseal_key: &'a SecretString,
    /// The root token.
    pub(crate) root_token: &'a SecretString,
}

/// The banner of a development server. It is the only output of the server with secrets, which exist as long as the
/// process.
pub(crate) fn development(d: &Development<'_>) -> String {
    let mut out = String::from(
        "WARNING! dev mode is enabled! In this mode, Keepfast keeps everything in memory,\n\
         starts unsealed with a single unseal key, and loses all of it when it ends.\n\n\
         You may need to set the following environment variables:\n\n",
    );
    let _ = writeln!(out, "    $ export VAULT_ADDR='{}'", d.address);
    if let Some(ca) = d.ca {
        let _ = writeln!(out, "    $ export VAULT_CACERT='{}'", ca.display());
    }
    out.push_str(
        "\nThe unseal key and root token are shown here once, to seal and unseal or to\nauthenticate again.\n\n",
    );
    let _ = writeln!(out, "Unseal Key: {}", d.unseal_key.expose());
    let _ = writeln!(out, "Root Token: {}", d.root_token.expose());
    out.push_str("\nDevelopment mode should NOT be used in production installations!\n\n");
    out
}

/// The values of the banner for programs: one line of JSON, printed when the server accepts requests.
pub(crate) fn development_json(d: &Development<'_>) -> String {
    let line = serde_json::json!({
        "address": d.address,
        "ca_cert": d.ca.map(|path| path.display().to_string()),
        "unseal_key": d.unseal_key.expose(),
        "root_token": d.root_token.expose(),
    });
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_for_programs_is_one_line_of_json() {
        let (unseal_key, root_token) = (SecretString::new("a2V5".into()), SecretString::new("root".into()));
        let address = "http://127.0.0.1:40001";
        let d = Development { address, ca: None, unseal_key: &unseal_key, root_token: &root_token };
        let text = development_json(&d);
        assert_eq!(
            text,
            "{\"address\":\"http://127.0.0.1:40001\",\"ca_cert\":null,\"unseal_key\":\"a2V5\",\"root_token\":\"root\"}\n"
        );
    }

    #[test]
    fn the_banner_has_the_key_and_the_token_on_their_own_lines() {
        let (unseal_key, root_token) = (SecretString::new("a2V5".into()), SecretString::new("root".into()));
        let text = development(&Development {
            address: "http://127.0.0.1:8200",
            ca: None,
            unseal_key: &unseal_key,
            root_token: &root_token,
        });
        for line in ["Unseal Key: a2V5", "Root Token: root", "    $ export VAULT_ADDR='http://127.0.0.1:8200'"] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn the_summary_names_listeners_and_storage() {
        let config = Config { listeners: vec![ListenerConfig::plain("127.0.0.1:8200")], ..Config::default() };
        let text = summary(&config, "1.2.3", "", false);
        assert!(text.contains("              Listener 1: tcp (addr: \"127.0.0.1:8200\", "), "{text}");
        assert!(text.contains("                 Storage: inmem\n") && !text.contains("Api Address"), "{text}");
    }
}
