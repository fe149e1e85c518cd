//! The requests of a rekey, and the error texts in which its forms differ.

use keepfast_framework::fields::{Flag, Int, SecretText, Strings, Text};
use keepfast_framework::{Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::seal::SealShape;
use crate::seal::pgp::Recipients;
use crate::seal::rekey::Rekey;

/// What is rotated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The unseal keys and the root key; with a seal the root key only.
    Root,
    /// The recovery keys.
    Recovery,
}

impl Target {
    /// Its name in the storage.
    pub(super) fn name(self) -> &'static str {
        match self {
            Target::Root => "root",
            Target::Recovery => "recovery",
        }
    }
}

/// The target, and the error texts in which the forms differ.
pub(super) struct Wording {
    pub(super) target: Target,
    /// The operation in progress.
    pub(super) name: &'static str,
    /// What is done to the keys.
    pub(super) doing: &'static str,
    /// The kind of configuration that is refused.
    pub(super) seal: &'static str,
    /// The error for a share of the old kind without an operation in progress.
    pub(super) absent: &'static str,
    /// The operation that is finished while its verification is pending.
    pub(super) finished: &'static str,
    /// The operation to which the nonce belongs.
    pub(super) operation: &'static str,
    /// The operation to which a share was given twice.
    pub(super) collection: &'static str,
    /// Whether the verification refuses a share that was given twice, and does not count it.
    pub(super) refuses_repeats: bool,
}

/// The parameters of a rekey.
#[derive(Deserialize, JsonSchema)]
pub(super) struct RekeyRequest {
    /// Number of new shares.
    secret_shares: Option<Int>,
    /// Number of the new shares that unseal the server.
    secret_threshold: Option<Int>,
    /// The PGP public keys to which the new shares are encrypted, one for each, in base64 without armor.
    pgp_keys: Option<Strings>,
    /// Whether the encrypted shares are stored as well, for `backup`. Without PGP keys there is no backup. Default: false.
    backup: Option<Flag>,
    /// Whether the new shares become valid only after a quorum of them has been sent to `verify`. Default: false.
    require_verification: Option<Flag>,
}

impl RekeyRequest {
    pub(super) fn pgp_keys(&self) -> &[String] {
        self.pgp_keys.as_ref().map(|keys| keys.0.as_slice()).unwrap_or_default()
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.as_ref().is_some_and(|backup| backup.0)
    }

    pub(super) fn secret_shares(&self) -> i64 {
        self.secret_shares.as_ref().map_or(0, |shares| shares.0)
    }

    fn verifies(&self) -> bool {
        self.require_verification.as_ref().is_some_and(|verify| verify.0)
    }

    /// Checks a rotation of the root key only: there are no new shares to encrypt, back up or verify.
    pub(super) fn check_root_only(&self, words: &Wording) -> Result<()> {
        if !self.pgp_keys().is_empty() {
            return Err(Error::invalid("PGP key encryption not supported when using stored keys"));
        }
        if self.verifies() {
            let doing = words.doing;
            let why = format!("requiring verification not supported when {doing} the barrier key with recovery keys");
            return Err(Error::invalid(why));
        }
        if self.has_backup() {
            return Err(Error::invalid("key backup not supported when using stored keys"));
        }
        Ok(())
    }

    /// The rotation to the requested shares. Fails when one of them could not be issued.
    pub(super) async fn rotation(&self, words: &Wording, now: Timestamp) -> Result<Rekey> {
        let refused = |why: &str| Error::invalid(format!("invalid {} configuration: {why}", words.seal));
        let threshold = self.secret_threshold.as_ref().map_or(0, |threshold| threshold.0);
        let shape = SealShape::check(self.secret_shares(), threshold).map_err(refused)?;
        let recipients = Recipients::read(self.pgp_keys(), shape.shares.into(), now).await;
        let recipients = recipients.map_err(|why| refused(&why))?;
        let backup = recipients.is_some() && self.has_backup();
        Ok(Rekey { backup, verify: self.verifies(), recipients, ..Rekey::new(Some(shape)) })
    }
}

/// A share of the unseal key for an operation in progress.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ShareRequest {
    /// A share of the unseal key, in hex or base64.
    pub(super) key: Option<SecretText>,
    /// The nonce of the operation.
    pub(super) nonce: Option<Text>,
}
