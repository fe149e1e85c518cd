//! Shares and root tokens that are encrypted to OpenPGP certificates, and the backup of encrypted shares.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Error, Records, Result, Timestamp, offload};
use keepfast_pgp::{Certificate, CertificateError};
use keepfast_storage::Key;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::layout::{SHARE_BACKUPS, SYSTEM_STORAGE};

/// The certificates to which shares are encrypted, one for each share.
pub(crate) struct Recipients(Vec<Certificate>);

impl Recipients {
    /// Reads the certificates of a request; `None` when it has none.
    ///
    /// # Errors
    /// The reason, when their number is not that of the shares, or nothing can be encrypted to one of them.
    pub(crate) async fn read(keys: &[String], shares: usize, now: Timestamp) -> Result<Option<Self>, String> {
        if keys.is_empty() {
            return Ok(None);
        }
        if keys.len() != shares {
            return Err("count mismatch between number of provided PGP keys and number of shares".to_owned());
        }
        let certificate = |(at, key): (usize, &String)| {
            let refused = |error| format!("error parsing given PGP key {}: {error}", at + 1);
            Certificate::from_base64(key, seconds(now)).map_err(refused)
        };
        let length = keys.iter().map(String::len).sum();
        let read = || keys.iter().enumerate().map(certificate).collect::<Result<Vec<_>, String>>();
        Ok(Some(Recipients(offload::run(length, read).await?)))
    }

    /// Their fingerprints.
    pub(crate) fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|certificate| certificate.fingerprint().to_owned()).collect()
    }
}

/// Reads a certificate in base64, and checks that it can encrypt now.
///
/// # Errors
/// [`CertificateError`] with the check that failed.
pub(crate) async fn certificate(key: &str, now: Timestamp) -> Result<Certificate, CertificateError> {
    offload::run(key.len(), || Certificate::from_base64(key, seconds(now))).await
}

/// Seconds since the epoch.
fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.unix()).unwrap_or_default()
}

/// Encrypts a text to a certificate: a binary message.
///
/// # Errors
/// 500 when the cryptography fails.
pub(crate) fn encrypt(certificate: &Certificate, text: &SecretString) -> Result<Vec<u8>> {
    certificate.encrypt(text).map_err(|error| Error::internal(format!("a PGP key: {error}")))
}

/// New shares as responses contain them: the shares, or messages that contain their hexadecimal text.
#[derive(Default)]
pub(crate) struct IssuedShares {
    contents: Vec<SecretBytes>,
    /// The fingerprints of the certificates to which they are encrypted.
    pub(crate) fingerprints: Option<Vec<String>>,
}

impl IssuedShares {
    /// Encrypts the shares, if there are certificates.
    ///
    /// # Errors
    /// 500 when the cryptography fails.
    pub(crate) fn new(shares: Vec<SecretBytes>, recipients: Option<&Recipients>) -> Result<Self> {
        let Some(recipients) = recipients else { return Ok(IssuedShares { contents: shares, fingerprints: None }) };
        let message = |(share, certificate): (&SecretBytes, &Certificate)| {
            encrypt(certificate, &SecretString::new(hex::encode(share.expose()))).map(SecretBytes::new)
        };
        let work = || shares.iter().zip(&recipients.0).map(message).collect::<Result<_>>();
        // There may be 255 of them, and a worker serves other requests meanwhile.
        let has_workers = Handle::try_current().is_ok_and(|at| at.runtime_flavor() == RuntimeFlavor::MultiThread);
        let contents = if has_workers { tokio::task::block_in_place(work)? } else { work()? };
        Ok(IssuedShares { contents, fingerprints: Some(recipients.fingerprints()) })
    }

    /// Their bytes in hexadecimal.
    pub(crate) fn hex(&self) -> Vec<String> {
        self.contents.iter().map(|content| hex::encode(content.expose())).collect()
    }

    /// Their bytes in base64.
    pub(crate) fn base64(&self) -> Vec<String> {
        self.contents.iter().map(|content| STANDARD.encode(content.expose())).collect()
    }

    /// A backup of the encrypted shares of the rotation with this nonce; `None` for shares in clear.
    pub(crate) fn backup(&self, nonce: &str) -> Option<Backup> {
        let mut messages = BTreeMap::<String, Vec<String>>::new();
        for (fingerprint, message) in self.fingerprints.as_ref()?.iter().zip(self.base64()) {
            messages.entry(fingerprint.clone()).or_default().push(message);
        }
        Some(Backup { nonce: nonce.to_owned(), messages })
    }
}

/// The backups: of unseal keys at `root`, of recovery keys at `recovery`.
pub(crate) const BACKUPS: Records<Backup> = Records::at(SHARE_BACKUPS);

/// Encrypted shares that are stored in case that the response with them is lost.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Backup {
    /// The nonce of the rotation that has created the shares.
    pub(crate) nonce: String,
    /// The messages in base64, by the fingerprints of the certificates.
    pub(crate) messages: BTreeMap<String, Vec<String>>,
}

impl Backup {
    /// The record of this name in [`BACKUPS`], for the commit of the shares.
    ///
    /// # Errors
    /// When it cannot be serialized.
    pub(crate) fn record(&self, name: &str) -> Result<(Key, Bytes)> {
        let key = Key::new(format!("{SYSTEM_STORAGE}{SHARE_BACKUPS}{name}"))?;
        Ok((key, serde_json::to_vec(self)?.into()))
    }
}
