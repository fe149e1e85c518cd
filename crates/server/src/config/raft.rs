//! The settings of `storage "raft"` about the cluster: the leaders to join, and the times of elections.
//!
//! Source: <https://openbao.org/docs/configuration/storage/raft/>.

use std::path::PathBuf;
use std::time::Duration;

use keepfast_core::cluster::join::client::{JoinTarget, PemSource, SecretPemSource};
use keepfast_crypto::secret::SecretString;

use super::error::{ConfigError, Warning};
use super::stanza::{Labelled, Stanza};

/// The largest `performance_multiplier`.
const MAX_MULTIPLIER: u32 = 10;
/// The `performance_multiplier` without one.
const DEFAULT_MULTIPLIER: u32 = 2;
/// The shortest election timeout for each unit of `performance_multiplier`.
const ELECTION: Duration = Duration::from_millis(300);
/// The shortest `autopilot_reconcile_interval`.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The least `max_snapshot_size`.
const LEAST_SNAPSHOT: u64 = 1 << 20;

/// The settings of a node of a cluster.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// The leaders to join (`retry_join`).
    pub retry_join: Vec<JoinTarget>,
    /// Whether the node joins without a vote.
    pub retry_join_as_non_voter: bool,
    /// The shortest election timeout (`performance_multiplier`); the longest is the double.
    pub election: Duration,
    /// The interval of autopilot.
    pub autopilot_reconcile_interval: Duration,
    /// The longest file of a snapshot that is saved or restored on request, in bytes.
    pub max_snapshot_size: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        RaftConfig {
            retry_join: Vec::new(),
            retry_join_as_non_voter: false,
            election: ELECTION * DEFAULT_MULTIPLIER,
            autopilot_reconcile_interval: Duration::from_secs(10),
            max_snapshot_size: 16 << 30,
        }
    }
}

impl RaftConfig {
    /// Reads the settings of the storage stanza.
    pub(super) fn read(stanza: &mut Stanza<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let mut config = RaftConfig::default();
        for block in stanza.blocks("retry_join", 0)? {
            config.retry_join.push(target(block, warnings)?);
        }
        config.retry_join_as_non_voter = stanza.flag("retry_join_as_non_voter")?.unwrap_or(false);
        let multiplier = stanza.integer("performance_multiplier")?.unwrap_or(0);
        match u32::try_from(multiplier) {
            Ok(0) => {}
            Ok(multiplier @ 1..=MAX_MULTIPLIER) => config.election = ELECTION * multiplier,
            _ => {
                let text = format!("performance_multiplier must be a number from 0 to {MAX_MULTIPLIER}");
                return Err(stanza.fault(stanza.position("performance_multiplier"), text));
            }
        }
        if let Some(interval) = stanza.duration("autopilot_reconcile_interval")?.filter(|i| !i.is_zero()) {
            config.autopilot_reconcile_interval = interval.max(LEAST_INTERVAL);
        }
        match stanza.integer("max_snapshot_size")?.map(u64::try_from) {
            None => {}
            Some(Ok(size)) if size >= LEAST_SNAPSHOT => config.max_snapshot_size = size,
            Some(_) => {
                let text = format!("max_snapshot_size must be a number of at least {LEAST_SNAPSHOT} bytes");
                return Err(stanza.fault(stanza.position("max_snapshot_size"), text));
            }
        }
        Ok(config)
    }
}

/// Reads a `retry_join` block.
fn target(block: Labelled<'_>, warnings: &mut Vec<Warning>) -> Result<JoinTarget, ConfigError> {
    let Labelled { position, mut stanza, .. } = block;
    for key in ["auto_join", "auto_join_scheme", "auto_join_port"] {
        if let Some(item) = stanza.item(key)? {
            let text = format!("{key} is not supported: name each node with a retry_join block and leader_api_addr");
            return Err(stanza.fault(item.position(), text));
        }
    }
    let api_addr = stanza.address("leader_api_addr")?.filter(|address| !address.is_empty());
    let api_addr = api_addr.ok_or_else(|| stanza.fault(position, "retry_join needs a leader_api_addr"))?;
    if !["http://", "https://"].iter().any(|scheme| api_addr.starts_with(scheme)) {
        return Err(stanza.fault(position, "leader_api_addr must be a URL that begins with https:// or http://"));
    }
    let ca = pem(&mut stanza, "leader_ca_cert", "leader_ca_cert_file")?;
    let client_certificate = pem(&mut stanza, "leader_client_cert", "leader_client_cert_file")?;
    let client_key = pem(&mut stanza, "leader_client_key", "leader_client_key_file")?.map(|key| match key {
        PemSource::File(path) => SecretPemSource::File(path),
        PemSource::Text(text) => SecretPemSource::Text(SecretString::new(text)),
    });
    let are_files =
        matches!(client_certificate, Some(PemSource::File(_))) == matches!(client_key, Some(SecretPemSource::File(_)));
    if client_certificate.is_some() != client_key.is_some() || !are_files {
        let text = "a client certificate and its key are set together, both as files or both as texts";
        return Err(stanza.fault(position, text));
    }
    let tls_servername = stanza.text("leader_tls_servername")?.filter(|name| !name.is_empty());
    stanza.finish(warnings);
    Ok(JoinTarget { api_addr, ca, any_certificate: false, client_certificate, client_key, tls_servername })
}

