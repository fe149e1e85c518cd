//! Limits background tasks, so that requests get most of a core and of the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::{Clock, Timestamp};

/// The longest work period without a pause.
const STRETCH: Duration = Duration::from_millis(5);
/// A pause is this many times as long as the work before it.
const REST: u32 = 9;
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// Paces a background task, such as usage counts, to a tenth of the elapsed time.
pub struct Throttle {
    clock: Arc<dyn Clock>,
    since: Timestamp,
}

impl Throttle {
    /// Starts the first work period now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let since = clock.now();
        Throttle { clock, since }
    }

    /// Called after each step: pauses when the work period is over.
    pub async fn step(&mut self) {
        let now = self.clock.now();
        let took = now.since(self.since);
        if took >= STRETCH {
            self.clock.sleep_until(now.after((took * REST).min(LONGEST))).await;
            self.since = self.clock.now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;

    #[tokio::test]
    async fn work_pauses_nine_times_as_long_as_it_ran() {
        let clock = TestClock::at(Timestamp::EPOCH);
        let mut throttle = Throttle::new(Arc::new(clock.clone()));
        clock.advance(Duration::from_millis(4));
        throttle.step().await;
        clock.advance(Duration::from_millis(2));
        let resting = tokio::spawn(async move { throttle.step().await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(53));
        tokio::task::yield_now().await;
        assert!(!resting.is_finished());
        clock.advance(Duration::from_millis(1));
        resting.await.unwrap();
    }
}
