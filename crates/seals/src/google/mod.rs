//! Google Cloud: access tokens, and the seal of its key management service.

pub(crate) mod kms;
#[cfg(test)]
mod kms_tests;
mod sources;
#[cfg(test)]
mod sources_tests;
