//! The meaning of each parameter of a connection string: supported, ignored, refused, or a run-time parameter of the
//! session.
//!
//! The names are libpq's, <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>.

use std::collections::BTreeMap;

use super::super::placeholders::Credentials;
use super::conninfo::ConnInfo;

/// Parameters with an effect on the connection.
const SUPPORTED: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "options",
    "password",
    "port",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Parameters of libpq without a meaning here, whose absence weakens nothing.
///
/// The driver supports only UTF-8 and protocol 3.0, has no compression and no password file, and tries hosts in order.
const IGNORED: &[&str] =
    &["client_encoding", "load_balance_hosts", "max_protocol_version", "passfile", "sslcompression", "sslkeylogfile"];

/// Parameters that require features which the driver lacks, their values without an effect, and why they are refused.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("gssdelegation", &["0"], NO_KERBEROS),
    ("gssencmode", &["disable", "prefer"], NO_KERBEROS),
    ("gsslib", &[], NO_KERBEROS),
    ("krbspn", &[], NO_KERBEROS),
    ("krbsrvname", &[], NO_KERBEROS),
    ("min_protocol_version", &["3.0"], "only version 3.0 of the protocol is supported"),
    ("replication", &["false", "off", "no", "0"], "replication connections are not supported"),
    (
        "require_auth",
        &[],
        "the authentication method cannot be restricted: use channel_binding=require or a client certificate",
    ),
    ("requirepeer", &[], "the server process of a socket is not identified"),
    ("requiressl", &["0"], "use sslmode"),
    ("service", &[], "there are no service files"),
    ("servicefile", &[], "there are no service files"),
    ("ssl", &[], "use sslmode"),
    ("sslcertmode", &["allow"], "a client certificate is sent where one is given and the server asks for it"),
    ("sslcrl", &[], "revocation lists are not supported"),
    ("sslcrldir", &[], "revocation lists are not supported"),
    ("sslpassword", &[], "encrypted keys are not supported: give the key in private_key"),
];
const NO_KERBEROS: &str = "Kerberos is not supported";

/// The prefixes of parameters for the security of a connection: no other parameter with such a prefix is a run-time
/// parameter.
const RESERVED: &[&str] = &["gss", "krb", "oauth_", "require", "scram_", "ssl", "tls", "channel", "service"];

/// Run-time parameters in responses.
const PUBLIC_RUN_TIME: &[&str] = &[
    "DateStyle",
    "TimeZone",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "role",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "work_mem",
];

/// Whether responses contain the value of a parameter. `options` may set anything, so they do not contain it.
pub(super) fn is_public(name: &str) -> bool {
    let is_read = SUPPORTED.contains(&name) && !matches!(name, "password" | "options");
    is_read
        || IGNORED.contains(&name)
        || matches!(name, "gssencmode" | "sslcertmode")
        || PUBLIC_RUN_TIME.contains(&name)
}

/// The parameters of a connection string with the credentials inserted.
pub(super) struct Parameters {
    read: BTreeMap<String, String>,
    /// In the order of the text.
    run_time: Vec<(String, String)>,
}

impl Parameters {
    /// Classifies the parameters of a connection string.
    ///
    /// # Errors
    /// The refused parameter.
    pub(super) fn read(info: &ConnInfo, credentials: &Credentials) -> Result<Self, String> {
        let mut out = Parameters { read: BTreeMap::new(), run_time: Vec::new() };
        for (name, template) in info.parameters() {
            if name != "password" && template.has_password() {
                return Err(format!("{name} must not contain {{{{password}}}}"));
            }
            let value = if matches!(name, "host" | "hostaddr" | "port") {
                template.fill_word(credentials).ok_or_else(|| format!("{name} has a placeholder outside the host"))?
            } else {
                template.fill(credentials)
            };
            if SUPPORTED.contains(&name) {
                out.read.insert(name.to_owned(), value);
            } else if let Some((_, harmless, why)) = REFUSED.iter().find(|(refused, ..)| *refused == name) {
                if !value.is_empty() && !harmless.contains(&value.as_str()) {
                    return Err(format!("{name} is not supported: {why}"));
                }
            } else if !IGNORED.contains(&name) {
                check_run_time(name)?;
                out.run_time.push((name.to_owned(), value));
            }
        }
        Ok(out)
    }