/// A certificate or key as a text or a file, not both.
fn pem(stanza: &mut Stanza<'_>, text: &'static str, file: &'static str) -> Result<Option<PemSource>, ConfigError> {
    let non_empty = |value: Option<String>| value.filter(|value| !value.is_empty());
    match (non_empty(stanza.text(text)?), non_empty(stanza.text(file)?)) {
        (Some(_), Some(_)) => Err(stanza.fault(stanza.position(file), format!("set either {text} or {file}"))),
        (Some(text), None) => Ok(Some(PemSource::Text(text))),
        (None, file) => Ok(file.map(|path| PemSource::File(PathBuf::from(path)))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::{Environment, load};

    /// Reads a configuration with this text in its storage stanza.
    fn read(text: &str) -> Result<(RaftConfig, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.hcl");
        let whole =
            format!("storage \"raft\" {{\n path = \"/d\"\n {text}\n}}\nlistener \"tcp\" {{ tls_disable = 1 }}\n");
        std::fs::write(&file, whole).unwrap();
        let read = load(&[file], &Environment::of(&[])).map_err(|error| error.to_string())?;
        Ok((read.0.raft, read.1.iter().map(ToString::to_string).collect()))
    }

    fn config(text: &str) -> RaftConfig {
        let (config, warnings) = read(text).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        config
    }

    #[test]
    fn leaders_to_join_are_read_in_order_with_their_certificates() {
        let both = config(
            r#"retry_join {
                leader_api_addr = "https://a:8200"
                leader_ca_cert_file = "/ca.pem"
                leader_client_cert_file = "/c.pem"
                leader_client_key_file = "/k.pem"
                leader_tls_servername = "leader"
            }
            retry_join {
                leader_api_addr = "http://b:8200"
                leader_ca_cert = "PEM"
            }
            retry_join_as_non_voter = true
            performance_multiplier = 3
            autopilot_reconcile_interval = "20s""#,
        );
        let [a, b] = &both.retry_join[..] else { panic!("{both:?}") };
        assert_eq!((a.api_addr.as_str(), b.api_addr.as_str()), ("https://a:8200", "http://b:8200"));
        assert_eq!((&a.ca, &b.ca), (&Some(PemSource::File("/ca.pem".into())), &Some(PemSource::Text("PEM".into()))));
        assert_eq!(a.client_certificate, Some(PemSource::File("/c.pem".into())));
        assert!(matches!(&a.client_key, Some(SecretPemSource::File(path)) if path.as_os_str() == "/k.pem"));
        assert_eq!((a.tls_servername.as_deref(), b.tls_servername.as_deref()), (Some("leader"), None));
        assert!(both.retry_join_as_non_voter);
        assert_eq!((both.election.as_millis(), both.autopilot_reconcile_interval.as_secs()), (900, 20));
        let none = config("");
        assert!(none.retry_join.is_empty() && !none.retry_join_as_non_voter);
        assert_eq!((none.election.as_millis(), none.autopilot_reconcile_interval.as_secs()), (600, 10));
        assert_eq!(config("performance_multiplier = 0").election, none.election);
        assert_eq!(none.max_snapshot_size, 16 << 30);
        assert_eq!(config("max_snapshot_size = 1048576").max_snapshot_size, 1 << 20);
    }

    #[test]
    fn a_leader_that_cannot_be_joined_is_refused() {
        for (text, expected) in [
            ("retry_join {}", "retry_join needs a leader_api_addr"),
            ("retry_join { leader_api_addr = \"a:8200\" }", "must be a URL"),
            ("retry_join { auto_join = \"provider=aws\" }", "auto_join is not supported"),
            (
                "retry_join {\n leader_api_addr = \"http://a\"\n auto_join_port = 1\n}",
                "auto_join_port is not supported",
            ),
            ("retry_join {\n leader_api_addr = \"http://a\"\n leader_client_key = \"x\"\n}", "set together"),
            (
                "retry_join {\n leader_api_addr = \"http://a\"\n leader_client_key = \"x\"\n leader_client_cert_file = \"/c\"\n}",
                "both as files or both as texts",
            ),
            (
                "retry_join {\n leader_api_addr = \"http://a\"\n leader_ca_cert = \"x\"\n leader_ca_cert_file = \"/c\"\n}",
                "set either leader_ca_cert or leader_ca_cert_file",
            ),
            ("max_snapshot_size = 1000", "at least 1048576 bytes"),
            ("performance_multiplier = 11", "from 0 to 10"),
            ("performance_multiplier = -1", "from 0 to 10"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }

    #[test]
    fn a_misspelt_setting_of_a_leader_is_a_warning() {
        let (_, warnings) = read("retry_join {\n leader_api_addr = \"http://a\"\n leader_ca = \"x\"\n}").unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("leader_ca"), "{warnings:?}");
    }
}
