//! Clients, which write and read at every node.

use std::{sync::Arc, time::Duration};

use keepfast_consensus::Chance;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    node::{Done, Work},
    oracle::{Oracle, Version},
    world::{Event, World},
};
use crate::{Barrier, Consensus, StorageError};

/// The time in which a node must find a confirmed index.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// The prefix of the registers.
pub(super) const PREFIX: &str = "registers";

/// A client at one node.
struct Client {
    node: usize,
    register: usize,
    barrier: Arc<Barrier>,
    consensus: Arc<dyn Consensus>,
    oracle: Arc<Mutex<Oracle>>,
}

impl World {
    /// Some calls at the same time.
    pub(super) fn client(&mut self) {
        let delay = self.rng.range(1_000, 2 * self.weather.call_every);
        self.after(delay, Event::Client);
        let calls = if self.rng.hits(2000) { 4 } else { 1 };
        for _ in 0..calls {
            let (node, register) = (self.rng.below(self.nodes.len() as u64) as usize, self.register());
            let is_write = self.rng.hits(5000);
            let more = self.rng.below(self.weather.value) as usize;
            let patience = self.rng.range(1_000, 12_000);
            self.call(node, register, is_write.then_some(more), Duration::from_millis(patience));
        }
    }

    fn register(&mut self) -> usize {
        self.rng.below(self.weather.registers as u64) as usize
    }

    /// A read, or a write of so many more bytes.
    pub(super) fn call(&mut self, number: usize, register: usize, write: Option<usize>, patience: Duration) {
        let node = &mut self.nodes[number];
        let Some(process) = node.process.as_mut() else { return };
        let Some((barrier, consensus)) = process.open_barrier().zip(process.consensus()) else { return };
        let client = Client { node: number, register, barrier, consensus, oracle: self.oracle.clone() };
        process.spawn(Work::Client, async move {
            // When the caller goes away, the outcome is unknown.
            let called = timeout(patience, async {
                match write {
                    Some(more) => client.write(more).await,
                    None => client.read().await.map(drop),
                }
            });
            match called.await {
                Ok(Ok(())) => Done::Called { is_write: write.is_some() },
                Ok(Err(error)) if is_broken(&error) => Done::Failed(error.to_string()),
                _ => Done::Nothing,
            }
        });
        self.wake(number);
    }
}

impl Client {
    fn key(&self) -> String {
        format!("r{}", self.register)
    }

    async fn read(&self) -> Result<(), StorageError> {
        let oldest = self.oracle.lock().oldest(self.register);
        self.consensus.settled(SETTLES_WITHIN).await?;
        let view = self.barrier.view(PREFIX);
        let value = self.barrier.begin_read().get(&view, &self.key()).await?;
        self.oracle.lock().reads(self.node, self.register, oldest, Version::of(value));
        Ok(())
    }

    async fn write(&self, more: usize) -> Result<(), StorageError> {
        let (view, key) = (self.barrier.view(PREFIX), self.key());
        let oldest = self.oracle.lock().oldest(self.register);
        self.consensus.settled(SETTLES_WITHIN).await?;
        let mut tx = self.barrier.begin();
        let before = Version::of(tx.get(&view, &key).await?);
        let version = {
            let mut oracle = self.oracle.lock();
            oracle.reads(self.node, self.register, oldest, before);
            oracle.sends(self.register, before)
        };
        tx.put(&view, &key, version.value(more));
        let committed = tx.commit().await;
        let mut oracle = self.oracle.lock();
        match &committed {
            Ok(_) => oracle.acknowledges(self.register, version),
            Err(error) if is_unwritten(error) => oracle.refuses(self.register, version),
            Err(_) => {}
        }
        committed.map(drop)
    }
}

/// Whether an error states that nothing was written, and will not be.
fn is_unwritten(error: &StorageError) -> bool {
    use StorageError::{Conflict, Full, NoLeader, NotCommitted, NotLeader, TooLarge};
    matches!(error, Conflict | Full | NoLeader | NotCommitted | NotLeader | TooLarge { .. })
}

/// Whether an error must not be, where no bit was changed.
fn is_broken(error: &StorageError) -> bool {
    matches!(error, StorageError::Corrupt(_))
}
