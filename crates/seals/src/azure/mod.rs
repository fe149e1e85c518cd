//! Azure: access tokens, and the seal of Key Vault.

pub(crate) mod key_vault;
#[cfg(test)]
mod key_vault_tests;
mod sources;
