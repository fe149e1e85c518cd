//! Keys of type `external-key`: another system encrypts, decrypts, signs and verifies (`sys/external-keys`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepfast_crypto::Zeroizing;
use keepfast_crypto::keys::KeyKind;
use keepfast_framework::external_key::{ExternalKey, ExternalKeyError};
use keepfast_framework::fields::Quoted;
use keepfast_framework::seal::{SealError, SealErrorClass};
use keepfast_framework::{Cx, Error, Result, Status, Timestamp};

use super::batch::Item;
use super::codec;
use super::encrypt::{ItemError, associated_data_of, ciphertext_of, parse, plaintext_of};
use super::named_key::NamedKey;
use super::sign::{SignMode, input_of, signature_of};

/// The most items of a request.
const MAX_ITEMS: usize = 256;
/// The time after which no other item of a request is sent.
const DEADLINE: Duration = Duration::from_secs(30);

/// The calls of one request with an external key.
pub(super) struct Remote<'c> {
    cx: &'c mut Cx,
    named_key: &'c NamedKey,
    until: Timestamp,
    opened: BTreeMap<u32, Arc<dyn ExternalKey>>,
}

/// Why an item failed, or the whole request.
enum Failure {
    Item(ItemError),
    Request(Error),
}

impl<T: Into<ItemError>> From<T> for Failure {
    fn from(text: T) -> Self {
        Failure::Item(text.into())
    }
}

/// The result of an item; a failure of the whole request is the outer error.
fn settled<T>(outcome: Result<T, Failure>) -> Result<Result<T, ItemError>> {
    match outcome {
        Ok(done) => Ok(Ok(done)),
        Err(Failure::Item(error)) => Ok(Err(error)),
        Err(Failure::Request(error)) => Err(error),
    }
}

/// An error of the search for an external key, with OpenBao's prefix.
pub(super) fn fetch_error(error: Error) -> Error {
    if error.status() != Status::BAD_REQUEST {
        return error;
    }
    Error::invalid(format!("failed to fetch external key: {}", error.public()))
}

impl<'c> Remote<'c> {
    /// The calls for a request with this many items; `None` for other types of keys.
    ///
    /// # Errors
    /// 400 for too many items.
    pub(super) fn of(cx: &'c mut Cx, named_key: &'c NamedKey, items: usize) -> Result<Option<Self>> {
        if named_key.record.kind != KeyKind::External {
            return Ok(None);
        }
        if items > MAX_ITEMS {
            return Err(Error::invalid(format!("batch_input of an external key has at most {MAX_ITEMS} items")));
        }
        let until = cx.now().after(DEADLINE);
        Ok(Some(Remote { cx, named_key, until, opened: BTreeMap::new() }))
    }

    /// Encrypts the plaintext of one item.
    pub(super) async fn seal_item(&mut self, item: &Item) -> Result<Result<(u32, String), ItemError>> {
        settled(self.try_seal_item(item).await)
    }

    /// Encrypts with one version.
    pub(super) async fn seal(
        &mut self,
        version: u32,
        plaintext: &[u8],
        associated_data: &[u8],
    ) -> Result<Result<(u32, String), ItemError>> {
        settled(self.try_seal(version, plaintext, associated_data).await)
    }

    /// Decrypts one item.
    pub(super) async fn open_item(&mut self, item: &Item) -> Result<Result<Zeroizing<Vec<u8>>, ItemError>> {
        settled(self.try_open_item(item).await)
    }

    /// Decrypts one item and encrypts it with the requested version.
    pub(super) async fn rewrap_item(&mut self, item: &Item) -> Result<Result<(u32, String), ItemError>> {
        settled(self.try_rewrap_item(item).await)
    }

    /// Signs one item; the public key of a derived key is never set.
    pub(super) async fn sign(
        &mut self,
        mode: &SignMode,
        requested: i64,
        item: &Item,
    ) -> Result<Result<(u32, String, Option<String>), ItemError>> {
        settled(self.try_sign(mode, requested, item).await)
    }

