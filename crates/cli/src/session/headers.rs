//! Headers from flags, and the printed form of headers.

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use keepfast_client::{Error, environment};

use crate::args::Words;

const MFA: HeaderName = HeaderName::from_static("x-vault-mfa");
const POLICY_OVERRIDE: HeaderName = HeaderName::from_static("x-vault-policy-override");

/// The headers of the flags.
pub(super) fn of(words: &Words) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in words.pairs("header") {
        let refused = || Error::Config(format!("the header {name:?} cannot be sent"));
        if name.to_ascii_lowercase().starts_with("x-vault-") {
            return Err(refused());
        }
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default()).map_err(|_| refused())?;
        headers.append(HeaderName::try_from(name.as_str()).map_err(|_| refused())?, value);
    }
    let named = environment::variable("MFA").map(|(_, value)| value);
    let factors = match words.list("mfa") {
        given if given.is_empty() => named.iter().flat_map(|value| value.split(',')).collect(),
        given => given,
    };
    for factor in factors {
        let mut value = HeaderValue::from_str(factor.trim()).map_err(|_| {
            Error::Config("the MFA credential contains characters that are invalid in a header".to_owned())
        })?;
        value.set_sensitive(true);
        headers.append(MFA, value);
    }
    if words.on("policy-override") {
        headers.insert(POLICY_OVERRIDE, HeaderValue::from_static("true"));
    }
    Ok(headers)
}

/// A header with its usual capitals: `x-vault-request` as `X-Vault-Request`.
pub(super) fn display((name, value): (&HeaderName, &HeaderValue)) -> (String, String) {
    let capital =
        |word: &str| word.get(..1).unwrap_or_default().to_ascii_uppercase() + word.get(1..).unwrap_or_default();
    let name = if name == CONTENT_TYPE {
        "Content-Type".to_owned()
    } else {
        name.as_str().split('-').map(capital).collect::<Vec<_>>().join("-")
    };
    (name, String::from_utf8_lossy(value.as_bytes()).into_owned())
}
