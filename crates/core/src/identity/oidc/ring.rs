//! A named key: the ring of its signing key, the next one, which is published ahead, and retired ones.
//!
//! A rotation makes the next key the signing key, so relying parties that have read the key set before know it. The
//! retired key stays published for the `verification_ttl`, which no token of a role or client outlives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_crypto::keys::Key;
use keepfast_crypto::locked::LockedBytes;
use keepfast_crypto::random;
use keepfast_framework::{Error, Records, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::algorithm::{Algorithm, Jwk};
use super::lists::has_id;
use crate::identity::key_material;

/// The folder of [`KEYS`].
pub(super) const KEY_FOLDER: &str = "oidc/key/";
/// Named keys.
pub(super) const KEYS: Records<KeyRecord> = Records::at(KEY_FOLDER);
/// The key that always exists. Its ring is created when a role or a client first refers to it.
pub(super) const DEFAULT_KEY: &str = "default";
/// The maximum number of retired keys before rotations on request are refused.
pub(super) const MOST_RETIRED: usize = 100;

/// The settings of a named key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeySettings {
    /// The signature algorithm.
    pub(super) algorithm: Algorithm,
    /// Seconds between rotations.
    pub(super) rotation_period: u64,
    /// Seconds for which a retired key stays published.
    pub(super) verification_ttl: u64,
    /// The client ids of the roles and clients that may sign with it; `*` for all.
    pub(super) allowed_client_ids: Vec<String>,
}

impl Default for KeySettings {
    fn default() -> Self {
        KeySettings {
            algorithm: Algorithm::default(),
            rotation_period: 86_400,
            verification_ttl: 86_400,
            allowed_client_ids: Vec::new(),
        }
    }
}

impl KeySettings {
    /// The settings of the default key that was never written.
    pub(super) fn of_default_key() -> Self {
        KeySettings { allowed_client_ids: vec!["*".to_owned()], ..KeySettings::default() }
    }

    /// Whether a role or a client with this id may sign with the key.
    pub(super) fn allows(&self, client_id: &str) -> bool {
        has_id(&self.allowed_client_ids, client_id)
    }

    /// The longest `verification_ttl`, in seconds.
    pub(super) fn longest_verification_ttl(&self) -> u64 {
        self.rotation_period.saturating_mul(10)
    }

    /// Checks the durations against each other.
    pub(super) fn check(&self) -> Result<()> {
        if self.rotation_period < 60 {
            return Err(Error::invalid("rotation_period must be at least one minute"));
        }
        if self.verification_ttl > self.longest_verification_ttl() {
            return Err(Error::invalid("verification_ttl cannot be longer than 10x rotation_period"));
        }
        Ok(())
    }
}

/// The stored record of a named key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// The settings.
    pub(super) settings: KeySettings,
    /// The key that signs.
    pub(super) current: SigningKey,
    /// The key that signs after the next rotation.
    pub(super) next: SigningKey,
    /// The keys that signed before.
    #[serde(default)]
    pub(super) retired: Vec<RetiredKey>,
    /// The time of the last rotation, or of creation.
    pub(super) rotated: Timestamp,
}

/// A key pair.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SigningKey {
    /// The random id, `kid`.
    pub(super) id: String,
    algorithm: Algorithm,
    #[serde(with = "key_material")]
    material: LockedBytes,
    /// SubjectPublicKeyInfo in base64.
    public: String,
}

/// The public half of a key that signed before.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RetiredKey {
    id: String,
    algorithm: Algorithm,
    public: String,
    /// The time from which it is no longer published.
    until: Timestamp,
}

/// A published public key.
pub(super) struct PublicKey<'a> {
    /// The id, `kid`.
    pub(super) id: &'a str,
    /// The signature algorithm.
    pub(super) algorithm: Algorithm,
    /// SubjectPublicKeyInfo in base64.
    pub(super) public: &'a str,
}

impl PublicKey<'_> {
    /// The JSON web key.
    pub(super) fn jwk(&self) -> Option<Jwk<'_>> {
        self.algorithm.jwk(self.id, self.public)
    }
}

impl SigningKey {
    /// Generates a key, on another thread if that is slow.
    pub(super) async fn generate(algorithm: Algorithm) -> Result<Self> {
        let kind = algorithm.kind();
        let generate = move || -> Result<_, keepfast_crypto::keys::KeyError> {
            let material = Key::generate(kind, 0)?;
            let public = STANDARD.encode(Key::load(kind, material.expose())?.spki()?);
            Ok((LockedBytes::new(material.expose()), public))
        };
        let generated = match kind.is_slow_to_generate() {
            true => tokio::task::spawn_blocking(generate).await.map_err(Error::internal)?,
            false => generate(),
        };
        let (material, public) = generated.map_err(Error::internal)?;
        Ok(SigningKey { id: random::uuid(), algorithm, material, public })
    }

    /// The signature algorithm.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.algorithm.sign(self.material.expose(), message).map_err(Error::internal)
    }

    fn as_public(&self) -> PublicKey<'_> {
        PublicKey { id: &self.id, algorithm: self.algorithm, public: &self.public }
    }
}

impl KeyRecord {
    /// A key with a new ring.
    pub(super) async fn create(settings: KeySettings, now: Timestamp) -> Result<Self> {
        let algorithm = settings.algorithm;
        let (current, next) = (SigningKey::generate(algorithm).await?, SigningKey::generate(algorithm).await?);
        Ok(KeyRecord { settings, current, next, retired: Vec::new(), rotated: now })
    }

