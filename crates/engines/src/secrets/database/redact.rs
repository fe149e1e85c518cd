//! A wrapper between a database and the engine that replaces the secrets of a call by `***` in every error.
//!
//! A server quotes statements in its errors: MariaDB the first 80 bytes from the failing token on, which can contain a
//! part of a password; PostgreSQL the failing value. So parts of generated passwords are replaced too. A password from
//! an operator is replaced only as a whole: replacing its parts would reveal which words it contains.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keepfast_crypto::hash::sha256;
use keepfast_crypto::secret::SecretString;
use keepfast_framework::Timestamp;

use super::connection::{ChangePasswordError, CreateUserError, Database, DatabaseError, NewUser};
use super::credential::Login;
use super::details::{Details, text};
use super::placeholders::percent_encode_authority;
use super::pool::PoolStats;

/// The bytes of an error's text that are checked; longer texts are truncated.
const MAX_TEXT: usize = 4096;
/// The minimum length of a part of a generated secret that is replaced, in bytes.
const MIN_PART: usize = 4;
/// The same for a secret in hexadecimal digits or base64.
const MIN_ENCODED_PART: usize = 8;
/// Secrets of an operator below this many bytes are replaced only inside quotes.
const SHORT_SECRET: usize = 8;
const MASK: &str = "***";
/// Codes of refused logins. Their texts contain no password, and a mask in them would reveal that an operator's
/// password is one of their words.
const LOGIN_CODES: [&str; 5] =
    ["SQLSTATE 28P01", "SQLSTATE 28000", "MySQL error 1045", "MySQL error 1698", "Redis error WRONGPASS"];

/// A database whose errors contain no secret.
pub(super) struct Redacted {
    database: Arc<dyn Database>,
    /// The secrets of the connection.
    connection_secrets: Vec<SecretString>,
}

/// The secrets of a connection: the administrator's password, private keys, and a URL with a password in it.
pub(super) fn secrets_of(details: &Details, password: &SecretString) -> Vec<SecretString> {
    let mut secrets = vec![SecretString::new(password.expose().clone())];
    for name in ["private_key", "tls_certificate_key", "sslpassword"] {
        secrets.extend(text(details, name).map(SecretString::new));
    }
    if let Some(url) = text(details, "connection_url") {
        let user_info =
            url.rsplit_once('@').map(|(before, _)| before.split_once("://").map_or(before, |(_, rest)| rest));
        let written = user_info.and_then(|user| user.split_once(':')).map(|(_, password)| password);
        secrets.extend(written.filter(|p| !p.contains("{{")).map(|p| SecretString::new(p.to_owned())));
    }
    secrets.retain(|secret| !secret.expose().is_empty());
    secrets
}

impl Redacted {
    /// Wraps a database.
    pub(super) fn new(database: Arc<dyn Database>, connection_secrets: Vec<SecretString>) -> Self {
        Redacted { database, connection_secrets }
    }

    fn clean(&self, error: DatabaseError, generated: Option<&SecretString>) -> DatabaseError {
        let is_login = error.code().is_some_and(|code| LOGIN_CODES.iter().any(|known| code.starts_with(known)));
        let connection_secrets: &[SecretString] = if is_login { &[] } else { &self.connection_secrets };
        error.with_text(|text| redacted(&text, generated, connection_secrets))
    }
}

/// A text without these secrets.
pub(super) fn redacted(text: &str, generated: Option<&SecretString>, chosen: &[SecretString]) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let text = &text[..end];
    let mut hidden = vec![false; text.len()];
    for secret in chosen {
        let is_short = secret.expose().len() < SHORT_SECRET;
        for (spelling, _) in spellings(secret.expose()) {
            hide_whole(text, &spelling, is_short, &mut hidden);
        }
        // Lines of a private key.
        for line in secret.expose().lines().filter(|line| line.len() >= 32 && !line.starts_with('-')) {
            hide_parts(text, line, MIN_ENCODED_PART, &mut hidden);
        }
    }
    for (spelling, part) in generated.iter().flat_map(|secret| spellings(secret.expose())) {
        hide_whole(text, &spelling, false, &mut hidden);
        hide_parts(text, &spelling, part, &mut hidden);
    }
    hide_verifiers(text, &mut hidden);
    masked(text, &hidden)
}

