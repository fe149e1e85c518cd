//! What can go wrong between a client and a server.

use std::fmt;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not make sense: an address, a certificate, a number.
    #[error("{0}")]
    Config(String),
    /// No answer came: refused, unreachable, not trusted, too late. Holds the method and the URL.
    #[error("{} \"{url}\": {reason}", capitalised(.method))]
    Transport {
        /// The HTTP method.
        method: String,
        /// The full URL.
        url: String,
        /// Why, from the innermost cause.
        reason: String,
    },
    /// The server answered with a status that is no success.
    #[error(transparent)]
    Response(Box<ResponseError>),
    /// The answer is not what this API gives.
    #[error("{0}")]
    Decode(String),
}

impl Error {
    /// The HTTP status of a server's refusal; `None` when no answer came.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Response(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// The server's own messages, if it gave any.
    pub fn errors(&self) -> &[String] {
        match self {
            Self::Response(answer) => &answer.errors,
            _ => &[],
        }
    }
}

/// A server's refusal: `{"errors": […]}` with its status.
#[derive(Debug, Clone)]
pub struct ResponseError {
    /// The HTTP method of the request.
    pub method: String,
    /// The full URL of the request.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The server's messages; empty when it gave none in the usual form.
    pub errors: Vec<String>,
    /// The body as text, shown when there are no messages.
    pub raw: String,
}

impl std::error::Error for ResponseError {}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error making API request.\n\nURL: {} {}\nCode: {}. ", self.method, self.url, self.status)?;
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

/// What TLS refused, with what to do about it.
pub(crate) fn tls_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => {
            "server gave HTTP response to HTTPS client: the server may speak plain HTTP, then the address begins with http://"
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
        // A CA of the same name with another key is no better known than one of another name.
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

/// `DnsName("a.test")` and `IpAddress(127.0.0.1)`, as rustls writes names of certificates, without the kind.
fn presented_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// A time as RFC 3339 writes it, in UTC.
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
    fn reads_like_the_clients_people_know() {
        let mut refusal = ResponseError {
            method: "GET".to_owned(),
            url: "http://h/v1/x".to_owned(),
            status: 403,
            errors: vec!["permission denied".to_owned(), "again".to_owned()],
            raw: String::new(),
        };
        let expected =
            "Error making API request.\n\nURL: GET http://h/v1/x\nCode: 403. Errors:\n\n* permission denied\n* again";
        assert_eq!(refusal.to_string(), expected);
        refusal.errors.clear();
        refusal.raw = "body".to_owned();
        assert!(refusal.to_string().ends_with("Code: 403. Raw Message:\n\nbody"));
        let lost =
            Error::Transport { method: "PUT".to_owned(), url: "http://h/".to_owned(), reason: "refused".to_owned() };
        assert_eq!(lost.to_string(), "Put \"http://h/\": refused");
    }
}