    /// Replaces the settings. Another algorithm replaces the ring at once.
    pub(super) async fn change(&mut self, settings: KeySettings, now: Timestamp) -> Result<()> {
        if settings.algorithm != self.settings.algorithm {
            self.check_retired(now)?;
            let (current, next) =
                (SigningKey::generate(settings.algorithm).await?, SigningKey::generate(settings.algorithm).await?);
            self.next = next;
            let old = std::mem::replace(&mut self.current, current);
            self.retire(old, now, self.settings.verification_ttl);
            self.rotated = now;
        }
        self.settings = settings;
        Ok(())
    }

    /// The time of the next rotation.
    pub(super) fn next_rotation(&self) -> Timestamp {
        self.rotated.after(Duration::from_secs(self.settings.rotation_period))
    }

    /// Makes the next key the signing key and `fresh` the next one. The retired key stays published for
    /// `verification_ttl` seconds.
    pub(super) fn rotate(&mut self, fresh: SigningKey, now: Timestamp, verification_ttl: u64) {
        let next = std::mem::replace(&mut self.next, fresh);
        let old = std::mem::replace(&mut self.current, next);
        self.retire(old, now, verification_ttl);
        self.rotated = now;
    }

    /// Refuses a rotation on request when too many keys are published.
    ///
    /// # Errors
    /// 400.
    pub(super) fn check_retired(&mut self, now: Timestamp) -> Result<()> {
        self.retired.retain(|retired| now < retired.until);
        if self.retired.len() < MOST_RETIRED {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a key has at most {MOST_RETIRED} published retired keys: wait for their verification_ttl"
        )))
    }

    fn retire(&mut self, old: SigningKey, now: Timestamp, verification_ttl: u64) {
        self.retired.retain(|retired| now < retired.until);
        if verification_ttl > 0 {
            let until = now.after(Duration::from_secs(verification_ttl));
            self.retired.push(RetiredKey { id: old.id, algorithm: old.algorithm, public: old.public, until });
        }
    }

    /// The public keys that verify tokens at `now`: the signing key, the next one and the retired ones.
    pub(super) fn published(&self, now: Timestamp) -> impl Iterator<Item = PublicKey<'_>> {
        let retired = self.retired.iter().filter(move |retired| now < retired.until);
        let retired = retired.map(|key| PublicKey { id: &key.id, algorithm: key.algorithm, public: &key.public });
        [self.current.as_public(), self.next.as_public()].into_iter().chain(retired)
    }

    /// The time until which [`Self::published`] has the same keys, without further writes.
    pub(super) fn unchanged_until(&self, now: Timestamp) -> Timestamp {
        let ends = self.retired.iter().map(|retired| retired.until).filter(|until| now < *until);
        ends.chain([self.next_rotation()]).min().unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(1_700_000_000 + second)
    }

    fn ids(record: &KeyRecord, second: i64) -> Vec<&str> {
        record.published(at(second)).map(|key| key.id).collect()
    }

    #[tokio::test]
    async fn the_next_key_is_published_ahead_and_a_retired_one_for_the_ttl() {
        let settings = KeySettings {
            algorithm: Algorithm::EdDsa,
            rotation_period: 60,
            verification_ttl: 100,
            ..KeySettings::default()
        };
        let mut record = KeyRecord::create(settings, at(0)).await.unwrap();
        let (first, second) = (record.current.id.clone(), record.next.id.clone());
        assert_eq!(record.next_rotation(), at(60));
        record.rotate(SigningKey::generate(Algorithm::EdDsa).await.unwrap(), at(60), 100);
        assert_eq!(record.current.id, second, "the published next key signs");
        let third = record.next.id.clone();
        assert_eq!(ids(&record, 159), [&*second, &*third, &*first]);
        assert_eq!(ids(&record, 160), [&*second, &*third], "not after the verification_ttl");
        assert_eq!((record.next_rotation(), record.unchanged_until(at(60))), (at(120), at(120)));
        assert_eq!(record.unchanged_until(at(130)), at(120));
    }

    #[tokio::test]
    async fn another_algorithm_replaces_the_ring_and_keeps_the_old_key_published() {
        let settings = KeySettings { algorithm: Algorithm::EdDsa, ..KeySettings::default() };
        let mut record = KeyRecord::create(settings.clone(), at(0)).await.unwrap();
        let old = record.current.id.clone();
        record.change(KeySettings { algorithm: Algorithm::Es256, ..settings }, at(5)).await.unwrap();
        let algorithms: Vec<_> = record.published(at(5)).map(|key| key.algorithm).collect();
        assert_eq!(algorithms, [Algorithm::Es256, Algorithm::Es256, Algorithm::EdDsa]);
        assert_eq!(ids(&record, 5)[2], old);
    }

    #[test]
    fn durations_of_a_key_are_bounded() {
        let of = |rotation_period, verification_ttl| {
            KeySettings { rotation_period, verification_ttl, ..KeySettings::default() }
                .check()
                .err()
                .map(|e| e.public().to_owned())
        };
        assert_eq!(of(60, 600), None);
        assert_eq!(of(59, 1).as_deref(), Some("rotation_period must be at least one minute"));
        assert_eq!(of(60, 601).as_deref(), Some("verification_ttl cannot be longer than 10x rotation_period"));
    }
}