/// The forms in which a server or a driver may quote a secret, each with the minimum length of a replaced part.
fn spellings(secret: &str) -> Vec<(String, usize)> {
    let bytes = secret.as_bytes();
    let mut json = serde_json::Value::from(secret).to_string();
    json = json[1..json.len() - 1].to_owned();
    let escaped = secret.replace('\\', "\\\\");
    let plain = [
        secret.to_owned(),
        escaped.replace('\'', "''"),
        escaped.replace('\'', "\\'"),
        escaped.replace('"', "\"\""),
        secret.replace('\'', "''"),
        secret.replace('"', "\"\""),
        secret.replace('`', "``"),
        json,
        percent_encode_authority(secret),
    ];
    let digits = hex::encode(bytes);
    let encoded = [
        STANDARD.encode(bytes).trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(bytes),
        digits.to_uppercase(),
        digits,
        hex::encode(sha256(bytes)),
    ];
    let plain: HashSet<String> = plain.into_iter().collect();
    let encoded: HashSet<String> = encoded.into_iter().collect();
    plain.into_iter().map(|s| (s, MIN_PART)).chain(encoded.into_iter().map(|s| (s, MIN_ENCODED_PART))).collect()
}

/// Hides a secret as a whole; a short one only inside quotes, since it may be a part of any word.
fn hide_whole(text: &str, secret: &str, is_short: bool, hidden: &mut [bool]) {
    let quotes = |c: &char| matches!(*c, '\'' | '"' | '`' | ':' | '@' | '=' | '/');
    let is_quoted = |at: usize| {
        text[..at].chars().next_back().as_ref().is_some_and(quotes)
            && text[at + secret.len()..].chars().next().as_ref().is_some_and(quotes)
    };
    for (at, found) in text.match_indices(secret).filter(|_| !secret.is_empty()) {
        if !is_short || is_quoted(at) {
            hidden[at..at + found.len()].fill(true);
        }
    }
}

/// Hides every part of a secret that has at least `part` bytes.
fn hide_parts(text: &str, secret: &str, part: usize, hidden: &mut [bool]) {
    let known: HashSet<&[u8]> = secret.as_bytes().windows(part).collect();
    for (at, found) in text.as_bytes().windows(part).enumerate() {
        if known.contains(found) {
            hidden[at..at + part].fill(true);
        }
    }
}

/// Hides the password verifiers of PostgreSQL, which are salted and therefore unknown here.
fn hide_verifiers(text: &str, hidden: &mut [bool]) {
    let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',' | ';' | ')');
    for (at, _) in text.match_indices("SCRAM-SHA-256$") {
        let length = text[at..].find(ends).unwrap_or(text.len() - at);
        hidden[at..at + length].fill(true);
    }
    for (at, _) in text.match_indices("md5") {
        let digits = text[at + 3..].bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == 32 {
            hidden[at..at + 3 + digits].fill(true);
        }
    }
}

/// The text with one mask for each hidden run. A partly hidden character is hidden completely.
fn masked(text: &str, hidden: &[bool]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_masked = false;
    for (at, c) in text.char_indices() {
        if hidden[at..at + c.len_utf8()].contains(&true) {
            if !is_masked {
                out.push_str(MASK);
            }
            is_masked = true;
        } else {
            out.push(c);
            is_masked = false;
        }
    }
    out
}

#[async_trait]
impl Database for Redacted {
    async fn verify(&self) -> Result<(), DatabaseError> {
        self.database.verify().await.map_err(|e| self.clean(e, None))
    }

    async fn create_user(&self, user: &NewUser<'_>, statements: &[String]) -> Result<(), CreateUserError> {
        let password = match user.login {
            Login::Password(password) => Some(password),
            Login::Certificate { .. } => None,
        };
        self.database.create_user(user, statements).await.map_err(|e| e.map(|e| self.clean(e, password)))
    }

