//! What can go wrong between a client and a server.

use std::fmt;

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

/// The innermost cause of an error, which is the one that says why.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    deepest.to_string()
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
