//! Alibaba Cloud: credentials, signatures, and the seal of its key management service.

pub(crate) mod kms;
#[cfg(test)]
mod kms_tests;
mod sign;
mod sources;

use keepfast_crypto::secret::SecretString;

/// Credentials of Alibaba Cloud.
#[derive(Clone)]
pub(crate) struct AliCredentials {
    /// The id of the access key.
    pub(crate) access_key: String,
    /// The secret of the access key.
    pub(crate) secret_key: SecretString,
    /// The token of temporary credentials.
    pub(crate) security_token: Option<SecretString>,
}