    /// The value of a parameter; `None` if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.read.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A number.
    ///
    /// # Errors
    /// The parameter that is not a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| text.trim().parse().map_err(|_| format!("{name} is not a number in its range"));
        self.get(name).map(parse).transpose()
    }

    /// A parameter with a few allowed values; the default if it is absent or empty.
    ///
    /// # Errors
    /// The parameter with another value.
    pub(super) fn one_of<T: Copy>(&self, name: &str, values: &[(&str, T)], absent: T) -> Result<T, String> {
        let Some(value) = self.get(name) else { return Ok(absent) };
        let known = values.iter().find(|(known, _)| *known == value).map(|(_, meaning)| *meaning);
        known.ok_or_else(|| format!("{name} is invalid"))
    }

    /// The command-line options of the session (`options` of the startup message): those of the text, then one for each
    /// run-time parameter. `None` if there are none.
    pub(super) fn options(&self) -> Option<String> {
        let given = self.get("options").map(str::to_owned);
        // The server splits options at blanks and drops the backslash before a character.
        let escaped = |value: &str| {
            let escape =
                |c: char| (c.is_ascii_whitespace() || c == '\x0b' || c == '\\').then_some('\\').into_iter().chain([c]);
            value.chars().flat_map(escape).collect::<String>()
        };
        let set = self.run_time.iter().map(|(name, value)| format!("-c {name}={}", escaped(value)));
        let all: Vec<String> = given.into_iter().chain(set).collect();
        (!all.is_empty()).then(|| all.join(" "))
    }
}

/// Whether an unknown name may be a run-time parameter, of which the server decides.
fn check_run_time(name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err("the name of a parameter is invalid".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    let is_known = |known: &str| known == lower;
    let is_libpq =
        SUPPORTED.iter().chain(IGNORED).any(|known| is_known(known)) || REFUSED.iter().any(|known| is_known(known.0));
    if is_libpq || lower == "database" {
        return Err(format!("{name} is not a parameter: names are written in lower case"));
    }
    if RESERVED.iter().any(|begin| lower.starts_with(begin)) {
        return Err(format!("{name} is not supported"));
    }
    Ok(())
}

/// Whether a text has the form of a parameter's name: letters, digits, underscores and dots, not too many.
fn is_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    name.len() < 64 && begins && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Parameters, String> {
        let credentials = Credentials::new("u".to_owned(), "p").unwrap();
        Parameters::read(&ConnInfo::parse(text).unwrap(), &credentials)
    }

    #[test]
    fn sec_kf06_only_the_password_has_the_passwords_placeholder() {
        for url in [
            "postgresql://{{password}}:x@h/d",
            "postgresql://{{username}}:{{password}}@h/{{password}}",
            "postgresql://{{username}}:{{password}}@h/d?application_name={{password}}",
            "postgresql://{{username}}:{{password}}@{{password}}/d",
            "host=h user='{{password}}'",
            "host=h search_path={{password}}",
        ] {
            let error_text = read(url).err().unwrap_or_default();
            assert!(error_text.ends_with("must not contain {{password}}"), "{url}: {error_text}");
        }
        assert!(read("postgresql://{{username}}:{{password}}@h/d").is_ok());
        assert!(read("host=h user={{username}} password={{password}}").is_ok());
    }

    #[test]
    fn sec_kf23_weakening_parameters_are_refused_and_others_are_run_time() {
        for name in [
            "sslcrl",
            "sslcrldir",
            "require_auth",
            "requirepeer",
            "requiressl",
            "krbsrvname",
            "krbspn",
            "gsslib",
            "service",
            "servicefile",
            "sslpassword",
            "ssl",
            "sslcertmode",
            "gssencmode",
            "gssdelegation",
            "replication",
            "min_protocol_version",
            "sslinline",
            "tlsmode",
            "SSLMODE",
            "SslMode",
            "Password",
            "oauth_issuer",
            "scram_client_key",
            "channel_bindings",
        ] {
            let error_text = read(&format!("host=h {name}=require")).err().unwrap_or_default();
            assert!(error_text.starts_with(&format!("{name} is not ")), "{name}: {error_text}");
        }
        for name in
            ["client_encoding", "gssencmode", "passfile", "sslcompression", "load_balance_hosts", "sslcrl", "ssl_x"]
        {
            let given = read(&format!("host=h {name}=''")).map(|p| p.options());
            assert_eq!(given.is_ok(), name != "ssl_x", "{name}");
        }
        let error_text = read("postgres://h/d?a%20b=c").err().unwrap();
        assert_eq!(error_text, "the name of a parameter is invalid");
        let session = read("host=h options='-c a=b' search_path='my app, x' role=r\\\\x gssencmode=prefer").unwrap();
        assert_eq!(session.options().unwrap(), "-c a=b -c search_path=my\\ app,\\ x -c role=r\\\\x");
        assert_eq!(read("host=h").unwrap().options(), None);
    }
}
