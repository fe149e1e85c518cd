//! The origins whose requests a browser allows (Cross-Origin Resource Sharing, WHATWG Fetch).

use serde::{Deserialize, Serialize};

/// Headers that every allowed origin may send.
pub(crate) const STANDARD_HEADERS: &[&str] = &[
    "Content-Type",
    "Authorization",
    "X-Vault-Token",
    "X-Vault-MFA",
    "X-Vault-No-Request-Forwarding",
    "X-Vault-Wrap-Format",
    "X-Vault-Wrap-TTL",
    "X-Requested-With",
    "X-Vault-AWS-IAM-Server-ID",
    "X-Vault-Policy-Override",
];

/// The allowed origins and headers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cors {
    /// The origins, or `*` alone.
    pub allowed_origins: Vec<String>,
    /// The standard headers and those that the operator added.
    pub allowed_headers: Vec<String>,
}

impl Cors {
    /// Checks the settings of an operator.
    ///
    /// # Errors
    /// The reason of a refusal, in OpenBao's wording.
    pub(crate) fn new(origins: Vec<String>, headers: Vec<String>) -> Result<Self, &'static str> {
        let origins: Vec<String> = origins.into_iter().filter(|o| !o.is_empty()).collect();
        if origins.is_empty() {
            return Err("at least one origin or the wildcard must be provided");
        }
        if origins.len() > 1 && origins.iter().any(|o| o == "*") {
            return Err("to allow all origins the '*' must be the only value for allowed_origins");
        }
        let mut allowed_headers: Vec<String> = STANDARD_HEADERS.iter().map(|&h| h.to_owned()).collect();
        for header in headers.into_iter().filter(|h| !h.is_empty()) {
            if !allowed_headers.iter().any(|h| h.eq_ignore_ascii_case(&header)) {
                allowed_headers.push(header);
            }
        }
        Ok(Cors { allowed_origins: origins, allowed_headers })
    }

    /// Whether requests of this origin are allowed.
    pub fn allows(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|o| o == "*" || o.eq_ignore_ascii_case(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_complete_and_the_wildcard_is_the_only_one() {
        let of = |origins: &[&str]| Cors::new(origins.iter().map(|&o| o.to_owned()).collect(), Vec::new());
        assert!(of(&[]).is_err() && of(&["*", "http://a"]).is_err());
        let named = of(&["http://a.com"]).unwrap();
        assert!(named.allows("http://a.com") && named.allows("http://A.com"));
        for other in ["http://a.com.evil", "https://a.com", "null", "", "http://a.com:81"] {
            assert!(!named.allows(other), "{other}");
        }
        assert!(of(&["*"]).unwrap().allows("null"));
    }
}
