//! The bounds of the calls of one config.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use keepfast_framework::external_key::Parameter;
use tokio::sync::Notify;

use super::*;
use crate::external_keys::record::{ConfigRecord, KeyRecord, Values};

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

/// A plugin whose connections wait until they are released, as one that reads a file of a dead mount.
struct SlowPlugin(Mutex<std::sync::mpsc::Receiver<()>>);

impl ExternalKeyPlugin for SlowPlugin {
    fn config_parameters(&self) -> &'static [Parameter] {
        &[]
    }

    fn key_parameters(&self) -> &'static [Parameter] {
        &[]
    }

    fn connect(&self, _: &Parameters) -> Result<Arc<dyn ExternalKeyConnection>, String> {
        let _ = self.0.lock().recv();
        Ok(Arc::new(Connected))
    }
}

struct Connected;

impl ExternalKeyConnection for Connected {
    fn key(&self, _: &Parameters) -> Result<Arc<dyn ExternalKey>, String> {
        Ok(Arc::new(WaitingKey::default()))
    }
}

#[tokio::test]
async fn sec_a_plugin_that_hangs_stops_no_worker_and_holds_no_lock() {
    let connections = Connections::new(Arc::new(keepfast_framework::clock::TestClock::default()));
    let (release, released) = std::sync::mpsc::channel();
    let slow: Arc<dyn ExternalKeyPlugin> = Arc::new(SlowPlugin(Mutex::new(released)));
    let (released_now, open) = std::sync::mpsc::channel();
    drop(released_now);
    let quick: Arc<dyn ExternalKeyPlugin> = Arc::new(SlowPlugin(Mutex::new(open)));
    let granted = |config: &str| Granted {
        config: config.to_owned(),
        key: "k".to_owned(),
        config_record: ConfigRecord::new("p".to_owned(), Values::default()),
        key_record: KeyRecord::new(Values::default()),
    };
    let (one, two) = (granted("one"), granted("two"));
    let mut hangs = std::pin::pin!(connections.open_key(&slow, &one, 0));
    assert!(futures_util::poll!(&mut hangs).is_pending());
    assert!(connections.open_key(&quick, &two, 0).await.is_ok());
    assert_eq!(connections.epoch(), 0);
    drop(release);
    assert!(hangs.await.is_ok());
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
