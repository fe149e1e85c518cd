//! What only a leading node does: ends what is due, lets engines tick, finishes what an earlier process began.

use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::{Operation, Result, Timestamp};
use keepfast_storage::Page;

use crate::lease::index;
use crate::unsealed::Unsealed;

/// How often the index of ends is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often engines tick.
const TICK: Duration = Duration::from_secs(60);
/// How many ends one look reads at a time.
const DUE: usize = 500;

/// The duties of a leading node; they end when this is dropped.
pub struct Duties {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Duties {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Duties {
    /// Starts them.
    pub fn start(unsealed: Arc<Unsealed>) -> Self {
        Duties { task: tokio::spawn(run(unsealed)) }
    }
}

async fn run(unsealed: Arc<Unsealed>) {
    report("finishing what an earlier process began", resume(&unsealed).await);
    let mut next_tick = unsealed.clock.now().after(TICK);
    loop {
        let now = unsealed.clock.now();
        report("ending what is due", unsealed.end_due(now).await);
        if now >= next_tick {
            unsealed.tick().await;
            next_tick = now.after(TICK);
        }
        unsealed.clock.sleep_until(now.after(LOOK)).await;
    }
}

async fn resume(unsealed: &Unsealed) -> Result<()> {
    unsealed.resume_unmounts().await?;
    unsealed.tokens.resume_collection().await
}

fn report(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, %cause, "{what} failed; it is tried again");
    }
}

impl Unsealed {
    /// Ends every token whose time has come, read from the beginning of the index of ends.
    ///
    /// # Errors
    /// When storage fails; what is left is due at the next look.
    pub async fn end_due(&self, now: Timestamp) -> Result<()> {
        let view = self.barrier.view("token/");
        let mut failed = None;
        let mut page = Page { after: None, limit: Some(DUE) };
        loop {
            let mut tx = self.barrier.begin_read();
            let names = tx.list(&view, index::EXPIRY, &page).await?;
            let due: Vec<_> = names.iter().filter_map(|n| index::parse_expiry(n)).take_while(|(end, _)| *end <= now.unix()).collect();
            for (second, key) in &due {
                match self.tokens.revoke_due(key, *second, now).await {
                    Ok(()) => {}
                    // One record that cannot be read must not keep the others alive.
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            if due.len() < DUE {
                return failed.map_or(Ok(()), Err);
            }
            page.after = names.last().cloned();
        }
    }

    /// Lets every open engine tick.
    pub async fn tick(&self) {
        let mounts: Vec<_> = self.mounts.router().all().cloned().collect();
        for mounted in mounts {
            let Some(engine) = mounted.opened() else { continue };
            let mut cx = self.context(&mounted, Operation::Update, mounted.entry.path.clone()).once();
            let outcome = match engine.tick(&mut cx).await {
                Ok(()) => cx.commit().await.map_err(Into::into),
                Err(error) => Err(error),
            };
            report(&format!("the tick of {}", mounted.entry.path), outcome);
        }
    }
}
