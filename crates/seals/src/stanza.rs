//! The keys of a `seal` stanza with the environment over them, and secrets by reference.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::Zeroize;
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::Clock;
use keepfast_outbound::{Authorities, ClientCertificate, Proxies, Settings, Trust};

use crate::secret_file::read_secret;

/// The prefixes of variables; a variable `VAULT_…` is also read under the others, in this order.
const PREFIXES: [&str; 3] = ["KEEPFAST_", "BAO_", "VAULT_"];
/// The timeout of a call where the stanza has none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What is before the path of a file.
pub(crate) const FILE: &str = "file://";
/// The timeout of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest response of a service.
const MAX_RESPONSE: usize = 64 * 1024;

/// A key of a stanza, with the variables that have precedence over it.
pub(crate) type Key = (&'static str, &'static [&'static str]);

/// The variables of the process.
pub trait Environment: Send + Sync {
    /// The variable of this full name; an empty one counts as unset.
    fn variable(&self, name: &str) -> Option<String>;

    /// The same variables, for a seal that is created later.
    fn owned(&self) -> Arc<dyn Environment>;
}

/// A `seal` stanza of the configuration, without the keys that all seals have (`name`, `priority`, `disabled`,
/// `enroll`, `timeout`, `health_check_…`).
pub struct SealStanza<'a> {
    /// The label: the type of the seal.
    pub kind: &'a str,
    /// The name of the seal.
    pub name: &'a str,
    /// The other keys.
    pub options: &'a BTreeMap<String, String>,
    /// The timeout of a call.
    pub timeout: Duration,
    /// Whether another stanza has the same type: variables then count only with the suffix `_NAME`.
    pub shares_kind: bool,
}

impl<'a> SealStanza<'a> {
    /// A stanza with the default timeout, the only one of its type.
    pub fn new(kind: &'a str, name: &'a str, options: &'a BTreeMap<String, String>) -> Self {
        SealStanza { kind, name, options, timeout: TIMEOUT, shares_kind: false }
    }
}

/// An invalid stanza. The text contains names of keys, files and variables, never their values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seal {name:?}: {reason}")]
pub struct SealConfigError {
    /// The name of the seal.
    pub name: String,
    /// What is invalid.
    pub reason: String,
    /// Whether the stanza is valid, and the file of a secret is not: it may be written later.
    pub(crate) is_of_file: bool,
}

impl SealConfigError {
    pub(crate) fn new(name: &str, reason: impl Into<String>) -> Self {
        SealConfigError { name: name.to_owned(), reason: reason.into(), is_of_file: false }
    }
}

/// A stanza that is being read.
pub(crate) struct Stanza<'a> {
    stanza: &'a SealStanza<'a>,
    keys: &'static [Key],
    environment: &'a dyn Environment,
    clock: &'a Arc<dyn Clock>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Stanza<'a> {
    pub(crate) fn new(
        stanza: &'a SealStanza<'a>,
        keys: &'static [Key],
        environment: &'a dyn Environment,
        clock: &'a Arc<dyn Clock>,
    ) -> Self {
        Stanza { stanza, keys, environment, clock, warnings: RefCell::default() }
    }

    /// The clock of the server.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// The timeout of a call.
    pub(crate) fn timeout(&self) -> Duration {
        self.stanza.timeout
    }

    /// An error of this stanza.
    pub(crate) fn refused(&self, reason: impl Into<String>) -> SealConfigError {
        SealConfigError::new(self.stanza.name, reason)
    }

    /// An error of the file of a secret: of its content, when `key` refers to a file, else of this stanza.
    pub(crate) fn refused_content(&self, key: &str, reason: impl Into<String>) -> SealConfigError {
        let is_of_file = self.text(key).is_some_and(|value| value.starts_with(FILE));
        SealConfigError { is_of_file, ..self.refused(reason) }
    }

    /// Adds a warning.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.borrow_mut().push(format!("seal {:?}: {}", self.stanza.name, text.into()));
    }

    /// All warnings, those of unknown keys included.
    pub(crate) fn warnings(self) -> Vec<String> {
        let unknown = self.stanza.options.keys().filter(|key| !self.keys.iter().any(|(known, _)| known == key));
        unknown.for_each(|key| self.warn(format!("unknown key {key} has no effect")));
        self.warnings.into_inner()
    }

    /// A digest of the stanza with the content of the files of its secrets.
    pub(crate) fn origin(&self) -> [u8; 32] {
        let mut digest = sha256(self.stanza.kind.as_bytes());
        let mut add = |part: &[u8]| digest = sha256(&[&digest[..], &sha256(part)].concat());
        add(self.stanza.name.as_bytes());
        add(&self.timeout().as_nanos().to_le_bytes());
        for (key, _) in self.keys {
            let value = SecretString::new(self.text(key).unwrap_or_default());
            add(value.expose().as_bytes());
            if let Some(Ok(content)) = value.expose().strip_prefix(FILE).map(read_secret) {
                add(content.expose());
            }
        }
        digest
    }

    /// The value of a key: of its first variable that is set, else of the file.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let variables = self.keys.iter().find(|(known, _)| *known == key).map_or(&[][..], |(_, variables)| variables);
        variables.iter().find_map(|name| self.variable(name)).or_else(|| self.of_file(key))
    }

    /// The value of a key in the file.
    pub(crate) fn of_file(&self, key: &str) -> Option<String> {
        self.stanza.options.get(key).filter(|value| !value.is_empty()).cloned()
    }

    /// As [`text`](Self::text), for a key that must be set.
    pub(crate) fn required(&self, key: &str) -> Result<String, SealConfigError> {
        self.text(key).ok_or_else(|| self.refused(format!("{key} is required")))
    }

    /// A boolean, in the forms of the configuration.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, SealConfigError> {
        match self.text(key).unwrap_or_default().as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.refused(format!("{key} must be true or false"))),
        }
    }

    /// A secret text: the value, or the content of the variable of `env://NAME` or the file of `file:///path` without
    /// its final line break.
    pub(crate) fn secret(&self, key: &str) -> Result<Option<SecretString>, SealConfigError> {
        let Some(mut bytes) = self.secret_bytes(key)? else { return Ok(None) };
        let text = String::from_utf8(std::mem::take(bytes.expose_mut()));
        let text = text.map_err(|error| {
            error.into_bytes().zeroize();
            self.refused(format!("{key} is not text"))
        });
        let mut text = SecretString::new(text?);
        let end = text.expose().trim_end_matches(['\n', '\r']).len();
        text.expose_mut().truncate(end);
        Ok((end > 0).then_some(text))
    }

    /// As [`secret`](Self::secret), without a change of the content of a file.
    pub(crate) fn secret_bytes(&self, key: &str) -> Result<Option<SecretBytes>, SealConfigError> {
        let Some(value) = self.text(key).map(SecretString::new) else { return Ok(None) };
        if let Some(name) = value.expose().strip_prefix("env://") {
            let found = self.environment.variable(name).filter(|found| !found.is_empty());
            let found = found.ok_or_else(|| self.refused(format!("{key}: the variable {name} is not set")))?;
            return Ok(Some(SecretBytes::new(found.into_bytes())));
        }
        if let Some(path) = value.expose().strip_prefix(FILE) {
            let content = read_secret(path).map_err(|error| self.refused_content(key, format!("{key}: {error}")))?;
            return Ok(Some(content));
        }
        Ok(Some(SecretBytes::new(value.expose().as_bytes().to_vec())))
    }

    /// A variable of the process by its full name, for `VAULT_…` also under the other prefixes. With the suffix `_NAME`,
    /// in which `_` stands for `-` and `.`, it belongs to this seal alone; without, it does not count where another stanza
    /// has the same type.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let find = |name: &str| match name.strip_prefix("VAULT_") {
            Some(rest) => PREFIXES.iter().find_map(|prefix| self.environment.variable(&format!("{prefix}{rest}"))),
            None => self.environment.variable(name),
        };
        let found = find(&format!("{name}_{}", variable_suffix(self.stanza.name)));
        let found = found.or_else(|| if self.stanza.shares_kind { None } else { find(name) });
        found.filter(|value| !value.is_empty())
    }

    /// A variable with which the platform names its identity, or the place of credentials: with the suffix `_NAME`, else
    /// without it, also where another stanza has the same type.
    pub(crate) fn ambient(&self, name: &str) -> Option<String> {
        self.variable(name).or_else(|| self.machine_variable(name))
    }

    /// The region, else this one, with a warning where a variable without a suffix would not count.
    pub(crate) fn region_or(&self, default: &str) -> String {
        self.text("region").unwrap_or_else(|| {
            if self.stanza.shares_kind {
                let kind = self.stanza.kind;
                self.warn(format!("region is not set and is {default}: variables need a suffix beside another {kind}"));
            }
            default.to_owned()
        })
    }

    /// A variable of the machine, such as the path of its configuration files: has no suffix.
    pub(crate) fn machine_variable(&self, name: &str) -> Option<String> {
        self.environment.variable(name).filter(|value| !value.is_empty())
    }

    /// The settings of calls to the service of the seal.
    pub(crate) fn call_settings(&self) -> Result<Settings, SealConfigError> {
        let proxies = Proxies::from_variables(&|name: &str| self.environment.variable(name));
        Ok(Settings {
            connect_timeout: Some(CONNECT_TIMEOUT.min(self.timeout())),
            timeout: Some(self.timeout()),
            max_response: MAX_RESPONSE,
            proxies: proxies.map_err(|error| self.refused(error.to_string()))?,
            ..Settings::default()
        })
    }

    /// The trusted CAs and the client certificate of the keys `tls_…`.
    pub(crate) fn tls(&self, settings: &mut Settings) -> Result<(), SealConfigError> {
        if let Some(file) = self.text("tls_ca_cert") {
            settings.trust = Trust::Only(vec![Authorities::File(file.into())]);
        }
        if self.flag("tls_skip_verify")? {
            self.warn("tls_skip_verify: the server is not authenticated");
            settings.trust = Trust::Anything;
        }
        settings.server_name = self.text("tls_server_name");
        settings.client_certificate = match (self.text("tls_client_cert"), self.text("tls_client_key")) {
            (Some(chain), Some(key)) => Some(ClientCertificate::Files { chain: chain.into(), key: key.into() }),
            (None, None) => None,
            _ => return Err(self.refused("tls_client_cert and tls_client_key are set together")),
        };
        Ok(())
    }

    /// A URL of a service without its final slash: `https://` or `http://`, a host, no user.
    pub(crate) fn url(&self, key: &str, value: &str) -> Result<String, SealConfigError> {
        let url = service_url(key, value).map_err(|reason| self.refused(reason))?;
        let parsed: Option<http::Uri> = url.parse().ok();
        if parsed.is_some_and(|url| url.scheme_str() == Some("http") && !is_loopback(url.host().unwrap_or_default())) {
            self.warn(format!("{key} is http://: keys and credentials are sent unencrypted"));
        }
        Ok(url)
    }
}

