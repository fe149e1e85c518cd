//! Errors of the client.

use std::fmt;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid: an address, a certificate, a number.
    #[error("{0}")]
    Config(String),
    /// There is no response: the server refused the connection, is unreachable, is not trusted or timed out.
    #[error("{} \"{url}\": {reason}", capitalised(.method))]
    Transport {
        /// The HTTP method.
        method: String,
        /// The full URL.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server returned an error status.
    #[error(transparent)]
    Response(Box<ResponseError>),
    /// The response does not have the format of the API.
    #[error("{0}")]
    Decode(String),
}

impl Error {
    /// The HTTP status of an error response; `None` when there was no response.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Response(response) => Some(response.status),
            _ => None,
        }
    }

    /// The error messages of the server; empty when it sent none.
    pub fn errors(&self) -> &[String] {
        match self {
            Self::Response(response) => &response.errors,
            _ => &[],
        }
    }
}

/// An error response: `{"errors": […]}` and its status.
#[derive(Debug, Clone)]
pub struct ResponseError {
    /// The HTTP method of the request.
    pub method: String,
    /// The namespace of the request, with a slash at its end; empty is the root namespace.
    pub namespace: String,
    /// The full URL of the request.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The messages of the server; empty when the body has none in the usual format.
    pub errors: Vec<String>,
    /// The body as text, displayed when there are no messages.
    pub raw: String,
}

impl std::error::Error for ResponseError {}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Error making API request.\n\n")?;
        if !self.namespace.is_empty() {
            writeln!(f, "Namespace: {}", self.namespace)?;
        }
        write!(f, "URL: {} {}\nCode: {}. ", self.method, self.url, self.status)?;
        if self.errors.is_empty() {
            return write!(f, "Raw Message:\n\n{}", self.raw);
        }
        f.write_str("Errors:\n\n")?;
        for (at, message) in self.errors.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}* {message}")?;
        }
        Ok(())
    }
}

/// The text for a TLS error, with a remedy.
pub(crate) fn tls_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => {
            "server gave HTTP response to HTTPS client: if the server speaks plain HTTP, its address begins with http://"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(refused) => {
            format!("tls: failed to verify certificate: {}", certificate_reason(refused))
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "tls: the server requires a client certificate: give it with -client-cert and -client-key, or VAULT_CLIENT_CERT \
             and VAULT_CLIENT_KEY"
                .to_owned()
        }
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown),
        ) => format!("tls: the server refused the client certificate ({alert:?})"),
        other => format!("tls: {other}"),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    match error {
        // A known CA name with another key is as untrusted as an unknown name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is signed by an unknown authority: give its CA with -ca-cert or VAULT_CACERT".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired on {} (the time here is {})", date(*not_after), date(*time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it is not valid before {} (the time here is {})", date(*not_before), date(*time))
        }
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("it names no host, and {} is required", expected.to_str())
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "it is valid for {}, not for {}: use one of these in the address, or -tls-server-name",
            presented.iter().map(|name| presented_name(name)).collect::<Vec<_>>().join(", "),
            expected.to_str()
        ),
        other => other.to_string(),
    }
}

/// The name in rustls's `DnsName("a.test")` or `IpAddress(127.0.0.1)`.
fn presented_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// Formats a time as in RFC 3339, in UTC.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| format!("second {}", time.as_secs()), |at| at.to_string())
}

/// `GET` as `Get`.
fn capitalised(method: &str) -> String {
    let mut letters = method.chars();
    match letters.next() {
        Some(first) => first.to_string() + &letters.as_str().to_ascii_lowercase(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn an_error_has_the_text_of_vaults_client() {
        let mut refusal = ResponseError {
            method: "GET".to_owned(),
            namespace: String::new(),
            url: "http://h/v1/x".to_owned(),
            status: 403,
            errors: vec!["permission denied".to_owned(), "again".to_owned()],
            raw: String::new(),
        };
        let expected =
            "Error making API request.\n\nURL: GET http://h/v1/x\nCode: 403. Errors:\n\n* permission denied\n* again";
        assert_eq!(refusal.to_string(), expected);
        refusal.namespace = "team/app/".to_owned();
        assert!(
            refusal.to_string().starts_with("Error making API request.\n\nNamespace: team/app/\nURL: GET http://h/")
        );
        refusal.errors.clear();
        refusal.raw = "body".to_owned();
        assert!(refusal.to_string().ends_with("Code: 403. Raw Message:\n\nbody"));
        let lost =
            Error::Transport { method: "PUT".to_owned(), url: "http://h/".to_owned(), reason: "refused".to_owned() };
        assert_eq!(lost.to_string(), "Put \"http://h/\": refused");
    }
}
