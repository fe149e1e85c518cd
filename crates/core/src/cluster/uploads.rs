//! The turn of an upload: one snapshot at a time is received into a file and handled. A slow upload loses the turn to that
//! of another caller, so that one client does not keep others from a restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keepfast_framework::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The time in which no turn is taken.
const GRACE: Duration = Duration::from_secs(60);
/// The average rate below which an upload is slow, in bytes per second.
const MIN_RATE: u64 = 8 << 20;
/// The count of an upload that is complete.
const COMPLETE: u64 = u64::MAX;
/// That of one whose turn was taken.
const TAKEN: u64 = u64::MAX - 1;

/// The uploads of this process.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<Option<Arc<Running>>>>);

struct Running {
    since: Timestamp,
    /// The bytes so far, [`COMPLETE`] or [`TAKEN`].
    received: AtomicU64,
    taken: Notify,
}

/// The turn. It ends when this is dropped.
pub struct UploadTurn {
    running: Arc<Running>,
    uploads: Uploads,
}

impl Uploads {
    /// The turn, if no other upload has it, or one that is slow.
    pub(crate) fn begin(&self, now: Timestamp) -> Option<UploadTurn> {
        let mut current = self.0.lock();
        if current.as_ref().is_some_and(|running| !running.take_if_slow(now)) {
            return None;
        }
        let running = Arc::new(Running { since: now, received: AtomicU64::new(0), taken: Notify::new() });
        *current = Some(running.clone());
        Some(UploadTurn { running, uploads: self.clone() })
    }
}

impl Running {
    /// Takes the turn if the upload is slow. Returns whether it did.
    fn take_if_slow(&self, now: Timestamp) -> bool {
        let received = self.received.load(Ordering::SeqCst);
        let age = now.since(self.since);
        let is_slow = age >= GRACE && received < age.as_secs().saturating_mul(MIN_RATE);
        if !is_slow || self.received.compare_exchange(received, TAKEN, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        tracing::warn!(received, seconds = age.as_secs(), "a slow upload of a snapshot ends: another one has begun");
        self.taken.notify_one();
        true
    }

    /// Changes the count. Returns false when the upload is complete or its turn was taken.
    fn count(&self, next: impl Fn(u64) -> u64) -> bool {
        let next = |received| (received < TAKEN).then(|| next(received));
        self.received.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }
}

impl UploadTurn {
    /// Counts bytes of the body. Returns false when the turn was taken.
    pub fn received(&self, bytes: u64) -> bool {
        self.running.count(|received| received.saturating_add(bytes).min(TAKEN - 1))
    }

    /// The body is complete; the turn is not taken any more. Returns false when it was.
    pub fn complete(&self) -> bool {
        self.running.count(|_| COMPLETE)
    }

    /// Waits until the turn is taken.
    pub async fn taken(&self) {
        self.running.taken.notified().await;
    }
}

impl Drop for UploadTurn {
    fn drop(&mut self) {
        let mut current = self.uploads.0.lock();
        if current.as_ref().is_some_and(|running| Arc::ptr_eq(running, &self.running)) {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn sec_a_slow_upload_loses_its_turn_to_another_caller() {
        let uploads = Uploads::default();
        let slow = uploads.begin(at(0)).unwrap();
        assert!(slow.received(60 * MIN_RATE - 1) && uploads.begin(at(59)).is_none());
        let mut taken = Box::pin(slow.taken());
        assert!(futures_util::poll!(&mut taken).is_pending());
        let next = uploads.begin(at(60)).unwrap();
        taken.await;
        assert!(!slow.received(1) && !slow.complete());
        // Its end does not end the turn of the other one.
        drop(slow);
        assert!(uploads.begin(at(61)).is_none());
        drop(next);
        assert!(uploads.begin(at(61)).is_some());
    }

    #[test]
    fn an_upload_that_is_fast_or_complete_keeps_its_turn() {
        let uploads = Uploads::default();
        let fast = uploads.begin(at(0)).unwrap();
        assert!(fast.received(100 * MIN_RATE) && uploads.begin(at(100)).is_none());
        assert!(fast.complete());
        // Its restore may take long.
        assert!(uploads.begin(at(100_000)).is_none());
    }
}