    /// Verifies the signature of one item.
    pub(super) async fn verify(&mut self, mode: &SignMode, item: &Item) -> Result<Result<bool, ItemError>> {
        settled(self.try_verify(mode, item).await)
    }

    async fn try_seal_item(&mut self, item: &Item) -> Result<(u32, String), Failure> {
        let plaintext = plaintext_of(item)?;
        let version = self.named_key.record.version_for(item.key_version.unwrap_or_default().0, "encryption")?;
        let associated_data = associated_data_of(item.associated_data.as_deref())?;
        self.try_seal(version, &plaintext, &associated_data).await
    }

    async fn try_seal(
        &mut self,
        version: u32,
        plaintext: &[u8],
        associated_data: &[u8],
    ) -> Result<(u32, String), Failure> {
        let key = self.key(version).await?;
        let sealed = key.encrypt(plaintext, associated_data).await;
        let sealed = sealed.map_err(|error| self.failure(version, "encrypt", error))?;
        Ok((version, codec::tagged(version, &sealed)))
    }

    async fn try_open_item(&mut self, item: &Item) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let associated_data = associated_data_of(item.associated_data.as_deref())?;
        let (version, sealed) = parse(self.named_key, ciphertext_of(item)?)?;
        let key = self.key(version).await?;
        let opened = key.decrypt(&sealed, &associated_data).await;
        let mut opened = opened.map_err(|error| self.failure(version, "decrypt", error))?;
        Ok(Zeroizing::new(std::mem::take(opened.expose_mut())))
    }

    async fn try_rewrap_item(&mut self, item: &Item) -> Result<(u32, String), Failure> {
        let plaintext = self.try_open_item(item).await?;
        let version = self.named_key.record.version_for(item.key_version.unwrap_or_default().0, "encryption")?;
        self.try_seal(version, &plaintext, &[]).await
    }

    async fn try_sign(
        &mut self,
        mode: &SignMode,
        requested: i64,
        item: &Item,
    ) -> Result<(u32, String, Option<String>), Failure> {
        let input = input_of(item)?;
        let version = self.named_key.record.version_for(requested, "signing")?;
        let signing = mode.signing(&input)?;
        let key = self.key(version).await?;
        let signature = key.sign(&signing).await.map_err(|error| self.failure(version, "sign", error))?;
        Ok((version, mode.tagged(version, &signature), None))
    }

    async fn try_verify(&mut self, mode: &SignMode, item: &Item) -> Result<bool, Failure> {
        let input = input_of(item)?;
        let (version, signature) = signature_of(self.named_key, mode, item)?;
        let signing = mode.signing(&input)?;
        let key = self.key(version).await?;
        key.verify(&signing, &signature).await.map_err(|error| self.failure(version, "verify", error))
    }

    /// The external key of a version.
    async fn key(&mut self, version: u32) -> Result<Arc<dyn ExternalKey>, Failure> {
        if self.cx.now() >= self.until {
            let error = SealError::new(SealErrorClass::Throttled(None), "the items of the request take too long");
            return Err(self.failure(version, "use", error.into()));
        }
        if let Some(key) = self.opened.get(&version) {
            return Ok(key.clone());
        }
        let stored = self.named_key.record.live_version(version);
        let reference = stored.and_then(|stored| stored.external.as_deref()).ok_or("no such key version")?;
        let found = self.cx.external_key(reference).await;
        let found = found.map_err(|error| Failure::Request(fetch_error(error)))?;
        self.opened.insert(version, found.clone());
        Ok(found)
    }

    /// A refusal fails the item; a system that is not available fails the request.
    fn failure(&self, version: u32, doing: &str, error: ExternalKeyError) -> Failure {
        match error {
            ExternalKeyError::Refused(text) => {
                Failure::Item(format!("failed to {doing} with external key: {text}").into())
            }
            ExternalKeyError::Unavailable(error) => {
                let stored = self.named_key.record.versions.get(&version);
                let reference = stored.and_then(|stored| stored.external.as_deref()).unwrap_or_default();
                let text = format!("external key {} is not available: {}", Quoted(reference), error.class.name());
                Failure::Request(Error::new(Status::UNAVAILABLE, text).caused_by(error))
            }
        }
    }
}
