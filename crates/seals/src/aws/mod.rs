//! AWS: credentials, signatures, and the seal of its key management service.

pub(crate) mod kms;
#[cfg(test)]
mod kms_tests;
mod profile;
mod sign;
mod sources;
#[cfg(test)]
mod sources_tests;

use keepfast_crypto::secret::SecretString;

/// Credentials of AWS.
#[derive(Clone)]
pub(crate) struct AwsCredentials {
    /// The id of the access key.
    pub(crate) access_key: String,
    /// The secret access key.
    pub(crate) secret_key: SecretString,
    /// The session token of temporary credentials.
    pub(crate) session_token: Option<SecretString>,
}

/// The domain of the endpoints of a region.
fn domain_of(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}
