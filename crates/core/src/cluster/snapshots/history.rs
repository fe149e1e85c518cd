//! What became of the automatic snapshots of this process.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::Timestamp;
use parking_lot::Mutex;

use super::directory::StoredSnapshot;

/// The first pause after a failure. It doubles with each further one.
const RETRY: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
const MAX_RETRY: Duration = Duration::from_secs(3600);

/// What became of the automatic snapshots of this process.
#[derive(Default)]
pub(crate) struct SnapshotHistory {
    attempts: Mutex<Attempts>,
    /// Held while one is saved, so that there is one at a time, also when nobody waits for it any more. A restore and a
    /// snapshot on request do not wait for it.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// The attempts to take a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// When the current attempt began.
    pub(crate) current: Option<Timestamp>,
    /// When the last attempt that has ended began, and when it ended.
    pub(crate) last: Option<(Timestamp, Timestamp)>,
    /// The error of the last attempt; empty after a success.
    pub(crate) error: String,
    /// The number of failures since the last success.
    pub(crate) failures: u32,
    /// When the next one is due.
    pub(crate) next: Option<Timestamp>,
    /// The snapshots in the directory, the oldest first.
    pub(crate) stored: Vec<StoredSnapshot>,
}

impl SnapshotHistory {
    /// All of it.
    pub(crate) fn attempts(&self) -> Attempts {
        self.attempts.lock().clone()
    }

    /// Notes the snapshots in the directory, and returns when the next one is due.
    pub(crate) fn schedule(&self, stored: Vec<StoredSnapshot>, interval: Duration, now: Timestamp) -> Timestamp {
        let mut attempts = self.attempts.lock();
        let newest = stored.last().map(|snapshot| snapshot.taken);
        attempts.stored = stored;
        let due = newest.map_or(now, |newest| newest.after(interval));
        let next = attempts.retry(interval, now).map_or(due, |retry| due.max(retry));
        attempts.next = Some(next);
        next
    }

    /// Notes that an attempt begins.
    pub(crate) fn begin(&self, now: Timestamp) {
        self.attempts.lock().current = Some(now);
    }

    /// Notes how the attempt ended.
    pub(crate) fn end(&self, error: Option<String>, now: Timestamp) {
        let mut attempts = self.attempts.lock();
        attempts.failures = if error.is_some() { attempts.failures.saturating_add(1) } else { 0 };
        attempts.error = error.unwrap_or_default();
        attempts.last = Some((attempts.current.take().unwrap_or(now), now));
    }

    /// Notes that this node no longer takes snapshots.
    pub(crate) fn stop(&self) {
        let mut attempts = self.attempts.lock();
        (attempts.current, attempts.next) = (None, None);
    }
}

impl Attempts {
    /// The end of the pause after a failure; `None` without one, and after one of a clock that was ahead.
    fn retry(&self, interval: Duration, now: Timestamp) -> Option<Timestamp> {
        let doublings = self.failures.checked_sub(1)?;
        let (_, ended) = self.last.filter(|(_, ended)| *ended <= now)?;
        let pause = 2_u32.checked_pow(doublings).and_then(|times| RETRY.checked_mul(times)).unwrap_or(MAX_RETRY);
        Some(ended.after(pause.min(MAX_RETRY).min(interval)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix(second)
    }

    fn stored(second: i64) -> StoredSnapshot {
        StoredSnapshot { taken: at(second), path: "s".into(), size: 1 }
    }

    #[test]
    fn the_newest_file_tells_when_the_next_is_due() {
        let history = SnapshotHistory::default();
        assert_eq!(history.schedule(vec![], HOUR, at(10_000)), at(10_000), "there is none");
        assert_eq!(history.schedule(vec![stored(5), stored(9000)], HOUR, at(10_000)), at(12_600));
        assert_eq!(history.schedule(vec![stored(5)], HOUR, at(10_000)), at(3605), "it is late");
        assert_eq!(history.attempts().next, Some(at(3605)));
    }

    #[test]
    fn failures_are_repeated_after_pauses_that_grow_up_to_the_interval() {
        let history = SnapshotHistory::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            history.begin(at(10_000));
            history.end(Some("full".to_owned()), at(10_001));
            let due = history.schedule(vec![], Duration::from_secs(1000), at(10_001));
            pauses.push(due.since(at(10_001)).as_secs());
        }
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1000, 1000, 1000]);
        let attempts = history.attempts();
        assert_eq!((attempts.failures, attempts.error.as_str()), (8, "full"));
        assert_eq!((attempts.last, attempts.current), (Some((at(10_000), at(10_001))), None));
        assert_eq!(history.schedule(vec![], HOUR, at(5000)), at(5000), "the clock was set back");
        history.begin(at(20_000));
        assert_eq!(history.attempts().current, Some(at(20_000)));
        history.end(None, at(20_001));
        assert_eq!((history.attempts().failures, history.attempts().error.as_str()), (0, ""));
        assert_eq!(history.schedule(vec![stored(20_000)], HOUR, at(20_001)), at(23_600));
        history.stop();
        assert_eq!(history.attempts().next, None);
    }
}
