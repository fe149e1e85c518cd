//! A seal in memory for tests, which can be down, slow, wrong or denied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use keepfast_crypto::random;
use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::{Seal, SealError, SealErrorClass, WrappedKey};
use parking_lot::Mutex;

use super::set::{ConfiguredSeal, SealSet, SealTiming};

/// How a seal behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Well,
    /// Fails with this class.
    Fails(SealErrorClass),
    /// Never returns.
    Hangs,
    /// Wraps other bytes than those of the key.
    WrapsGarbage,
    /// Wraps, and does not unwrap.
    OnlyWraps,
    /// Unwraps to another key.
    UnwrapsAnother,
}

pub(crate) struct TestSeal {
    kind: &'static str,
    /// The versions of the key; the last one wraps.
    versions: Mutex<Vec<Key256>>,
    behaviour: Mutex<Behaviour>,
    /// Finished and pending calls.
    calls: AtomicUsize,
}

impl TestSeal {
    pub(crate) fn new() -> Arc<Self> {
        Self::of_kind("static")
    }

    pub(crate) fn of_kind(kind: &'static str) -> Arc<Self> {
        Arc::new(TestSeal {
            kind,
            versions: Mutex::new(vec![random::key()]),
            behaviour: Mutex::new(Behaviour::Well),
            calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    pub(crate) fn fails(&self, class: SealErrorClass) {
        self.set(Behaviour::Fails(class));
    }

    pub(crate) fn rotate(&self) {
        self.versions.lock().push(random::key());
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn configured(self: &Arc<Self>, name: &str) -> ConfiguredSeal {
        ConfiguredSeal {
            name: name.to_owned(),
            priority: 1,
            disabled: false,
            enroll_manually: false,
            timing: SealTiming::default(),
            seal: self.clone(),
        }
    }

    async fn call(&self) -> Result<Behaviour, SealError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Fails(class) => Err(SealError::new(class, "the test wants it")),
            Behaviour::Hangs => std::future::pending().await,
            other => Ok(other),
        }
    }

    fn id(version: usize) -> String {
        format!("v{}", version + 1)
    }
}

/// The set of these seals in this order.
pub(crate) fn set_of(seals: &[(&str, &Arc<TestSeal>)]) -> SealSet {
    let configured = seals
        .iter()
        .enumerate()
        .map(|(at, (name, seal))| ConfiguredSeal { priority: u16::try_from(at).unwrap() + 1, ..seal.configured(name) });
    SealSet::new(configured.collect()).unwrap()
}

#[async_trait]
impl Seal for TestSeal {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        vec![("key", "in memory".to_owned())]
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        let behaviour = self.call().await?;
        let versions = self.versions.lock();
        let newest = versions.len() - 1;
        let other = random::key();
        let plain = if behaviour == Behaviour::WrapsGarbage { &other } else { key };
        Ok(WrappedKey {
            key_id: Self::id(newest),
            mechanism: String::new(),
            blob: AeadKey::new(&versions[newest]).seal(b"test", plain.expose()).into(),
            iv: None,
            tag: None,
        })
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        let wrong = || SealError::new(SealErrorClass::WrongKey, "not wrapped here");
        match self.call().await? {
            Behaviour::OnlyWraps => return Err(SealError::new(SealErrorClass::Denied, "decrypt is denied")),
            Behaviour::UnwrapsAnother => return Ok(random::key()),
            _ => {}
        }
        let versions = self.versions.lock();
        let at = (0..versions.len()).find(|at| Self::id(*at) == wrapped.key_id).ok_or_else(wrong)?;
        let plain = AeadKey::new(&versions[at]).open(b"test", &wrapped.blob).map_err(|_| wrong())?;
        Key256::from_slice(SecretBytes::new(plain).expose()).ok_or_else(wrong)
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.call().await?;
        Ok(Some(Self::id(self.versions.lock().len() - 1)))
    }

    /// As the types themselves: `static` calls nothing for it.
    async fn is_configured_key(&self, key_id: &str) -> Result<bool, SealError> {
        Ok(self.kind == "static" || self.current_key().await?.as_deref() == Some(key_id))
    }
}
