//! The bounds of the calls of one config.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::*;

/// A key whose calls wait until they are released.
#[derive(Default)]
struct WaitingKey {
    running: AtomicUsize,
    most: AtomicUsize,
    released: Notify,
    is_open: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl ExternalKey for WaitingKey {
    async fn public_key(&self) -> Result<Vec<u8>, ExternalKeyError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        while !self.is_open.load(Ordering::SeqCst) {
            self.released.notified().await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(Vec::new())
    }

    async fn sign(&self, _: &Signing<'_>) -> Result<Vec<u8>, ExternalKeyError> {
        unreachable!("not called")
    }

    async fn verify(&self, _: &Signing<'_>, _: &[u8]) -> Result<bool, ExternalKeyError> {
        unreachable!("not called")
    }

    async fn encrypt(&self, plaintext: &[u8], _: &[u8]) -> Result<Vec<u8>, ExternalKeyError> {
        Ok(plaintext.to_vec())
    }

    async fn decrypt(&self, ciphertext: &[u8], _: &[u8]) -> Result<SecretBytes, ExternalKeyError> {
        Ok(SecretBytes::new(ciphertext.to_vec()))
    }
}

fn bounded(inner: &Arc<WaitingKey>, deadline: Duration) -> BoundedKey {
    BoundedKey { inner: inner.clone(), in_flight: Arc::new(Semaphore::new(IN_FLIGHT)), deadline }
}

#[tokio::test]
async fn a_config_has_at_most_32_calls_in_flight() {
    let inner = Arc::new(WaitingKey::default());
    let key = bounded(&inner, Duration::from_secs(60));
    let release = async {
        while inner.running.load(Ordering::SeqCst) < IN_FLIGHT {
            tokio::task::yield_now().await;
        }
        // The others wait for a permit by now: `join_all` has polled each.
        inner.is_open.store(true, Ordering::SeqCst);
        inner.released.notify_waiters();
    };
    let calls = join_all((0..100).map(|_| key.public_key()));
    let (results, ()) = tokio::join!(calls, release);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(inner.most.load(Ordering::SeqCst), IN_FLIGHT);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_with_a_class() {
    let inner = Arc::new(WaitingKey::default());
    let key = bounded(&inner, Duration::from_millis(10));
    let class = |outcome: Result<Vec<u8>, ExternalKeyError>| match outcome {
        Err(ExternalKeyError::Unavailable(error)) => error.class,
        _ => panic!("the call cannot end"),
    };
    assert_eq!(class(key.public_key().await), SealErrorClass::Unreachable);
    let taken = key.in_flight.clone().acquire_many_owned(IN_FLIGHT as u32).await.unwrap();
    assert_eq!(class(key.public_key().await), SealErrorClass::Throttled(None));
    drop(taken);
}

#[tokio::test]
async fn the_length_of_an_input_is_bound_and_its_ciphertext_fits() {
    let key = bounded(&Arc::new(WaitingKey::default()), Duration::from_secs(60));
    let longest = vec![0; MAX_INPUT];
    assert!(key.encrypt(&longest, &[]).await.is_ok());
    assert!(matches!(key.encrypt(&[longest.as_slice(), &[0]].concat(), &[]).await, Err(ExternalKeyError::Refused(_))));
    let sealed = vec![0; MAX_INPUT + OVERHEAD];
    assert!(key.decrypt(&sealed, &[]).await.is_ok());
    assert!(key.decrypt(&[sealed.as_slice(), &[0]].concat(), &[]).await.is_err());
    assert!(key.decrypt(&[], &vec![0; MAX_INPUT + 1]).await.is_err());
}
