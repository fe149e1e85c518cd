//! A seal whose secret is in a file that cannot be read yet, or has no valid content: it is created by the first call after
//! the file was written. Until then every call fails, so that a server waits for it as for a service that is down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_framework::Clock;
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use parking_lot::Mutex;

use crate::Type;
use crate::call::{misconfigured, unreachable_because};
use crate::stanza::{Environment, SealStanza, Stanza};

/// The seal.
pub(crate) struct Waiting {
    kind: &'static str,
    owned: Arc<Owned>,
    created: Arc<Mutex<Option<Arc<dyn Seal>>>>,
    /// Held while the file is read. The file may be on a mount that is dead.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// A stanza that is read again.
struct Owned {
    created_by: Type,
    name: String,
    options: BTreeMap<String, String>,
    timeout: Duration,
    shares_kind: bool,
    environment: Arc<dyn Environment>,
    clock: Arc<dyn Clock>,
}

impl Waiting {
    /// A seal of this stanza.
    pub(crate) fn new(
        created_by: Type,
        stanza: &SealStanza<'_>,
        environment: &dyn Environment,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let owned = Owned {
            created_by,
            name: stanza.name.to_owned(),
            options: stanza.options.clone(),
            timeout: stanza.timeout,
            shares_kind: stanza.shares_kind,
            environment: environment.owned(),
            clock: clock.clone(),
        };
        Waiting { kind: created_by.0, owned: Arc::new(owned), created: Arc::default(), reading: Arc::default() }
    }

    /// The seal, created if its file is valid now. A thread for blocking calls reads the file, for one call at a time.
    async fn created(&self) -> Result<Arc<dyn Seal>, SealError> {
        if let Some(seal) = self.known() {
            return Ok(seal);
        }
        let reading = self.reading.clone().lock_owned().await;
        if let Some(seal) = self.known() {
            return Ok(seal);
        }
        let (owned, created) = (self.owned.clone(), self.created.clone());
        let create = move || {
            let seal = owned.create()?;
            *created.lock() = Some(seal.clone());
            // A call that is dropped does not end the read.
            drop(reading);
            Ok(seal)
        };
        let outcome = tokio::task::spawn_blocking(create).await;
        outcome.unwrap_or_else(|error| Err(SealError::new(SealErrorClass::Crashed, error.to_string())))
    }

    fn known(&self) -> Option<Arc<dyn Seal>> {
        self.created.lock().clone()
    }
}

impl Owned {
    fn create(&self) -> Result<Arc<dyn Seal>, SealError> {
        let (kind, keys, create) = self.created_by;
        let stanza = SealStanza {
            timeout: self.timeout,
            shares_kind: self.shares_kind,
            ..SealStanza::new(kind, &self.name, &self.options)
        };
        let created = create(&Stanza::new(&stanza, keys, &*self.environment, &self.clock));
        created.map_err(|error| match error.is_of_file {
            true => unreachable_because(error.reason),
            false => misconfigured(error.reason),
        })
    }
}

#[async_trait]
impl Seal for Waiting {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        match self.known() {
            Some(seal) => seal.description(),
            None => vec![("waits_for", "the file of a secret".to_owned())],
        }
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        self.created().await?.wrap(key).await
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        self.created().await?.unwrap(wrapped).await
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.created().await?.current_key().await
    }

    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        self.created().await?.is_configured_key(key_id).await
    }

    fn counts_attempts(&self) -> bool {
        self.known().is_some_and(|seal| seal.counts_attempts())
    }

    fn waits(&self) -> bool {
        self.known().is_none()
    }
}

#[cfg(test)]
mod tests {
    use keepfast_framework::clock::TestClock;

    use super::*;
    use crate::stanza::tests::{Variables, options};
    use crate::{CreatedSeal, from_stanza};

    fn static_of(path: &std::path::Path) -> CreatedSeal {
        let options = options(&[("current_key", &format!("file://{}", path.display())), ("current_key_id", "a")]);
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        from_stanza(&SealStanza::new("static", "s", &options), &Variables::default(), &clock).unwrap()
    }

    #[tokio::test]
    async fn a_key_file_that_is_written_later_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for content in [None, Some(""), Some("half a k")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let created = static_of(&path);
            assert!(created.waits_for.is_some() && created.warnings[0].contains("waits"), "{content:?}");
            assert_eq!(created.seal.kind(), "static");
            let error = created.seal.wrap(&Key256::zeroed()).await.err().unwrap();
            assert_eq!(error.class, SealErrorClass::Unreachable, "{error}");
            assert!(!error.to_string().contains("half a k") && created.seal.current_key().await.is_err());
            std::fs::write(&path, hex::encode([7; 32])).unwrap();
            let wrapped = created.seal.wrap(&Key256::zeroed()).await.unwrap();
            assert!(created.seal.unwrap(&wrapped).await.is_ok());
            assert_eq!(created.seal.description(), [("current_key_id", "a".to_owned())]);
            std::fs::remove_file(&path).unwrap();
            assert!(created.seal.unwrap(&wrapped).await.is_ok(), "the key is in memory");
        }
    }

    #[tokio::test]
    async fn sec_a_pipe_without_a_writer_stops_no_other_call() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let created = static_of(&path);
        let key = Key256::zeroed();
        let mut call = std::pin::pin!(created.seal.wrap(&key));
        // The only thread of the runtime goes on, and no lock is held.
        assert!(futures_util::poll!(&mut call).is_pending());
        assert!(created.seal.waits() && !created.seal.description().is_empty());
        std::fs::write(&path, hex::encode([7; 32])).unwrap();
        assert!(call.await.is_ok(), "the writer came");
    }

    #[test]
    fn a_key_in_the_stanza_itself_is_not_waited_for() {
        let options = options(&[("current_key", "half a k"), ("current_key_id", "a")]);
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let stanza = SealStanza::new("static", "s", &options);
        assert!(from_stanza(&stanza, &Variables::default(), &clock).is_err());
    }
}
