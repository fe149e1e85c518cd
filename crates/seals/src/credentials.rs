//! Credentials that expire: one renewal at a time, before the expiry; the old ones serve until then when it fails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keepfast_crypto::random;
use keepfast_framework::seal::SealError;
use keepfast_framework::{Clock, Timestamp};
use tokio::sync::Mutex;

/// The time before the expiry from which credentials are renewed.
const AHEAD: Duration = Duration::from_secs(300);
/// The jitter of that time, in seconds.
const JITTER: usize = 60;
/// The shortest time between two renewals after one failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Where credentials come from.
#[async_trait]
pub(crate) trait Source<T>: Send + Sync {
    /// Gets new credentials.
    async fn fetch(&self) -> Result<Fresh<T>, SealError>;
}

/// New credentials.
pub(crate) struct Fresh<T> {
    /// The credentials.
    pub(crate) value: T,
    /// Their expiry; `None` when they have none.
    pub(crate) expires: Option<Timestamp>,
}

/// The current credentials of a source.
pub(crate) struct Credentials<T> {
    source: Box<dyn Source<T>>,
    clock: Arc<dyn Clock>,
    held: Mutex<Option<Held<T>>>,
}

struct Held<T> {
    value: Arc<T>,
    expires: Option<Timestamp>,
    renewed_from: Option<Timestamp>,
}

impl<T: Send + Sync> Credentials<T> {
    pub(crate) fn new(source: Box<dyn Source<T>>, clock: Arc<dyn Clock>) -> Self {
        Credentials { source, clock, held: Mutex::new(None) }
    }

    /// The current credentials, renewed when their expiry is near.
    ///
    /// # Errors
    /// Those of the source, when there are no older credentials that are still valid.
    pub(crate) async fn current(&self) -> Result<Arc<T>, SealError> {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        let Some(known) = held.as_mut() else { return self.renew(&mut held, now).await };
        if known.renewed_from.is_none_or(|from| now < from) {
            return Ok(known.value.clone());
        }
        if known.expires.is_some_and(|expires| expires <= now) {
            return self.renew(&mut held, now).await;
        }
        // The next caller does not try again at once.
        known.renewed_from = Some(now.after(PAUSE));
        let old = known.value.clone();
        match self.renew(&mut held, now).await {
            Ok(new) => Ok(new),
            Err(error) => {
                tracing::warn!(%error, "credentials of a seal are not renewed; the old ones are used until they expire");
                Ok(old)
            }
        }
    }

    /// Other credentials than these, which the service denied.
    ///
    /// # Errors
    /// Those of the source.
    pub(crate) async fn after_denial(&self, denied: &Arc<T>) -> Result<Arc<T>, SealError> {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|known| Arc::ptr_eq(&known.value, denied)) {
            *held = None;
        }
        drop(held);
        self.current().await
    }

    async fn renew(&self, held: &mut Option<Held<T>>, now: Timestamp) -> Result<Arc<T>, SealError> {
        let Fresh { value, expires } = self.source.fetch().await?;
        let value = Arc::new(value);
        let renewed_from = expires.map(|expires| {
            // Short-lived credentials are renewed at half of their time.
            let ahead = AHEAD.min(expires.since(now) / 2);
            let jitter = Duration::from_secs(random::below(JITTER + 1) as u64).min(ahead / 2);
            expires.before(ahead).before(jitter)
        });
        *held = Some(Held { value: value.clone(), expires, renewed_from });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use keepfast_framework::clock::TestClock;
    use keepfast_framework::seal::SealErrorClass;

    use super::*;

    /// Numbers, each valid for an hour.
    struct Numbers {
        clock: TestClock,
        count: Arc<AtomicU64>,
        fails: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Source<u64> for Numbers {
        async fn fetch(&self) -> Result<Fresh<u64>, SealError> {
            tokio::task::yield_now().await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(SealError::new(SealErrorClass::Unreachable, "down"));
            }
            let value = self.count.fetch_add(1, Ordering::SeqCst);
            Ok(Fresh { value, expires: Some(self.clock.now().after(Duration::from_secs(3600))) })
        }
    }

    struct Case {
        clock: TestClock,
        count: Arc<AtomicU64>,
        fails: Arc<AtomicBool>,
        credentials: Credentials<u64>,
    }

    fn case() -> Case {
        let (clock, count, fails) = (TestClock::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let source = Numbers { clock: clock.clone(), count: count.clone(), fails: fails.clone() };
        let credentials = Credentials::new(Box::new(source), Arc::new(clock.clone()));
        Case { clock, count, fails, credentials }
    }

    #[tokio::test]
    async fn concurrent_callers_fetch_credentials_once() {
        let case = case();
        let all = futures_util::future::join_all((0..50).map(|_| case.credentials.current())).await;
        assert!(all.into_iter().all(|one| *one.unwrap() == 0));
        assert_eq!(case.count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_their_expiry() {
        let case = case();
        assert_eq!(*case.credentials.current().await.unwrap(), 0);
        case.clock.advance(Duration::from_secs(3200));
        assert_eq!(*case.credentials.current().await.unwrap(), 0);
        case.clock.advance(Duration::from_secs(101));
        assert_eq!(*case.credentials.current().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn old_credentials_serve_until_their_expiry_and_no_longer() {
        let case = case();
        assert_eq!(*case.credentials.current().await.unwrap(), 0);
        case.fails.store(true, Ordering::SeqCst);
        case.clock.advance(Duration::from_secs(3500));
        assert_eq!(*case.credentials.current().await.unwrap(), 0);
        case.clock.advance(Duration::from_secs(101));
        assert!(case.credentials.current().await.is_err());
        case.fails.store(false, Ordering::SeqCst);
        assert_eq!(*case.credentials.current().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn denied_credentials_are_fetched_again_by_one_caller() {
        let case = case();
        let denied = case.credentials.current().await.unwrap();
        let all = futures_util::future::join_all((0..9).map(|_| case.credentials.after_denial(&denied))).await;
        assert!(all.into_iter().all(|one| *one.unwrap() == 1));
        assert_eq!(case.count.load(Ordering::SeqCst), 2);
    }
}