    async fn is_free(&self, name: &str) -> Result<bool, DatabaseError> {
        self.database.is_free(name).await.map_err(|e| self.clean(e, None))
    }

    fn name_exists_error(&self, name: &str) -> DatabaseError {
        self.database.name_exists_error(name)
    }

    async fn renew_user(&self, name: &str, expires: Timestamp, statements: &[String]) -> Result<(), DatabaseError> {
        self.database.renew_user(name, expires, statements).await.map_err(|e| self.clean(e, None))
    }

    async fn drop_user(&self, name: &str, statements: &[String]) -> Result<(), DatabaseError> {
        self.database.drop_user(name, statements).await.map_err(|e| self.clean(e, None))
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        let changed = self.database.set_password(name, password, statements).await;
        changed.map_err(|e| e.map(|e| self.clean(e, Some(password))))
    }

    async fn set_own_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &[String],
    ) -> Result<(), ChangePasswordError> {
        let changed = self.database.set_own_password(name, password, statements).await;
        changed.map_err(|e| e.map(|e| self.clean(e, Some(password))))
    }

    async fn list_users(&self, prefix: &str) -> Result<Vec<String>, DatabaseError> {
        self.database.list_users(prefix).await.map_err(|e| self.clean(e, None))
    }

    async fn accepts(&self, name: &str, password: &SecretString) -> Result<bool, DatabaseError> {
        let secrets = [SecretString::new(password.expose().clone())];
        let accepted = self.database.accepts(name, password).await;
        accepted.map_err(|e| self.clean(e, None).with_text(|text| redacted(&text, None, &secrets)))
    }

    fn pool_stats(&self) -> PoolStats {
        self.database.pool_stats()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::new(text.to_owned())
    }

    #[test]
    fn sec_kf06_a_generated_secret_is_replaced_in_every_spelling() {
        let password = secret("Zt3x'6D4\\XR\"1k0A-KU1s");
        let raw = password.expose();
        for text in spellings(raw).into_iter().map(|(spelling, _)| spelling) {
            assert_eq!(redacted(&format!("near '{text}' at"), Some(&password), &[]), "near '***' at", "{text}");
        }
        for length in 4..raw.len() {
            let cut = format!("near 'IDENTIFIED BY '{}", &raw[..length]);
            assert_eq!(redacted(&cut, Some(&password), &[]), "near 'IDENTIFIED BY '***", "a prefix of {length}");
            let cut = format!("near <{}> at line 1", &raw[raw.len() - length..]);
            assert_eq!(redacted(&cut, Some(&password), &[]), "near <***> at line 1", "a suffix of {length}");
        }
        let other = "role \"v-token-app\" does not exist (SQLSTATE 42704)";
        assert_eq!(redacted(other, Some(&password), &[]), other);
    }

    #[test]
    fn sec_kf06_a_chosen_secret_is_replaced_as_a_whole_only() {
        let chosen = [secret("admin_password")];
        let refused = "password authentication failed for user \"vault_admin\"";
        assert_eq!(redacted(refused, None, &chosen), refused, "parts would reveal which words the password has");
        assert_eq!(redacted("args 'admin_password' x", None, &chosen), "args '***' x");
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END";
        assert_eq!(redacted("x MIGHAgEAMBMGByqGSM4 y", None, &[secret(key)]), "x *** y");
        let url = serde_json::json!({"connection_url": "postgresql://u:s3:c@ret@h/d"});
        let secrets = secrets_of(&super::super::details::of_json(&url), &secret(""));
        assert_eq!(redacted("s3:c@ret", None, &secrets), "***");
        assert_eq!(redacted("a name, args 'm' x:m@h", None, &[secret("m")]), "a name, args '***' x:***@h");
    }

    #[test]
    fn sec_kf06_verifiers_are_replaced_and_long_texts_truncated() {
        let verifier = "syntax: \"SCRAM-SHA-256$4096:c2FsdA==$a:b\" or md5d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(redacted(verifier, None, &[]), "syntax: \"***\" or ***");
        assert_eq!(redacted(&"é".repeat(10_000), None, &[]).len(), MAX_TEXT);
    }
}