/// A URL of a service without its final slash: `https://` or `http://`, a host, no user, query or fragment.
pub(crate) fn service_url(key: &str, value: &str) -> Result<String, String> {
    let refused =
        || format!("{key} must be a URL with https:// or http:// and a host, without a user, query and fragment");
    let url: http::Uri = value.parse().map_err(|_| refused())?;
    let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
    let has_host = url.host().is_some_and(|host| !host.is_empty());
    let is_http = matches!(url.scheme_str(), Some("https" | "http"));
    // The parser drops a fragment: paths would be appended to it.
    if has_user || !has_host || !is_http || value.contains(['#', '?']) {
        return Err(refused());
    }
    Ok(value.trim_end_matches('/').to_owned())
}

/// The suffix of the variables of a seal, after `_`.
pub fn variable_suffix(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

/// Whether a host of a URL is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(crate) mod tests {
    use keepfast_framework::clock::TestClock;

    use super::*;

    /// The variables of a test.
    #[derive(Clone, Default)]
    pub(crate) struct Variables(pub(crate) BTreeMap<String, String>);

    impl Variables {
        pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
            Variables(options(pairs))
        }
    }

    impl Environment for Variables {
        fn variable(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }

        fn owned(&self) -> Arc<dyn Environment> {
            Arc::new(self.clone())
        }
    }

    pub(crate) fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const KEYS: &[Key] = &[("key_name", &["VAULT_KEY"]), ("secret", &[]), ("flag", &[]), ("url", &[])];

    fn with<T>(stanza: &SealStanza<'_>, variables: &[(&str, &str)], read: impl Fn(Stanza<'_>) -> T) -> T {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        read(Stanza::new(stanza, KEYS, &Variables::of(variables), &clock))
    }

    #[test]
    fn a_variable_has_precedence_over_the_file() {
        let options = options(&[("key_name", "file")]);
        let alone = SealStanza::new("k", "n", &options);
        let several = SealStanza { shares_kind: true, ..SealStanza::new("k", "n", &options) };
        for (stanza, variables, expected) in [
            (&alone, &[][..], "file"),
            (&alone, &[("VAULT_KEY", "")], "file"),
            (&alone, &[("VAULT_KEY", "v")], "v"),
            (&alone, &[("VAULT_KEY", "v"), ("BAO_KEY", "b")], "b"),
            (&alone, &[("BAO_KEY", "b"), (concat!("KEEPFAST", "_KEY"), "k")], "k"),
            (&alone, &[("BAO_KEY", "b"), ("VAULT_KEY_n", "own")], "own"),
            (&several, &[("VAULT_KEY", "v")], "file"),
            (&several, &[("VAULT_KEY", "v"), ("VAULT_KEY_n", "own"), ("VAULT_KEY_m", "other")], "own"),
        ] {
            assert_eq!(with(stanza, variables, |s| s.text("key_name")).as_deref(), Some(expected), "{variables:?}");
        }
        for (stanza, variables, expected) in [
            (&several, &[("AWS_ROLE_ARN", "v")][..], "v"),
            (&several, &[("AWS_ROLE_ARN", "v"), ("AWS_ROLE_ARN_n", "own")], "own"),
            (&alone, &[("AWS_ROLE_ARN", "v")], "v"),
        ] {
            assert_eq!(with(stanza, variables, |s| s.ambient("AWS_ROLE_ARN")).as_deref(), Some(expected));
        }
        let dashed = SealStanza::new("k", "a-b.c", &options);
        let own = with(&dashed, &[("VAULT_KEY_a_b_c", "own")], |s| s.text("key_name"));
        assert_eq!(own.as_deref(), Some("own"));
    }

    #[test]
    fn secrets_are_read_from_variables_and_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "of a file\n").unwrap();
        let path = format!("file://{}", file.path().display());
        for (value, expected) in [("plain", "plain"), ("env://OTHER", "of a variable"), (path.as_str(), "of a file")] {
            let options = options(&[("secret", value)]);
            let read =
                with(&SealStanza::new("k", "n", &options), &[("OTHER", "of a variable")], |s| s.secret("secret"));
            assert_eq!(read.unwrap().unwrap().expose(), expected);
        }
        std::fs::write(file.path(), vec![b'a'; 70_000]).unwrap();
        for value in ["env://NONE", "file:///none/hidden", path.as_str()] {
            let options = options(&[("secret", value)]);
            let error = with(&SealStanza::new("k", "n", &options), &[], |s| s.secret("secret").err().unwrap());
            assert!(error.to_string().starts_with("seal \"n\": secret: "), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_warnings() {
        let options = options(&[("key_nam", "x"), ("flag", "true")]);
        let warnings = with(&SealStanza::new("k", "n", &options), &[], |s| s.warnings());
        assert_eq!(warnings, ["seal \"n\": unknown key key_nam has no effect"]);
    }

    #[test]
    fn a_url_has_a_host_and_no_user() {
        let options = BTreeMap::new();
        for (value, warned) in [
            ("https://v:8200/", Some(0)),
            ("http://127.0.0.1:8200", Some(0)),
            ("http://[::1]:8200", Some(0)),
            ("http://v:8200", Some(1)),
            ("v:8200", None),
            ("ftp://v", None),
            ("https://u:hidden@v", None),
            ("https://v?a=hidden", None),
            ("https://v?", None),
            ("https://v/v1/sys/x#", None),
            ("https://v#@w", None),
            ("https://", None),
        ] {
            let (url, warnings) =
                with(&SealStanza::new("k", "n", &options), &[], |s| (s.url("url", value), s.warnings()));
            assert_eq!(url.as_ref().ok().map(|_| warnings.len()), warned, "{value}");
            assert!(url.is_ok_and(|url| !url.ends_with('/')) || warned.is_none());
        }
    }
}
