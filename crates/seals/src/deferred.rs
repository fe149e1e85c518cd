//! A seal with a secret in a file that could not be read when the server started: the file is read at each call until it
//! can be. One missing file does not stop a server that other seals or shares unseal.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::locked::Key256;
use keepfast_framework::Clock;
use keepfast_framework::seal::{Seal, SealError, WrappedKey};

use crate::call::misconfigured;
use crate::stanza::{Environment, SealStanza, Stanza};
use crate::{Kind, SealConfigError};

/// The seal.
pub(crate) struct Deferred {
    kind: &'static Kind,
    request: Request,
    environment: Arc<dyn Environment>,
    clock: Arc<dyn Clock>,
    created: OnceLock<Arc<dyn Seal>>,
}

/// A [`SealStanza`] that is kept.
struct Request {
    name: String,
    options: BTreeMap<String, String>,
    timeout: Duration,
    shares_kind: bool,
}

impl Deferred {
    /// The seal of a stanza with a file that cannot be read.
    pub(crate) fn new(
        kind: &'static Kind,
        stanza: &SealStanza<'_>,
        environment: Arc<dyn Environment>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let SealStanza { name, options, timeout, shares_kind, .. } = *stanza;
        let request = Request { name: name.to_owned(), options: options.clone(), timeout, shares_kind };
        Deferred { kind, request, environment, clock, created: OnceLock::new() }
    }

    /// The seal, once its files can be read.
    fn seal(&self) -> Result<&Arc<dyn Seal>, SealError> {
        if let Some(created) = self.created.get() {
            return Ok(created);
        }
        let Request { name, options, timeout, shares_kind } = &self.request;
        let (kind, keys, create) = self.kind;
        let stanza = SealStanza { kind, name, options, timeout: *timeout, shares_kind: *shares_kind };
        let created = create(&Stanza::new(&stanza, keys, &*self.environment, &self.clock));
        let created = created.map_err(|SealConfigError { reason, .. }| misconfigured(reason))?;
        Ok(self.created.get_or_init(|| created))
    }
}

#[async_trait]
impl Seal for Deferred {
    fn kind(&self) -> &'static str {
        self.kind.0
    }

    fn description(&self) -> Vec<(&'static str, String)> {
        self.created.get().map(|created| created.description()).unwrap_or_default()
    }

    async fn wrap(&self, key: &Key256) -> Result<WrappedKey, SealError> {
        self.seal()?.wrap(key).await
    }

    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Key256, SealError> {
        self.seal()?.unwrap(wrapped).await
    }

    async fn current_key(&self) -> Result<Option<String>, SealError> {
        self.seal()?.current_key().await
    }
}

#[cfg(test)]
mod tests {
    use keepfast_crypto::random;
    use keepfast_framework::seal::SealErrorClass;

    use crate::CreatedSeal;
    use crate::suite::{build, build_beside};

    #[tokio::test]
    async fn a_seal_whose_file_is_missing_works_once_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let path = format!("file://{}", file.display());
        let keys = [("current_key", path.as_str()), ("current_key_id", "a")];
        let CreatedSeal { seal, warnings } = build_beside("static", &keys, &[]).unwrap();
        assert!(warnings[0].contains("current_key: cannot read") && warnings.len() == 1, "{warnings:?}");
        let error = seal.wrap(&random::key()).await.err().unwrap();
        assert_eq!((seal.kind(), error.class, seal.description().len()), ("static", SealErrorClass::Misconfigured, 0));
        assert!(error.cause.contains("cannot read"), "{error}");
        // A file that is being written.
        std::fs::write(&file, "0").unwrap();
        assert!(seal.current_key().await.err().unwrap().cause.contains("not 32 bytes"));
        std::fs::write(&file, "07".repeat(32)).unwrap();
        let key = random::key();
        let wrapped = seal.wrap(&key).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(seal.unwrap(&wrapped).await.unwrap().expose(), key.expose());
        assert_eq!(seal.description(), [("current_key_id", "a".to_owned())]);
    }

    #[test]
    fn other_errors_of_a_stanza_are_not_deferred() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hidden").unwrap();
        let path = format!("file://{}", file.path().display());
        assert!(build("static", &[("current_key", &path), ("current_key_id", "a")], &[]).is_ok());
        for keys in [
            &[("current_key", path.as_str())][..],
            &[("current_key", "hidden"), ("current_key_id", "a")],
            &[("current_key", "env://NONE"), ("current_key_id", "a")],
        ] {
            let error = build("static", keys, &[]).err().unwrap();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}
